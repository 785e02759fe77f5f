"""Compare two firmware files: images segment by segment, everything by 4 KiB sector."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espwire.errors import DataError
from espwire.image.header import (
    format_chip_id,
    format_digest,
    format_revisions,
    format_setting,
    format_text,
)
from espwire.image.inspect import FileInfo, ImageInfo, Item, inspect_bytes
from espwire.image.read_any import FormatChoice, read_any
from espwire.image.split import flatten
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.chips.model import Chip


@dataclass(frozen=True, kw_only=True)
class FieldDiff:
    """A field of an image that differs, with both values as text."""

    item: str
    field: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class SegmentDiff:
    """A segment; ``changed`` counts differing bytes, including missing ones. Address None: the file lacks that segment."""

    item: str
    number: int
    old_address: int | None
    new_address: int | None
    old_size: int
    new_size: int
    changed: int

    @property
    def same(self) -> bool:
        """Whether address, length and bytes agree."""
        return not self.changed and self.old_address == self.new_address


@dataclass(frozen=True, kw_only=True)
class ImageDiff:
    """All differences. ``sectors``: half-open ranges of differing flash, in whole sectors from the first byte."""

    same: bool
    old_size: int
    new_size: int
    fields: tuple[FieldDiff, ...]
    segments: tuple[SegmentDiff, ...]
    sectors: tuple[tuple[int, int], ...]
    sector_count: int

    @property
    def changed_sectors(self) -> int:
        """The number of differing sectors."""
        return sum((end - start) // SECTOR for start, end in self.sectors)


def diff_images(
    old: bytes,
    new: bytes,
    chip: Chip | None = None,
    *,
    names: tuple[str, str] = ("the first file", "the second file"),
    format: FormatChoice = "auto",
) -> ImageDiff:
    """How ``new`` differs from ``old``: raw, HEX, S-record or UF2, firmware or anything else.

    Files that are not firmware are compared by sector only. Raw files are compared from their first byte, HEX and UF2
    by address.

    :param names: of the files, for messages
    :param format: of both files if it is not to be recognised
    :raises HexError: broken Intel HEX
    :raises ImageError: broken UF2
    """
    old_start, old_flat = flatten(read_any(old, names[0], format), chip)
    new_start, new_flat = flatten(read_any(new, names[1], format), chip)
    start = min(old_start, new_start)
    flats = b"\xff" * (old_start - start) + old_flat, b"\xff" * (new_start - start) + new_flat
    items = _pair(_inspect(old, names[0], chip, format), _inspect(new, names[1], chip, format))
    fields = tuple(found for a, b in items for found in _diff_item(a, b))
    segments = tuple(
        found for a, b in items if a and b and a.info and b.info for found in _diff_segments(a, b)
    )
    return ImageDiff(
        same=flats[0] == flats[1],
        old_size=len(old_flat),
        new_size=len(new_flat),
        fields=fields,
        segments=segments,
        sectors=tuple(
            (start + first, start + last) for first, last in find_differing_sectors(*flats)
        ),
        sector_count=-(-max(map(len, flats)) // SECTOR),
    )


def find_differing_sectors(old: bytes, new: bytes) -> Iterator[tuple[int, int]]:
    """Half-open ranges of differing sectors, including those that only one file has."""
    first: int | None = None
    end = -(-max(len(old), len(new)) // SECTOR) * SECTOR
    for at in range(0, end, SECTOR):
        if old[at : at + SECTOR] == new[at : at + SECTOR]:
            if first is not None:
                yield first, at
            first = None
        elif first is None:
            first = at
    if first is not None:
        yield first, end


def _inspect(data: bytes, name: str, chip: Chip | None, format: FormatChoice) -> FileInfo | None:
    try:
        return inspect_bytes(data, name, chip, format=format)
    except DataError:
        return None  # not firmware: only sectors are compared


def _pair(old: FileInfo | None, new: FileInfo | None) -> list[tuple[Item | None, Item | None]]:
    """Items at the same offset in both."""
    if old is None or new is None:
        return []
    ours = {item.offset: item for item in old.items}
    theirs = {item.offset: item for item in new.items}
    return [(ours.get(at), theirs.get(at)) for at in sorted({*ours, *theirs})]


def _title(item: Item) -> str:
    return (
        f"{item.name or item.kind} at {item.offset:#x}" if item.name or item.offset else item.kind
    )


def _diff_item(old: Item | None, new: Item | None) -> Iterator[FieldDiff]:
    item = old or new
    assert item is not None
    title = _title(item)
    if old is None or new is None:
        pair = ("missing", "there") if old is None else ("there", "missing")
        yield FieldDiff(item=title, field=item.kind, old=pair[0], new=pair[1])
        return
    ours, theirs = _describe_item(old), _describe_item(new)
    if not ours or not theirs:
        return  # of different kinds
    for name in dict.fromkeys((*ours, *theirs)):
        if ours.get(name) != theirs.get(name):
            yield FieldDiff(
                item=title, field=name, old=ours.get(name, "-"), new=theirs.get(name, "-")
            )


def _describe_item(item: Item) -> dict[str, str]:
    """The fields of an image, or the rows of a table."""
    if item.info:
        return describe_fields(item.info)
    return {row.name: str(row) for row in item.table.partitions} if item.table else {}


def describe_fields(info: ImageInfo) -> dict[str, str]:
    """Header, checksums and descriptors of an image as short texts."""
    image, known = info.image, info.chip is not None
    fields = {
        "chip": info.chip or "unknown",
        "entry": f"{image.entry:#010x}",
        "flash mode": format_setting(info.flash_mode, image.mode_code, known=known),
        "flash size": format_setting(info.flash_size, image.size_code >> 4, known=known),
        "flash frequency": format_setting(info.flash_frequency, image.frequency_code, known=known),
        "segments": str(len(info.segments)),
        "checksum": f"{image.checksum or 0:#04x}",
        "SHA-256": (image.digest or b"").hex() or "none",
    }
    if image.extended is not None:
        fields["chip revisions"] = format_revisions(
            image.extended.min_revision, image.extended.max_revision
        )
        fields["legacy minimum revision"] = str(image.extended.min_revision_legacy)
        fields["chip id"] = format_chip_id(image.extended.chip_id)
    if info.app is not None:
        fields |= {
            "project": format_text(info.app.project),
            "version": format_text(info.app.version),
            "ESP-IDF": format_text(info.app.idf_version),
            "built": format_text(f"{info.app.date} {info.app.time}"),
            "ELF SHA-256": format_digest(info.app.elf_sha256),
        }
    if info.bootloader is not None:
        fields |= {
            "ESP-IDF": format_text(info.bootloader.idf_version),
            "built": format_text(info.bootloader.date_time),
        }
    return fields


def _diff_segments(old: Item, new: Item) -> Iterator[SegmentDiff]:
    assert old.info is not None
    assert new.info is not None
    ours, theirs = old.info.image.segments, new.info.image.segments
    if old.info.image.irom is not None and new.info.image.irom is not None:
        ours, theirs = (old.info.image.irom.segment, *ours), (new.info.image.irom.segment, *theirs)
    for number in range(max(len(ours), len(theirs))):
        a = ours[number] if number < len(ours) else None
        b = theirs[number] if number < len(theirs) else None
        yield SegmentDiff(
            item=_title(old),
            number=number,
            old_address=a.address if a else None,
            new_address=b.address if b else None,
            old_size=len(a.data) if a else 0,
            new_size=len(b.data) if b else 0,
            changed=count_changed(a.data if a else b"", b.data if b else b""),
        )


def count_changed(old: bytes, new: bytes) -> int:
    """The number of differing bytes, including those that only one has."""
    common = min(len(old), len(new))
    extra = max(len(old), len(new)) - common
    if old[:common] == new[:common]:
        return extra
    difference = int.from_bytes(old[:common], "little") ^ int.from_bytes(new[:common], "little")
    return common - difference.to_bytes(common, "little").count(0) + extra
