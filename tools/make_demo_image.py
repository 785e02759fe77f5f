"""Makes the demo firmware for the ESP32-C3 by our own means: a few RISC-V instructions, data, an image header.

    python tools/make_demo_image.py            write src/espwire/demo/esp32c3-hello.bin
    python tools/make_demo_image.py --check    exit 1 if that file is not what this would write

What the program does is told in src/espwire/demo/README.md. No compiler is needed: twelve kinds of RV32I instructions
are encoded here, from the RISC-V unprivileged specification, chapter "RV32I".
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
from pathlib import Path

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.image.codec import build, create_image
from espwire.image.header import HeaderSettings
from espwire.image.model import Segment

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "src/espwire/demo/esp32c3-hello.bin"

# all below chip.stub's rom_buffers_start, which the ROM leaves alone; code is reached through its instruction alias
CODE, DATA, NOTICE, STACK = 0x40380000, 0x3FC90000, 0x3FC94000, 0x3FCC0000
TEXT = b"espwire demo: hello from flash (%u)\r\n\0"
PERIOD_US = 1_000_000
SINE_POINTS = 8192
# timer group watchdog: configuration and write-protection, from ESP-IDF soc/esp32c3 timer_group_reg.h
GROUP_CONFIG, GROUP_PROTECT, GROUP_UPDATE = 0x48, 0x64, 1 << 22

ZERO, RA, SP, T0, T1, T2, S0, A0, A1 = 0, 1, 2, 5, 6, 7, 8, 10, 11


def lui(rd: int, upper: int) -> int:
    return upper << 12 | rd << 7 | 0x37


def addi(rd: int, rs: int, value: int) -> int:
    return (value & 0xFFF) << 20 | rs << 15 | rd << 7 | 0x13


def or_(rd: int, rs1: int, rs2: int) -> int:
    return rs2 << 20 | rs1 << 15 | 6 << 12 | rd << 7 | 0x33


def lw(rd: int, rs: int, offset: int = 0) -> int:
    return (offset & 0xFFF) << 20 | rs << 15 | 2 << 12 | rd << 7 | 0x03


def sw(rs2: int, rs1: int, offset: int = 0) -> int:
    return (
        (offset >> 5 & 0x7F) << 25 | rs2 << 20 | rs1 << 15 | 2 << 12 | (offset & 0x1F) << 7 | 0x23
    )


def jalr(rd: int, rs: int, offset: int = 0) -> int:
    return (offset & 0xFFF) << 20 | rs << 15 | rd << 7 | 0x67


def jal(rd: int, offset: int) -> int:
    bits = (
        (offset >> 20 & 1) << 31
        | (offset >> 1 & 0x3FF) << 21
        | (offset >> 11 & 1) << 20
        | (offset >> 12 & 0xFF) << 12
    )
    return bits | rd << 7 | 0x6F


def load(rd: int, value: int) -> list[int]:
    """Any 32-bit value: always lui and addi, whose operand is signed."""
    return [lui(rd, (value + 0x800 >> 12) & 0xFFFFF), addi(rd, rd, value & 0xFFF)]


def call(address: int) -> list[int]:
    return [*load(T0, address), jalr(RA, T0)]


def store(address: int, value: int) -> list[int]:
    return [*load(T0, address), *load(T1, value), sw(T1, T0)]


def disable_watchdogs(chip: Chip) -> list[int]:
    """Three are running when a boot loader starts; each is unlocked, stilled and locked again."""
    watchdog, super_watchdog = chip.reset.watchdog, chip.reset.super_watchdog
    assert watchdog is not None
    assert super_watchdog is not None
    group = chip.peripherals["timer_group0"]
    return [
        *store(watchdog.write_protect, watchdog.key),
        *store(watchdog.config0, 0),
        *store(watchdog.write_protect, 0),
        *store(super_watchdog.write_protect, super_watchdog.key),
        *load(T0, super_watchdog.config),
        lw(T2, T0),
        *load(T1, 1 << super_watchdog.auto_feed_bit),
        or_(T2, T2, T1),
        sw(T2, T0),
        *store(super_watchdog.write_protect, 0),
        *store(group + GROUP_PROTECT, watchdog.key),  # the same key
        *store(group + GROUP_CONFIG, GROUP_UPDATE),
        *store(group + GROUP_PROTECT, 0),
    ]


def program(chip: Chip) -> bytes:
    start = [*load(SP, STACK), *disable_watchdogs(chip), addi(S0, ZERO, 0)]
    loop = [
        *load(A0, DATA),
        addi(A1, S0, 0),
        *call(chip.rom_addresses["ets_printf"]),
        addi(S0, S0, 1),
        *load(A0, PERIOD_US),
        *call(chip.rom_addresses["ets_delay_us"]),
    ]
    words = [*start, *loop, jal(ZERO, -4 * len(loop))]
    return struct.pack(f"<{len(words)}I", *words)


def notice() -> bytes:
    """Ballast that says so, so that a progress bar has something to show: our licence, and a table of sines."""
    head = b"This is ballast of the espwire demo: the licence of espwire, then 8192 sines of a full turn, 16-bit.\n\n"
    text = head + (ROOT / "LICENSE").read_text("utf-8").encode()
    text += bytes(-len(text) % 4)
    sines = (round(32767 * math.sin(2 * math.pi * at / SINE_POINTS)) for at in range(SINE_POINTS))
    return text + struct.pack(f"<{SINE_POINTS}h", *sines)


def make_image() -> bytes:
    chip = load_chip("esp32c3")
    segments = (Segment(DATA, TEXT), Segment(NOTICE, notice()), Segment(CODE, program(chip)))
    settings = HeaderSettings(mode="dio", size="4MB", frequency="40m")
    return build(create_image(segments, CODE, chip=chip, settings=settings))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing, fail if the file is stale"
    )
    check = parser.parse_args().check
    image = make_image()
    if not check:
        TARGET.write_bytes(image)
        print(f"{TARGET.relative_to(ROOT)}: {len(image)} bytes")
    elif not TARGET.exists() or TARGET.read_bytes() != image:
        print(f"{TARGET.relative_to(ROOT)} is stale: run tools/make_demo_image.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
