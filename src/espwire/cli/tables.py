"""Partition tables that a command is pointed at: a CSV, a binary table, a dump of flash, or the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.errors import TableError

if TYPE_CHECKING:
    from espwire.cli.session import Session
    from espwire.image.partition_csv import TableOffsets
    from espwire.image.partition_table import PartitionTable


def read_table_file(
    path: str, session: Session, *, places: TableOffsets | None = None
) -> PartitionTable:
    """The table in a file: binary where one begins it, or stands where the table's offset says; else CSV.

    :raises FileError: it cannot be read
    :raises TableError: it holds no table, or a broken one
    """
    from espwire.cli.parts import name_source, read_source

    return parse_table_bytes(read_source(path), name_source(path), session, places=places)


def parse_table_bytes(
    data: bytes, name: str, session: Session, *, places: TableOffsets | None = None
) -> PartitionTable:
    """As ``read_table_file``, for bytes."""
    from espwire.chips.registry import load_chip
    from espwire.image.partition_csv import TableOffsets, decode_csv, parse_csv
    from espwire.image.partition_table import MD5_MAGIC, ROW_MAGIC, TABLE_SIZE, parse_table
    from espwire.image.split import lay_out_addressed

    offset = session.partition_table_offset
    chip = None if session.chip is None else load_chip(session.chip)
    data = lay_out_addressed(data, name, chip, format=session.input_format)
    if data[:2] in (ROW_MAGIC, MD5_MAGIC):
        return parse_table(data, name)
    if data[offset : offset + 2] in (ROW_MAGIC, MD5_MAGIC):
        return parse_table(data[offset : offset + TABLE_SIZE], f"{name} at {offset:#x}")
    text = decode_csv(data, name)
    if text is None:
        raise TableError(
            f"{name} is neither a partition table nor CSV, and has no table at {offset:#x}",
            hint="Give a CSV, a binary table, or a dump with --partition-table-offset.",
            code="no-partition-table",
        )
    return parse_csv(text, places or TableOffsets(offset), name)


def read_table(path: str | None, session: Session) -> PartitionTable:
    """The file's table, or the device's where no file is named.

    :raises ToolError: as ``read_table_file`` or ``read_partition_table``
    """
    if path is not None:
        return read_table_file(path, session)
    from espwire.flash.partitions import read_partition_table

    with session.device() as device:
        return read_partition_table(device, session.partition_table_offset)


def draw_table(table: PartitionTable) -> str:
    """The rows, aligned."""
    from espwire.sizes import format_size

    rows = [("Name", "Type", "Subtype", "Offset", "End", "Size", "Flags")]
    for row in table.partitions:
        size = format_size(row.size)
        flags = " ".join([*row.flag_names, *([f"! {row.flaw}"] if row.flaw else [])])
        kind = (row.type_name, row.subtype_name)
        rows.append((row.label, *kind, f"{row.offset:#010x}", f"{row.end:#010x}", size, flags))
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def describe_table(table: PartitionTable) -> dict[str, object]:
    """The rows for programs. ``flaw``: why a row cannot be used by name."""
    from espwire.image.partition_table import is_utf8

    return {
        "md5_valid": table.md5_valid,
        "partitions": [
            {
                "name": row.name if is_utf8(row.name) else row.label,
                "type": row.type_name,
                "subtype": row.subtype_name,
                "offset": row.offset,
                "size": row.size,
                "flags": list(row.flag_names),
                "flaw": row.flaw or None,
            }
            for row in table.partitions
        ],
    }
