"""Draw a flash map as SVG: a column to scale, with one line of text per area."""

from __future__ import annotations

import html
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from unicodedata import east_asian_width

from espwire.image.flash_map import Area, FlashMap, format_share
from espwire.sizes import format_size
from espwire.text import escape

WIDTH, TOP, BOTTOM = 1110, 84, 66
BAR_X, BAR_WIDTH = 104, 120
TEXT_X, ROW = 300, 26
MIN_HEIGHT = 560
NAME_X, ADDRESS_X = TEXT_X + 12, TEXT_X + 168
METER_X, METER_WIDTH = 640, 70
DETAIL_X = 728
NOTES = 8
SEPARATED = 3.0  # pixels; smaller areas have no separating line, which would hide them
# kind → colours of filled and blank ranges, and its name in the legend
COLOURS = {
    "bootloader": ("#d9822b", "#f7dfc4", "bootloader"),
    "table": ("#8f5fbf", "#e4d6f2", "partition table"),
    "app": ("#2f7ed8", "#cfe2f9", "application"),
    "data": ("#3c9a5f", "#d0ebda", "data"),
    "image": ("#2f7ed8", "#cfe2f9", "image"),
    "free": ("#8a919c", "#f1f3f5", "free"),
}
FONT = "font-family=\"'DejaVu Sans', 'Segoe UI', Helvetica, Arial, sans-serif\""
MONO = "font-family=\"'DejaVu Sans Mono', Consolas, Menlo, monospace\""


@dataclass(frozen=True)
class _Scale:
    """Flash addresses → pixels."""

    size: int
    height: float

    def at(self, address: int) -> float:
        return TOP + self.height * min(address, self.size) / self.size


def draw_svg(flash: FlashMap, title: str = "") -> str:
    """The SVG file. All texts from files or devices are escaped."""
    count = len(flash.areas)
    height = max(MIN_HEIGHT, count * ROW + 10)
    notes = list(flash.notes[:NOTES])
    if len(flash.notes) > NOTES:
        notes.append(f"and {len(flash.notes) - NOTES} more")
    total = TOP + height + BOTTOM + 20 * len(notes)
    scale = _Scale(flash.size, height)
    heading = f"{_cut(title or 'Flash', 900, 19, bold=True)}: {format_size(flash.size)}"
    share = f"{format_share(flash.filled_bytes, flash.size)} filled, "
    share += f"{format_share(flash.free_bytes, flash.size)} free"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{total:.0f}" '
        f'viewBox="0 0 {WIDTH} {total:.0f}" {FONT} font-size="13">',
        f"<title>{_safe(heading)}</title>",
        '<defs><pattern id="clash" width="8" height="8" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="3" height="8" fill="#d22f2f"/></pattern></defs>',
        f'<rect width="{WIDTH}" height="{total:.0f}" fill="#ffffff"/>',
        _text(24, 34, heading, size=19, weight="bold"),
        _text(24, 58, share, colour="#5b6470"),
        *_draw_bar(flash, scale),
        *_draw_rows(flash, scale, height),
        *_draw_legend(flash, TOP + height + 34),
    ]
    for number, note in enumerate(notes):
        parts.append(
            _text(
                24,
                TOP + height + 62 + 20 * number,
                _cut(note, WIDTH - 40, 12),
                colour="#b02525",
                size=12,
            )
        )
    return "\n".join([*parts, "</svg>", ""])


def _draw_bar(flash: FlashMap, scale: _Scale) -> list[str]:
    parts = []
    for area in flash.areas:
        _, pale, _ = COLOURS[area.kind]
        parts.append(_box(scale, area.offset, area.end, pale))
    for area in flash.areas:
        solid = COLOURS[area.kind][0]
        for start, end in flash.filled:
            low, high = max(start, area.offset), min(end, area.end)
            if low < high:
                parts.append(_box(scale, low, high, solid))
    for area in flash.areas:
        for other in flash.areas if area.overlaps else ():
            if other is not area and other.offset < area.end and area.offset < other.end:
                low, high = max(area.offset, other.offset), min(area.end, other.end)
                parts.append(_box(scale, low, high, "url(#clash)"))
    for before, area in pairwise(flash.areas):
        y = scale.at(area.offset)
        if min(y - scale.at(before.offset), scale.at(area.end) - y) >= SEPARATED:
            parts.append(
                f'<path d="M{BAR_X} {y:.1f}h{BAR_WIDTH}" stroke="#ffffff" stroke-width="0.8"/>'
            )
    parts.append(
        f'<rect x="{BAR_X}" y="{TOP}" width="{BAR_WIDTH}" height="{scale.height}" fill="none" '
        'stroke="#30363d" stroke-width="1.2" rx="2"/>'
    )
    for eighth in range(9):
        address = flash.size * eighth // 8
        y = scale.at(address)
        parts.append(f'<path d="M{BAR_X - 6} {y:.1f}h6" stroke="#30363d"/>')
        parts.append(
            _text(
                BAR_X - 10,
                y + 4,
                f"{address:#x}",
                anchor="end",
                mono=True,
                size=11,
                colour="#5b6470",
            )
        )
    return parts


def _draw_rows(flash: FlashMap, scale: _Scale, height: float) -> list[str]:
    """One line of text per area, as close to the area as possible."""
    centres = _spread(
        [scale.at((area.offset + min(area.end, flash.size)) // 2) for area in flash.areas], height
    )
    parts = []
    for area, y in zip(flash.areas, centres, strict=True):
        from_y = scale.at((area.offset + min(area.end, flash.size)) // 2)
        left = BAR_X + BAR_WIDTH
        line = "#d22f2f" if area.overlaps else "#b6bdc6"
        path = f"M{left} {from_y:.1f}h14L{TEXT_X - 22} {y:.1f}h12"
        parts.append(f'<path d="{path}" fill="none" stroke="{line}"/>')
        parts += _draw_row(area, y)
    return parts


def _draw_row(area: Area, y: float) -> list[str]:
    solid, pale, _ = COLOURS[area.kind]
    name, colour = (area.name or "free"), "#1b1f24" if area.kind != "free" else "#6b7480"
    shown = _cut(name, ADDRESS_X - NAME_X - 6, 13, bold=True)
    parts = [
        f'<rect x="{TEXT_X - 8}" y="{y - 6:.1f}" width="12" height="12" rx="2" fill="{solid if area.used else pale}" '
        f'stroke="{solid}"/>',
        _text(
            NAME_X,
            y + 4.5,
            shown,
            weight="bold" if area.kind != "free" else "normal",
            colour=colour,
        ),
        _text(ADDRESS_X, y + 4.5, f"{area.offset:#010x}", mono=True, size=12, colour="#444c56"),
        _text(
            METER_X - 14, y + 4.5, format_size(area.size), anchor="end", size=12, colour="#444c56"
        ),
    ]
    parts.append(
        f'<rect x="{METER_X}" y="{y - 4:.1f}" width="{METER_WIDTH}" height="8" rx="2" fill="{pale}" stroke="{solid}" '
        'stroke-width="0.6"/>'
    )
    if area.used and area.size:
        width = max(1.5, METER_WIDTH * area.used / area.size)
        parts.append(
            f'<rect x="{METER_X}" y="{y - 4:.1f}" width="{width:.1f}" height="8" rx="2" fill="{solid}"/>'
        )
    details = [area.detail]
    if area.boots:
        details.insert(0, "boots")
    if area.overlaps:
        details = [f"overlaps {', '.join(area.overlaps)}", *details]
    text = _cut(", ".join(filter(None, details)), WIDTH - DETAIL_X - 12, 12)
    parts.append(
        _text(DETAIL_X, y + 4.5, text, size=12, colour="#b02525" if area.overlaps else "#444c56")
    )
    return parts


def _spread(ideal: list[float], height: float) -> list[float]:
    """Rows at least one line apart, as close as possible to their ideal positions, all inside the picture."""
    placed: list[float] = []
    for y in ideal:
        placed.append(max(y, placed[-1] + ROW if placed else TOP + ROW / 2))
    limit = TOP + height - ROW / 2
    for index in range(len(placed) - 1, -1, -1):
        placed[index] = min(placed[index], limit)
        limit = placed[index] - ROW
    return placed


def _draw_legend(flash: FlashMap, y: float) -> list[str]:
    parts, x = [], 24.0
    kinds = [kind for kind in COLOURS if any(area.kind == kind for area in flash.areas)]
    for kind in kinds:
        solid, pale, name = COLOURS[kind]
        parts.append(f'<rect x="{x}" y="{y - 10}" width="12" height="12" rx="2" fill="{solid}"/>')
        parts.append(
            f'<rect x="{x + 14}" y="{y - 10}" width="12" height="12" rx="2" fill="{pale}" stroke="{solid}"/>'
        )
        parts.append(_text(x + 32, y, name, size=12, colour="#444c56"))
        x += 54 + 7.2 * len(name)
    parts.append(_text(x + 6, y, "full colour: not blank; pale: blank", size=12, colour="#6b7480"))
    return parts


def _box(scale: _Scale, start: int, end: int, fill: str) -> str:
    top, bottom = scale.at(start), scale.at(end)
    tall = max(bottom - top, 0.7)
    return (
        f'<rect x="{BAR_X}" y="{top:.2f}" width="{BAR_WIDTH}" height="{tall:.2f}" fill="{fill}"/>'
    )


def _text(
    x: float,
    y: float,
    text: str,
    **style: object,
) -> str:
    size, colour = style.get("size", 13), style.get("colour", "#1b1f24")
    more = f' font-weight="{style["weight"]}"' if "weight" in style else ""
    more += f' text-anchor="{style["anchor"]}"' if "anchor" in style else ""
    more += f" {MONO}" if style.get("mono") else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}"{more}>{_safe(text)}</text>'


def _cut(text: str, pixels: float, size: float, *, bold: bool = False) -> str:
    """The text, shortened to fit; its width is an estimate for the fonts in ``FONT``."""
    room = pixels / size / (1.12 if bold else 1.0)
    ends = list(accumulate(map(_measure, text)))
    if not ends or ends[-1] <= room:
        return text
    return text[: bisect_right(ends, room - 1)] + "…"


def _measure(char: str) -> float:
    """Width of a character, in ems."""
    if char in "MWmw@%—" or east_asian_width(char) in "WF":
        return 1.0
    if char in "fijlrt.,:;|!'()[] ":
        return 0.4
    return 0.72 if char.isupper() else 0.63


def _safe(text: str) -> str:
    return html.escape(escape(text))
