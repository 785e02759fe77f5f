"""Find images, the partition table and data in a flash dump or merged file, and describe unknown data. Heuristics.

Only sector starts and the offsets of partitions are examined, and nothing inside a recognised image is, so that any input
takes time in proportion to its size.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import log2
from typing import TYPE_CHECKING

from espwire.chips.registry import find_by_image_id, load_chip
from espwire.errors import ImageError, TableError
from espwire.image.codec import parse_prefix
from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.hex import is_hex, is_srecord
from espwire.image.model import ELF_MAGIC, MAGIC, MAGIC_V2, ROW_MAGIC, Image
from espwire.image.signature import BLOCK, V1_SIZE, Signature, find_signatures
from espwire.image.uf2 import is_uf2
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.partition_table import Partition, PartitionTable

MAX_TABLES = 16  # a flash has one or two
ENTROPY_SAMPLE = 0x10000
ENTROPY_LEAST = 0x1000
ENCRYPTED_BITS = 7.9  # of 8 per byte; 4096 random bytes have 7.95, machine code about 6
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


@dataclass(frozen=True, kw_only=True)
class Region:
    """A range of flash, or of a file, with a meaning.

    ``kind``: ``bootloader``, ``app``, ``image``, ``partition-table``, ``ota-data``, ``data`` or ``encrypted``, which is a
    guess from high entropy. ``size`` includes signatures. ``name``: of its partition, if it has one.
    """

    kind: str
    offset: int
    size: int
    name: str = ""
    image: Image | None = field(default=None, repr=False)
    signatures: tuple[Signature, ...] = ()
    table: PartitionTable | None = field(default=None, repr=False)

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.size


def find_regions(
    data: bytes, chip: Chip | None = None, *, start: int | None = None
) -> tuple[Region, ...]:
    """Everything recognised in ``data``, by offset in ``data``.

    :param start: the flash address of the first byte, to locate partitions; default: see ``guess_start``
    """
    tables = tuple(_find_tables(data))
    images = tuple(_find_images(data, chip, tables))
    table = tables[0].table if tables else None
    if start is None:
        start = _guess_start(images, tables, chip)
    rows = table.partitions if table is not None else ()
    partitions = [replace(row, offset=row.offset - start) for row in rows if row.offset >= start]
    images = tuple(_classify_image(image, tables, partitions) for image in images)
    offsets = {image.offset for image in images}
    others = [
        other
        for row in partitions
        if row.offset not in offsets and (other := _classify_partition(data, row)) is not None
    ]
    return tuple(sorted((*tables, *images, *others), key=lambda region: region.offset))


def guess_start(data: bytes, chip: Chip | None = None) -> int:
    """The flash address of the first byte of a merged file, which may start with the bootloader of 0x1000."""
    tables = tuple(_find_tables(data))
    return _guess_start(tuple(_find_images(data, chip, tables)), tables, chip)


def _guess_start(images: Sequence[Region], tables: Sequence[Region], chip: Chip | None) -> int:
    """The chip's bootloader offset if the file starts with a bootloader and its partitions then fit better, else 0."""
    if not tables or tables[0].table is None:
        return 0
    first = images[0].image if images and images[0].offset == 0 else None
    if first is not None and first.extended is not None:
        name = find_by_image_id(first.chip_id)
        chip = None if name is None else load_chip(name)
    if chip is None:
        return 0
    offsets = {image.offset for image in images[1:]}
    apps = {row.offset for row in tables[0].table.partitions if row.type == 0}
    shifted = {offset - chip.flash.bootloader_offset for offset in apps}
    return chip.flash.bootloader_offset if len(shifted & offsets) > len(apps & offsets) else 0


def _find_tables(data: bytes) -> Iterator[Region]:
    from espwire.image.partition_table import TABLE_SIZE, parse_table

    left = MAX_TABLES
    for at in range(0, len(data), SECTOR):
        if data[at : at + 2] != ROW_MAGIC or not left:
            continue
        try:
            table = parse_table(data[at : at + TABLE_SIZE])
        except TableError:
            continue
        if table.partitions:
            left -= 1
            size = min(TABLE_SIZE, len(data) - at)
            yield Region(kind="partition-table", offset=at, size=size, table=table)


def _find_images(data: bytes, chip: Chip | None, tables: Sequence[Region]) -> Iterator[Region]:
    """Images at sector starts, outside of other images."""
    taken, at = {table.offset for table in tables}, 0
    while at < len(data):
        image = None
        if at not in taken and data[at] in (MAGIC, MAGIC_V2):
            image = _image_at(data, at, chip)
        if image is None:
            at += SECTOR
        else:
            yield image
            at = max(at + SECTOR, -(-image.end // SECTOR) * SECTOR)


def _image_at(data: bytes, at: int, chip: Chip | None) -> Region | None:
    try:
        image, size = parse_prefix(memoryview(data)[at:], chip)
    except ImageError:
        return None
    if image.extended is None:
        if chip is None and not image.checksum_valid:
            return None  # the ESP8266's formats have too little structure to be recognised without
        return Region(kind="image", offset=at, size=size, image=image)
    if find_by_image_id(image.chip_id) is None:
        return None
    signatures: tuple[Signature, ...] = ()
    if data[at + size : at + size + 1] not in (bytes([MAGIC]), bytes([MAGIC_V2])):
        signatures = find_signatures(data[at : at + size + 2 * SECTOR], size)
    for signature in signatures:
        size = max(size, signature.offset + (BLOCK if signature.version == 2 else V1_SIZE))
    return Region(kind="image", offset=at, size=size, image=image, signatures=signatures)


def _classify_image(
    region: Region, tables: Sequence[Region], partitions: Sequence[Partition]
) -> Region:
    """Distinguish bootloader and application: by descriptor, else by offset."""
    assert region.image is not None
    name = next((row.label for row in partitions if row.offset == region.offset), "")
    kind = "image"
    if name or find_app_descriptor(region.image) is not None:
        kind = "app"
    elif find_boot_descriptor(region.image) is not None or (
        tables and region.offset < tables[0].offset
    ):
        kind = "bootloader"
    return replace(region, kind=kind, name=name)


def _classify_partition(data: bytes, row: Partition) -> Region | None:
    """The content of a partition without an image; None: it is blank or outside of ``data``."""
    content = data[row.offset : row.offset + row.size]
    used = len(content.rstrip(b"\xff"))
    if not used:
        return None
    kind = "data"
    if row.type == 1 and row.subtype == 0:
        kind = "ota-data"
    elif row.type == 0 and content[0] in (MAGIC, MAGIC_V2):
        kind = "app"  # without an image: it is broken
    elif row.type == 0 and looks_encrypted(content):
        kind = "encrypted"
    return Region(kind=kind, offset=row.offset, size=used, name=row.label)


def looks_encrypted(data: bytes) -> bool:
    """Whether the entropy is as high as that of encrypted data: a guess, since compressed data have it, too."""
    sample = data[:ENTROPY_SAMPLE].rstrip(b"\xff")
    if len(sample) < ENTROPY_LEAST:
        return False
    shares = [count / len(sample) for count in Counter(sample).values()]
    return -sum(share * log2(share) for share in shares) >= ENCRYPTED_BITS


def describe_kind(data: bytes) -> str:
    """What data that are not an image are, as a noun phrase for messages.

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
    """The kind of text; None: the bytes are not text."""
    text = sample.decode("utf-8-sig", "ignore")
    if len(text.encode()) < len(sample) - 6 or any(
        not char.isprintable() and char not in "\t\r\n\f" for char in text
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
