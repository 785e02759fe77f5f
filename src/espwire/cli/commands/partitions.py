"""``partitions show``, ``check``, ``build``, ``read``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from espwire.cli.inputs import (
    check_writable,
    load_chip_option,
    read_table_file,
)
from espwire.cli.number_types import parse_address
from espwire.cli.options import (
    input_format_option,
    only_input_format_option,
    table_offset_option,
    table_size_option,
)
from espwire.cli.output import align
from espwire.files import keep_inputs, write_file
from espwire.image.partition_csv import TableOffsets, build_csv
from espwire.image.partition_table import (
    PartitionTable,
    TableRules,
    build_table,
    check_table,
    is_utf8,
    require_sound,
)
from espwire.sizes import format_size
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.image.read_any import FormatChoice

secure_boot_v1_option = click.option(
    "--secure-boot-v1",
    is_flag=True,
    help="Require sizes of application partitions to be multiples of 64 KiB.",
)


def read_table(
    context: Context, path: str | None, offset: int, format: FormatChoice
) -> PartitionTable:
    """The table in a file, or the device's.

    :raises ToolError: it cannot be read, or is not valid
    """
    if path is not None:
        return read_table_file(context, path, offset, format=format)
    from espwire.flash.read_table import read_partition_table

    with context.device() as device:
        return read_partition_table(device, offset)


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@input_format_option
@table_offset_option
@click.pass_obj
def show(context: Context, file: str | None, input_format: FormatChoice, table_offset: int) -> None:
    """FILE is a CSV file, a binary table or a dump of flash. Without FILE, the device's table is shown."""

    table = read_table(context, file, table_offset, input_format)
    for problem in check_table(table, TableRules(table_offset=table_offset)):
        context.warn(problem.code, problem.text)
    context.result("partitions show", draw_table(table), table_data(table))


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@table_size_option
@secure_boot_v1_option
@input_format_option
@table_offset_option
@click.pass_obj
def check(
    context: Context,
    file: str | None,
    flash_size: int | None,
    secure_boot_v1: bool,
    input_format: FormatChoice,
    table_offset: int,
) -> None:
    """FILE is a CSV file, a binary table or a dump of flash. Without FILE, the device's table is checked. Exits with
    code 6 if the table is not valid."""

    table = read_table(context, file, table_offset, input_format)
    rules = TableRules(flash_size, table_offset, secure_boot_v1)
    problems = check_table(table, rules)
    lines = [
        f"{'error' if problem.fatal else 'warning'}: {problem.text} [{problem.code}]"
        for problem in problems
    ]
    ok = f"{_count(table)} up to {table.end:#x}: no problems found."
    data = {
        "sound": not any(problem.fatal for problem in problems),
        "problems": [
            {"code": problem.code, "text": problem.text, "fatal": problem.fatal}
            for problem in problems
        ],
        "end": table.end,
    }
    context.result("partitions check", "\n".join(lines) or ok, data)
    require_sound(table, rules, file or "the device's table")


@click.command()
@click.argument("file", metavar="CSV")
@click.option("-o", "--output", metavar="FILE", required=True, help="Output file.")
@table_size_option
@secure_boot_v1_option
@click.option(
    "--no-md5", is_flag=True, help="Leave out the MD5 checksum (bootloaders before ESP-IDF 3.1)."
)
@click.option("--no-check", is_flag=True, help="Build the table even if it is not valid.")
@click.option(
    "--bootloader-offset",
    metavar="ADDRESS",
    callback=parse_address,
    help="Address of the bootloader. Default: that of --chip.",
)
@click.option(
    "--recovery-offset",
    metavar="ADDRESS",
    callback=parse_address,
    help="Address of the recovery bootloader.",
)
@input_format_option
@table_offset_option
@click.pass_obj
def build(
    context: Context,
    /,
    file: str,
    output: str,
    flash_size: int | None,
    secure_boot_v1: bool,
    no_md5: bool,
    no_check: bool,
    bootloader_offset: int | None,
    recovery_offset: int | None,
    input_format: FormatChoice,
    table_offset: int,
) -> None:
    """The input may also be another binary table. Empty offsets are filled in."""

    keep_inputs(output, [file])
    chip = load_chip_option(context)
    if bootloader_offset is None and chip is not None:
        bootloader_offset = chip.flash.bootloader_offset
    layout = TableOffsets(table_offset, bootloader_offset, recovery_offset)
    table = read_table_file(context, file, table_offset, format=input_format, layout=layout)
    rules = TableRules(flash_size, table_offset, secure_boot_v1)
    if not no_check:
        require_sound(table, rules, file)
    for problem in check_table(table, rules):
        context.warn(problem.code, problem.text)
    data = build_table(table, md5=not no_md5)
    write_file(output, data)
    text = f"{escape(output)}: {_count(table)}, {len(data):,} bytes, for {table_offset:#x}."
    context.result(
        "partitions build", text, {"file": output, "size": len(data)} | table_data(table)
    )


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Read the table from this dump or table file instead of the device.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(("csv", "bin")),
    help="Output format. Default: csv if FILE ends in .csv, else bin.",
)
@only_input_format_option
@table_offset_option
@click.pass_obj
def read(
    context: Context,
    file: str,
    source: str | None,
    form: str | None,
    input_format: FormatChoice,
    table_offset: int,
) -> None:

    keep_inputs(file, [] if source is None else [source])
    check_writable(file)
    table = read_table(context, source, table_offset, input_format)
    form = form or ("csv" if file.lower().endswith(".csv") else "bin")
    if form == "csv":
        data = build_csv(table).encode()
    else:
        data = build_table(table, md5=table.md5_valid is not None)
    write_file(file, data)
    text = f"{escape(file)}: {_count(table)} as {form}."
    context.finish("partitions read", text, {"file": file, "format": form} | table_data(table))


def _count(table: PartitionTable) -> str:
    count = len(table.partitions)
    return f"{count} partition{'s' if count != 1 else ''}"


def draw_table(table: PartitionTable) -> str:
    """The rows in aligned columns."""
    rows = [("Name", "Type", "Subtype", "Offset", "End", "Size", "Flags")]
    for row in table.partitions:
        size = format_size(row.size)
        flags = " ".join([*row.flag_names, *([f"! {row.flaw}"] if row.flaw else [])])
        kind = (row.type_name, row.subtype_name)
        rows.append((row.label, *kind, f"{row.offset:#010x}", f"{row.end:#010x}", size, flags))
    return align(rows)


def table_data(table: PartitionTable) -> dict[str, object]:
    """The rows for programs. ``flaw``: why a row cannot be used by name."""

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
