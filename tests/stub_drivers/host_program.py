"""The stub's C sources as a program of this PC, with sanitizers; its pipes as a link."""

from __future__ import annotations

import importlib.util
import os
import select
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from espwire.protocol.stub import HELLO
from espwire.transport.base import TransportInfo

from .client import StubClient

ROOT = Path(__file__).resolve().parents[2]
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


class PipeLink:
    """A running stub. Its clock is the real one; baud and lines it has none."""

    def __init__(self, program: Path, *arguments: str) -> None:
        self.info = TransportInfo(
            name="pipe", kind="virtual", can_reset=False, can_change_baud=False
        )
        self.process = subprocess.Popen(
            [program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to, self._from = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._to, False)
        self._came = b""
        self.told: str | None = None

    def read(self, timeout: float) -> bytes:
        """What the stub sent; it must live."""
        found, self._came = self._came, b""
        if not found and select.select([self._from], [], [], max(timeout, 0.0))[0]:
            return self._read()
        return found

    def write(self, data: bytes, deadline: float) -> None:
        """To the stub; what it sends meanwhile is kept, or both would wait."""
        while data:
            ready, writable, _ = select.select([self._from], [self._to], [], PATIENCE)
            assert ready or writable, "the stub takes nothing"
            if ready:
                self._came += self._read()
            if writable:
                data = data[os.write(self._to, data[:4096]) :]

    def drain(self) -> None:
        """A pipe has no wire."""

    def discard_input(self) -> None:
        """Forget what came."""
        while self.read(0.0):
            pass

    def set_baud(self, baud: int) -> None:
        """It has none."""

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """It has none."""

    def now(self) -> float:
        """Real seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Really."""
        time.sleep(seconds)

    def close(self) -> None:
        """End it."""
        self.end()

    def end(self) -> str:
        """End it; what it said on standard error. A violation or a sanitizer's report fails."""
        if self.told is None:
            os.set_blocking(self._to, True)
            self.told = self.process.communicate(timeout=PATIENCE)[1].decode()
            assert self.process.returncode == 0, self.told[-2000:]
        return self.told

    def _read(self) -> bytes:
        data = os.read(self._from, 65536)
        if not data:
            raise AssertionError(f"the stub has ended: {self.end()[-2000:]}")
        return data


class HostStub(StubClient):
    """The program, after its hello, and its host's end."""

    def __init__(self, *arguments: str) -> None:
        self.pipe = PipeLink(host_program(), *arguments)
        super().__init__(self.pipe, patience=PATIENCE)
        assert self.next() == HELLO

    def close(self) -> str:
        """As ``PipeLink.end``."""
        return self.pipe.end()
