"""The flash map: which range of flash is used by what, as a value (`FlashMap`) and drawn as text.

flash_map_svg.py draws it as a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.ota import OTA_DATA_SIZE, OtaStatus, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import (
    APP,
    BOOTLOADER,
    SUBTYPES,
    TABLE,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    TableRules,
    check_table,
)
from espwire.image.scan import Region, find_regions, guess_start
from espwire.sizes import SECTOR, Ranges, align_up, format_size, join_ranges
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.chips.model import Chip

MIN_FLASH = 0x40000
SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
COLUMNS, ROWS = 64, 4
METER = 10
FREE, MANY = "·", "+"
# colours of the areas' kinds in the 256-colour palette of terminals
COLOURS: Mapping[str, int] = {
    "bootloader": 173,
    "table": 139,
    "app": 74,
    "data": 107,
    "image": 74,
    "free": 244,
}
RED = 196


@dataclass(frozen=True)
class Area:
    """A range of flash with one use. ``used``: up to its last byte that is not blank; ``detail``: its content.

    ``kind``: ``bootloader``, ``table``, ``app``, ``data``, ``image`` or ``free``.
    """

    kind: str
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
    """The whole flash. ``areas`` by offset, free areas included; ``filled`` are the ranges that are not blank."""

    size: int
    areas: tuple[Area, ...]
    filled: Ranges
    notes: tuple[str, ...] = ()
    table_offset: int | None = None

    @property
    def filled_bytes(self) -> int:
        """Bytes that are not blank, in whole sectors."""
        return sum(end - start for start, end in self.filled)

    @property
    def free_bytes(self) -> int:
        """Bytes outside of all areas."""
        return sum(area.size for area in self.areas if area.kind == "free")


def find_filled(data: bytes, start: int = 0) -> Ranges:
    """The ranges of whole sectors that are not blank."""
    filled: list[tuple[int, int]] = []
    for at in range(0, len(data), SECTOR):
        sector = data[at : at + SECTOR]
        if sector.strip(b"\xff"):
            filled.append((start + at, start + at + len(sector)))
    return join_ranges(filled)


def map_dump(data: bytes, chip: Chip | None = None, *, flash_size: int | None = None) -> FlashMap:
    """The map of a dump or a merged file, whose flash address is detected.

    :param flash_size: bytes; default: estimated from the end of the table and the length of the file
    """
    start = guess_start(data, chip)
    data = b"\xff" * start + data if start else data
    regions = find_regions(data, chip, start=0)
    table_region = next((region for region in regions if region.table is not None), None)
    table = None if table_region is None else table_region.table
    boot = None
    if table is not None:
        row = find_ota_data(table)
        content = b"" if row is None else data[row.offset : row.offset + OTA_DATA_SIZE]
        ota_data = None if row is None else parse_ota_data(content.ljust(OTA_DATA_SIZE, b"\xff"))
        boot = find_boot(table, ota_data)
    return build_map(
        flash_size or guess_flash_size(max(len(data), 0 if table is None else table.end)),
        find_filled(data),
        table=table,
        table_offset=0 if table_region is None else table_region.offset,
        contents=[_describe(region) for region in regions if region.table is None],
        boot=boot,
    )


def guess_flash_size(end: int) -> int:
    """The smallest flash that holds ``end`` bytes: a power of two."""
    size = MIN_FLASH
    while size < end:
        size *= 2
    return size


def _describe(region: Region) -> Area:
    """What is at an offset, for ``build_map``."""
    kind = region.kind if region.kind in COLOURS else "data"
    if region.image is None:
        texts = {
            "encrypted": "probably encrypted",
            "app": "incomplete image",
            "ota-data": "OTA data",
        }
        return Area(kind, "", region.offset, region.size, texts.get(region.kind, ""))
    app, bootloader = find_app_descriptor(region.image), find_boot_descriptor(region.image)
    details = []
    if app is not None:
        details += [app.project, app.version, name_idf(app.idf_version)]
    elif bootloader is not None:
        details.append(name_idf(bootloader.idf_version))
    details += [] if region.image.intact else ["DAMAGED"]
    details += ["signed"] if region.signatures else []
    return Area(kind, "", region.offset, region.size, join_details(details))


def name_idf(version: str) -> str:
    """``ESP-IDF v5.1``; empty if the version is not set."""
    return f"ESP-IDF {version}" if version else ""


def join_details(details: Iterable[str]) -> str:
    """Texts from a file or device, safe to print."""
    return ", ".join(escape(text.strip()) for text in details if text.strip())


def build_map(
    size: int,
    filled: Ranges,
    *,
    table: PartitionTable | None = None,
    table_offset: int = 0,
    contents: Sequence[Area] = (),
    boot: OtaStatus | None = None,
) -> FlashMap:
    """The map, with areas for partitions, for contents outside of partitions, and for free ranges.

    :param contents: recognised images and data, without names
    """
    areas = _find_areas(size, table, table_offset, contents, boot)
    areas = [replace(area, used=_measure_used(area, filled)) for area in areas]
    areas.sort(key=lambda area: (area.offset, area.end))
    areas = _mark_overlaps(areas)
    free, at = [], 0
    for area in [*areas, Area("free", "", size, 0)]:
        if area.offset > at:
            gap = Area("free", "", at, min(area.offset, size) - at)
            if gap.size > 0:
                used = _measure_used(gap, filled)
                free.append(replace(gap, used=used, detail="not blank" if used else ""))
        at = max(at, area.end)
    return FlashMap(
        size=size,
        areas=tuple(sorted([*areas, *free], key=lambda area: (area.offset, area.end))),
        filled=tuple((start, min(end, size)) for start, end in filled if start < size),
        notes=tuple(_find_notes(size, filled, table, table_offset)),
        table_offset=None if table is None else table_offset,
    )


def _find_notes(
    size: int, filled: Ranges, table: PartitionTable | None, table_offset: int
) -> Iterator[str]:
    """Problems of the table, and content beyond the end of the flash."""
    end = max((end for _, end in filled), default=0)
    if end > size:
        yield f"the content ends at {end:#x}, past the end of the flash at {size:#x}"
    if table is not None:
        yield from (problem.text for problem in check_table(table, TableRules(size, table_offset)))


def _find_areas(
    flash_size: int,
    table: PartitionTable | None,
    table_offset: int,
    contents: Sequence[Area],
    boot: OtaStatus | None,
) -> list[Area]:
    rows = table.partitions if table is not None else ()
    areas = [_map_partition(row, contents, boot) for row in rows if row.size]
    if table is not None and all(row.offset != table_offset for row in rows):
        detail = f"{len(rows)} partition{'s' if len(rows) != 1 else ''}"
        areas.append(Area("table", "partition table", table_offset, TABLE_SIZE, detail))
    for content in contents:
        if not any(row.offset <= content.offset < row.end for row in rows):
            size = align_up(content.size, SECTOR)
            if flash_size - content.offset < size:
                size = max(0, flash_size - content.offset)
                detail = join_details([content.detail, "its image exceeds the flash"])
                content = replace(content, detail=detail)  # noqa: PLW2901
            areas.append(replace(content, name=content.kind, size=size))
    return areas


def _map_partition(row: Partition, contents: Sequence[Area], boot: OtaStatus | None) -> Area:
    kind = {APP: "app", BOOTLOADER: "bootloader", TABLE: "table"}.get(row.type, "data")
    known = row.subtype in SUBTYPES.get(row.type, {}).values()
    subtype = row.subtype_name if known else f"type {row.type_name}, subtype {row.subtype:#x}"
    details = [] if subtype == row.name else [subtype]
    content = next((content for content in contents if content.offset == row.offset), None)
    if content is not None:
        details.append(content.detail)
        if content.end > row.end:
            details.append(f"its image exceeds it by {content.end - row.end:#x} bytes")
    elif row.type == APP:
        details.append("no image")
    details += row.flag_names
    boots = boot is not None and boot.boots == row
    return Area(kind, row.label, row.offset, row.size, join_details(details), boots=boots)


def _measure_used(area: Area, filled: Ranges) -> int:
    """Up to the end of the last filled range in it."""
    last = max(
        (min(end, area.end) for start, end in filled if start < area.end and end > area.offset),
        default=0,
    )
    return max(0, last - area.offset)


def _mark_overlaps(areas: list[Area]) -> list[Area]:
    """Each area with the names of those it overlaps; a table has at most 95 rows."""
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


def draw_text(flash: FlashMap, title: str = "", *, colour: bool = False) -> str:
    """A strip in which each character is an equal share of flash, and a list of areas.

    In the strip, capital letters are filled, small letters blank. ``colour`` adds escape sequences for a terminal.
    """
    claimed = [area for area in flash.areas if area.kind != "free"]
    signs = {id(area): SIGNS[number % len(SIGNS)] for number, area in enumerate(claimed)}
    step = -(-flash.size // (COLUMNS * ROWS))
    title = f"{title}: " if title else ""
    lines = [f"{title}{format_size(flash.size)} of flash, {format_size(step)} per character"]
    for start in range(0, min(ROWS * COLUMNS * step, flash.size), COLUMNS * step):
        starts = range(start, min(start + COLUMNS * step, flash.size), step)
        cells = "".join(_draw_cell(flash, at, step, signs, colour=colour) for at in starts)
        lines.append(f"{start:#010x} {cells}")
    width = max([6, *(len(area.name) for area in flash.areas)])
    lines.append("")
    lines += [
        _draw_area(area, signs.get(id(area), FREE), width, colour=colour) for area in flash.areas
    ]
    filled = format_share(flash.filled_bytes, flash.size)
    free = format_share(flash.free_bytes, flash.size)
    lines += ["", f"{filled} filled, {free} free."]
    lines += [f"note: {note}" for note in flash.notes]
    return "\n".join(lines)


def format_share(part: int, whole: int) -> str:
    """``12 %``; 0 % and 100 % only if exact."""
    if not part or part == whole:
        return "100 %" if part else "0 %"
    return f"{min(99, max(1, round(100 * part / whole)))} %"


def _draw_cell(
    flash: FlashMap, start: int, step: int, signs: Mapping[int, str], *, colour: bool
) -> str:
    areas = [
        area
        for area in flash.areas
        if area.offset < start + step and area.end > start and area.kind != "free"
    ]
    filled = any(low < start + step and high > start for low, high in flash.filled)
    if not areas:
        sign, shade = ("?" if filled else FREE), COLOURS["free"]
    else:
        sign = signs[id(areas[0])] if len(areas) == 1 else MANY
        sign = sign if filled else sign.lower()
        clash = len(areas) > 1 and any(area.overlaps for area in areas)
        shade = RED if clash else COLOURS[areas[0].kind]
    return _paint(sign, shade) if colour else sign


def _draw_area(area: Area, sign: str, width: int, *, colour: bool) -> str:
    # only a full area has a full meter, and only a blank area an empty one
    meter = METER if area.used >= area.size else min(METER - 1, -(-METER * area.used // area.size))
    bar = "#" * meter + "-" * (METER - meter)
    details = ["boots" if area.boots else "", area.detail]
    details += [f"OVERLAPS {', '.join(area.overlaps)}"] if area.overlaps else []
    label = f"{sign} {(area.name or '(free)').ljust(width)}"
    if colour:
        label = _paint(label, RED if area.overlaps else COLOURS[area.kind])
    text = ", ".join(filter(None, details))
    size = format_size(area.size)
    return f"{label} {area.offset:#010x} {area.end:#010x} {size:>12} [{bar}] {text}".rstrip()


def _paint(text: str, shade: int) -> str:
    return f"\x1b[38;5;{shade}m{text}\x1b[0m"
