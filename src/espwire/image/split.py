"""A merged file or dump → the files it was made of: boot loader, partition table, partitions, and what else is there.

Pure. Merging the parts again (``merge_parts``, raw) gives the same bytes, but for blank ones at the end.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from espwire.errors import ImageError
from espwire.image.inputs import find_address_parts
from espwire.image.read_any import AS_RAW, Content, FormatChoice, read_any
from espwire.image.scan import Found, find_contents, guess_start
from espwire.image.signature import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip

LIMIT = 256 * 0x100000
SPARSE = 32 * 0x100000  # a file that reaches further must hold at least a 64th of it
RESERVED = frozenset(
    {"con", "prn", "aux", "nul", *(f"{name}{n}" for name in ("com", "lpt") for n in range(10))}
)
UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class SplitPart:
    """One file to be: where its bytes stand in flash, its name, what it is."""

    address: int
    data: bytes = field(repr=False)
    file: str
    kind: str


def split_image(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    target_offset: int | None = None,
    format: FormatChoice = "auto",
) -> tuple[SplitPart, ...]:
    """The parts of a merged BIN, HEX, S-record or UF2, by address.

    :param format: what the file is, if not to be found out
    :param target_offset: the flash address of a raw file's first byte; None: 0, or where its boot loader stands
    :raises ImageError: there is no partition table in it, code ``split-no-table``; it ends beyond any flash
    """
    start, flat = flatten(data, name, chip, format=format)
    if target_offset is not None:
        start = target_offset
    elif not start:
        start = guess_start(flat, chip)
    if start + len(flat) > LIMIT:
        raise ImageError(
            f"{name} lies beyond any flash at {start:#x}",
            hint="Check --target-offset: it is an address in flash.",
            code="image-too-wide",
        )
    content = b"\xff" * start + flat
    found = find_contents(content, chip, start=0)
    table = next((item.table for item in found if item.table is not None), None)
    if table is None:
        raise ImageError(
            f"there is no partition table in {name}",
            hint="Only merged files and dumps of whole flash can be split; --target-offset says where a file starts.",
            code="split-no-table",
        )
    places = list(_places(found, len(content)))
    parts = [*_cut(content, places), *_leftovers(content, places)]
    return tuple(_unique(sorted(parts, key=lambda part: part.address)))


def flatten(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    format: FormatChoice = "auto",
) -> tuple[int, bytes]:
    """First address and bytes of a raw, HEX, S-record or UF2 file; gaps blank.

    :param chip: whose blocks of a UF2 file for several chips are used
    :raises ImageError: the pieces lie too far apart to be flash content, code ``image-too-wide``
    """
    return _flatten(read_any(data, name, format), data, name, chip)


def _flatten(content: Content, data: bytes, name: str, chip: Chip | None) -> tuple[int, bytes]:
    if content.format in ("raw", "elf"):
        return 0, data
    pieces = find_address_parts(content, name, None if chip is None else chip.id)
    if not pieces:
        return 0, b""
    start, end = pieces[0][0], pieces[-1][0] + len(pieces[-1][1])
    size = sum(len(piece) for _, piece in pieces)
    if end > min(LIMIT, max(SPARSE, 64 * size)):  # callers lay the file out from address 0 on
        raise ImageError(
            f"{name} reaches from {start:#x} to {end:#x}: that is no flash content",
            hint="Check that it is the right file.",
            code="image-too-wide",
        )
    out = bytearray()
    for address, piece in pieces:
        out += b"\xff" * (address - start - len(out)) + piece
    return start, bytes(out)


def lay_out(
    data: bytes,
    name: str = "the file",
    chip: Chip | None = None,
    *,
    format: FormatChoice = "auto",
) -> bytes:
    """Flash from address 0 on, as a HEX, S-record or UF2 file describes it, gaps blank; a raw file as it is.

    :param chip: whose blocks of a UF2 file for several chips are used
    :raises ImageError: it is empty, an ELF file, or its pieces lie too far apart
    """
    content = read_any(data, name, format)
    if content.format == "elf":
        raise ImageError(
            f"{name} is an ELF file, which does not tell what goes where in flash",
            hint=f"elf2image makes an image of it. {AS_RAW}.",
            code="image-elf",
        )
    if content.format == "raw" and data:
        return data
    start, flat = _flatten(content, data, name, chip)
    if not flat:
        raise ImageError(
            f"{name} is empty", hint="Give a dump of flash or a merged file.", code="image-empty"
        )
    return b"\xff" * start + flat


def lay_out_addressed(
    data: bytes, name: str, chip: Chip | None = None, *, format: FormatChoice = "auto"
) -> bytes:
    """As ``lay_out`` for a HEX, S-record or UF2 file; any other file as it is."""
    content = read_any(data, name, format)
    if content.format in ("raw", "elf"):
        return data
    start, flat = _flatten(content, data, name, chip)
    return b"\xff" * start + flat


def _places(found: tuple[Found, ...], size: int) -> Iterator[tuple[int, int, int, str, str]]:
    """Start, end of what is surely meant, end of the room, file name, kind."""
    table = next(item.table for item in found if item.table is not None)
    rows = {row.offset: row for row in table.partitions if row.offset < size}
    for row in rows.values():
        item = next(
            (item for item in found if item.offset == row.offset and item.image is not None), None
        )
        end = min(row.end, size)
        yield (
            row.offset,
            end if item is None else min(item.end, end),
            end,
            _file_name(row.name),
            row.type_name,
        )
    for item in found:
        if item.kind == "partition-table":
            yield item.offset, item.end, item.end, "partition-table.bin", item.kind
        elif item.image is not None and item.offset not in rows:
            name = (
                "bootloader.bin"
                if item.kind == "bootloader"
                else f"{item.kind}-{item.offset:#x}.bin"
            )
            yield item.offset, item.end, item.end, name, item.kind


def _cut(content: bytes, places: list[tuple[int, int, int, str, str]]) -> Iterator[SplitPart]:
    """The parts that are not blank. What stands behind an image in its partition belongs to the part."""
    for start, sure, room, file, kind in places:
        end = sure if not content[sure:room].strip(b"\xff") else room
        data = content[start:end]
        if data.strip(b"\xff"):
            yield SplitPart(address=start, data=data, file=file, kind=kind)


def _leftovers(content: bytes, places: list[tuple[int, int, int, str, str]]) -> Iterator[SplitPart]:
    """What is not blank and in no place, in whole sectors."""
    at = 0
    for start, _, room, _, _ in [*sorted(places), (len(content), 0, len(content), "", "")]:
        gap = content[at:start]
        used = gap.strip(b"\xff")
        if used:
            blank = len(gap) - len(gap.lstrip(b"\xff"))
            first = max(at, (at + blank) // SECTOR * SECTOR)
            last = at + len(gap.rstrip(b"\xff"))
            yield SplitPart(
                address=first, data=content[first:last], file=f"data-{first:#x}.bin", kind="data"
            )
        at = max(at, room)


def _file_name(name: str) -> str:
    """A partition's name as a file's: no separators, no leading dot, nothing a system would trip over."""
    stem = UNSAFE.sub("_", name).lstrip(".") or "partition"
    return f"_{stem}.bin" if stem.partition(".")[0].lower() in RESERVED else f"{stem}.bin"


def _unique(parts: list[SplitPart]) -> Iterator[SplitPart]:
    """Two partitions whose names look alike as files get their address into the name."""
    names = Counter(part.file.lower() for part in parts)
    taken = {name for name, times in names.items() if times == 1}
    for part in parts:
        file = part.file
        while names[part.file.lower()] > 1 and file.lower() in (taken | {part.file.lower()}):
            file = f"{file.removesuffix('.bin')}-{part.address:#x}.bin"
        taken.add(file.lower())
        yield replace(part, file=file)
