"""Custom eFuse tables: ESP-IDF's ``esp_efuse_custom_table.csv``, which gives names to bits that firmware uses.

A row is ``name, EFUSE_BLKn, first bit, number of bits, comment``. Rows without a name continue the field above; its parts get
``_0``, ``_1`` and so on. ``A.B`` is a part of ``A``. Words in square brackets at the start of the comment are other names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from espwire.efuse.model import Field, FuseData, Kind
from espwire.errors import TableError, UsageError
from espwire.files import read_file
from espwire.sizes import parse_number

CATEGORY = "User"
WHOLE_BLOCK = "MAX_BLK_LEN"
WIDEST_NUMBER = 32  # wider fields of whole bytes are bytes
_BLOCK = re.compile(r"EFUSE_BLK([0-9]{1,2})|EFUSE_BLK_KEY([0-9]{1,2})")
_OTHER_NAMES = re.compile(r"\[([^\]]*)\]")
FIRST_KEY = 4
LIMIT = 1 << 20  # bytes of the file


class Row(NamedTuple):
    """A row of the table; ``name`` is empty if it continues the field above."""

    line: int
    name: str
    block: int
    start: int
    bits: int
    comment: str


def read_custom_table(path: str, data: FuseData) -> tuple[Field, ...]:
    """The fields of a file.

    :raises FileError: it cannot be read
    :raises TableError: a row is invalid; the error names file and line
    """
    text = read_file(path, limit=LIMIT).decode("utf-8", "replace")
    return parse_custom_table(text, data, path)


def parse_custom_table(text: str, data: FuseData, path: str) -> tuple[Field, ...]:
    """The fields in the text of a table.

    :raises TableError: a row is invalid
    """
    groups: list[list[Row]] = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        row = _parse_row(content, number, data, path)
        if row.name:
            groups.append([row])
        elif groups:
            groups[-1].append(row)
        else:
            raise _invalid(path, number, "the first field has no name")
    fields = [field for group in groups for field in _build_fields(group, data)]
    _check_names(fields, groups, data, path)
    return tuple(fields)


def _parse_row(content: str, number: int, data: FuseData, path: str) -> Row:
    cells = [cell.strip() for cell in content.split(",")]
    if len(cells) < 4:
        raise _invalid(path, number, f"it has {len(cells)} columns, not 4 or 5")
    name, block_name, start, bits, *comment = cells
    match = _BLOCK.fullmatch(block_name)
    block = -1 if match is None else int(match[1] or 0) if match[1] else FIRST_KEY + int(match[2])
    if not 0 <= block < len(data.blocks):
        raise _invalid(path, number, f"{data.name} has no block {block_name[:30]!r}")
    size = data.blocks[block].bits
    first = _parse_cell(start, "first bit", number, path)
    count = size if bits == WHOLE_BLOCK else _parse_cell(bits, "number of bits", number, path)
    if not count or first + count > size:
        raise _invalid(
            path, number, f"bits {first} to {first + count - 1} of {size} in {block_name}"
        )
    return Row(number, name, block, first, count, ", ".join(comment))


def _parse_cell(text: str, what: str, number: int, path: str) -> int:
    try:
        return parse_number(text, what)
    except UsageError as error:
        raise _invalid(path, number, str(error)) from None


def _build_fields(group: list[Row], data: FuseData) -> list[Field]:
    fields = []
    for index, row in enumerate(group):
        suffix = f"_{index}" if len(group) > 1 else ""
        others = _OTHER_NAMES.match(row.comment)
        kind: Kind = "uint"
        if row.bits == 1:
            kind = "flag"
        elif row.bits > WIDEST_NUMBER and row.bits % 8 == 0:
            kind = "bytes"
        block = data.blocks[row.block]
        fields.append(
            Field(
                name=group[0].name.replace(".", "_") + suffix,
                block=row.block,
                start=row.start,
                bits=row.bits,
                kind=kind,
                alt=tuple(name + suffix for name in others[1].split()) if others else (),
                wr_dis=block.wr_dis,
                rd_dis=block.rd_dis,
                category=CATEGORY,
                about=f"{row.comment} ({row.start}-{row.start + row.bits - 1})",
            )
        )
    return fields


def _check_names(fields: list[Field], groups: list[list[Row]], data: FuseData, path: str) -> None:
    lines = [row.line for group in groups for row in group]
    known = {field.name for table in data.table for field in (*table.fields, *table.hidden)}
    for field, line in zip(fields, lines, strict=True):
        for name in (field.name, *field.alt):
            if name in known:
                raise _invalid(path, line, f"the name {name!r} exists already")
            known.add(name)


def _invalid(path: str, line: int, reason: str) -> TableError:
    return TableError(
        f"{path!r}, line {line}: {reason}",
        hint="Write NAME, EFUSE_BLK3, FIRST_BIT, BITS, COMMENT.",
        code="efuse-table",
    )
