"""The picture of a flash as text: a strip in which each sign is an equal piece of flash, and a list. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from espwire.image.flash_map import Area, FlashMap
from espwire.sizes import format_size

SIGNS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
COLUMNS, ROWS = 64, 4
METER = 10
FREE, MANY = "·", "+"
# areas' colours on a terminal that has 256; numbers of its palette
COLOURS: Mapping[str, int] = {
    "bootloader": 173,
    "table": 139,
    "app": 74,
    "data": 107,
    "image": 74,
    "free": 244,
}
RED = 196


def draw_text(flash: FlashMap, title: str = "", *, colour: bool = False) -> str:
    """Strip and list. Capital letters are filled, small ones blank; ``colour`` adds escape sequences of a terminal."""
    claimed = [area for area in flash.areas if area.kind != "free"]
    signs = {id(area): SIGNS[number % len(SIGNS)] for number, area in enumerate(claimed)}
    step = -(-flash.size // (COLUMNS * ROWS))
    lines = [
        f"{title}{': ' if title else ''}{format_size(flash.size)} of flash, each sign {format_size(step)}"
    ]
    for row in range(ROWS):
        start = row * COLUMNS * step
        if start >= flash.size:
            break
        cells = "".join(
            _draw_cell(flash, start + column * step, step, signs, colour=colour)
            for column in range(COLUMNS)
            if start + column * step < flash.size
        )
        lines.append(f"{start:#010x} {cells}")
    lines.append("")
    width = max((len(area.name) for area in flash.areas), default=4)
    lines += [
        _draw_area(area, signs.get(id(area), FREE), max(width, 4), colour=colour)
        for area in flash.areas
    ]
    filled, free = (
        format_share(flash.filled_bytes, flash.size),
        format_share(flash.free_bytes, flash.size),
    )
    lines += ["", f"{filled} is filled; {free} belongs to nothing."]
    lines += [f"note: {note}" for note in flash.notes]
    return "\n".join(lines)


def format_share(part: int, whole: int) -> str:
    """``12 %``; never 0 for something, nor 100 for less than all."""
    if not part or part == whole:
        return "100 %" if part else "0 %"
    return f"{min(99, max(1, round(100 * part / whole)))} %"


def _draw_cell(
    flash: FlashMap, start: int, step: int, signs: Mapping[int, str], *, colour: bool
) -> str:
    there = [
        area
        for area in flash.areas
        if area.offset < start + step and area.end > start and area.kind != "free"
    ]
    filled = any(low < start + step and high > start for low, high in flash.filled)
    if not there:
        sign, shade = ("?" if filled else FREE), COLOURS["free"]
    else:
        sign = signs[id(there[0])] if len(there) == 1 else MANY
        sign = sign if filled else sign.lower()
        clash = len(there) > 1 and any(area.overlaps for area in there)
        shade = RED if clash else COLOURS[there[0].kind]
    return _paint(sign, shade) if colour else sign


def _draw_area(area: Area, sign: str, width: int, *, colour: bool) -> str:
    # a full meter is full, and an empty one empty
    meter = METER if area.used >= area.size else min(METER - 1, -(-METER * area.used // area.size))
    bar = "#" * meter + "-" * (METER - meter)
    words = [("boots" if area.boots else ""), area.detail]
    words += [f"OVERLAPS {', '.join(area.overlaps)}"] if area.overlaps else []
    name = area.name or "(free)"
    shade = RED if area.overlaps else COLOURS[area.kind]
    shown = f"{sign} {name.ljust(max(width, 6))}"
    shown = _paint(shown, shade) if colour else shown
    told = ", ".join(word for word in words if word)
    size = format_size(area.size)
    return f"{shown} {area.offset:#010x} {area.end:#010x} {size:>12} [{bar}] {told}".rstrip()


def _paint(text: str, shade: int) -> str:
    return f"\x1b[38;5;{shade}m{text}\x1b[0m"
