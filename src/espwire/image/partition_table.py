"""Partition tables: parse and build the binary form, and check a table. The CSV form is in partition_csv.py.

Layout and rules: ``chips/data/image.toml`` [partition_table], ESP-IDF's guide "Partition Tables".
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from espwire.errors import TableError
from espwire.image.model import ROW_MAGIC
from espwire.sizes import SECTOR
from espwire.text import escape

ROW = struct.Struct("<2sBBII16sI")
MD5_MAGIC = b"\xeb\xeb"
END_ROW = b"\xff" * ROW.size
TABLE_OFFSET, TABLE_SIZE, USED_SIZE = 0x8000, 0x1000, 0xC00
LAST_TABLE = 0x20000  # a partition table is searched below this address
MAX_NAME = 15
APP, DATA, BOOTLOADER, TABLE = 0, 1, 2, 3
TYPES = {"app": APP, "data": DATA, "bootloader": BOOTLOADER, "partition_table": TABLE}
FIRST_CUSTOM_TYPE, LAST_CUSTOM_TYPE = 0x40, 0xFE
FACTORY, FIRST_OTA, MAX_OTA, TEST = 0x00, 0x10, 16, 0x20
OTA_DATA, NVS, COREDUMP, NVS_KEYS, UNDEFINED, TEE_OTA = 0x00, 0x02, 0x03, 0x04, 0x06, 0x90
PRIMARY, OTA, RECOVERY = 0, 1, 2
SUBTYPES: dict[int, dict[str, int]] = {
    APP: {"factory": FACTORY, "test": TEST, "tee_0": 0x30, "tee_1": 0x31}
    | {f"ota_{slot}": FIRST_OTA + slot for slot in range(MAX_OTA)},
    DATA: {"ota": OTA_DATA, "phy": 1, "nvs": NVS, "coredump": COREDUMP, "nvs_keys": NVS_KEYS}
    | {"efuse": 5}
    | {
        "undefined": UNDEFINED,
        "esphttpd": 0x80,
        "fat": 0x81,
        "spiffs": 0x82,
        "littlefs": 0x83,
        "tee_ota": TEE_OTA,
    },
    BOOTLOADER: {"primary": PRIMARY, "ota": OTA, "recovery": RECOVERY},
    TABLE: {"primary": PRIMARY, "ota": OTA},
}
ENCRYPTED, READONLY = 1, 2
FLAGS = {"encrypted": ENCRYPTED, "readonly": READONLY}
OFFSET_STEP = {APP: 0x10000}
OTA_DATA_SIZE, MIN_NVS_SIZE = 0x2000, 0x3000


@dataclass(frozen=True)
class Partition:
    """One row: a name and a range of flash. ``flags``: bit 0 encrypted, bit 1 readonly."""

    name: str
    type: int
    subtype: int
    offset: int
    size: int
    flags: int = 0

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.offset + self.size

    @property
    def type_name(self) -> str:
        """``app``, ``data``, …, or the number."""
        return next((name for name, value in TYPES.items() if value == self.type), str(self.type))

    @property
    def subtype_name(self) -> str:
        """``nvs``, ``ota_0``, …, or the number."""
        known = SUBTYPES.get(self.type, {})
        return next(
            (name for name, value in known.items() if value == self.subtype), str(self.subtype)
        )

    @property
    def label(self) -> str:
        """The name for display, with escapes for unprintable characters and bytes that are not UTF-8."""
        return escape(
            self.name if is_utf8(self.name) else self.name_bytes.decode("ascii", "surrogateescape")
        )

    @property
    def name_bytes(self) -> bytes:
        """The name in the table; bytes that are not UTF-8 are preserved."""
        return self.name.encode("utf-8", "surrogateescape")

    @property
    def flaw(self) -> str:
        """Why this row cannot be used by name, or empty. The bootloader ignores such flaws."""
        if not is_utf8(self.name):
            return "its name is not UTF-8"
        if (
            self.type not in TYPES.values()
            and not FIRST_CUSTOM_TYPE <= self.type <= LAST_CUSTOM_TYPE
        ):
            return f"its type {self.type:#04x} is reserved (custom types are 0x40 to 0xfe)"
        return ""

    @property
    def encrypted(self) -> bool:
        """Whether its content is encrypted on chips with flash encryption; applications, OTA data and NVS keys always are."""
        always = self.type in (APP, BOOTLOADER, TABLE) or (
            self.type == DATA and self.subtype in (OTA_DATA, NVS_KEYS)
        )
        return bool(self.flags & ENCRYPTED) or always

    @property
    def flag_names(self) -> tuple[str, ...]:
        """The flags that are set; unknown ones as one number."""
        unknown = self.flags & ~(ENCRYPTED | READONLY)
        names = tuple(name for name, bit in FLAGS.items() if self.flags & bit)
        return (*names, f"{unknown:#x}") if unknown else names

    @property
    def ota_slot(self) -> int | None:
        """0 to 15 for OTA application slots."""
        slot = self.subtype - FIRST_OTA
        return slot if self.type == APP and 0 <= slot < MAX_OTA else None


@dataclass(frozen=True)
class PartitionTable:
    """The rows in order. ``md5_valid`` None: the table has no MD5 row, or comes from CSV.

    ``lines``: line numbers of the rows in a CSV.
    """

    partitions: tuple[Partition, ...]
    md5_valid: bool | None = None
    lines: tuple[int, ...] = field(default=(), compare=False, repr=False)

    def describe_row(self, index: int) -> str:
        """A row for messages."""
        place = f"line {self.lines[index]}" if index < len(self.lines) else f"row {index + 1}"
        return f"{place} ({self.partitions[index].label})"

    @property
    def end(self) -> int:
        """The highest end of a partition."""
        return max((partition.end for partition in self.partitions), default=0)


class Problem(NamedTuple):
    """A problem of a table. ``fatal``: ESP-IDF's bootloader or build would reject it; else a warning."""

    code: str
    text: str
    fatal: bool = True
    partition: str = ""


class TableRules(NamedTuple):
    """What a table is checked against. Sizes and offsets in bytes; ``secure_boot_v1`` requires 64 KiB app sizes."""

    flash_size: int | None = None
    table_offset: int = TABLE_OFFSET
    secure_boot_v1: bool = False


def is_utf8(name: str) -> bool:
    """Whether a name that was decoded with ``surrogateescape`` is UTF-8."""
    return not any("\ud800" <= char <= "\udfff" for char in name)


def parse_table(data: bytes, name: str = "the partition table") -> PartitionTable:
    """Rows up to the blank row at the end. A wrong MD5 is not an error.

    :raises TableError: ``no-partition-table``, ``table-row``, ``table-truncated``; row and offset are in the message
    """
    if data[:2] not in (ROW_MAGIC, MD5_MAGIC):
        blank = bool(data) and not data[: ROW.size].strip(b"\xff")
        what = "is blank" if blank else "does not begin with a partition" if data else "is empty"
        hint = "Write a partition table first, or set its offset with --partition-table-offset."
        raise TableError(f"{name} {what}", hint=hint, code="no-partition-table")
    rows: list[Partition] = []
    md5_valid: bool | None = None
    for offset in range(0, min(len(data), USED_SIZE), ROW.size):
        raw = data[offset : offset + ROW.size]
        if raw == END_ROW:
            return PartitionTable(tuple(rows), md5_valid)
        if len(raw) < ROW.size:
            break
        if md5_valid is not None:
            raise _broken(name, offset, "it follows the MD5, which must be last")
        if raw[:2] == MD5_MAGIC:
            md5_valid = hashlib.md5(data[:offset], usedforsecurity=False).digest() == raw[16:]
        else:
            rows.append(_parse_row(raw, name, offset))
    raise TableError(
        f"{name} is truncated: the blank row at its end is missing after {len(rows)} rows",
        hint="Read it again: a table has 0xC00 bytes.",
        code="table-truncated",
    )


def parse_if_table(data: bytes) -> PartitionTable | None:
    """The partition table in ``data``; None if it is something else, empty or damaged."""
    if data[:2] != ROW_MAGIC:
        return None
    try:
        table = parse_table(data)
    except TableError:
        return None
    return table if table.partitions and table.md5_valid is not False else None


def _parse_row(raw: bytes, name: str, offset: int) -> Partition:
    magic, type_, subtype, start, size, label, flags = ROW.unpack(raw)
    if magic != ROW_MAGIC:
        raise _broken(name, offset, f"it begins with {magic.hex()}, not aa50")
    text = label.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    return Partition(text, type_, subtype, start, size, flags)


def _broken(name: str, offset: int, reason: str) -> TableError:
    row = offset // ROW.size + 1
    hint = "Check that it is a complete partition table."
    return TableError(
        f"{name}, row {row} at {offset:#x}: {reason}", hint=hint, code="table-row", row=row
    )


def build_table(table: PartitionTable, *, md5: bool = True) -> bytes:
    """The 0xC00 bytes of the table.

    :raises TableError: ``table-too-long``, ``partition-name``, ``partition-range``
    """
    rows = b"".join(_build_row(table, index) for index in range(len(table.partitions)))
    if md5:
        rows += MD5_MAGIC + b"\xff" * 14 + hashlib.md5(rows, usedforsecurity=False).digest()
    if len(rows) > USED_SIZE - ROW.size:
        most = USED_SIZE // ROW.size - (2 if md5 else 1)
        text = f"the table has {len(table.partitions)} partitions, more than {most}"
        raise TableError(text, hint="Remove some.", code="table-too-long")
    return rows.ljust(USED_SIZE, b"\xff")


def _build_row(table: PartitionTable, index: int) -> bytes:
    row = table.partitions[index]
    try:
        name = row.name_bytes
    except UnicodeEncodeError:
        raise TableError(
            f"{table.describe_row(index)}: the name cannot be encoded",
            hint="Rename it.",
            code="partition-name",
        ) from None
    if len(name) > MAX_NAME + 1 or b"\0" in name:
        raise TableError(
            f"{table.describe_row(index)}: the name has {len(name)} bytes, more than {MAX_NAME}",
            hint="Shorten it.",
            code="partition-name",
        )
    numbers = (row.type, row.subtype, row.offset, row.size, row.flags)
    if any(
        not 0 <= value <= most
        for value, most in zip(numbers, (0xFF, 0xFF, *[0xFFFFFFFF] * 3), strict=True)
    ):
        raise TableError(
            f"{table.describe_row(index)}: a number is out of range: offset {row.offset:#x}, size {row.size:#x}",
            hint="Types go up to 0xFF, offset and size up to 0xFFFFFFFF.",
            code="partition-range",
        )
    return ROW.pack(ROW_MAGIC, row.type, row.subtype, row.offset, row.size, name, row.flags)


def find_partition(table: PartitionTable, name: str) -> Partition:
    """The partition with this name or label. Flaws of other rows are ignored.

    :raises TableError: codes ``partition-unknown``; ``partition-flawed``: the row cannot be used by name
    """
    exact = [row for row in table.partitions if row.name == name]
    for row in exact or [row for row in table.partitions if row.label == name]:
        if not row.flaw:
            return row
        raise TableError(
            f"partition '{row.label}' cannot be used by name: {row.flaw}",
            hint=f"Use its address, {row.offset:#x}, instead.",
            code="partition-flawed",
            offset=row.offset,
            size=row.size,
        )
    known = ", ".join(row.label for row in table.partitions) or "none"
    raise TableError(
        f"partition '{escape(name)}' not found",
        hint=f"The table has: {known}.",
        code="partition-unknown",
    )


def check_table(table: PartitionTable, rules: TableRules | None = None) -> tuple[Problem, ...]:
    """All problems, fatal ones first."""
    rules = rules or TableRules()
    found: list[Problem] = []
    if table.md5_valid is False:
        found.append(
            Problem(
                "table-md5", "the MD5 does not match the rows: the table was changed or damaged"
            )
        )
    if not table.partitions:
        found.append(Problem("table-empty", "the table has no partition", fatal=False))
    for index, row in enumerate(table.partitions):
        place = table.describe_row(index)
        found += (
            Problem(code, f"{place}: {text}", fatal, row.name)
            for code, text, fatal in _check_row(row, rules)
        )
    found += _check_names(table)
    found += _check_single(table)
    found += _check_overlaps(table, rules)
    return tuple(sorted(found, key=lambda problem: not problem.fatal))


def require_sound(
    table: PartitionTable, rules: TableRules | None = None, name: str = "the table"
) -> None:
    """Raise an error for fatal problems.

    :raises TableError: the first problem's code; ``details["problems"]`` has all of them
    """
    fatal = [problem for problem in check_table(table, rules) if problem.fatal]
    if not fatal:
        return
    more = f" (and {len(fatal) - 1} more)" if len(fatal) > 1 else ""
    raise TableError(
        f"{name}: {fatal[0].text}{more}",
        hint="Use `espwire partitions check` to list all problems, or --no-check to ignore them.",
        code=fatal[0].code,
        problems=[{"code": problem.code, "text": problem.text} for problem in fatal],
    )


def _check_row(row: Partition, rules: TableRules) -> Iterator[tuple[str, str, bool]]:
    """Code, text and fatal of the problems of a single row."""
    step = OFFSET_STEP.get(row.type, SECTOR)
    if row.offset % step:
        yield "partition-unaligned", f"offset {row.offset:#x} is not a multiple of {step:#x}", True
    size_step = 0x10000 if rules.secure_boot_v1 else SECTOR
    if row.type == APP and row.size % size_step:
        yield "partition-unaligned", f"size {row.size:#x} is not a multiple of {size_step:#x}", True
    if row.size == 0:
        yield "partition-empty", "its size is 0", False
    if rules.flash_size is not None and row.end > rules.flash_size:
        yield (
            "past-flash-end",
            f"it ends at {row.end:#x}, past the end of the flash at {rules.flash_size:#x}",
            True,
        )
    elif row.end > 1 << 32:
        yield "partition-range", f"it ends at {row.end:#x}, beyond 32 bits", True
    if not row.name:
        yield "partition-name", "it has no name", False
    elif not is_utf8(row.name):
        yield "partition-name", "its name is not UTF-8", False
    elif len(row.name_bytes) > MAX_NAME:
        yield (
            "partition-name",
            f"its name has {MAX_NAME + 1} bytes, which leaves no room for the terminating zero",
            False,
        )
    elif not row.name.isprintable():
        yield "partition-name", "its name holds characters that cannot be displayed", False
    if row.type not in TYPES.values() and not FIRST_CUSTOM_TYPE <= row.type <= LAST_CUSTOM_TYPE:
        yield (
            "partition-type",
            f"type {row.type:#x} is reserved; custom types are 0x40 to 0xfe",
            False,
        )
    elif row.type in SUBTYPES and row.subtype not in SUBTYPES[row.type].values():
        yield (
            "partition-subtype",
            f"subtype {row.subtype:#x} of type {row.type_name} is unknown",
            False,
        )
    if unknown := row.flags & ~(ENCRYPTED | READONLY):
        yield "partition-flags", f"flags {unknown:#x} are unknown", False
    if row.type == DATA:
        yield from _check_data(row)
    if row.name in TYPES and TYPES[row.name] != row.type:
        yield "partition-misnamed", f"it is named as a type, but is of type {row.type_name}", False
    subtypes = {
        name: (type_, value) for type_, known in SUBTYPES.items() for name, value in known.items()
    }
    if row.name in subtypes and SUBTYPES.get(row.type, {}).get(row.name) != row.subtype:
        kind = f"{row.type_name}/{row.subtype_name}"
        yield "partition-misnamed", f"it is named as a subtype, but is {kind}", False


def _check_data(row: Partition) -> Iterator[tuple[str, str, bool]]:
    if row.subtype in (OTA_DATA, TEE_OTA) and row.size != OTA_DATA_SIZE:
        yield "otadata-size", f"its size must be {OTA_DATA_SIZE:#x}, not {row.size:#x}", True
    if row.subtype in (OTA_DATA, COREDUMP) and row.flags & READONLY:
        yield "partition-readonly", f"data/{row.subtype_name} cannot be readonly", True
    if row.subtype == NVS and row.size < MIN_NVS_SIZE and not row.flags & READONLY:
        yield (
            "nvs-size",
            f"an nvs partition needs at least {MIN_NVS_SIZE:#x} bytes, unless it is readonly",
            True,
        )


def _check_names(table: PartitionTable) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for index, row in enumerate(table.partitions):
        if row.name in seen:
            text = (
                f"{table.describe_row(index)} has the name of {table.describe_row(seen[row.name])}"
            )
            yield Problem("partition-duplicate", text, partition=row.name)
        seen.setdefault(row.name, index)


def _check_single(table: PartitionTable) -> Iterator[Problem]:
    """Kinds that must be unique, and OTA slots."""
    seen: dict[tuple[int, int], int] = {}
    for index, row in enumerate(table.partitions):
        kind = (row.type, row.subtype)
        single = kind in ((DATA, OTA_DATA), (DATA, TEE_OTA))
        first = seen.setdefault(kind, index)
        if first == index or not (single or row.type in (APP, BOOTLOADER, TABLE)):
            continue
        what = f"{row.type_name}/{row.subtype_name}"
        text = f"{table.describe_row(index)} is a second {what}, after {table.describe_row(first)}"
        yield Problem("partition-twice", text, fatal=single, partition=row.name)


def _check_overlaps(table: PartitionTable, rules: TableRules) -> Iterator[Problem]:
    end = rules.table_offset + TABLE_SIZE
    order = sorted(range(len(table.partitions)), key=lambda index: table.partitions[index].offset)
    last: int | None = None
    for index in order:
        row = table.partitions[index]
        below = row.offset < end and row.subtype != RECOVERY
        if below and not (row.type in (BOOTLOADER, TABLE) and row.subtype == PRIMARY):
            text = f"{table.describe_row(index)}: offset {row.offset:#x} is below {end:#x}, where the table ends"
            yield Problem("partition-below-table", text, partition=row.name)
        if last is not None and row.offset < table.partitions[last].end and row.size:
            other = table.partitions[last]
            text = (
                f"{table.describe_row(index)} at {row.offset:#x} overlaps {table.describe_row(last)}, "
                f"which ends at {other.end:#x}"
            )
            yield Problem("partition-overlap", text, partition=row.name)
        if row.size and (last is None or row.end > table.partitions[last].end):
            last = index


def find_kind(partitions: Iterable[Partition], type_: int, subtype: int) -> Partition | None:
    """The first partition of this kind."""
    return next((row for row in partitions if (row.type, row.subtype) == (type_, subtype)), None)
