"""What stands where in flash, as a value to draw: partitions, images, free and blank areas, overlaps. Draws nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from espwire.image.ota import OtaStatus, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import (
    APP,
    SUBTYPES,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    TableRules,
    check_table,
)
from espwire.sizes import SECTOR, Ranges, align_up, join_ranges
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.scan import Found

MIN_FLASH = 0x40000
Kind = Literal["bootloader", "table", "app", "data", "image", "free"]


@dataclass(frozen=True)
class Area:
    """A range of flash with one use. ``used``: up to its last byte that is not blank; ``detail``: what is in it."""

    kind: Kind
    name: str
    offset: int
    size: int
    detail: str = ""
    used: int = 0
    boots: bool = False
    overlaps: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.size


@dataclass(frozen=True)
class FlashMap:
    """All of the flash. ``areas`` by offset, free ones among them; ``filled`` are the ranges that are not blank."""

    size: int
    areas: tuple[Area, ...]
    filled: Ranges
    notes: tuple[str, ...] = ()
    table_offset: int | None = None

    @property
    def filled_bytes(self) -> int:
        """How much is not blank, as far as it was looked at in units of sectors."""
        return sum(end - start for start, end in self.filled)

    @property
    def free_bytes(self) -> int:
        """How much nothing lays claim to."""
        return sum(area.size for area in self.areas if area.kind == "free")


@dataclass(frozen=True)
class Content:
    """An image or other thing that was recognised."""

    kind: Kind
    offset: int
    size: int
    detail: str


@dataclass(frozen=True)
class Evidence:
    """What a picture is made from; from a file or from a device."""

    size: int
    filled: Ranges
    table: PartitionTable | None = None
    table_offset: int = 0
    contents: tuple[Content, ...] = field(default=())
    boot: OtaStatus | None = None


def find_filled(data: bytes, start: int = 0) -> Ranges:
    """The ranges of whole sectors that are not blank."""
    found: list[tuple[int, int]] = []
    blank = b"\xff" * SECTOR
    for at in range(0, len(data), SECTOR):
        piece = data[at : at + SECTOR]
        if piece != blank[: len(piece)]:
            found.append((start + at, start + at + len(piece)))
    return join_ranges(found)


def map_dump(data: bytes, chip: Chip | None = None, *, flash_size: int | None = None) -> FlashMap:
    """The picture of a dump or a merged file; where it begins in flash is found out.

    :param flash_size: bytes; None: as the table's end and the file's length suggest
    """
    from espwire.image.scan import find_contents, guess_start

    start = guess_start(data, chip)
    found = find_contents(b"\xff" * start + data if start else data, chip)
    first = next((item for item in found if item.table is not None), None)
    table = None if first is None else first.table
    whole = b"\xff" * start + data if start else data
    size = flash_size or guess_flash_size(max(len(whole), 0 if table is None else table.end))
    boot = None
    if table is not None:
        place = find_ota_data(table)
        held = (
            None
            if place is None
            else whole[place.offset : place.offset + 2 * SECTOR].ljust(2 * SECTOR, b"\xff")
        )
        boot = find_boot(table, None if held is None else parse_ota_data(held))
    return build_map(
        Evidence(
            size=size,
            filled=find_filled(whole),
            table=table,
            table_offset=0 if first is None else first.offset,
            contents=tuple(_describe(item) for item in found if item.kind != "partition-table"),
            boot=boot,
        )
    )


def guess_flash_size(end: int) -> int:
    """The smallest flash that holds ``end`` bytes: a power of two."""
    size = MIN_FLASH
    while size < end:
        size *= 2
    return size


def _describe(item: Found) -> Content:
    from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor

    kinds: dict[str, Kind] = {"bootloader": "bootloader", "app": "app", "image": "image"}
    kind = kinds.get(item.kind, "data")
    if item.image is None:
        told = {"encrypted": "encrypted, it seems", "app": "no whole image", "ota-data": "OTA data"}
        return Content(kind, item.offset, item.size, told.get(item.kind, ""))
    application, loader = find_app_descriptor(item.image), find_boot_descriptor(item.image)
    words = []
    if application is not None:
        words += [application.project, application.version, name_idf(application.idf_version)]
    elif loader is not None:
        words.append(name_idf(loader.idf_version))
    words += [] if item.image.intact else ["DAMAGED"]
    words += ["signed"] if item.signatures else []
    return Content(kind, item.offset, item.size, join_words(words))


def name_idf(version: str) -> str:
    """``ESP-IDF v5.1``; empty where the version is not set."""
    return f"ESP-IDF {version}" if version else ""


def join_words(words: Iterable[str]) -> str:
    """What a build wrote, safe to show."""
    cleaned = (escape(word.strip()) for word in words)
    return ", ".join(word for word in cleaned if word)


def build_map(evidence: Evidence) -> FlashMap:
    """Areas for partitions and for what stands outside of them, free areas between, and overlaps."""
    areas = _find_claimed(evidence)
    areas = [replace(area, used=_measure_used(area, evidence.filled)) for area in areas]
    areas.sort(key=lambda area: (area.offset, area.end))
    areas = _mark_overlaps(areas)
    free, at = [], 0
    for area in [*areas, Area("free", "", evidence.size, 0)]:
        if area.offset > at:
            gap = Area("free", "", at, min(area.offset, evidence.size) - at)
            if gap.size > 0:
                used = _measure_used(gap, evidence.filled)
                free.append(replace(gap, used=used, detail="not blank" if used else ""))
        at = max(at, area.end)
    return FlashMap(
        size=evidence.size,
        areas=tuple(sorted([*areas, *free], key=lambda area: (area.offset, area.end))),
        filled=tuple(
            (start, min(end, evidence.size))
            for start, end in evidence.filled
            if start < evidence.size
        ),
        notes=tuple(_find_notes(evidence)),
        table_offset=None if evidence.table is None else evidence.table_offset,
    )


def _find_notes(evidence: Evidence) -> Iterator[str]:
    """What is wrong with the table, and with a flash that is smaller than what stands in it."""
    end = max((end for _, end in evidence.filled), default=0)
    if end > evidence.size:
        yield f"the content goes on to {end:#x}, past the end of the flash at {evidence.size:#x}"
    if evidence.table is not None:
        rules = TableRules(evidence.size, evidence.table_offset)
        yield from (problem.text for problem in check_table(evidence.table, rules))


def _find_claimed(evidence: Evidence) -> list[Area]:
    rows: Sequence[Partition] = evidence.table.partitions if evidence.table is not None else ()
    areas = [_draw_partition(row, evidence) for row in rows if row.size]
    if evidence.table is not None and all(row.offset != evidence.table_offset for row in rows):
        count = len(rows)
        detail = f"{count} partition{'s' if count != 1 else ''}"
        areas.append(Area("table", "partition table", evidence.table_offset, TABLE_SIZE, detail))
    for item in evidence.contents:
        if any(row.offset <= item.offset < row.end for row in rows):
            continue
        name = {"bootloader": "boot loader"}.get(item.kind, item.kind)
        areas.append(Area(item.kind, name, item.offset, align_up(item.size, SECTOR), item.detail))
    return areas


def _draw_partition(row: Partition, evidence: Evidence) -> Area:
    kinds: dict[int, Kind] = {APP: "app", 2: "bootloader", 3: "table"}
    kind = kinds.get(row.type, "data")
    known = row.subtype in SUBTYPES.get(row.type, {}).values()
    words = [row.subtype_name if known else f"type {row.type_name}, subtype {row.subtype:#x}"]
    words = [] if words == [row.name] else words
    held = next((item for item in evidence.contents if item.offset == row.offset), None)
    if held is not None:
        words.append(held.detail)
        if held.offset + held.size > row.end:
            words.append(
                f"its image goes {held.offset + held.size - row.end:#x} bytes past its end"
            )
    elif row.type == APP:
        words.append("no image")
    words += row.flag_names
    boots = evidence.boot is not None and evidence.boot.boots == row
    return Area(kind, row.label, row.offset, row.size, join_words(words), boots=boots)


def _measure_used(area: Area, filled: Ranges) -> int:
    """Up to the end of the last filled range in it."""
    last = max(
        (min(end, area.end) for start, end in filled if start < area.end and end > area.offset),
        default=0,
    )
    return max(0, last - area.offset)


def _mark_overlaps(areas: list[Area]) -> list[Area]:
    """Each with the names of those that it shares bytes with; a table has at most 95 rows."""
    return [
        replace(
            area,
            overlaps=tuple(
                other.name
                for other in areas
                if other is not area and other.offset < area.end and area.offset < other.end
            ),
        )
        for area in areas
    ]
