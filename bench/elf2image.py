"""elf2image as a whole process compared with esptool: wall time and peak memory for a 4 MB ELF file."""

from __future__ import annotations

import random
import struct
import tempfile
from pathlib import Path

from measure import ESPWIRE, in_turn, median, peer, ratio_line

SECTIONS = (  # name, address, size; address 0: debugging information
    (".flash.appdesc", 0x3C000020, 256),
    (".flash.rodata", 0x3C000120, 300_000),
    (".iram0.text", 0x40380000, 90_000),
    (".dram0.data", 0x3FCA0000, 30_000),
    (".flash.text", 0x42050020, 1_200_000),
    (".debug_info", 0, 2_400_000),
)


def write_elf() -> bytes:
    """An ELF32 for the ESP32-C3 with these sections."""
    chance, names, body, rows = random.Random(1), b"\0", bytearray(52), [bytes(40)]
    for name, address, size in SECTIONS:
        data = (
            bytes.fromhex("3254cdab") + bytes(252)
            if name == ".flash.appdesc"
            else chance.randbytes(size)
        )
        rows.append(struct.pack("<10I", len(names), 1, 2, address, len(body), size, 0, 0, 4, 0))
        names += name.encode() + b"\0"
        body += data
    rows.append(struct.pack("<10I", len(names), 3, 0, 0, len(body), len(names) + 10, 0, 0, 1, 0))
    body += names + b".shstrtab\0"
    body[:52] = b"\x7fELF\x01\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIIIIIHHHHHH",
        2,
        0xF3,
        1,
        0x40380000,
        0,
        len(body),
        0,
        52,
        32,
        0,
        40,
        len(rows),
        len(rows) - 1,
    )
    return bytes(body) + b"".join(rows)


def main(count: int = 9) -> None:
    """Print a line for the time and one for the memory."""
    with tempfile.TemporaryDirectory() as folder:
        elf, ours, theirs = (Path(folder, name) for name in ("app.elf", "ours.bin", "theirs.bin"))
        elf.write_bytes(write_elf())
        words = ["--chip", "esp32c3", "elf2image", "-o"]
        a, b = in_turn(
            [*ESPWIRE, *words, str(ours), str(elf)], [*peer(), *words, str(theirs), str(elf)], count
        )
        assert ours.read_bytes() == theirs.read_bytes()
    print(
        ratio_line(
            "elf2image, ELF of 4 MB",
            [1e3 * r.wall for r in a],
            [1e3 * r.wall for r in b],
            "ms",
            0.85,
        )
    )
    memory = [[r.peak / 1e6 for r in runs] for runs in (a, b)]
    print(ratio_line("elf2image, peak memory", memory[0], memory[1], "MB", 1.0))
    assert median(memory[0]) > 0


if __name__ == "__main__":
    main()
