"""``partitions build``: CSV → the binary table."""

from __future__ import annotations

import click

from espwire.cli.number_types import parse_address
from espwire.cli.options import input_format_option
from espwire.cli.places import flash_limit_option, table_offset_option
from espwire.cli.session import Session
from espwire.text import escape


def _parse_offset(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    return None if value is None else parse_address(context, parameter, value)


@click.command(
    "build",
    help="Make the binary table from CSV (or from another table). Offsets left blank are found.",
)
@click.argument("file", metavar="CSV")
@click.option("-o", "--output", metavar="FILE", required=True, help="Where to write it.")
@flash_limit_option
@click.option(
    "--secure-boot-v1", is_flag=True, help="Applications must have sizes of whole 64 KiB."
)
@click.option("--no-md5", is_flag=True, help="Leave the MD5 out (boot loaders before ESP-IDF 3.1).")
@click.option("--no-check", is_flag=True, help="Build it even if it is not sound.")
@click.option(
    "--bootloader-offset", metavar="ADDRESS", callback=_parse_offset, help="Else as --chip says."
)
@click.option(
    "--recovery-offset",
    metavar="ADDRESS",
    callback=_parse_offset,
    help="Of the recovery boot loader.",
)
@input_format_option
@table_offset_option
@click.pass_obj
def command(
    session: Session,
    /,
    file: str,
    output: str,
    flash_size: int | None,
    secure_boot_v1: bool,
    no_md5: bool,
    no_check: bool,
    bootloader_offset: int | None,
    recovery_offset: int | None,
) -> None:
    """Read, check, write."""
    from espwire.chips.registry import load_chip
    from espwire.cli.tables import describe_table, read_table_file
    from espwire.events import Warned
    from espwire.files import keep_inputs, write_file
    from espwire.image.partition_csv import TableOffsets
    from espwire.image.partition_table import TableRules, build_table, check_table, require_sound

    session.configure()
    keep_inputs(output, [file])
    if bootloader_offset is None and session.chip is not None:
        bootloader_offset = load_chip(session.chip).flash.bootloader_offset
    offset = session.partition_table_offset
    table = read_table_file(
        file, session, places=TableOffsets(offset, bootloader_offset, recovery_offset)
    )
    rules = TableRules(flash_size, offset, secure_boot_v1)
    if not no_check:
        require_sound(table, rules, file)
    for problem in check_table(table, rules):
        session.report(Warned(code=problem.code, text=problem.text))
    data = build_table(table, md5=not no_md5)
    write_file(output, data)
    count = len(table.partitions)
    text = f"{escape(output)} holds {count} partition{'s' if count != 1 else ''}, {len(data)} bytes, for {offset:#x}."
    session.result(
        "partitions build", text, {"file": output, "size": len(data)} | describe_table(table)
    )
