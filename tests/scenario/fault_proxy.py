"""One run of the real program against a served chip, through a proxy that spoils the bytes between them.

``virtual serve`` and ``python -m espwire`` speak over TCP sockets, in real time. The proxy flips, drops, repeats,
delays or adds bytes in one of the two directions, or cuts the connection; its schedule has a seed, but how bytes fall
into packets is the system's. The jobs, and what is right, are those of the bit sweep.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bit_sweep import FLASH, JOBS, Job, Rig, find_fault, read_printed

from espwire.errors import ToolError
from espwire.transport.base import CancelToken
from espwire.virtual.config import parse_options
from espwire.virtual.faults import Faults, FaultSpec
from espwire.virtual.server import serve

KINDS = ("flip", "drop", "dup", "delay", "cut", "garbage")
# Not the ESP8266's ROM: it can neither verify nor read what was written. Not dump-mem: over TCP nobody sets the RAM.
LOADERS = ("stub-esp32c3", "rom-esp32c3", "stub-esp32", "rom-esp32", "stub-esp8266", "rom-esp32s2")
JOB_NAMES = tuple(name for name in JOBS if name != "dump-mem")
SETTINGS = "[timing]\ndefault = 0.8\n\n[connect]\nattempts = 3\n"  # so that what is lost costs less real time
PROGRAM = ("-m", "espwire")
LONGEST = 100.0  # seconds of real time for one run, on a machine that is busy with others
AT_ONCE = 8  # runs; each waits most of the time


@dataclass(frozen=True)
class Case:
    """One run to be: its number is its seed."""

    number: int
    loader: str
    job: str
    kind: str


@dataclass(frozen=True)
class Plan:
    """Which fault, on which way, where."""

    kind: str
    to_chip: bool
    spec: FaultSpec
    cut_at: int
    seed: int


@dataclass(frozen=True)
class ProxyOutcome:
    """What a run came to. ``effect`` is as in bit_sweep.Outcome; ``error`` is the code that was printed."""

    case: Case
    plan: Plan
    code: int
    error: str
    effect: str
    fired: bool
    seconds: float


def choose_plan(rng: random.Random, kind: str, traffic: dict[bool, int]) -> Plan:
    """A fault that most likely falls into the run: one at a random place, or a rate."""
    to_chip = rng.random() < 0.5
    chances = max(traffic[to_chip] // (200 if kind == "delay" else 1), 2)
    spec, cut_at = FaultSpec(), -1
    if kind == "cut":
        cut_at = rng.randrange(traffic[to_chip])
    elif rng.random() < 0.6:
        spec = FaultSpec(once={kind: rng.randint(1, chances)})
    else:
        spec = FaultSpec(rates={kind: min(rng.choice((1.0, 3.0)) / chances, 0.2)})
    return Plan(kind, to_chip, spec, cut_at, rng.randrange(1 << 30))


class Proxy:
    """Between one client and the served chip: bytes of one direction are spoiled as ``plan`` says."""

    def __init__(self, plan: Plan, upstream: int) -> None:
        self.plan, self.fired = plan, False
        self._faults, self._passed = Faults(plan.spec, plan.seed), 0
        self._upstream = upstream
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._ends: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Close all."""
        for end in (self._server, *self._ends):
            _shut(end)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                chip = socket.create_connection(("127.0.0.1", self._upstream))
                for end in (client, chip):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += [client, chip]
                for source, target, to_chip in ((client, chip, True), (chip, client, False)):
                    threading.Thread(
                        target=self._pump, args=(source, target, to_chip), daemon=True
                    ).start()

    def _pump(self, source: socket.socket, target: socket.socket, to_chip: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(0x1000):
                target.sendall(self._spoil(data) if to_chip is self.plan.to_chip else data)
        _shut(source)
        _shut(target)

    def _spoil(self, data: bytes) -> bytes:
        self._passed += len(data)
        if 0 <= self.plan.cut_at < self._passed:
            self.fired = True
            raise OSError("cut")
        wait, spoiled = self._faults.piece(time.monotonic(), data, to_chip=self.plan.to_chip)
        time.sleep(wait)
        self.fired = self.fired or bool(self._faults.fired)
        return spoiled


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()


@contextlib.contextmanager
def served_chip(chip: str, flash: Path) -> Iterator[int]:
    """A chip whose flash is a file, on a TCP port."""
    lines: queue.Queue[str] = queue.Queue()
    token = CancelToken()
    options = parse_options(f"virtual:{chip}?size=1MB&seed=1&profile=fast&flash={flash.as_posix()}")
    where = {"tcp": ("127.0.0.1", 0), "announce": lines.put, "stop": token}
    thread = threading.Thread(target=serve, args=(options,), kwargs=where, daemon=True)
    thread.start()
    try:
        yield int(lines.get(timeout=20).rpartition(":")[2])
    finally:
        token.cancel()
        thread.join(20)
        assert not thread.is_alive()


class ProxyRig:
    """A folder for runs side by side. ``program``: how Python starts the command line."""

    def __init__(self, folder: Path, program: Sequence[str] = PROGRAM) -> None:
        self.folder, self.program = folder, tuple(program)
        self.settings = folder / "settings.toml"
        self.settings.write_text(SETTINGS, "utf-8")
        clean = folder / "clean"
        clean.mkdir()
        self.clean = Rig(clean)

    def plan(self, case: Case) -> Plan:
        """The fault of a case."""
        lines = self.clean.pair(case.loader, case.job).lines
        return choose_plan(
            random.Random(str(case)), case.kind, {way: len(line) for way, line in lines.items()}
        )

    def run(self, case: Case) -> ProxyOutcome:
        """One job under one fault."""
        number, loader = case.number, case.loader
        pair = self.clean.pair(loader, case.job)
        plan = self.plan(case)
        flash, output = self.folder / f"{number}.flash", self.folder / f"{number}.output"
        flash.write_bytes(pair.job.before())
        began = time.monotonic()
        with served_chip(loader.partition("-")[2], flash) as port:
            proxy = Proxy(plan, port)
            try:
                code, events = self._start(proxy.port, loader, pair.job, output)
            finally:
                proxy.close()
        seconds = time.monotonic() - began
        effect, error = self._judge(pair, code, events, flash.read_bytes(), output)
        for path in (flash, output):
            path.unlink(missing_ok=True)
        return ProxyOutcome(case, plan, code, error, effect, proxy.fired, seconds)

    def _start(self, port: int, loader: str, job: Job, output: Path) -> tuple[int, list[str]]:
        words = self.clean.words(loader, job, port=f"socket://127.0.0.1:{port}", output=output)
        command = [sys.executable, *self.program, "--config", str(self.settings), *words]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return -1, []
        return done.returncode, done.stdout.splitlines()

    def _judge(
        self, pair: Any, code: int, lines: list[str], flash: bytes, output: Path
    ) -> tuple[str, str]:
        """What is wrong, if anything, and the code of the error that was printed."""
        if code == -1:
            return f"hang: more than {LONGEST:.0f} s", ""
        last = json.loads(lines[-1]) if lines else {}
        error: ToolError | None = None
        if last.get("event") == "Error":
            error = ToolError(last["message"], hint=last["hint"], code=last["code"])
        assert len(flash) == FLASH
        fault = find_fault(pair, code, error, flash, [], read_printed(lines), output)
        return fault, error.code if error is not None else ""


def choose_cases(count: int, first: int = 0) -> list[Case]:
    """``count`` cases: kinds of fault and loaders in turn, jobs at random."""
    return [
        Case(
            number,
            LOADERS[number // len(KINDS) % len(LOADERS)],
            random.Random(f"case {number}").choice(JOB_NAMES),
            KINDS[number % len(KINDS)],
        )
        for number in range(first, first + count)
    ]


def run_cases(rig: ProxyRig, cases: Sequence[Case]) -> list[ProxyOutcome]:
    """Run them, some at a time."""
    for case in cases:
        rig.clean.pair(
            case.loader, case.job
        )  # recorded one by one: a clean run patches what opens ports
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(rig.run, cases))
