"""What stands where in a dump or a merged file: boot loader, partition table, applications. Pure; heuristics, as told.

Only addresses at which something can stand are looked at: sectors, and the places that a partition table names.
Nothing inside an image that was found is looked at again, so any input takes time in proportion to its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from espwire.chips.registry import find_by_image_id, load_chip
from espwire.errors import ImageError, TableError
from espwire.image.codec import CRC_SIZE, parse
from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.model import (
    DIGEST_SIZE,
    EXTENDED,
    HEADER,
    MAGIC,
    MAGIC_V2,
    MAX_SEGMENT_SIZE,
    MAX_SEGMENTS,
    SEGMENT_HEADER,
    Image,
)
from espwire.image.partition_table import ROW_MAGIC
from espwire.image.signature import BLOCK, V1_SIZE, Signature, find_signatures
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.partition_table import Partition, PartitionTable

Kind = Literal["bootloader", "app", "image", "partition-table", "ota-data", "data", "encrypted"]
TABLE_SIZE = 0x1000
MAX_TABLES = 16  # a flash has one, and perhaps a spare one
ENTROPY_SAMPLE = 0x10000
ENTROPY_LEAST = 0x1000
ENCRYPTED_BITS = 7.9  # of 8 per byte; 4096 random bytes come to 7.95, machine code to 6 or so


@dataclass(frozen=True, kw_only=True)
class Found:
    """Something with a place. ``size`` is what it takes, signatures and all; ``name`` its partition's, if it has one.

    ``encrypted`` is a guess: neither blank nor an image, and as even as only encrypted or packed bytes are.
    """

    kind: Kind
    offset: int
    size: int
    name: str = ""
    image: Image | None = field(default=None, repr=False)
    signatures: tuple[Signature, ...] = ()
    table: PartitionTable | None = field(default=None, repr=False)

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.offset + self.size


def find_contents(
    data: bytes, chip: Chip | None = None, *, start: int | None = None
) -> tuple[Found, ...]:
    """All that is recognised in ``data``, by its place in ``data``.

    :param start: the flash address of the first byte, which partitions are found by; None: see ``guess_start``
    """
    tables = tuple(_find_tables(data))
    plain = tuple(_find_images(data, chip, tables))
    table = tables[0].table if tables else None
    if start is None:
        start = _guess_start(plain, tables, chip)
    rows = table.partitions if table is not None else ()
    partitions = [
        replace(part, offset=part.offset - start) for part in rows if part.offset >= start
    ]
    images = [_name_image(image, tables, partitions) for image in plain]
    covered = {image.offset for image in images}
    others = [
        other
        for part in partitions
        if part.offset not in covered and (other := _look_into_partition(data, part)) is not None
    ]
    return tuple(sorted((*tables, *images, *others), key=lambda item: item.offset))


def guess_start(data: bytes, chip: Chip | None = None) -> int:
    """The flash address of the first byte of a merged file: many begin with the boot loader, which stands at 0x1000."""
    tables = tuple(_find_tables(data))
    return _guess_start(tuple(_find_images(data, chip, tables)), tables, chip)


def _guess_start(images: tuple[Found, ...], tables: tuple[Found, ...], chip: Chip | None) -> int:
    """Where the boot loader stands on the chip, if the file begins with one and its partitions then fit better."""
    first = images[0].image if images and tables and images[0].offset == 0 else None
    own = chip if first is None or first.extended is None else _find_chip(first.extended.chip_id)
    if own is None or not own.flash.bootloader_offset or not tables or tables[0].table is None:
        return 0
    there = {image.offset for image in images[1:]}
    rows = {row.offset for row in tables[0].table.partitions if row.type == 0}  # applications
    shifted = {row - own.flash.bootloader_offset for row in rows}
    return own.flash.bootloader_offset if len(shifted & there) > len(rows & there) else 0


def _find_chip(image_chip_id: int) -> Chip | None:
    name = find_by_image_id(image_chip_id)
    return None if name is None else load_chip(name)


def looks_encrypted(data: bytes) -> bool:
    """Whether the bytes are as even as encrypted ones: a guess, since packed data are even too."""
    from collections import Counter
    from math import log2

    sample = data[:ENTROPY_SAMPLE].rstrip(b"\xff")
    if len(sample) < ENTROPY_LEAST:
        return False
    counts = Counter(sample).values()
    return (
        -sum(count / len(sample) * log2(count / len(sample)) for count in counts) >= ENCRYPTED_BITS
    )


def measure_image(data: bytes, at: int) -> int | None:
    """Bytes that the image of an ESP32-family chip at ``at`` takes; None: nothing that can be one starts there."""
    start = at + HEADER.size
    if start + EXTENDED.size > len(data):
        return None
    magic, count, *_ = HEADER.unpack_from(data, at)
    _, _, chip_id, *_, flag = EXTENDED.unpack_from(data, start)
    if magic != MAGIC or flag not in (0, 1) or find_by_image_id(chip_id) is None:
        return None
    end = _walk(data, start + EXTENDED.size, count, align=4)
    if end is None:
        return None
    end = at + ((end - at) // 16 + 1) * 16 + (DIGEST_SIZE if flag else 0)
    return end - at if end <= len(data) else None


def measure_esp8266_image(data: bytes, at: int) -> int | None:
    """As ``measure_image``, for the ESP8266's two formats."""
    start = at
    if data[at : at + 1] == bytes([MAGIC_V2]):
        if (end := _walk(data, at + HEADER.size, 1, align=1)) is None:
            return None
        start = end
    if start + HEADER.size > len(data) or data[start] != MAGIC:
        return None
    end = _walk(data, start + HEADER.size, data[start + 1], align=1)
    if end is None:
        return None
    end = at + ((end - at) // 16 + 1) * 16 + (CRC_SIZE if start != at else 0)
    return end - at if end <= len(data) else None


def _walk(data: bytes, at: int, count: int, *, align: int) -> int | None:
    """Where ``count`` segments from ``at`` on end; None: not here."""
    if not 1 <= count <= MAX_SEGMENTS:
        return None
    for _ in range(count):
        if at + SEGMENT_HEADER.size > len(data):
            return None
        _, size = SEGMENT_HEADER.unpack_from(data, at)
        if size > MAX_SEGMENT_SIZE or size % align:
            return None
        at += SEGMENT_HEADER.size + size
    return at if at <= len(data) else None


def _find_tables(data: bytes) -> Iterator[Found]:
    from espwire.image.partition_table import parse_table

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
            yield Found(
                kind="partition-table", offset=at, size=min(TABLE_SIZE, len(data) - at), table=table
            )


def _find_images(data: bytes, chip: Chip | None, tables: tuple[Found, ...]) -> Iterator[Found]:
    """Images at sector boundaries; one inside another is none."""
    taken, at = {table.offset for table in tables}, 0
    while at < len(data):
        image = (
            None if at in taken or data[at] not in (MAGIC, MAGIC_V2) else _image_at(data, at, chip)
        )
        if image is None:
            at += SECTOR
        else:
            yield image
            at = max(at + SECTOR, -(-image.end // SECTOR) * SECTOR)


def _image_at(data: bytes, at: int, chip: Chip | None) -> Found | None:
    size = measure_image(data, at) if chip is None or chip.image.extended_header else None
    image = _parse(data[at : at + size], chip) if size is not None else None
    if image is None and (chip is None or not chip.image.extended_header):
        size = measure_esp8266_image(data, at)
        image = _parse(data[at : at + size], chip) if size is not None else None
        if image is not None and chip is None and not image.checksum_valid:
            image = None  # the format has too little structure to believe it without
    if image is None or size is None:
        return None
    if image.irom is not None and image.crc is None:
        size -= CRC_SIZE
    # a file of the most that can follow: signatures are looked for there, not in the rest of the dump
    near = data[at : at + size + 2 * SECTOR]
    signatures = (
        find_signatures(near, size) if image.extended is not None and _room(data, at, size) else ()
    )
    for signature in signatures:
        size = max(size, signature.offset + (BLOCK if signature.version == 2 else V1_SIZE))
    return Found(kind="image", offset=at, size=size, image=image, signatures=signatures)


def _room(data: bytes, at: int, size: int) -> bool:
    """Whether the next image does not start right behind this one."""
    return data[at + size : at + size + 1] not in (bytes([MAGIC]), bytes([MAGIC_V2]))


def _parse(data: bytes, chip: Chip | None) -> Image | None:
    try:
        return parse(data, chip)
    except ImageError:
        return None


def _name_image(found: Found, tables: tuple[Found, ...], partitions: Sequence[Partition]) -> Found:
    """Tell boot loader from application: by descriptor, else by place."""
    assert found.image is not None
    name = next((part.label for part in partitions if part.offset == found.offset), "")
    kind: Kind = "image"
    if name or find_app_descriptor(found.image) is not None:
        kind = "app"
    elif find_boot_descriptor(found.image) is not None or (
        tables and found.offset < tables[0].offset
    ):
        kind = "bootloader"
    return Found(
        kind=kind,
        offset=found.offset,
        size=found.size,
        name=name,
        image=found.image,
        signatures=found.signatures,
    )


def _look_into_partition(data: bytes, part: Partition) -> Found | None:
    """What a partition without an image holds; None: it is blank or lies outside."""
    content = data[part.offset : part.offset + part.size]
    used = len(content.rstrip(b"\xff"))
    if not used:
        return None
    kind: Kind = "data"
    if part.type == 1 and part.subtype == 0:
        kind = "ota-data"
    elif part.type == 0 and content[0] in (MAGIC, MAGIC_V2):
        kind = "app"  # without an image: it is broken
    elif part.type == 0 and looks_encrypted(content):
        kind = "encrypted"
    return Found(kind=kind, offset=part.offset, size=used, name=part.label)
