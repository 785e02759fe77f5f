"""Our stub against esptool and its stub: the same jobs on the same virtual chip, in simulated time. No test.

The flash has the timing of data sheets (typ) and is full of old data. Our stub is its Python model (within 10 % of the
engine: tests/unit/virtual/test_stub_model.py); esptool is a model of its client on an imitation of its stub
(esptool_model.py). Start-up time of Python is not counted. ESPWIRE_FIRMWARE is a folder with <chip>/*.bin of about
1 MiB. Without it, and without a collection of firmware next to this project, the data is generated with about the same
compressibility; then writes have no goal, since the goals are for real firmware.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from esptool_model import Esptool
from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.flash.read import read_flash
from espwire.flash.verify import verify_flash
from espwire.flash.write import write_flash
from espwire.virtual.transport import open_virtual

MIB = 1 << 20
COLLECTION = Path(__file__).resolve().parents[2] / "shared/firmware"
MADE_UP = "made up"
BRIDGES = {"2 ms": 0.001, "16 ms FTDI": 0.008}  # a round trip, and the latency each way
BASE, READ_BAUD = 0x10000, 921600
FIXED_GOAL_S = {"esp8266": 0.9, "esp32": 0.35, "esp32c3": 0.35}


@cache
def firmware(chip: str) -> tuple[str, bytes]:
    """A MiB of it, and where it is from."""
    folder = Path(os.environ.get("ESPWIRE_FIRMWARE") or COLLECTION, chip)
    found = [path for path in sorted(folder.glob("*.bin")) if path.stat().st_size >= MIB - 0x40000]
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
    """A job and the ratio that is asked for; None: shown only."""

    job: str
    chip: str
    baud: int
    bridge: str
    goal: float | None = None


CASES = (
    Case("write", "esp32", 921600, "2 ms", 1.4),
    Case("write", "esp32", 921600, "16 ms FTDI", 1.6),
    Case("write", "esp32c3", 921600, "2 ms", 1.6),
    Case("write", "esp32c3", 921600, "16 ms FTDI"),
    Case("write", "esp8266", 921600, "2 ms"),
    Case("write", "esp32", 115200, "2 ms"),
    Case("write", "esp32", 460800, "2 ms"),
    Case("write", "esp32", 2_000_000, "2 ms"),
    Case("write", "esp32c3", 2_000_000, "2 ms"),
    Case("read", "esp32", 921600, "2 ms", 1.2),
    Case("read", "esp32", 921600, "16 ms FTDI", 1.5),
    Case("read", "esp32c3", 921600, "2 ms", 1.2),
    Case("read", "esp32c3", 921600, "16 ms FTDI", 1.5),
    Case("verify", "esp32", 921600, "2 ms", 2.5),
    Case("verify", "esp32c3", 921600, "2 ms", 4.0),
    Case("verify", "esp32", 921600, "16 ms FTDI"),
)


def _query(case: Case) -> str:
    return f"size=4MB&profile=typ&latency={BRIDGES[case.bridge]}"


def _fill(contents: memoryview, case: Case) -> None:
    contents[:] = random.Random(2).randbytes(len(contents))
    if case.job == "verify":
        contents[BASE : BASE + MIB] = firmware(case.chip)[1]


def _connect(case: Case) -> Device:
    transport = open_virtual(f"virtual:{case.chip}?{_query(case)}")
    _fill(transport.chip.flash.contents, case)
    device = connect(transport, baud=case.baud, stub=True)
    device.attach_flash()
    return device


def ours(case: Case) -> float:
    """Seconds of the whole command, the reset at the end included."""
    data = firmware(case.chip)[1]
    with _connect(case) as device:
        if case.job == "write":
            write_flash(device, [Blob(BASE, data)])
        elif case.job == "verify":
            verify_flash(device, [Blob(BASE, data)])
        else:
            read_flash(device, 0, 4 * MIB)
        device.leave("hard-reset")
        return device.transport.now()


def theirs(case: Case) -> float:
    """Seconds of esptool's command."""
    data = firmware(case.chip)[1]
    esptool = Esptool(case.chip, _query(case), case.baud)
    _fill(esptool.transport.chip.flash.contents, case)
    if case.job == "write":
        esptool.write(BASE, data)
    elif case.job == "verify":
        esptool.verify(BASE, data)
        esptool.leave()
    else:
        esptool.read(0, 4 * MIB)
    return esptool.now


class _Started(Exception):
    """The first byte of data is about to be sent."""


def fixed_cost(chip: str) -> float:
    """Seconds from the reset to the first byte of data."""
    case = Case("write", chip, 921600, "2 ms")
    device = _connect(case)
    write, marks = device.transport.write, list[float]()

    def watched(data: bytes, deadline: float) -> None:
        if data[1:3] == b"\x00\xf2":
            marks.append(device.transport.now())
            raise _Started
        write(data, deadline)

    vars(device.transport)["write"] = watched
    try:
        write_flash(device, [Blob(BASE, firmware(chip)[1][:0x40000])])
    except _Started:
        return marks[0]
    raise AssertionError("no data was sent")


def main() -> None:
    """Print times, ratios and goals."""
    for case in CASES:
        mine, other = ours(case), theirs(case)
        wanted = None if case.job == "write" and firmware(case.chip)[0] == MADE_UP else case.goal
        goal = (
            ""
            if wanted is None
            else f"  goal >= {wanted}{'' if other / mine >= wanted else '  MISSED'}"
        )
        size = "4 MiB" if case.job == "read" else "1 MiB"
        name = f"{case.job} {size}, {case.chip}, {case.baud}, {case.bridge}"
        print(f"{name:<44} {mine:8.2f} {other:8.2f} s   ratio {other / mine:5.2f}{goal}")
    for chip, goal_s in FIXED_GOAL_S.items():
        took = fixed_cost(chip)
        late = "" if took <= goal_s else "  MISSED"
        print(
            f"before the first byte of data, {chip:<13} {took:8.3f} s               goal <= {goal_s}{late}"
        )
    print("firmware:", ", ".join(f"{chip} {firmware(chip)[0]}" for chip in FIXED_GOAL_S))


if __name__ == "__main__":
    main()
