"""Names what bytes are that are not a firmware image: a web page, an archive, a picture, text. For messages only."""

from __future__ import annotations

from espwire.image.elf import ELF_MAGIC
from espwire.image.hex import is_hex, is_srecord
from espwire.image.partition_table import ROW_MAGIC
from espwire.image.scan import looks_encrypted
from espwire.image.uf2 import is_uf2

SAMPLE = 512
MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"PK\x05\x06", "a ZIP archive"),
    (0, b"\x1f\x8b", "gzip-compressed data"),
    (0, b"BZh", "bzip2-compressed data"),
    (0, b"\xfd7zXZ\0", "xz-compressed data"),
    (0, b"\x28\xb5\x2f\xfd", "zstd-compressed data"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!\x1a\x07", "a RAR archive"),
    (257, b"ustar", "a tar archive"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"RIFF", "a media file (RIFF)"),
    (0, ELF_MAGIC, "an ELF file"),
    (0, b"MZ", "a Windows program"),
    (0, b"\xcf\xfa\xed\xfe", "a macOS program"),
    (0, b"SQLite format 3\0", "a database (SQLite)"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself"),
    (0, b"#!", "a script"),
    (0, ROW_MAGIC, "a partition table"),
    (8, b"littlefs", "a LittleFS file system"),
    (510, b"\x55\xaa", "a FAT file system or disk image"),
)


def describe_kind(data: bytes) -> str:
    """What the bytes are, as a noun phrase.

    >>> describe_kind(b"<!DOCTYPE html><html>"), describe_kind(bytes(64)), describe_kind(b"\\x01\\x02\\x03\\x04")
    ('an HTML page', 'all zeros', 'data that begins with 01 02 03 04')
    """
    if not data.strip(b"\xff"):
        return "blank (all 0xff)"
    if not data.strip(b"\0"):
        return "all zeros"
    for offset, magic, name in MAGICS:
        if data[offset : offset + len(magic)] == magic:
            return name
    for fits, name in ((is_uf2, "a UF2 file"), (is_srecord, "S-record text")):
        if fits(data):
            return name
    return _describe_text(data[:SAMPLE]) or _describe_data(data)


def _describe_text(sample: bytes) -> str | None:
    """What kind of text the bytes are; None: they are not text."""
    text = sample.decode("utf-8-sig", "ignore")
    if len(text.encode()) < len(sample) - 6 or any(
        not sign.isprintable() and sign not in "\t\r\n\f" for sign in text
    ):
        return None
    start = text.lstrip().lower()
    if start.startswith(("<!doctype html", "<html")) or "<html" in start:
        return "an HTML page"
    if start.startswith("<?xml"):
        return "an XML file"
    if start.startswith(("{", "[")):
        return "a JSON file"
    return "Intel HEX text" if is_hex(sample) and start[1:9].isalnum() else "a text file"


def _describe_data(data: bytes) -> str:
    if looks_encrypted(data):
        return "encrypted or compressed data"
    return f"data that begins with {data[:4].hex(' ')}"
