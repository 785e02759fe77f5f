"""Damaged archives: one kind of error, whatever is damaged."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from espwire.web.archive import BadArchive, read_archive


def pack(method: int = zipfile.ZIP_DEFLATED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        archive.writestr("index.html", b"<p>text</p>" * 50)
        archive.writestr("a/b.bin", random.Random(1).randbytes(100))
        archive.writestr("c.bin", bytes(500))
    return content.getvalue()


def damage(data: bytes, seed: int) -> bytes:
    """Bytes changed, inserted or cut off."""
    chance, changed = random.Random(seed), bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(changed))
        match chance.choice(["change", "change", "insert", "cut"]):
            case "change":
                changed[at] = chance.randrange(256)
            case "insert":
                changed[at:at] = chance.randbytes(20)
            case _:
                del changed[at + 1 :]
    return bytes(changed)


def test_a_damaged_archive_gives_an_error_or_its_files() -> None:
    data, damaged = pack(), 0
    for seed in range(1500):
        try:
            files = read_archive(io.BytesIO(damage(data, seed)))
        except BadArchive:
            damaged += 1
        else:
            assert all(isinstance(content, bytes) for content in files.values())
    assert 750 < damaged < 1500


def test_other_methods_of_compression_are_refused() -> None:
    with pytest.raises(BadArchive, match=r"index\.html is compressed by an unknown method"):
        read_archive(io.BytesIO(pack(zipfile.ZIP_BZIP2)))
