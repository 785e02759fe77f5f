"""Flips one bit on the wire of an otherwise perfect run of the command line, and judges the outcome.

A clean run of each job is recorded, then each bit of interest is flipped in a run of its own. A bit is flipped in two
ways: in the frame's content, before SLIP escapes it, so that the frame keeps its borders; and, where that makes a
difference (END, ESC, and bytes that become one of them), on the line itself, so that a frame is cut in two or joined
to the next. A run is deterministic up to the flip: simulated time, a seeded chip and fresh transfer numbers.

One case again: ``python -m tests.scenario.bit_sweep rom-esp32 write-flash '>12.34.5'``, that is bit 5 of byte 34 of
the 12th frame to the chip; ``<`` is a frame to the host, ``'>12.34.5!'`` the bit on the line. Without the last word it
sweeps that pair, with ``--sample N`` a part of it.
"""

from __future__ import annotations

import json
import random
import re
import signal
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent))  # as conftest.py does, for a run by hand

from stub_faults_harness import FlashWatch

from espwire.chips.registry import load_chip
from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.cli.output import Output
from espwire.cli.program import Program
from espwire.device import loader, stub_image
from espwire.device.backends import stub
from espwire.errors import ToolError
from espwire.protocol import slip
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp, name_op
from espwire.virtual.faults import Faults, FaultSpec
from espwire.virtual.transport import VirtualTransport, open_virtual

ROMS = ("esp8266", "esp32", "esp32s2", "esp32c3", "esp32c2", "esp32p4")
STUBS = ("esp8266", "esp32", "esp32c3")
LOADERS = (*(f"rom-{chip}" for chip in ROMS), *(f"stub-{chip}" for chip in STUBS))
ENGINES = tuple(
    f"engine-{chip}" for chip in STUBS
)  # the stub's own machine code, which is slow to interpret
# other ways in for some: a ROM that raises its rate by its own clock, watchdogs that must be kept quiet
URL_EXTRAS = {"rom-esp32p4": "&kind=usb-jtag"}
WORDS_EXTRAS = {
    "rom-esp32c2": ("-b", "460800"),
    "stub-esp32": ("-b", "460800"),
    "stub-esp8266": ("-b", "460800"),
}

FLASH = 0x100000
WRITE_AT, VERIFY_AT, READ_AT, ERASE_AT = 0x21000, 0x31000, 0x41000, 0x51000
WRITE_SIZE, READ_SIZE, VERIFY_SIZE, ERASE_SIZE, DUMP_SIZE = 0x2000, 0x180, 2000, 0x2000, 0x40
LONGEST = 600.0  # seconds of simulated time for one run; the longest single time-out is 240 s
MOST_CPU = 30.0  # seconds of CPU for one run, which takes less than one: whoever needs more is caught in a loop
PAYLOAD_BITS = 64  # sampled of each payload
TAIL = 8  # bytes at a payload's end that are swept whole: check words and status
FULL = 1 << 30


@dataclass(frozen=True)
class Job:
    """One command line. ``touches``: the flash that it may change. ``code``: its exit code on a clean wire.

    ``blank``: what of the flash is blank before; the rest is noise.
    """

    name: str
    words: tuple[str, ...]
    touches: tuple[int, int] = (0, 0)
    code: int = 0
    output: str = ""  # a file that it writes
    blank: tuple[int, int] = (0, 0)

    def before(self) -> bytes:
        """What the flash holds before it."""
        start, end = self.blank
        return noise()[:start] + b"\xff" * (end - start) + noise()[end:]


JOBS = {
    job.name: job
    for job in (
        Job(
            "write-flash",
            ("write-flash", "--force", hex(WRITE_AT), "{payload}"),
            (WRITE_AT, WRITE_AT + WRITE_SIZE),
        ),
        Job(
            "write-flash-u",
            ("write-flash", "--force", "-u", hex(WRITE_AT), "{payload}"),
            (WRITE_AT, WRITE_AT + WRITE_SIZE),
        ),
        Job(  # flash as it is in a new board: no sector shows where a ROM has erased
            "write-flash-blank",
            ("write-flash", "--force", "-u", hex(WRITE_AT), "{payload}"),
            (WRITE_AT, WRITE_AT + WRITE_SIZE),
            blank=(WRITE_AT - WRITE_SIZE, WRITE_AT + 2 * WRITE_SIZE),
        ),
        Job("read-flash", ("read-flash", hex(READ_AT), hex(READ_SIZE), "{output}"), output="flash"),
        Job("verify-flash", ("verify-flash", hex(VERIFY_AT), "{equal}")),
        Job("verify-flash-differs", ("verify-flash", hex(VERIFY_AT), "{differing}"), code=7),
        Job(
            "erase-region",
            ("erase-region", "--force", hex(ERASE_AT), hex(ERASE_SIZE)),
            (ERASE_AT, ERASE_AT + ERASE_SIZE),
        ),
        Job(  # an erase that goes on behind the range shows in no sector next to it
            "erase-region-before-blank",
            ("erase-region", "--force", hex(ERASE_AT), hex(ERASE_SIZE)),
            (ERASE_AT, ERASE_AT + ERASE_SIZE),
            blank=(ERASE_AT + ERASE_SIZE, ERASE_AT + 2 * ERASE_SIZE),
        ),
        Job("erase-flash", ("erase-flash", "--force"), (0, FLASH)),
        Job("flash-id", ("flash-id",)),
        Job("dump-mem", ("dump-mem", "{ram}", hex(DUMP_SIZE), "{output}"), output="ram"),
        Job("chip-info", ("chip-info",)),
    )
}
# a ROM that can neither read its flash nor compute an MD5 of it refuses these before anything is sent
REFUSED = {("rom-esp8266", name) for name in ("read-flash", "verify-flash", "verify-flash-differs")}
# the payload of these may be long; the content of every other frame is swept whole
BULK = {
    (0, Op.FLASH_DATA): 16,
    (0, Op.FLASH_DEFL_DATA): 16,
    (0, Op.MEM_DATA): 16,
    (0, StubOp.WRITE_DATA): 4,
    (0, Op.SYNC): 4,
    (1, Op.READ_FLASH_SLOW): 0,
    (1, StubOp.READ_OPEN): 0,
}
PRINTED = (
    "trips",
    "seconds",
    "file",
    "baud",
)  # of a result: what a disturbed run may print differently


@dataclass(frozen=True)
class Flip:
    """One bit of one frame. ``line``: on the line, where ``byte`` counts from the END before the frame."""

    to_chip: bool
    frame: int
    byte: int
    bit: int
    line: bool = False

    def __str__(self) -> str:
        return f"{'>' if self.to_chip else '<'}{self.frame}.{self.byte}.{self.bit}{'!' if self.line else ''}"


def parse_flip(text: str) -> Flip:
    """What ``str(flip)`` wrote."""
    match = re.fullmatch(r"([<>])(\d+)\.(\d+)\.(\d)(!?)", text)
    if match is None:
        raise SystemExit(f"{text!r} is not a flip such as '>12.34.5'")
    way, frame, byte, bit, line = match.groups()
    return Flip(way == ">", int(frame), int(byte), int(bit), bool(line))


@dataclass(frozen=True)
class Frame:
    """What stands between two ENDs on one direction of the line. ``spots``: where each byte of ``content`` stands."""

    start: int
    end: int
    content: bytes
    spots: tuple[int, ...]

    @property
    def op(self) -> str:
        """The opcode's name, with the direction; ``text`` where it is neither request nor reply."""
        content = self.content
        if not self.is_message:
            return "text"
        return f"{name_op(content[1])}{'.reply' if content[0] else ''}"

    @property
    def is_message(self) -> bool:
        content = self.content
        return (
            len(content) >= HEADER.size
            and content[0] in (0, 1)
            and int.from_bytes(content[2:4], "little") == len(content) - HEADER.size
        )

    def field(self, byte: int) -> str:
        """The name of the field that a byte is of."""
        if not self.is_message:
            return "text"
        if byte < HEADER.size:
            return ("direction", "op", "size", "size", "value", "value", "value", "value")[byte]
        head = BULK.get((self.content[0], self.content[1]))
        at = byte - HEADER.size
        if head is not None and head <= at < len(self.content) - HEADER.size - TAIL:
            return "payload"
        return f"body[{at // 4}]"

    def bits(self, rng: random.Random) -> list[tuple[int, int]]:
        """The bits of the content to flip: all of headers, arguments and status, a sample of a payload."""
        size = len(self.content)
        whole, payload = range(size), range(0)
        if not self.is_message:
            if size > TAIL:
                whole, payload = range(0), range(size)
        elif (head := BULK.get((self.content[0], self.content[1]))) is not None:
            start, end = HEADER.size + head, max(HEADER.size + head, size - TAIL)
            payload = range(start, end)
            return [
                (byte, bit) for byte in (*range(start), *range(end, size)) for bit in range(8)
            ] + _sample(payload, rng)
        return [(byte, bit) for byte in whole for bit in range(8)] + _sample(payload, rng)


def _sample(payload: range, rng: random.Random) -> list[tuple[int, int]]:
    places = [(byte, bit) for byte in payload for bit in range(8)]
    return sorted(rng.sample(places, min(PAYLOAD_BITS, len(places))))


def split_frames(line: bytes) -> list[Frame]:
    """The frames on one direction of a recorded line."""
    frames, start = [], 0
    for match in re.finditer(rb"[^\xc0]+", line):
        start, raw = match.start(), match.group()
        content, spots, at = bytearray(), [], 0
        while at < len(raw):
            spots.append(start + at)
            pair = raw[at : at + 2]
            if pair in (slip.ESC_END, slip.ESC_ESC):
                content.append(0xC0 if pair == slip.ESC_END else 0xDB)
                at += 2
            else:
                content.append(raw[at])
                at += 1
        frames.append(Frame(start, start + len(raw), bytes(content), (*spots, start + len(raw))))
    return frames


@dataclass(frozen=True)
class Change:
    """The bytes from ``start`` to ``end`` of one direction become ``new``."""

    to_chip: bool
    start: int
    end: int
    old: bytes
    new: bytes


class Line(Faults):
    """Records both directions as they were sent, and changes what ``change`` names."""

    def __init__(self, change: Change | None = None) -> None:
        super().__init__(FaultSpec())
        self.change = change
        self.sent = {True: bytearray(), False: bytearray()}
        self.changed = False

    def piece(self, t: float, data: bytes, *, to_chip: bool) -> tuple[float, bytes]:
        sent, change = self.sent[to_chip], self.change
        at = len(sent)
        sent += data
        if (
            change is None
            or change.to_chip is not to_chip
            or at + len(data) <= change.start
            or at >= change.end
        ):
            return 0.0, data
        low, high = max(change.start - at, 0), min(change.end - at, len(data))
        assert data[low:high] == change.old[low + at - change.start : high + at - change.start], (
            "not deterministic"
        )
        self.changed = True
        return 0.0, data[:low] + (change.new if at <= change.start else b"") + data[high:]


class Hang(BaseException):
    """A run that does not end: past the bound of simulated time, or of CPU time."""


class Quiet(Output):
    """Keeps the lines instead of printing them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def line(self, text: str) -> None:
        self.lines.append(text)

    def error_line(self, text: str) -> None:
        pass


class Watched(Context):
    """Keeps the error that ended the run."""

    def __init__(self) -> None:
        super().__init__(Program(exit_code=self._keep), output=Quiet())
        self.use_files = False
        self.error: ToolError | None = None

    def _keep(self, error: ToolError) -> int:
        self.error = error
        return error.exit_code


@dataclass(frozen=True)
class Outcome:
    """What a run came to. ``effect`` is empty where all is well, else what is wrong:

    ``wrong``: exit 0, and what was written, read or printed is not right. ``outside``: exit 0, and flash outside the
    range was touched. ``damaged``: an error, and flash outside the range was touched. ``bug``: no deliberate error.
    ``hang``: no end in time.
    """

    code: int
    error: str
    effect: str
    note: str
    seconds: float
    changed: bool


@dataclass
class Pair:
    """A job with a loader: its clean run, and the flips to try."""

    loader: str
    job: Job
    frames: dict[bool, list[Frame]] = field(default_factory=dict)
    printed: Any = None

    def __str__(self) -> str:
        return f"{self.loader} {self.job.name}"

    def name(self, flip: Flip) -> str:
        """The field that a flip hits, for people and for the table of accepted cases: ``FLASH_BEGIN body[0]``."""
        frame = self.frames[flip.to_chip][flip.frame]
        if flip.line:
            at = frame.start - 1 + flip.byte
            if not frame.start <= at < frame.end:
                return f"{frame.op} border"
            byte = max(index for index, spot in enumerate(frame.spots) if spot <= at)
            return f"{frame.op} {frame.field(byte)} on the line"
        return f"{frame.op} {frame.field(flip.byte)}"

    def find_change(self, flip: Flip) -> Change:
        """What a flip does to the recorded line."""
        frame, line = self.frames[flip.to_chip][flip.frame], self.lines[flip.to_chip]
        if flip.line:
            start = frame.start - 1 + flip.byte
            end, new = start + 1, bytes((line[start] ^ 1 << flip.bit,))
        else:
            start, end = frame.spots[flip.byte], frame.spots[flip.byte + 1]
            value = frame.content[flip.byte] ^ 1 << flip.bit
            new = slip.encode(bytes((value,)))[1:-1]
        return Change(flip.to_chip, start, end, bytes(line[start:end]), new)

    lines: dict[bool, bytes] = field(default_factory=dict)

    def flips(self, seed: int = 0) -> list[Flip]:
        """Every flip to try, in the order of the frames."""
        found: list[Flip] = []
        for to_chip, frames in self.frames.items():
            for number, frame in enumerate(frames):
                rng = random.Random(f"{seed} {self} {to_chip} {number}")
                found += [Flip(to_chip, number, byte, bit) for byte, bit in frame.bits(rng)]
                if frame.is_message:
                    found += self._line_flips(to_chip, number, frame)
        return found

    def _line_flips(self, to_chip: bool, number: int, frame: Frame) -> Iterator[Flip]:
        """Flips on the line that are others than in the content: of ENDs and escapes, and into them."""
        line = self.lines[to_chip]
        special = {slip.END[0], slip.ESC[0]}
        head = BULK.get((frame.content[0], frame.content[1]))
        payload_start = (
            frame.spots[min(HEADER.size + head, len(frame.content))] if head is not None else FULL
        )
        payload_end = frame.spots[max(0, len(frame.content) - TAIL)]
        for at in range(max(frame.start - 1, 0), min(frame.end + 1, len(line))):
            if payload_start <= at < payload_end:
                continue
            escaped = line[at] in special or (at > frame.start and line[at - 1] == slip.ESC[0])
            for bit in range(8):
                if escaped or line[at] ^ 1 << bit in special:
                    yield Flip(to_chip, number, at - frame.start + 1, bit, line=True)

    def sample(self, size: int, seed: int) -> list[Flip]:
        """``size`` flips, spread over the fields: every field has its turn before one has a second."""
        rng = random.Random(f"{seed} {self}")
        fields: dict[str, list[Flip]] = defaultdict(list)
        for flip in self.flips(seed):
            fields[self.name(flip)].append(flip)
        for flips in fields.values():
            rng.shuffle(flips)
        names, found = sorted(fields), []
        rng.shuffle(names)
        for turn in count():
            left = [name for name in names if turn < len(fields[name])]
            if not left or len(found) >= size:
                return found[:size]
            found += [fields[name][turn] for name in left]
        return found


@cache
def noise() -> bytes:
    """What the flash holds before each job: no byte range of it is blank."""
    return random.Random(11).randbytes(FLASH)


@cache
def payload() -> bytes:
    """What write-flash writes: packs to more than one block, fills no block, and leaves a part of a sector."""
    rng = random.Random(12)
    return bytes(rng.choice(b"ABCDEF\xc0\xdb") for _ in range(5001))


@cache
def ram_content() -> bytes:
    return random.Random(13).randbytes(DUMP_SIZE)


def ram_address(chip: str) -> int:
    """RAM that neither loader nor stub uses: of the low-power domain where there is any, else low in data RAM."""
    starts = {region.name: region.start for region in load_chip(chip).memory.map}
    return starts.get("RTC_DRAM", starts["DRAM"] + 0x1000)


class Rig:
    """A folder with the files that the jobs need."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "output"
        here = noise()[VERIFY_AT : VERIFY_AT + VERIFY_SIZE]
        self.files = {
            "payload": payload(),
            "equal": here,
            "differing": here[:-1] + bytes((here[-1] ^ 1,)),
        }
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        self._pairs: dict[tuple[str, str], Pair] = {}

    def words(
        self, loader: str, job: Job, *, port: str = "virtual:swept", output: Path | None = None
    ) -> list[str]:
        """The command line."""
        kind, _, chip = loader.partition("-")
        paths = {name: str(self.folder / name) for name in self.files} | {
            "output": str(output or self.output)
        }
        words = [word.format(ram=hex(ram_address(chip)), **paths) for word in job.words]
        how = (
            ["--no-stub"]
            if kind == "rom"
            else ["--after", "no-reset-stub"]
            if job.name == "chip-info"
            else []
        )
        return ["--json", "--no-state", "-p", port, *WORDS_EXTRAS.get(loader, ()), *how, *words]

    def pair(self, loader: str, job: str) -> Pair:
        """The clean run of a job, recorded once."""
        found = self._pairs.get((loader, job))
        if found is None:
            found = self._pairs[loader, job] = self._record(Pair(loader, JOBS[job]))
        return found

    def _record(self, pair: Pair) -> Pair:
        outcome, printed, line = self._run(pair, Line())
        wanted = 5 if (pair.loader, pair.job.name) in REFUSED else pair.job.code
        assert (outcome.code, outcome.effect) == (wanted, ""), (str(pair), outcome)
        pair.printed = printed
        pair.lines = {way: bytes(sent) for way, sent in line.sent.items()}
        pair.frames = {way: split_frames(sent) for way, sent in pair.lines.items()}
        return pair

    def try_flip(self, pair: Pair, flip: Flip) -> Outcome:
        """The job with one bit flipped."""
        return self._run(pair, Line(pair.find_change(flip)))[0]

    def _run(self, pair: Pair, line: Line) -> tuple[Outcome, Any, Line]:
        job = pair.job
        transport = self._open(pair, line)
        watch = FlashWatch(transport.chip.flash)
        self.output.unlink(missing_ok=True)
        context = Watched()
        effect, code = "", -1
        with _line_to(transport):
            try:
                code = main(self.words(pair.loader, job), context)
            except Hang as hang:
                effect = f"hang: {hang}"
        printed = read_printed(context.output.lines)
        if not effect:
            flash, touched = bytes(transport.chip.flash.contents), watch.outside(*job.touches)
            effect = find_fault(pair, code, context.error, flash, touched, printed, self.output)
        kind, _, note = effect.partition(": ")
        error = context.error.code if context.error is not None else ""
        return Outcome(code, error, kind, note, transport.now(), line.changed), printed, line

    def _open(self, pair: Pair, line: Line) -> VirtualTransport:
        loader = pair.loader
        kind, _, chip = loader.partition("-")
        extras = "&stub=engine" if kind == "engine" else URL_EXTRAS.get(loader, "")
        transport = open_virtual(
            f"virtual:{chip}?size=1MB&seed=1&profile=fast&latency=0.0005{extras}"
        )
        transport.chip.flash.contents[:] = pair.job.before()
        transport.chip.registers.ram.write(ram_address(chip), ram_content())
        transport.chip.faults = line
        return transport


def find_fault(
    pair: Pair,
    code: int,
    error: ToolError | None,
    flash: bytes,
    touched: list[tuple[int, int]],
    printed: Any,
    output: Path,
) -> str:
    """What is wrong with the end of a run; empty where nothing is. ``touched``: ranges outside those of the job."""
    start, end = pair.job.touches
    before = pair.job.before()
    outside = bool(touched) or flash[:start] != before[:start] or flash[end:] != before[end:]
    where = ", ".join(f"{low:#x}..{high:#x}" for low, high in touched[:3])
    if code:
        if error is None or not error.code or error.code in ("bug", "error"):
            return f"bug: exit code {code}, {error!r}"
        return f"damaged: {where}" if outside else ""
    return f"outside: {where}" if outside else _find_false_success(pair, flash, printed, output)


def _find_false_success(pair: Pair, flash: bytes, printed: Any, output: Path) -> str:
    """Why an exit code 0 is not true."""
    job = pair.job
    start, end = job.touches
    if job.code:
        return "wrong: files that differ were called equal"
    if end:
        content = payload() if job.words[0] == "write-flash" else b""
        if content and (pair.loader, "read-flash") not in REFUSED:
            content += job.before()[
                start + len(content) : end
            ]  # the rest of the last sector is kept
        if flash[start:end] != content.ljust(end - start, b"\xff"):
            return "wrong: flash content"
    if job.output:
        content = noise()[READ_AT : READ_AT + READ_SIZE] if job.output == "flash" else ram_content()
        if not output.exists() or output.read_bytes() != content:
            return "wrong: file content"
    if pair.printed is not None and printed != pair.printed:
        return "wrong: printed " + _difference(pair.printed, printed)
    return ""


@contextmanager
def _cpu_limit() -> Iterator[None]:
    """Interrupt a loop that reads nothing, too; only where the system has such a timer."""
    if (
        not hasattr(signal, "setitimer")
        or threading.current_thread() is not threading.main_thread()
    ):
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise Hang(f"{MOST_CPU:.0f} s of CPU")

    before = signal.signal(signal.SIGVTALRM, interrupt)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_CPU)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


_read_index = cache(stub_image._read_index)


@contextmanager
def _line_to(transport: VirtualTransport) -> Iterator[None]:
    """The command line opens ``link``, whatever port it names; the run is as deterministic as the chip."""
    read = transport.read

    def watched(timeout: float) -> bytes:
        if transport.now() > LONGEST:
            raise Hang(f"{transport.now():.0f} s")
        return read(timeout)

    def open_transport(url: str, *, baud: int = 115200, cancel: object = None) -> VirtualTransport:
        transport.set_baud(baud)
        return transport

    vars(transport)["read"] = watched
    with (
        patch("espwire.transport.url.open_transport", open_transport),
        patch.object(loader, "_TOKENS", count(0x5A0001)),
        patch.object(stub, "_TOKENS", count(0x5A0001)),
        patch.object(stub_image, "_read_index", _read_index),  # a third of the time of a run
        _cpu_limit(),
    ):
        yield


def read_printed(lines: list[str]) -> Any:
    """What a run printed about the chip and its result."""
    found: dict[str, Any] = {}
    for line in lines:
        if '"ChipFound"' not in line and '"Result"' not in line:
            continue
        event = json.loads(line)
        if event["event"] == "ChipFound":
            found["chip"] = {key: event[key] for key in ("chip", "description", "revision", "mac")}
        elif event["event"] == "Result":
            found["result"] = {
                key: value for key, value in event["data"].items() if key not in PRINTED
            }
    return found


def _difference(right: Any, wrong: Any, path: str = "") -> str:
    if isinstance(right, dict) and isinstance(wrong, dict):
        names = [name for name in right | wrong if right.get(name) != wrong.get(name)]
        return "; ".join(
            _difference(right.get(name), wrong.get(name), f"{path}.{name}") for name in names
        )
    return f"{path.lstrip('.')} {wrong!r} for {right!r}"


def sweep(
    rig: Rig, pair: Pair, flips: list[Flip]
) -> tuple[Counter[str], list[tuple[Flip, Outcome]]]:
    """Try all of ``flips``: how they ended, and those that went wrong."""
    ends: Counter[str] = Counter()
    found = []
    for flip in flips:
        outcome = rig.try_flip(pair, flip)
        ends[outcome.effect or outcome.error or "right"] += 1
        if outcome.effect:
            found.append((flip, outcome))
    return ends, found


def _by_hand(words: list[str]) -> None:
    loader, job, *rest = words
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        pair = rig.pair(loader, job)
        if rest and rest[0] != "--sample":
            flip = parse_flip(rest[0])
            print(pair, flip, pair.name(flip), rig.try_flip(pair, flip))
            return
        flips = pair.sample(int(rest[1]), 1) if rest else pair.flips()
        ends, found = sweep(rig, pair, flips)
        for flip, outcome in found:
            print(
                f"{outcome.effect}\t{pair}\t{flip}\t{pair.name(flip)}\t{outcome.note}\t{outcome.error}"
            )
        print(pair, len(flips), dict(ends), file=sys.stderr)


if __name__ == "__main__":
    _by_hand(sys.argv[1:])
