"""Take merged files and dumps apart: into one piece of flash content, or into blobs.

The blobs are bootloader, partition table, partitions and remaining data. Merging them again (raw) gives the same bytes,
except blank ones at the end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob
from espwire.errors import ImageError
from espwire.image.merge import LIMIT
from espwire.image.read_any import AS_RAW, FormatChoice, InputFile, find_blobs, read_any
from espwire.image.scan import Region, find_regions, guess_start
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip

SPARSE = 32 * 0x100000  # a file that reaches further must hold at least a 64th of it
RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}
)
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def split_image(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    target_offset: int | None = None,
    format: FormatChoice = "auto",
) -> tuple[Blob, ...]:
    """The blobs in a merged BIN, HEX, S-record or UF2, by address; their names are file names.

    :param format: the file's format if it is not to be recognised
    :param target_offset: the flash address of a raw file's first byte; None: 0, or the bootloader offset if it starts
        with a bootloader
    :raises ImageError: it has no partition table, code ``split-no-table``; it ends beyond any flash
    """
    start, flat = flatten(read_any(data, name, format), chip)
    if target_offset is not None:
        start = target_offset
    elif not start:
        start = guess_start(flat, chip)
    if start + len(flat) > LIMIT:
        raise ImageError(
            f"{name} at {start:#x} is beyond the end of any flash",
            hint="Check --target-offset: it is a flash address.",
            code="image-too-wide",
        )
    content = b"\xff" * start + flat
    regions = find_regions(content, chip, start=0)
    table = next((item.table for item in regions if item.table is not None), None)
    if table is None:
        raise ImageError(
            f"no partition table found in {name}",
            hint="Only merged files and dumps of the whole flash can be split. Set --target-offset if it starts elsewhere.",
            code="split-no-table",
        )
    slots = list(_find_slots(regions, len(content)))
    blobs = [*_cut(content, slots), *_cut_rest(content, slots)]
    return tuple(_make_names_unique(sorted(blobs, key=lambda blob: blob.address)))


def flatten(file: InputFile, chip: Chip | None = None) -> tuple[int, bytes]:
    """First address and bytes of a raw, HEX, S-record or UF2 file; gaps blank.

    :param chip: whose blocks of a UF2 file for several chips are used
    :raises ImageError: the addresses are too far apart for flash content, code ``image-too-wide``
    """
    if not file.addressed:
        return 0, file.data
    blobs = find_blobs(file, None if chip is None else chip.id)
    if not blobs:
        return 0, b""
    start, end = blobs[0].address, blobs[-1].end
    size = sum(len(blob.data) for blob in blobs)
    if end > min(LIMIT, max(SPARSE, 64 * size)):  # callers lay the file out from address 0 on
        raise ImageError(
            f"{file.name} spans {start:#x} to {end:#x}, too much for flash content",
            hint="Check that it is the right file.",
            code="image-too-wide",
        )
    out = bytearray()
    for blob in blobs:
        out += b"\xff" * (blob.address - start - len(out)) + blob.data
    return start, bytes(out)


def lay_out(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    format: FormatChoice = "auto",
) -> bytes:
    """Flash content from address 0 on of a HEX, S-record or UF2 file, gaps blank; a raw file unchanged.

    :param chip: whose blocks of a UF2 file for several chips are used
    :raises ImageError: it is empty, an ELF file, or its addresses are too far apart
    """
    file = read_any(data, name, format)
    if file.format == "elf":
        raise ImageError(
            f"{name} is an ELF file, which has no flash addresses",
            hint=f"Convert it with elf2image first. {AS_RAW}.",
            code="image-elf",
        )
    start, flat = flatten(file, chip)
    if not flat:
        raise ImageError(
            f"{name} is empty", hint="Pass a flash dump or a merged file.", code="image-empty"
        )
    return b"\xff" * start + flat


class _Slot(NamedTuple):
    """A range of the file that becomes a blob; the bytes between ``used`` and ``end`` only if they are not blank."""

    start: int
    used: int
    end: int
    file: str
    kind: str


def _find_slots(regions: tuple[Region, ...], size: int) -> Iterator[_Slot]:
    """Partitions, the partition table, and images outside of partitions."""
    table = next(item.table for item in regions if item.table is not None)
    images = {item.offset: item for item in regions if item.image is not None}
    rows = {row.offset: row for row in table.partitions if row.offset < size}
    for row in rows.values():
        end = min(row.end, size)
        image = images.get(row.offset)
        used = end if image is None else min(image.end, end)
        yield _Slot(row.offset, used, end, _file_name(row.name), row.type_name)
    for item in regions:
        if item.kind == "partition-table":
            yield _Slot(item.offset, item.end, item.end, "partition-table.bin", item.kind)
        elif item.image is not None and item.offset not in rows:
            name = item.kind if item.kind == "bootloader" else f"{item.kind}-{item.offset:#x}"
            yield _Slot(item.offset, item.end, item.end, f"{name}.bin", item.kind)


def _cut(content: bytes, slots: list[_Slot]) -> Iterator[Blob]:
    """The slots that are not blank."""
    for slot in slots:
        blank = not content[slot.used : slot.end].strip(b"\xff")
        data = content[slot.start : slot.used if blank else slot.end]
        if data.strip(b"\xff"):
            yield Blob(slot.start, data, slot.file, kind=slot.kind)


def _cut_rest(content: bytes, slots: list[_Slot]) -> Iterator[Blob]:
    """What is not blank and in no slot, from the start of its sector on."""
    at = 0
    for slot in [*sorted(slots), _Slot(len(content), 0, len(content), "", "")]:
        gap = content[at : slot.start]
        if gap.strip(b"\xff"):
            blank = len(gap) - len(gap.lstrip(b"\xff"))
            first = max(at, (at + blank) // SECTOR * SECTOR)
            last = at + len(gap.rstrip(b"\xff"))
            yield Blob(first, content[first:last], f"data-{first:#x}.bin", kind="data")
        at = max(at, slot.end)


def _file_name(name: str) -> str:
    """A safe file name for a partition's name: no separators, no leading dot, not a device name of Windows."""
    stem = UNSAFE.sub("_", name).lstrip(".") or "partition"
    return f"_{stem}.bin" if stem.partition(".")[0].lower() in RESERVED else f"{stem}.bin"


def _make_names_unique(blobs: list[Blob]) -> Iterator[Blob]:
    """Add the address to names that differ in case only, or not at all."""
    names = Counter(blob.name.lower() for blob in blobs)
    taken = {name for name, count in names.items() if count == 1}
    for blob in blobs:
        file = blob.name
        while names[blob.name.lower()] > 1 and file.lower() in (taken | {blob.name.lower()}):
            file = f"{file.removesuffix('.bin')}-{blob.address:#x}.bin"
        taken.add(file.lower())
        yield replace(blob, name=file)
