"""Our stub against esptool and its stub: the same jobs on the same virtual chip, in simulated time. No test.

The flash has the timing of data sheets (typ) and is full of old data. Our stub is its Python model (within 10 % of the
engine: tests/unit/virtual/test_stub_model.py); esptool is a model of its client on an imitation of its stub
(esptool_model.py). Start-up time of Python is not counted. ESPWIRE_FIRMWARE is a folder with <chip>/*.bin of about
1 MiB. Without it, and without a collection of firmware next to this project, the data is generated with about the same
compressibility; then writes have no goal, since the goals are for real firmware.
"""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esptool_model import Esptool
from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.device.connect import connect
from espwire.device.stub_image import stub_chips
from espwire.events import Event, Finished
from espwire.flash.read import read_flash
from espwire.flash.verify import verify_flash
from espwire.flash.write import write_flash
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.virtual.transport import open_virtual
from floor import Floor, Meter

MIB = 1 << 20
COLLECTION = Path(__file__).resolve().parents[2] / "shared/firmware"
MADE_UP = "made up"
BRIDGES = {"2 ms": 0.001, "16 ms FTDI": 0.008}  # a round trip, and the latency each way
USB = "USB"
BASE = 0x10000
FIRST = {"write": StubOp.WRITE_DATA, "read": StubOp.READ_OPEN, "verify": Op.SPI_FLASH_MD5}
FAST = 921600
# where no firmware for the chip is at hand
SIMILAR = {"riscv": "esp32c6", "xtensa": "esp32s3"}
FIXED_GOAL_S = {"esp8266": 0.65, "esp32": 0.42, "esp32c3": 0.42}
MOST_ABOVE, MOST_ABOVE_FAST = 0.08, 0.12  # of the floor: up to 921600, and faster


@cache
def firmware(chip: str) -> tuple[str, bytes]:
    """A MiB of it, and where it is from."""
    for name in (chip, SIMILAR[load_chip(chip).cpu.architecture]):
        folder = Path(os.environ.get("ESPWIRE_FIRMWARE") or COLLECTION, name)
        found = [p for p in sorted(folder.glob("*.bin")) if p.stat().st_size >= MIB - 0x40000]
        if found:
            best = min(found, key=lambda path: abs(path.stat().st_size - MIB))
            # without the magic byte: a merged image may not be written to 0x10000
            return best.name, b"\0" + best.read_bytes()[1:MIB]
    pick, out = random.Random(5), bytearray()
    while len(out) < MIB:
        out += pick.randbytes(166) + bytes(90)
    return MADE_UP, bytes(out[:MIB])


@dataclass(frozen=True)
class Case:
    """A job and the ratio that is asked for; None: shown only. ``bridge`` USB: the chip's own port."""

    job: str
    chip: str
    baud: int
    bridge: str
    goal: float | None = None

    @property
    def name(self) -> str:
        """For a line of output."""
        size = "4 MiB" if self.job == "read" else "1 MiB"
        line = USB if self.bridge == USB else f"{self.baud}, {self.bridge}"
        return f"{self.job} {size}, {self.chip}, {line}"

    @property
    def most_above(self) -> float | None:
        """How far above the floor it may be."""
        if self.job != "write":
            return None
        return MOST_ABOVE if self.bridge != USB and self.baud <= FAST else MOST_ABOVE_FAST


WRITE_GOALS = {"esp32": 1.48, "esp8266": 1.47, "esp32c3": 1.85}
USB_CHIPS = ("esp32c3", "esp32s3", "esp32c6", "esp32h2", "esp32p4")
CASES = (
    *(Case("write", chip, FAST, "2 ms", WRITE_GOALS.get(chip, 1.2)) for chip in stub_chips()),
    Case("write", "esp32", FAST, "16 ms FTDI", 1.65),
    Case("write", "esp32c3", FAST, "16 ms FTDI"),
    *(
        Case("write", chip, baud, "2 ms")
        for baud in (115200, 460800)
        for chip in ("esp32", "esp8266", "esp32c3")
    ),
    *(Case("write", chip, 2_000_000, "2 ms") for chip in stub_chips()),
    *(Case("write", chip, 115200, USB) for chip in USB_CHIPS),
    Case("read", "esp32", FAST, "2 ms"),
    Case("read", "esp32", FAST, "16 ms FTDI"),
    Case("read", "esp32c3", FAST, "2 ms"),
    Case("read", "esp32c3", 115200, USB),
    Case("verify", "esp32", FAST, "2 ms", 3.0),
    Case("verify", "esp32c3", FAST, "2 ms", 5.2),
    Case("verify", "esp32", FAST, "16 ms FTDI"),
    Case("verify", "esp8266", FAST, "2 ms"),
)


def _query(case: Case) -> str:
    line = "kind=usb-jtag" if case.bridge == USB else f"latency={BRIDGES[case.bridge]}"
    return f"size=4MB&profile=typ&{line}"


def _fill(contents: memoryview, case: Case) -> None:
    contents[:] = random.Random(2).randbytes(len(contents))
    if case.job == "verify":
        data = firmware(case.chip)[1]
        contents[BASE : BASE + len(data)] = data


@dataclass(frozen=True)
class Result:
    """Seconds of a whole command, the reset at the end included, and its floor. ``verified_s``: of the check alone."""

    took: float
    floor: Floor
    verified_s: float
    codec: str


def ours(case: Case, *, size: int = MIB, stub: str = "twin") -> Result:
    """Run espwire's command. ``stub``: "engine" for its own bytes; ``size``: of a write."""
    data = firmware(case.chip)[1][:size]
    transport = open_virtual(f"virtual:{case.chip}?{_query(case)}&stub={stub}")
    _fill(transport.chip.flash.contents, case)
    meter = Meter(transport, FIRST[case.job])
    seconds, codec = dict[str, float](), ""

    def report(event: Event) -> None:
        if isinstance(event, Finished):
            seconds[event.task] = event.seconds

    with connect(transport, baud=case.baud, stub=True) as device:
        device.attach_flash()
        meter.note_bus()
        if case.job == "write":
            (write,) = write_flash(device, [Blob(BASE, data)], report=report).writes
            (piece,) = write.pieces
            codec = piece.codec.name
        elif case.job == "verify":
            verify_flash(device, [Blob(BASE, data)])
        else:
            read_flash(device, 0, 4 * MIB)
        finished = transport.now()
        device.leave("hard-reset")
        floor = meter.build_floor(finished)
        return Result(transport.now(), floor, seconds.get("verify", 0.0), codec)


def theirs(case: Case) -> float:
    """Seconds of esptool's command."""
    data = firmware(case.chip)[1]
    esptool = Esptool.start(case.chip, _query(case), case.baud)
    _fill(esptool.transport.chip.flash.contents, case)
    if case.job == "write":
        esptool.write(BASE, data)
    elif case.job == "verify":
        esptool.verify(BASE, data)
        esptool.leave()
    else:
        esptool.read(0, 4 * MIB)
    return esptool.now


def show(case: Case) -> float | None:
    """Print a case; returns the time before the data of a write at 921600 baud."""
    mine, other = ours(case), theirs(case)
    ratio = other / mine.took
    wanted = None if case.job == "write" and firmware(case.chip)[0] == MADE_UP else case.goal
    goal = "" if wanted is None else f"  goal >= {wanted}{'' if ratio >= wanted else ' MISSED'}"
    print(f"{case.name:<42} {mine.took:7.2f} {other:7.2f} s   ratio {ratio:5.2f}{goal}")
    most = case.most_above
    late = most is not None and mine.took / mine.floor.total > 1 + most
    more = f"   verified in {mine.verified_s:.2f}, {mine.codec}" if mine.codec else ""
    goal = "" if most is None else f"  goal <= {100 * most:.0f} %{' MISSED' if late else ''}"
    print(f"    {mine.floor.describe(mine.took)}{goal}{more}", flush=True)
    return mine.floor.fixed if case.job == "write" and case.baud == FAST else None


def compare_with_engine(case: Case, size: int) -> None:
    """Print the times of a write by the model and by the stub's own bytes on the engine."""
    model, engine = ours(case, size=size), ours(case, size=size, stub="engine")
    above = 100 * (engine.took / engine.floor.total - 1)
    print(
        f"write {size // 1024} KiB, {case.name}: model {model.took:.3f} s, engine {engine.took:.3f} s "
        f"({engine.took / model.took - 1:+.1%}), {above:+.1f} % above its floor, {engine.codec}",
        flush=True,
    )


def main(
    jobs: Collection[str] = (), chips: Collection[str] = (), engine_kib: int | None = None
) -> None:
    """Print times, ratios, floors and goals, of all cases or of some."""
    cases = [c for c in CASES if (not jobs or c.job in jobs) and (not chips or c.chip in chips)]
    if engine_kib is not None:
        for case in cases:
            if case.job == "write":
                compare_with_engine(case, engine_kib * 1024)
        return
    fixed: dict[str, float] = {}
    for case in cases:
        took = show(case)
        if took is not None:
            fixed.setdefault(case.chip, took)
    for chip, took in fixed.items():
        goal_s = FIXED_GOAL_S.get(chip)
        goal = "" if goal_s is None else f"goal <= {goal_s}{'' if took <= goal_s else '  MISSED'}"
        print(f"before the first byte of data, {chip:<9} {took:7.3f} s   {goal}")
    print("firmware:", ", ".join(sorted({f"{c.chip} {firmware(c.chip)[0]}" for c in cases})))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", action="append", default=[], choices=list(FIRST))
    parser.add_argument(
        "--engine", type=int, metavar="KIB", help="compare writes of so much by model and engine"
    )
    parser.add_argument("chips", nargs="*")
    given = parser.parse_args()
    main(given.job, given.chips, given.engine)
