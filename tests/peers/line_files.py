"""The files that generated command lines name: real firmware, images made from it, raw data, good and bad Intel HEX."""

from __future__ import annotations

import dataclasses
import random
from pathlib import Path

from espwire.chips.registry import load_chip
from espwire.image.codec import build, parse

DATA = Path(__file__).resolve().parents[1] / "data"


def make_files(folder: Path) -> None:
    """All files that lines name, in ``folder``."""
    rng = random.Random(7)
    c3 = (DATA / "esp32c3/micropython-head.bin").read_bytes()
    boots = {
        "esp8266": (DATA / "esp8266/boot_v1.7.bin").read_bytes(),
        "esp32": (DATA / "esp32/esp32-bootloader.bin").read_bytes(),
        "esp32s2": (DATA / "esp32s2/micropython-head.bin").read_bytes()[:0x6000],
        "esp32c3": c3[:0x6000],
        "esp32c5": (DATA / "esp32c5/marauder_c5_bootloader.bin").read_bytes(),
    }
    for chip in ("esp32c6", "esp32s3", "esp32h2"):
        boots[chip] = make_image(c3, chip)
    for chip, data in boots.items():
        (folder / f"{chip}-boot.bin").write_bytes(data)
    broken = bytearray(boots["esp32c3"])
    broken[0x100] ^= 0x40
    torn = boots["esp32"][:9000]
    files = {
        "esp32c3-broken.bin": bytes(broken),
        "esp32-torn.bin": torn,
        "esp32c5-parts.bin": (DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes(),
        "odd1.bin": b"\x5a",
        "odd5.bin": b"hello",
        "odd4095.bin": rng.randbytes(4095),
        "odd4097.bin": rng.randbytes(4097),
        "page.bin": rng.randbytes(4096),
        "five.bin": rng.randbytes(700) * 30,
        "blank.bin": b"\xff" * 5000,
        "zeros.bin": bytes(3000),
        "empty.bin": b"",
        "one.hex": make_hex([(0x3000, rng.randbytes(200))]),
        "two.hex": make_hex([(0x10000, rng.randbytes(300)), (0x21000, rng.randbytes(77))]),
        "far.hex": make_hex([(0x500000, rng.randbytes(40))]),
        "bad.hex": make_hex([(0x3000, b"some data")]).replace(b":09", b":0A", 1),
        "after.hex": make_hex([(0x3000, b"some data")]) + b":zz\n",
    }
    large = bytearray(rng.randbytes(0x6400))
    files["large.bin"] = bytes(large)
    files["gap.bin"] = bytes(large[:0x2000]) + b"\xff" * 0x2000 + bytes(large[0x4000:])
    large[0x1234] ^= 1
    large[0x5000:0x5010] = bytes(16)
    files["large-old.bin"] = bytes(large[:0x6000])
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "folder").mkdir()


def make_image(of: bytes, chip: str) -> bytes:
    """A small sound image for ``chip``, of the segments of another one."""
    image = parse(of)
    assert image.extended is not None
    chip_id = load_chip(chip).identity.image_chip_id
    assert chip_id is not None
    extended = image.extended._replace(chip_id=chip_id, min_revision_legacy=0, min_revision=0)
    return build(dataclasses.replace(image, extended=extended, checksum=None, trailing=b""))


def make_hex(pieces: list[tuple[int, bytes]]) -> bytes:
    """An Intel HEX file."""
    lines = []

    def record(kind: int, address: int, data: bytes) -> None:
        raw = bytes([len(data), address >> 8 & 0xFF, address & 0xFF, kind]) + data
        lines.append(":" + (raw + bytes([-sum(raw) & 0xFF])).hex().upper())

    for start, data in pieces:
        for at in range(0, len(data), 16):
            record(4, 0, ((start + at) >> 16).to_bytes(2, "big"))
            record(0, (start + at) & 0xFFFF, data[at : at + 16])
    record(1, 0, b"")
    return "\n".join(lines).encode() + b"\n"
