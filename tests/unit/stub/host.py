"""The stub's C sources as a program of this PC, with sanitizers, and the host's end of its pipes."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from espwire.wire import slip
from espwire.wire.commands import HEADER, Reply

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 20.0
VIOLATED = 3


@cache
def make_stub() -> ModuleType:
    """tools/make_stub.py as a module."""
    spec = importlib.util.spec_from_file_location("make_stub", ROOT / "tools/make_stub.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_stub"] = module
    spec.loader.exec_module(module)
    return module


@cache
def host_program() -> Path:
    """The program; skips where there is no compiler."""
    if shutil.which("gcc") is None:
        pytest.skip("there is no gcc on this machine")
    program = make_stub().build_host()
    assert isinstance(program, Path)
    return program


def frame(op: int, body: bytes = b"", check: int = 0) -> bytes:
    """A request's content; any opcode, any body."""
    return HEADER.pack(0, op, len(body), check) + body


class HostStub:
    """One running stub. ``ask`` sends frames and takes a given number of answers."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._to, False)
        self._decoder = slip.Decoder()
        self._waiting: list[bytes] = []
        self.told: str | None = None

    def send(self, data: bytes) -> None:
        """Raw bytes, whatever they are."""
        while data:
            ready, writable, _ = select.select([self._from], [self._to], [], PATIENCE)
            assert ready or writable, "the stub takes nothing"
            if ready:
                self._read()
            if writable:
                data = data[os.write(self._to, data[:4096]) :]

    def ask(self, *frames: bytes, answers: int = 1) -> list[bytes]:
        """So many frames that the stub sent, its answers to these."""
        self.send(b"".join(map(slip.encode, frames)))
        while len(self._waiting) < answers:
            assert select.select([self._from], [], [], PATIENCE)[0], f"the stub is silent; came {self._waiting}"
            self._read()
        found, self._waiting = self._waiting[:answers], self._waiting[answers:]
        return found

    def call(self, content: bytes) -> tuple[Reply, int]:
        """The reply to a request without its status, and its status."""
        (answer,) = self.ask(content)
        return split(answer)

    def close(self) -> str:
        """End it; what it said on standard error. A violation or a sanitizer's report fails."""
        if self.told is None:
            os.set_blocking(self._to, True)
            self.told = self.process.communicate(timeout=PATIENCE)[1].decode()
            assert self.process.returncode == 0, self.told[-2000:]
        return self.told

    def _read(self) -> None:
        data = os.read(self._from, 65536)
        if not data:
            raise AssertionError(f"the stub has ended: {self.close()[-2000:]}")
        self._waiting += self._decoder.feed(data)


def split(answer: bytes) -> tuple[Reply, int]:
    """A frame as a reply and its status."""
    direction, op, size, value = HEADER.unpack_from(answer)
    assert direction == 1
    assert size == len(answer) - HEADER.size
    return Reply(op, value, answer[HEADER.size : -2]), int.from_bytes(answer[-2:], "big")
