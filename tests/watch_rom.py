"""What a mask ROM leaves behind: the RAM that it writes, and the clock words of UART and flash.

``python -m tests.watch_rom DIR`` prints it for each ROM image in a folder.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import NamedTuple

from tests.roms import find_known_roms

from espwire.compress import deflate_zlib
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.transport.url import open_transport

START, SIZE = 0x20000, 0x1000
GRAIN, GAP = 16, 256  # bytes: what is compared at once; unwritten bytes within a range
WORDS = {  # name: peripheral, offset
    "UART divider": ("uart0", 0x14),
    "UART clock": ("uart0", 0x78),
    "UART clock of later chips": ("uart0", 0x88),
    "SPI control": ("spi_flash", 0x08),
    "SPI clock": ("spi_flash", 0x14),
    "SPI clock of ESP32 and ESP8266": ("spi_flash", 0x18),
}


class Seen(NamedTuple):
    """RAM that was written, as ranges of addresses by the name of the bank, and register words by name."""

    ram: list[tuple[str, range]]
    words: dict[str, int]


def watch(port: str) -> Seen:
    """Let a ROM erase, write, hash and read some flash; its RAM holds random bytes before."""
    transport = open_transport(port)
    banks = transport.chip.registers.ram.regions
    for bank in banks:
        bank.data[:] = random.Random(bank.start).randbytes(len(bank.data))
    before = [bytes(bank.data) for bank in banks]  # only now: two banks may be the same memory
    with connect(transport, before="default-reset", stub=False) as device:
        _use_flash(device)
        words = {
            name: device.read_mem(device.chip.peripherals[base] + offset).value
            for name, (base, offset) in WORDS.items()
        }
    ram = [
        (bank.name, written)
        for bank, content in zip(banks, before, strict=True)
        for written in _find_ranges(bank.start, content, bytes(bank.data))
    ]
    return Seen(ram, words)


def _use_flash(device: Device) -> None:
    data = random.Random(1).randbytes(SIZE // 2).ljust(SIZE, b"x")
    limits = device.backend.limits
    device.attach_flash()
    device.backend.erase(START, SIZE)
    device.backend.write(START, data, packed=deflate_zlib(data) if limits.can_compress else None)
    if limits.can_digest:
        device.flash_md5(START, SIZE)
    if limits.can_read:
        assert b"".join(device.read_flash(START, SIZE)) == data


def _find_ranges(start: int, before: bytes, after: bytes) -> list[range]:
    found: list[range] = []
    for at in range(0, len(after), GRAIN):
        if after[at : at + GRAIN] == before[at : at + GRAIN]:
            continue
        address = start + at
        if found and address - found[-1].stop <= GAP:
            found[-1] = range(found[-1].start, address + GRAIN)
        else:
            found.append(range(address, address + GRAIN))
    return found


def main() -> None:
    """Print what each ROM in the folder leaves."""
    for chip, image, port in find_known_roms(Path(sys.argv[1])):
        seen = watch(port)
        print(f"{chip}, {image.name}")
        for name, written in seen.ram:
            print(f"  {written.start:#x}..{written.stop:#x} ({len(written):,} bytes) {name}")
        for name, value in seen.words.items():
            print(f"  {name}: {value:08x}")


if __name__ == "__main__":
    main()
