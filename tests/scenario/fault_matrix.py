"""One seeded run of a command line with one fault at one step, and its repetition if it failed: test_fault_matrix.py.

The command runs on a virtual USB bus, so ports can vanish and come back under another name, and time is simulated. A run
with a killed host is a process of its own, which ends by SIGKILL; the flash is a file then.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from needed_writes import Change, watch_changes

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.cli import context as context_module
from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.cli.ports import find_target
from espwire.device import connect as connect_module
from espwire.device.backends.rom import RomBackend
from espwire.device.backends.stub import StubBackend
from espwire.flash import journal as journal_module
from espwire.flash import survey as survey_module
from espwire.flash import write as write_module
from espwire.flash.journal import Journal, Unfinished
from espwire.sizes import BLOCK, SECTOR, align_down, align_up
from espwire.transport.ports import SystemPort
from espwire.virtual.faults import BYTE_KINDS, FRAME_KINDS, PIECE_KINDS, Faults, FaultSpec
from espwire.virtual.programs.stub_write import WINDOW
from espwire.virtual.usb_bus import BusTransport, VirtualBus

LINE = (*BYTE_KINDS, *PIECE_KINDS, *FRAME_KINDS)
CHIP = ("reset", "power")
PORT = ("lost", "unplugged", "renamed", "replaced")
KINDS = (*LINE, *CHIP, *PORT, "killed")
STEPS = ("connect", "stub", "prepare", "compare", "keep", "journal", "erase", "program", "verify", "read", "end")  # fmt: skip
# nothing is sent while the journal is written; at the end, only lines change; no frame of these steps overflows a FIFO
UNREACHABLE = {(kind, step) for kind in LINE for step in ("journal", "end")}
UNREACHABLE |= {("overflow", "connect"), ("overflow", "verify")}
# from the comparison on, a lost board is waited for in the same run
CONTINUED = {"compare", "keep", "journal", "erase", "program", "verify", "read"}
CELLS = tuple((k, s) for k in KINDS for s in STEPS if (k, s) not in UNREACHABLE)
FLASH = 0x40000
READ_SIZE = 0x14000
MOST_SECONDS = 600.0
TYPICAL = {"connect": 6, "stub": 6, "prepare": 3, "compare": 2, "keep": 1, "journal": 2, "erase": 4, "program": 40, "verify": 1, "read": 8, "end": 2}  # fmt: skip
OWN_MAC, OTHER_MAC = "24:0a:c4:00:01:10", "24:0a:c4:00:01:11"


@dataclass(frozen=True)
class Case:
    """One run. ``command``: ``write`` or ``read``."""

    seed: int
    chip: str
    stub: bool
    usb: str
    kind: str
    step: str
    command: str
    before: bytes = field(repr=False)
    blobs: tuple[Blob, ...] = field(repr=False)
    keep: bool

    @property
    def wanted(self) -> bytes:
        """The flash content afterwards."""
        flash = bytearray(self.before)
        for blob in self.blobs:
            if not self.keep:
                first, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
                flash[first:end] = b"\xff" * (end - first)
            flash[blob.address : blob.end] = blob.data
        return bytes(flash)


@dataclass
class Outcome:
    """What a case came to. ``wrong``: what is wrong, as text; empty if nothing. ``codes``: exit codes of the runs."""

    case: Case
    fired: bool
    codes: list[int]
    ids: list[str]
    wrong: str
    seconds: float
    payload: int = 0  # after a loss, uncompressed
    missing: int = 0  # bytes that were not in flash at the loss


def make_case(seed: int, kind: str, step: str) -> Case:
    """Files at random places; the flash holds some of them already. Chips, loaders and ports in turn."""
    rng = random.Random(f"{seed} {kind} {step}")
    chip = load_chip(chip_ids()[seed % len(chip_ids())])
    stub = chip.stub.own is not None and (rng.random() < 0.75 or step == "stub")
    if step == "stub" and chip.stub.own is None:
        chip, stub = load_chip("esp32c3"), True
    command = "read" if step == "read" else "write"
    if step in ("connect", "stub", "prepare", "end") and rng.random() < 0.2:
        command = "read"
    if chip.id == "esp8266" and (command == "read" or step in ("compare", "keep", "verify")):
        stub = True  # its ROM can neither read nor compute an MD5
    keep = stub or chip.id != "esp8266"
    usb = "usb-jtag" if chip.usb.serial_jtag and rng.random() < 0.3 else "uart"
    before, blobs = _make_content(rng, odd=keep, even=not keep, shared=step == "keep")
    return Case(seed, chip.id, stub, usb, kind, step, command, before, blobs, keep)


def _make_content(
    rng: random.Random, *, odd: bool, even: bool, shared: bool
) -> tuple[bytes, tuple[Blob, ...]]:
    flash = bytearray(rng.choice((b"\xff" * FLASH, rng.randbytes(FLASH))))
    blobs, at = list[Blob](), 2 + rng.randrange(6)
    for number in range(rng.randint(1, 2)):
        at += at % 2 if even else 0
        size = (
            rng.randint(1, rng.choice((8, 8, 16)) >> even) * SECTOR << even
        )  # what the ESP8266's ROM erases exactly
        address = at * SECTOR
        if odd and (shared or rng.random() < 0.5):
            size -= rng.randrange(1, SECTOR)
            address += rng.choice((0, rng.randrange(SECTOR)))
            flash[address + size : align_up(address + size, SECTOR)] = rng.randbytes(-(address + size) % SECTOR)  # fmt: skip
        data = bytearray(rng.randbytes(size))
        old = bytearray(data)
        for _ in range(rng.choice((1, 2, 3))):
            old[rng.randrange(size)] ^= 1 << rng.randrange(8)
        if rng.random() < 0.6:
            flash[address : address + size] = old
        blobs.append(Blob(address, bytes(data), f"{number}.bin"))
        at = align_up(address + size, SECTOR) // SECTOR + rng.randrange(4)
    return bytes(flash), tuple(blobs)


class BusContext(Context):
    """A run on a virtual bus instead of the system's ports."""

    def __init__(self, bus: VirtualBus) -> None:
        super().__init__()
        self.bus = bus

    def find_target(self) -> SystemPort | str:
        bus = self.bus
        found = find_target(self.get("port"), state=self.state, lister=bus.enumerate)
        assert isinstance(found, SystemPort)
        return SystemPort(
            found.identity,
            lister=bus.enumerate,
            opener=bus.open_path,
            clock=lambda: bus.now,
            sleep=bus.sleep,
        )


class World:
    """A board on a bus, files on a disk, and the fault that waits for its step."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self.folder = case, folder
        self.rng = random.Random(f"world {case.seed} {case.kind} {case.step}")
        self.nth = self.rng.choice((1, self.rng.randint(1, TYPICAL[case.step])))
        self._step, self.seen, self.fired, self.connections = "", 0, False, 0
        self.noisy = False  # faults of the line may happen until the step ends
        self.pending: Callable[[], None] | None = None
        self.payload: Counter[int] = Counter()  # by connection
        self.missing, self.lost_in = 0, -1  # the connection in which the board was lost
        self.flash = folder / "chip.flash"
        self.flash.write_bytes(case.before)
        self.files = [folder / blob.name for blob in case.blobs]
        for file, blob in zip(self.files, case.blobs, strict=True):
            file.write_bytes(blob.data)
        self.out = folder / "copy.bin"
        self.plug()

    @property
    def step(self) -> str:
        """What the command does now."""
        return self._step

    @step.setter
    def step(self, step: str) -> None:
        if self.noisy and step != self._step:  # the line is good again
            self.fired, self.noisy = bool(self.chip.faults.fired), False
            self.chip.faults = Faults(FaultSpec())
            self.nth = 0
        self._step = step

    def plug(self) -> None:
        """A bus with the board, as it is after its supply was switched on."""
        case = self.case
        self.bus = VirtualBus(seed=case.seed)
        query = (
            f"size=256KB&flash={self.flash.as_posix()}&seed={case.seed}&profile=fast&latency=0.0005"
        )
        self.board = self.bus.add(f"{case.chip}?kind={case.usb}&mac={OWN_MAC}&{query}").bus.devices[0]  # fmt: skip
        self.chip = self.board.chip
        self.other = None
        watch_changes(SimpleNamespace(chip=self.chip), self.note_change)  # type: ignore[arg-type]
        opened = self.bus.open_path

        def open_path(path: str, baud: int = 115200, cancel: Any = None) -> BusTransport:
            transport = opened(path, baud, cancel)
            if transport.chip is self.chip:
                self.watch(transport)
            return transport

        self.bus.open_path = open_path  # type: ignore[method-assign]

    def watch(self, transport: BusTransport) -> None:
        for name in ("write", "set_lines"):
            method = getattr(transport, name)

            def watched(*arguments: Any, method: Any = method, **keywords: Any) -> None:
                if self.step not in ("erase", "program", "journal"):
                    self.hit(self.step)
                method(*arguments, **keywords)
                self.do_pending()

            setattr(transport, name, watched)
        read = transport.read

        def watched_read(timeout: float) -> bytes:
            data = read(timeout)
            self.do_pending()
            return data

        vars(transport)["read"] = watched_read

    def do_pending(self) -> None:
        action, self.pending = self.pending, None
        if action is not None:
            action()

    def note_change(self, change: Change) -> None:
        if self.step == "write":
            self.hit("erase" if change.erases else "program")

    def hit(self, step: str) -> None:
        """Something happens in ``step``: this may be the moment of the fault."""
        if self.fired or step != self.case.step:
            return
        self.seen += 1
        if self.seen == self.nth:
            self.fired = True
            if self.case.kind not in LINE:
                self.lost_in = self.connections
                self.count_missing()
            self.break_it()

    def break_it(self) -> None:
        kind, rng, chip = self.case.kind, self.rng, self.chip
        if kind == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind in LINE:
            spec = FaultSpec(once={kind: rng.randint(1, 48 if kind in BYTE_KINDS else 1)})
            if rng.random() < 0.3:
                rate = 1e-3 if kind in BYTE_KINDS else 0.05
                spec = FaultSpec(rates={kind: rate}, once=spec.once)
            chip.faults, self.noisy = Faults(spec, self.case.seed), True
        elif kind in CHIP:
            wait = rng.uniform(0, max(chip.flash.busy_until - chip.now, 1e-4))
            action = chip.power_loss if kind == "power" else chip.reset
            chip._queue.at(chip.now + wait, lambda: action(chip.now))
        else:
            self.pending = self.lose

    def lose(self) -> None:
        kind, rng = self.case.kind, self.rng
        path = self.board.path
        if not path:  # native USB, which has left by itself
            return
        self.bus.lose(
            path,
            back_after=None if kind == "replaced" else rng.uniform(0.1, 3.0),
            power=kind == "unplugged" or self.case.usb != "uart",
            renamed=kind == "renamed",
        )
        if kind == "replaced":
            query = f"{self.case.chip}?kind={self.case.usb}&mac={OTHER_MAC}&size=256KB&profile=fast"
            self.bus.add(query)
            self.other = self.bus.devices[-1]
            self.other.chip.flash.contents[:] = self.case.before
            self.other.path = path
            self.other.identity = replace(self.other.identity, path=path)

    def count_missing(self) -> None:
        """Bytes of the files' sectors that are not in flash, as finely as the loader's hashes show it."""
        flash, wanted, missing = bytes(self.chip.flash.contents), self.case.wanted, 0
        piece = SECTOR if self.case.stub else BLOCK
        for blob in self.case.blobs:
            start, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
            for at in range(start, end, piece):
                stop = min(at + piece, end)
                # without keeping, it is the ESP8266's ROM, which computes no hash
                unknown = not self.case.keep or flash[at:stop] != wanted[at:stop]
                missing += (stop - at) * unknown
        self.missing = missing

    def repair(self) -> None:
        """Before the repetition: the line is good, and the board is back."""
        self.chip.faults = Faults(FaultSpec())
        self.fired, self.pending = True, None
        if self.case.command == "read":  # the board has run meanwhile
            self.chip.flash.contents[0x2000:0x2010] = self.rng.randbytes(16)
        if self.other is not None:
            self.bus.devices.remove(self.other)
        if not self.board.path and self.board.back_at is None:
            self.bus.plug(self.board)
        self.bus.sleep(5)
        while not self.board.path:  # its watchdog has reset it
            self.bus.sleep(0.1)

    @property
    def words(self) -> list[str]:
        case = self.case
        words = ["-p", self.board.path, "-b", "921600"]
        words += [] if case.stub else ["--no-stub"]
        if case.command == "read":
            return [*words, "read-flash", "-p", "0x1800", str(READ_SIZE), str(self.out)]
        files = [str(x) for blob, file in zip(case.blobs, self.files, strict=True) for x in (hex(blob.address), file)]  # fmt: skip
        policy = [] if case.keep else ["--no-keep", "--allow", "neighbours"]
        return [*words, "write-flash", "-p", "--force", *policy, *files]

    def run(self) -> tuple[int, str]:
        """The exit code and everything that was printed."""
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said), self.patched():
            code = main(self.words, BusContext(self.bus))
        return code, said.getvalue()

    @contextlib.contextmanager
    def patched(self) -> Iterator[None]:
        """Simulated time, and the steps of the command."""
        bus = self.bus
        with contextlib.ExitStack() as stack:

            def put(owner: Any, name: str, value: Any) -> Any:
                old = getattr(owner, name)
                setattr(owner, name, value)
                stack.callback(setattr, owner, name, old)
                return old

            def mark(owner: Any, name: str, step: str, after: str | None = None) -> None:
                """While the function runs, ``step`` is the step; then ``after``, or the one before."""
                old = getattr(owner, name)

                def marked(*arguments: Any, **keywords: Any) -> Any:
                    before, self.step = self.step, step
                    try:
                        return old(*arguments, **keywords)
                    finally:
                        self.step = before if after is None else after

                put(owner, name, marked)

            def count(owner: Any) -> None:
                old = owner.write

                def write(backend: Any, start: int, data: bytes, **more: Any) -> None:
                    self.payload[self.connections] += len(data)
                    old(backend, start, data, **more)

                put(owner, "write", write)
                mark(owner, "write", "write", "prepare")

            put(context_module, "time", SimpleNamespace(monotonic=lambda: bus.now, sleep=bus.sleep))
            exists = SimpleNamespace(**{**vars(os.path), "exists": lambda path: bus.find(path) is not None})  # fmt: skip
            put(context_module, "os", SimpleNamespace(path=exists, environ=os.environ))
            put(Context, "journal", lambda context, device: Journal(self.folder / "journal.json", device.mac))  # fmt: skip
            connect = connect_module.connect

            def counted(*arguments: Any, **keywords: Any) -> Any:
                self.connections += 1
                return connect(*arguments, **keywords)

            put(connect_module, "connect", counted)
            mark(connect_module, "connect", "connect", "prepare")
            mark(connect_module, "speed_up", "stub")
            mark(write_module, "survey", "compare")
            mark(survey_module, "_read_neighbours", "keep")
            self.mark_journal(put)
            for backend in (StubBackend, RomBackend):
                count(backend)
            mark(write_module._Run, "verify", "verify", "end")
            mark(write_module._Run, "end", "end", "end")
            if self.case.command == "read":
                self.mark_read(put)
            yield

    def mark_journal(self, put: Callable[[Any, str, Any], Any]) -> None:
        """Three moments: before the journal is written, when its new file is complete, and afterwards."""
        old, opened = Journal.write, journal_module.open_output

        def write(journal: Journal, unfinished: Unfinished) -> None:
            before, self.step = self.step, "journal"
            self.hit("journal")
            old(journal, unfinished)
            self.hit("journal")
            self.step = before

        @contextlib.contextmanager
        def open_output(*arguments: Any, **keywords: Any) -> Iterator[Any]:
            with opened(*arguments, **keywords) as file:
                yield file
                self.hit("journal")

        put(Journal, "write", write)
        put(journal_module, "open_output", open_output)

    def mark_read(self, put: Callable[[Any, str, Any], Any]) -> None:
        from espwire.flash import read as read_module

        read = read_module.read_to_file

        def read_to_file(*arguments: Any, **keywords: Any) -> int:
            self.step = "read"
            size = read(*arguments, **keywords)
            self.step = "end"
            return size

        put(read_module, "read_to_file", read_to_file)

    def find_wrong(self, *, done: bool) -> str:
        """What is wrong with flash and files; ``done``: the command has succeeded."""
        case, flash = self.case, bytes(self.chip.flash.contents)
        wanted = case.wanted
        if case.command == "read":
            if done and self.out.read_bytes() != flash[0x1800:][:READ_SIZE]:
                return "the file differs from the flash"
            return ""
        if self.other is not None and bytes(self.other.chip.flash.contents) != case.before:
            return "another board was written"
        if done and flash != wanted:
            at = next(at for at in range(0, FLASH, SECTOR) if flash[at : at + SECTOR] != wanted[at : at + SECTOR])  # fmt: skip
            return f"the sector at {at:#x} is wrong"
        touched = {at for b in case.blobs for at in range(align_down(b.address, SECTOR), b.end, SECTOR)}  # fmt: skip
        for at in range(0, FLASH, SECTOR):
            if at not in touched and flash[at : at + SECTOR] != case.before[at : at + SECTOR]:
                return f"the sector at {at:#x}, where no file goes, has changed"
        return ""


def run_case(seed: int, kind: str, step: str, folder: Path) -> Outcome:
    """A command with one fault; if it fails, once more without."""
    case = make_case(seed, kind, step)
    world = World(case, folder)
    began = world.bus.now
    if kind == "killed":
        code, said = run_killed(world)
    else:
        code, said = world.run()
    world.step = ""
    fired = world.fired
    codes, texts = [code], [said]
    wrong = world.find_wrong(done=code == 0)
    if code and kind in (*CHIP, "lost", "unplugged", "renamed") and step in CONTINUED:
        wrong = wrong or f"the run did not continue: {said[-300:]}"
    if code != 0:
        world.repair()
    if code != 0 and not wrong:
        code, said = world.run()
        codes.append(code)
        texts.append(said)
        world.chip.flash.decay()
        wrong = world.find_wrong(done=code == 0)
        if code and not wrong:
            wrong = f"the repetition failed: {said[-300:]}"
    elif not wrong:
        world.chip.flash.decay()
        wrong = world.find_wrong(done=True)
    if "Traceback" in "".join(texts) or "internal error" in "".join(texts):
        wrong = wrong or "a bug was reported"
    if (folder / "journal.json").exists():
        wrong = wrong or "the journal was left behind"
    outcome = Outcome(case, fired, codes, find_ids(texts), wrong, world.bus.now - began)
    if outcome.seconds > MOST_SECONDS:
        outcome.wrong = outcome.wrong or f"it took {outcome.seconds:.0f} s"
    if fired and world.lost_in >= 0 and not wrong:
        check_payload(world, outcome)
    world.chip.flash.close()
    return outcome


def check_payload(world: World, outcome: Outcome) -> None:
    """At most the bytes that were not in flash, and two windows, are sent after a loss."""
    later = [number for number in world.payload if number > world.lost_in]
    outcome.payload = sum(world.payload[number] for number in later)
    outcome.missing = world.missing
    if outcome.payload > world.missing + 2 * WINDOW:
        outcome.wrong = f"{outcome.payload} bytes were sent, {world.missing} were missing"


def find_ids(texts: list[str]) -> list[str]:
    """The ids of errors."""
    return [(re.findall(r"^error: .*\[([a-z0-9-]+)\]$", text, re.M) or ["-"])[-1] for text in texts]


def run_killed(world: World) -> tuple[int, str]:
    """The command in a process that ends by SIGKILL; then the board is connected to another one."""
    child = os.fork()
    if not child:
        code = 1
        try:
            code, _ = world.run()
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    world.fired = status == -signal.SIGKILL
    world.lost_in = 0
    world.count_missing()
    return status, ""
