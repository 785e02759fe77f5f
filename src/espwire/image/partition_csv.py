"""Partition tables as ESP-IDF's CSV: text ↔ rows. Places what has no offset; judges nothing (``check_table`` does).

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
LEFT_OUT = ("", "N/A")
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
class CsvPlaces:
    """What rows without an offset are placed by. The boot loader's offset depends on the chip."""

    table_offset: int = TABLE_OFFSET
    bootloader_offset: int | None = None
    recovery_offset: int | None = None


@dataclass(frozen=True)
class _Row:
    """One line, cut up; None: to be found. A negative size is where the partition ends."""

    line: int
    name: str
    type: int
    subtype: int
    offset: int | None
    size: int | None
    flags: int


def decode_csv(data: bytes, name: str = "the CSV") -> str | None:
    """The text of a CSV file; None: it is not text, but binary data.

    :raises TableError: code ``csv-encoding``: it is text in another encoding than UTF-8
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
        hint="Save the file as UTF-8, or use ASCII letters only.",
        code="csv-encoding",
        line=line,
        encoding=encoding,
    )


def find_bad_byte(data: bytes) -> int:
    """Where the first byte is that is not UTF-8; the length of ``data`` if there is none."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return len(data)


def guess_encoding(data: bytes) -> str | None:
    """``UTF-8``, or the encoding that a text seems to have; None: it is not text. A guess where it is not Unicode."""
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


def parse_csv(text: str, places: CsvPlaces | None = None, name: str = "the CSV") -> PartitionTable:
    """Rows with their offsets and sizes found.

    :raises TableError: code ``csv-row``: line, field and rule; ``table-empty``: there is no row
    """
    places = places or CsvPlaces()
    lines = text.removeprefix("\ufeff").splitlines()
    if len(lines) > MAX_LINES:
        raise TableError(
            f"{name} has {len(lines)} lines", hint="It is no partition table.", code="csv-row"
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
    return _place(rows, places, name)


@dataclass(frozen=True)
class _Parser:
    """Cuts one line; knows where it stands, for errors."""

    name: str
    line: int

    def parse(self, line: str) -> _Row:
        """The fields of a line."""
        if len(line) > MAX_LINE:
            raise self.fail("it is longer than any row", "Check that it is a partition table.")
        fields = [field.strip() for field in line.split(",")]
        if len(fields) > 6 and any(fields[6:]):
            raise self.fail(
                f"{len(fields)} columns are more than 6",
                "Columns: name, type, subtype, offset, size, flags.",
            )
        name, type_text, subtype_text, offset, size, flags = (*fields, *[""] * 6)[:6]
        if "$" in line:
            raise self.fail("variables ($…) are not replaced", "Write the value itself.")
        if not name.isprintable():
            raise self.fail(
                f"the name {name[:40]!r} has signs that nobody can see",
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
            offset=None if offset in LEFT_OUT else self.amount(offset, "offset"),
            size=None if size in LEFT_OUT else self.amount(size, "size", negative=True),
            flags=self.flags(flags),
        )

    def number(self, text: str, what: str, known: dict[str, int]) -> int:
        """A name of the list, or 0 to 255."""
        if text in known:
            return known[text]
        try:
            return parse_number(text, what, limit=0xFF)
        except UsageError:
            hint = f"Write a number up to 0xFF, or one of: {', '.join(known) or 'no names here'}."
            raise self.fail(f"{what} {text[:40]!r} is neither known nor a number", hint) from None

    def subtype(self, text: str, type_: int) -> int:
        """Data may leave it out."""
        if text:
            return self.number(text, "subtype", SUBTYPES.get(type_, {}))
        if type_ in (APP, BOOTLOADER, TABLE):
            raise self.fail(
                "the subtype is missing", f"Write one of: {', '.join(SUBTYPES[type_])}."
            )
        return UNDEFINED

    def amount(self, text: str, what: str, *, negative: bool = False) -> int:
        """Bytes; K and M as suffix."""
        minus = negative and text.startswith("-")
        try:
            value = parse_number(text[minus:], what)
        except UsageError:
            raise self.fail(
                f"{what} {text[:40]!r} is no number", "Write 0x9000, 24K or 1M."
            ) from None
        return -value if minus else value

    def flags(self, text: str) -> int:
        """Names joined by colons."""
        flags = 0
        for word in filter(None, map(str.strip, text.split(":"))):
            if word not in FLAGS:
                hint = f"Flags are {' and '.join(FLAGS)}, joined by a colon."
                raise self.fail(f"flag {word[:40]!r} is unknown", hint)
            flags |= FLAGS[word]
        return flags

    def fail(self, reason: str, hint: str, code: str = "csv-row") -> TableError:
        """The error for this line."""
        return TableError(
            f"{self.name}, line {self.line}: {reason}", hint=hint, code=code, line=self.line
        )


def _place(rows: list[_Row], places: CsvPlaces, name: str) -> PartitionTable:
    placed: list[Partition] = []
    end = places.table_offset + TABLE_SIZE
    for row in rows:
        offset, size = row.offset, row.size
        if row.type in (BOOTLOADER, TABLE):
            offset, size = _place_special(row, places, name)
        if offset is None:
            offset = align_up(end, OFFSET_STEP.get(row.type, SECTOR))
        if size is None:
            raise _Parser(name, row.line).fail(
                "the size is missing", "Write the size, such as 24K or 0x6000."
            )
        if size < 0:
            if -size <= offset:
                text = f"it begins at {offset:#x} and shall end at {-size:#x}"
                raise _Parser(name, row.line).fail(
                    text, "A negative size is the address to end at."
                )
            size = -size - offset
        placed.append(Partition(row.name, row.type, row.subtype, offset, size, row.flags))
        if not (row.type in (BOOTLOADER, TABLE) and row.subtype == PRIMARY):
            end = offset + size
    return PartitionTable(tuple(placed), lines=tuple(row.line for row in rows))


def _place_special(row: _Row, places: CsvPlaces, name: str) -> tuple[int | None, int | None]:
    """Offset and size of boot loaders and tables: they follow from where those are, whatever the row says."""
    offset, size = row.offset, row.size
    if row.type == TABLE:
        return (places.table_offset if row.subtype == PRIMARY else offset), TABLE_SIZE
    known = {PRIMARY: places.bootloader_offset, RECOVERY: places.recovery_offset}
    if row.subtype in known:
        found = known[row.subtype]
        offset = offset if found is None else found
        if offset is None:
            text = "where this boot loader begins is not known"
            raise _Parser(name, row.line).fail(
                text, "Write its offset, or give --chip or --bootloader-offset."
            )
    start = offset if row.subtype == PRIMARY else places.bootloader_offset
    if start is not None and start < places.table_offset:
        size = places.table_offset - start
    if size is None:
        text = "how large this boot loader is, is not known"
        raise _Parser(name, row.line).fail(
            text, "Write its size, or give --chip or --bootloader-offset."
        )
    return offset, size


def build_csv(table: PartitionTable) -> str:
    """CSV as ESP-IDF writes it.

    :raises TableError: code ``partition-name``: a name that would break the line
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
                f"{table.describe_row(index)}: this name cannot be written as CSV",
                hint="Rename the partition, or write the table as binary.",
                code="partition-name",
            )
        if unknown := row.flags & ~sum(FLAGS.values()):
            raise TableError(
                f"{table.describe_row(index)}: flags {unknown:#x} cannot be written as CSV",
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
