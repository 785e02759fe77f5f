"""Reading 4 MiB of flash back: our stub against a model of esptool and its stub, in simulated time. No test.

    python bench/read_back.py [--firmware FOLDER] [--engine] [--save FOLDER]

The dumps are made of real firmware, from ``--firmware`` or ESPWIRE_FIRMWARE: a folder with <chip>/*.bin. Without it, or
a collection of firmware next to this project, this bench is skipped. ``--engine`` runs the stub's own code instead of
its model (minutes per dump); ``--save`` writes the dumps to files.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from esptool_model import Esptool
from espwire.device.connect import connect
from espwire.flash.read import read_flash
from espwire.image.partition_csv import parse_csv
from espwire.image.partition_table import build_table
from espwire.virtual.transport import open_virtual
from stub_speed import COLLECTION

SIZE = 4 << 20
SECTOR = 4096
SLOT_0, SLOT_1, FILES = 0x10000, 0x1F0000, 0x290000
FILES_BYTES = 0x60000
TABLE = f"""
nvs, data, nvs, 0x9000, 0x5000
otadata, data, ota, 0xe000, 0x2000
app0, app, ota_0, {SLOT_0:#x}, 0x280000
files, data, spiffs, {FILES:#x}, 0x160000
"""
# file names in the collection begin so; at these addresses
DUMPS: dict[str, dict[int, str]] = {
    "application": {SLOT_0: "esp32/marauder*_a_*"},
    "two OTA slots": {SLOT_0: "esp32/marauder*_a_*", SLOT_1: "esp32/marauder*_b_*"},
    "application and files": {0x1000: "esp32/*bootloader*", SLOT_0: "esp32/wled*29.bin"},
    "ESP32-S2": {0x1000: "esp32s2/*26.bin"},
    "ESP32-S3": {SLOT_0: "esp32s3/*"},
    "ESP32-C3": {0: "esp32c3/*26.bin"},
    "ESP8266": {0: "esp8266/wled*29.bin"},
}
WITH_FILES = "application and files"


@dataclass(frozen=True)
class Line:
    """How the chip is connected; ``worst`` and ``middle``: ratios that are asked for."""

    name: str
    chip: str
    query: str
    baud: int = 921600
    worst: float | None = None
    middle: float | None = None


LINES = (
    Line("ESP32, 921600, 2 ms", "esp32", "latency=0.001", worst=2.2, middle=3.0),
    Line("ESP32, 921600, 16 ms FTDI", "esp32", "latency=0.008"),
    Line("ESP32, 2000000, 2 ms", "esp32", "latency=0.001", 2_000_000),
    Line("ESP8266, 921600, 2 ms", "esp8266", "latency=0.001"),
    Line("ESP32-C3, 921600, 2 ms", "esp32c3", "latency=0.001"),
    Line("ESP32-C3, USB-Serial/JTAG", "esp32c3", "latency=0.001&kind=usb-jtag", 115200),
)


def make_files(pick: random.Random) -> bytes:
    """What a file system may hold, each file from a sector's start: settings, logs, pages, pictures."""
    words = [
        bytes(pick.choices(b"abcdefghijklmnoprstuvw", k=pick.randrange(2, 9))) for _ in range(400)
    ]
    out = bytearray()
    while len(out) < FILES_BYTES:
        kind = pick.randrange(4)
        length = pick.randrange(300, 20_000)
        if kind == 0:
            entries = {
                pick.choice(words).decode(): pick.randrange(5000) for _ in range(length // 16)
            }
            out += json.dumps(entries).encode()
        elif kind == 1:
            for second in range(length // 60):
                out += b"I (%d) %s: %s\n" % (
                    second * 997,
                    pick.choice(words),
                    b" ".join(pick.choices(words, k=6)),
                )
        elif kind == 2:
            for _ in range(length // 50):
                out += b"<p class='%s'>%s</p>\n" % (
                    pick.choice(words),
                    b" ".join(pick.choices(words, k=5)),
                )
        else:
            out += pick.randbytes(length)
        out += b"\xff" * (-len(out) % SECTOR)
    return bytes(out[:FILES_BYTES])


def make_dumps(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Name and contents of each dump. Everything that is not written is blank.

    :raises FileNotFoundError: the collection lacks a file
    """
    for name, parts in DUMPS.items():
        flash = bytearray(b"\xff" * SIZE)
        contents = {}
        for address, pattern in parts.items():
            found = sorted(folder.glob(pattern))
            if not found:
                raise FileNotFoundError(folder / pattern)
            contents[address] = found[0].read_bytes()
        if name == WITH_FILES:
            contents[0x8000] = build_table(parse_csv(TABLE))
            contents[FILES] = make_files(random.Random(7))
        for address, data in contents.items():
            flash[address : address + len(data)] = data
        yield name, bytes(flash)


def ours(line: Line, flash: bytes, *, engine: bool = False) -> float:
    """Seconds of the whole command, the reset at the end included."""
    stub = "&stub=engine" if engine else ""
    transport = open_virtual(f"virtual:{line.chip}?size=4MB&profile=typ&{line.query}{stub}")
    transport.chip.flash.contents[:] = flash
    with connect(transport, baud=line.baud, stub=True) as device:
        device.attach_flash()
        if read_flash(device, 0, SIZE) != flash:
            raise AssertionError("the data read is not what is in flash")
        device.leave("hard-reset")
        return device.transport.now()


def theirs(line: Line, flash: bytes) -> float:
    """Seconds of esptool's command."""
    esptool = Esptool.start(line.chip, f"size=4MB&profile=typ&{line.query}", line.baud)
    esptool.transport.chip.flash.contents[:] = flash
    esptool.read(0, SIZE)
    return esptool.now


def compare(line: Line, dumps: list[tuple[str, bytes]], *, engine: bool) -> None:
    """Print a line per dump, and the ratios that count."""
    ratios = []
    for name, flash in dumps:
        mine, other = ours(line, flash, engine=engine), theirs(line, flash)
        ratios.append(other / mine)
        print(
            f"read 4 MiB, {line.name:<26} {name:<22} {mine:7.2f} {other:7.2f} s   ratio {ratios[-1]:5.2f}"
        )
    for what, found, goal in (
        ("worst", min(ratios), line.worst),
        ("median", median(ratios), line.middle),
    ):
        asked = "" if goal is None else f"  goal >= {goal}{'' if found >= goal else '  MISSED'}"
        print(f"read 4 MiB, {line.name:<26} {what:<22} {'':>17}   ratio {found:5.2f}{asked}")


def main(arguments: list[str] | None = None) -> None:
    """Print times, ratios and goals."""
    parser = argparse.ArgumentParser(description="Compare reading 4 MiB of flash with esptool.")
    parser.add_argument("--firmware", type=Path, help="folder with <chip>/*.bin")
    parser.add_argument("--engine", action="store_true", help="run the stub's own code")
    parser.add_argument("--save", type=Path, help="write the dumps to this folder")
    parser.add_argument("--line", help="only lines whose name contains this")
    parser.add_argument("--dump", help="only dumps whose name contains this")
    options = parser.parse_args([] if arguments is None else arguments)
    folder = options.firmware or Path(os.environ.get("ESPWIRE_FIRMWARE") or COLLECTION)
    try:
        dumps = [dump for dump in make_dumps(folder) if (options.dump or "") in dump[0]]
    except FileNotFoundError as error:
        print(f"read 4 MiB: skipped, there is no firmware to read ({error})")
        return
    if options.save:
        for name, flash in dumps:
            (options.save / f"{name.replace(' ', '-')}.bin").write_bytes(flash)
    for line in LINES:
        if (options.line or "") in line.name:
            compare(line, dumps, engine=options.engine)


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
