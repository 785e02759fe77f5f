"""Partition tables as CSV of ESP-IDF: parse, with offsets for rows that have none, and build.

Columns: name, type, subtype, offset, size, flags. Source: ESP-IDF's guide "Partition Tables".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from espwire.errors import TableError, UsageError
from espwire.image.partition_table import (
    APP,
    BOOTLOADER,
    FLAGS,
    MAX_NAME,
    OFFSET_STEP,
    PRIMARY,
    RECOVERY,
    SUBTYPES,
    TABLE,
    TABLE_OFFSET,
    TABLE_SIZE,
    TYPES,
    UNDEFINED,
    Partition,
    PartitionTable,
)
from espwire.sizes import KIB, MIB, SECTOR, align_up, parse_number

HEAD = "# ESP-IDF Partition Table\n# Name, Type, SubType, Offset, Size, Flags\n"
MAX_LINE, MAX_LINES = 1000, 10000
UNSET = ("", "N/A")
ENCODING_SAMPLE = 0x1000
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32 (little-endian)"),
    (b"\x00\x00\xfe\xff", "utf-32", "UTF-32 (big-endian)"),
    (b"\xff\xfe", "utf-16", "UTF-16 (little-endian)"),
    (b"\xfe\xff", "utf-16", "UTF-16 (big-endian)"),
)
TEXT_BYTES = bytes([*b"\t\n\v\f\r", *range(0x20, 0x7F), *range(0x80, 0x100)])
HIGH_RUN = re.compile(rb"[\x80-\xff]+")


@dataclass(frozen=True)
class TableOffsets:
    """Offsets that a CSV may omit. The bootloader's depends on the chip."""

    table_offset: int = TABLE_OFFSET
    bootloader_offset: int | None = None
    recovery_offset: int | None = None


@dataclass(frozen=True)
class _Row:
    """The fields of one line; None: to be computed. A negative size is the end address."""

    line: int
    name: str
    type: int
    subtype: int
    offset: int | None
    size: int | None
    flags: int


def decode_csv(data: bytes, name: str = "the CSV") -> str | None:
    """The text of a CSV file; None: it is binary data.

    :raises TableError: code ``csv-encoding``: its encoding is not UTF-8
    """
    encoding = guess_encoding(data)
    if encoding == "UTF-8":
        text = data.decode("utf-8-sig")
        return text if text.strip() else None
    if encoding is None:
        return None
    line = 1
    if not encoding.startswith("UTF"):
        start = find_bad_byte(data)
        line = len(data[:start].decode("utf-8", "replace").splitlines() or [""])
        line += data[:start].endswith((b"\n", b"\r"))
    raise TableError(
        f"{name}, line {line}: the text is not UTF-8; it looks like {encoding}",
        hint="Save the file as UTF-8, or use only ASCII letters.",
        code="csv-encoding",
        line=line,
        encoding=encoding,
    )


def find_bad_byte(data: bytes) -> int:
    """Offset of the first byte that is not UTF-8; the length of ``data`` if all of it is."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


def guess_encoding(data: bytes) -> str | None:
    """``UTF-8``, or the likely encoding of a text; None: it is not text. A guess if it is not Unicode."""
    for mark, codec, encoding in MARKS:
        if data.startswith(mark):
            return encoding if _decodes(data, codec) else None
    head = data[:ENCODING_SAMPLE]
    if b"\0" in data:
        even, odd = head[::2].count(0), head[1::2].count(0)
        for zeros, others, encoding in (
            (odd, even, "UTF-16 (little-endian)"),
            (even, odd, "UTF-16 (big-endian)"),
        ):
            if zeros * 3 >= len(head) and not others:
                return encoding
        return None
    if find_bad_byte(data) == len(data):
        return "UTF-8"
    if data.translate(None, TEXT_BYTES):
        return None
    high = HIGH_RUN.findall(data)
    if all(
        len(run) % 2 == 0 and min(run) >= 0xA1 and min(run[::2]) <= 0xF7 for run in high
    ) and _decodes(data, "gbk"):
        return "GBK"
    for codec, encoding in (("shift_jis", "Shift-JIS"), ("gbk", "GBK"), ("big5", "Big5")):
        if any(min(run) < 0xA0 for run in high) and _decodes(data, codec):
            return encoding
    return "Latin-1 or Windows-1252"


def _decodes(data: bytes, codec: str) -> bool:
    try:
        data.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def parse_csv(
    text: str, offsets: TableOffsets | None = None, name: str = "the CSV"
) -> PartitionTable:
    """The table with all offsets and sizes.

    :raises TableError: code ``csv-row``: line, field and rule; ``table-empty``: no row
    """
    offsets = offsets or TableOffsets()
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > MAX_LINES:
        raise TableError(
            f"{name} has {len(lines)} lines",
            hint="Check that it is a partition table.",
            code="csv-row",
        )
    rows = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if line and not line.startswith("#"):
            rows.append(_Parser(name, number).parse(line))
    if not rows:
        raise TableError(
            f"{name} has no row", hint="Write one line per partition.", code="table-empty"
        )
    return _place(rows, offsets, name)


@dataclass(frozen=True)
class _Parser:
    """Parses one line; name and line number are for errors."""

    name: str
    line: int

    def parse(self, line: str) -> _Row:
        """The fields of a line."""
        if len(line) > MAX_LINE:
            raise self.fail("the line is too long", "Check that it is a partition table.")
        fields = [field.strip() for field in line.split(",")]
        if len(fields) > 6 and any(fields[6:]):
            raise self.fail(
                f"it has {len(fields)} columns, more than 6",
                "Columns: name, type, subtype, offset, size, flags.",
            )
        name, type_text, subtype_text, offset, size, flags = (*fields, *[""] * 6)[:6]
        if "$" in line:
            raise self.fail("variables ($…) are not supported", "Write the value itself.")
        if not name.isprintable():
            raise self.fail(
                f"the name {name[:40]!r} has unprintable characters",
                "Rename it.",
                "partition-name",
            )
        if len(name.encode("utf-8", "replace")) > MAX_NAME + 1:
            raise self.fail(
                f"the name {name[:40]!r} has more than {MAX_NAME} bytes",
                "Shorten it.",
                "partition-name",
            )
        type_ = self.number(type_text, "type", TYPES)
        return _Row(
            line=self.line,
            name=name,
            type=type_,
            subtype=self.subtype(subtype_text, type_),
            offset=None if offset in UNSET else self.amount(offset, "offset"),
            size=None if size in UNSET else self.amount(size, "size", negative=True),
            flags=self.flags(flags),
        )

    def number(self, text: str, what: str, known: dict[str, int]) -> int:
        """A known name, or 0 to 255."""
        if text in known:
            return known[text]
        try:
            return parse_number(text, what, limit=0xFF)
        except UsageError:
            names = f", or one of: {', '.join(known)}" if known else ""
            hint = f"Write a number up to 0xFF{names}."
            raise self.fail(f"unknown {what} {text[:40]!r}", hint) from None

    def subtype(self, text: str, type_: int) -> int:
        """Optional for type data."""
        if text:
            return self.number(text, "subtype", SUBTYPES.get(type_, {}))
        if type_ in (APP, BOOTLOADER, TABLE):
            raise self.fail(
                "the subtype is missing", f"Write one of: {', '.join(SUBTYPES[type_])}."
            )
        return UNDEFINED

    def amount(self, text: str, what: str, *, negative: bool = False) -> int:
        """Bytes, with an optional suffix K or M."""
        minus = negative and text.startswith("-")
        try:
            value = parse_number(text[minus:], what)
        except UsageError:
            raise self.fail(
                f"{what} {text[:40]!r} is not a number", "Write 0x9000, 24K or 1M."
            ) from None
        return -value if minus else value

    def flags(self, text: str) -> int:
        """Names joined by colons."""
        flags = 0
        for word in filter(None, map(str.strip, text.split(":"))):
            if word not in FLAGS:
                hint = f"Flags are {' and '.join(FLAGS)}, joined by a colon."
                raise self.fail(f"unknown flag {word[:40]!r}", hint)
            flags |= FLAGS[word]
        return flags

    def fail(self, reason: str, hint: str, code: str = "csv-row") -> TableError:
        """The error for this line."""
        return TableError(
            f"{self.name}, line {self.line}: {reason}", hint=hint, code=code, line=self.line
        )


def _place(rows: list[_Row], offsets: TableOffsets, name: str) -> PartitionTable:
    placed: list[Partition] = []
    end = offsets.table_offset + TABLE_SIZE
    for row in rows:
        offset, size = row.offset, row.size
        if row.type in (BOOTLOADER, TABLE):
            offset, size = _place_special(row, offsets, name)
        if offset is None:
            offset = align_up(end, OFFSET_STEP.get(row.type, SECTOR))
        if size is None:
            raise _Parser(name, row.line).fail(
                "the size is missing", "Write the size, such as 24K or 0x6000."
            )
        if size < 0:
            if -size <= offset:
                text = f"its end {-size:#x} is not after its start {offset:#x}"
                raise _Parser(name, row.line).fail(text, "A negative size is the end address.")
            size = -size - offset
        placed.append(Partition(row.name, row.type, row.subtype, offset, size, row.flags))
        if not (row.type in (BOOTLOADER, TABLE) and row.subtype == PRIMARY):
            end = offset + size
    return PartitionTable(tuple(placed), lines=tuple(row.line for row in rows))


def _place_special(row: _Row, offsets: TableOffsets, name: str) -> tuple[int | None, int | None]:
    """Offset and size of bootloaders and tables, which do not depend on the row."""
    offset, size = row.offset, row.size
    if row.type == TABLE:
        return (offsets.table_offset if row.subtype == PRIMARY else offset), TABLE_SIZE
    known = {PRIMARY: offsets.bootloader_offset, RECOVERY: offsets.recovery_offset}
    if row.subtype in known:
        fixed = known[row.subtype]
        offset = offset if fixed is None else fixed
        if offset is None:
            text = "the offset of this bootloader is unknown"
            raise _Parser(name, row.line).fail(
                text, "Write its offset, or use --chip or --bootloader-offset."
            )
    start = offset if row.subtype == PRIMARY else offsets.bootloader_offset
    if start is not None and start < offsets.table_offset:
        size = offsets.table_offset - start
    if size is None:
        text = "the size of this bootloader is unknown"
        raise _Parser(name, row.line).fail(
            text, "Write its size, or use --chip or --bootloader-offset."
        )
    return offset, size


def build_csv(table: PartitionTable) -> str:
    """CSV as ESP-IDF writes it.

    :raises TableError: codes ``partition-name``, ``partition-flags``: not possible in CSV
    """
    lines = []
    for index, row in enumerate(table.partitions):
        if (
            "," in row.name
            or not row.name.isprintable()
            or row.name.startswith("#")
            or row.name != row.name.strip()
        ):
            raise TableError(
                f"{table.describe_row(index)}: CSV cannot represent this name",
                hint="Rename the partition, or write the table as binary.",
                code="partition-name",
            )
        if unknown := row.flags & ~sum(FLAGS.values()):
            raise TableError(
                f"{table.describe_row(index)}: CSV cannot represent flags {unknown:#x}",
                hint="Write the table as binary.",
                code="partition-flags",
            )
        size, flags = _show_size(row.size), ":".join(row.flag_names)
        lines.append(
            f"{row.name},{row.type_name},{row.subtype_name},{row.offset:#x},{size},{flags}\n"
        )
    return HEAD + "".join(lines)


def _show_size(size: int) -> str:
    if size % MIB == 0:
        return f"{size // MIB}M"
    return f"{size // KIB}K" if size % KIB == 0 else f"{size:#x}"
