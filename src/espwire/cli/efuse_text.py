"""eFuses as text: the table of the summary, calibration, the custom MAC address."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from typing import Any

from espwire.efuse import meaning
from espwire.efuse.model import Calculated, Field
from espwire.efuse.state import FuseState
from espwire.efuse.summary import category_name
from espwire.efuse.tables import AnyField
from espwire.text import escape

NAME_WIDTH = ABOUT_WIDTH = 50
HEADING = (
    "EFUSE_NAME (Block) Description  = [Meaningful Value] [Readable/Writeable] (Hex Value)\n"
    + "-" * 88
)


def draw_summary(state: FuseState, fields: Sequence[AnyField]) -> str:
    """The fields by category, in the layout that scripts know from espefuse."""
    lines = [HEADING]
    for category in sorted({category_name(field).lower() for field in fields}):
        lines.append(f"{category.title()} fuses:")
        for field in fields:
            if category_name(field).lower() == category:
                lines += _draw_field(state, field)
        lines.append("")
    return "\n".join(lines)


# titles of groups, and what the category and name of their fields match; the first match counts
GROUPS = (
    ("Identity", r"(identity|mac)\."),
    ("Secure boot", r".*(SECURE_BOOT|SECURE_VERSION|ABS_DONE)"),
    ("Flash encryption", r".*(CRYPT|XTS)"),
    ("Keys", r".*(KEY|BLOCK\d)"),
    ("Download mode, USB and debugging", r"(usb|jtag)\.|.*(DOWNLOAD|JTAG|USB|UART)"),
    ("Flash chip and its supply", r"(flash|vdd|spi pad)\."),
    ("Calibration", r"calibration\."),
    ("Locks", r".*\.(WR_DIS|RD_DIS)$"),
    ("Custom table", r"user\."),
    ("Other", ""),
)
BOLD, YELLOW, RED, PLAIN = "\x1b[1m", "\x1b[33m", "\x1b[31m", "\x1b[0m"
LONG = 24  # characters of a value that gets its own line


def draw_groups(state: FuseState, fields: Sequence[AnyField], *, colour: bool) -> str:
    """The fields by purpose, for people: what is set is bold, what is locked yellow, what is hidden red."""
    groups: dict[str, list[AnyField]] = {title: [] for title, _ in GROUPS}
    for field in fields:
        key = f"{category_name(field).lower()}.{field.name}"
        groups[next(title for title, pattern in GROUPS if re.match(pattern, key))].append(field)
    width = max((len(field.name) for field in fields), default=0)
    lines = []
    for title, members in groups.items():
        if members:
            lines += [f"{BOLD}{title}{PLAIN}" if colour else title]
            for field in members:
                lines += _draw_row(state, field, width, colour=colour)
            lines.append("")
    marks = (BOLD, YELLOW, RED, PLAIN) if colour else ("",) * 4
    bold, yellow, red, plain = marks
    lines.append(f"{bold}set{plain}  {yellow}locked{plain}: cannot be burned  {red}hidden{plain}")
    return "\n".join(lines)


def _draw_row(state: FuseState, field: AnyField, width: int, *, colour: bool) -> list[str]:
    hidden, locked = not state.readable(field), not state.writeable(field)
    value = "hidden" if hidden else escape(str(meaning.describe(state, field)))
    about = escape(field.about)
    row = f"  {escape(field.name):{width}}  {'set' if state.raw(field) else '':3}  "
    row += f"{'locked' if locked else '':6}  "
    if len(value) > LONG:
        value = "empty" if not state.raw(field) and field.kind == "bytes" else value
    lines = [f"{row}{value:{LONG}}  {about}".rstrip()]
    if len(value) > LONG:
        lines = [f"{row}{about}".rstrip(), f"    {value}"]
    style = BOLD * bool(state.raw(field)) + (RED if hidden else YELLOW if locked else "")
    return [f"{style}{line}{PLAIN}" for line in lines] if colour and style else lines


def _draw_field(state: FuseState, field: AnyField) -> list[str]:
    block = 0 if isinstance(field, Calculated) else field.block
    head = f"{field.name} (BLOCK{block})".ljust(NAME_WIDTH)
    about, *more = textwrap.wrap(field.about, ABOUT_WIDTH) or [""]
    marks = f"{'R' if state.readable(field) else '-'}/{'W' if state.writeable(field) else '-'}"
    value = meaning.describe(state, field)
    if field.kind == "bytes":
        purpose = _draw_purpose(state, field)
        return [f"{head} {about}".rstrip(), *purpose, f"   = {value} {marks}"]
    bits = "?" if not state.readable(field) else meaning.bits_text(state, field)
    first = f"{head} {about:{ABOUT_WIDTH}} = {value} {marks} ({bits})"
    return [first, *(" " * (NAME_WIDTH + 1) + line for line in more)]


def _draw_purpose(state: FuseState, field: AnyField) -> list[str]:
    """The purpose of a key block."""
    if isinstance(field, Field) and field.format == "key_block":
        name = state.data.blocks[field.block].purpose_field
        purpose = state.layout.find(name)
        if isinstance(purpose, Field):
            return [f"  Purpose: {meaning.describe(state, purpose)}"]
    return []


def draw_calibration(state: FuseState) -> str:
    """The version of the calibration and its values."""
    fields = [field for field in state.fields() if field.category == "calibration"]
    rows = [(field.name, str(meaning.describe(state, field))) for field in fields]
    lines = [f"{name:30} =  {value}" for name, value in rows]
    if state.layout.find("BLK_VERSION_MAJOR") is not None:
        lines.insert(0, f"Block version: {state.block_version()}")
    return "\n".join(lines)


def calibration_data(state: FuseState) -> dict[str, Any]:
    """The calibration values by name."""
    return {
        field.name: meaning.describe(state, field)
        for field in state.fields()
        if field.category == "calibration"
    }


def draw_custom_mac(state: FuseState) -> str:
    """The custom MAC address. Chips that store its version have none if that is 0."""
    field = state.layout.field("CUSTOM_MAC")
    version = state.layout.find("MAC_VERSION")
    if version is None:
        return f"Custom MAC Address: {meaning.describe(state, field)}"
    if not state.raw(version):
        return "Custom MAC Address is not set in the device."
    number = state.raw(version)
    return f"Custom MAC Address version {number}: {meaning.describe(state, field)}"
