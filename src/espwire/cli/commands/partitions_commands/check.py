"""``partitions check``: everything that is wrong with a table."""

from __future__ import annotations

import click

from espwire.cli.options import input_format_option
from espwire.cli.places import flash_limit_option, table_offset_option
from espwire.cli.session import Session


@click.command(
    "check",
    help="Check the table of FILE, or of the device. Ends with exit code 6 if it is not sound.",
)
@click.argument("file", metavar="[FILE]", required=False)
@flash_limit_option
@click.option(
    "--secure-boot-v1", is_flag=True, help="Applications must have sizes of whole 64 KiB."
)
@input_format_option
@table_offset_option
@click.pass_obj
def command(
    session: Session, file: str | None, flash_size: int | None, secure_boot_v1: bool
) -> None:
    """List all, then fail if one is fatal."""
    from espwire.cli.tables import read_table
    from espwire.image.partition_table import TableRules, check_table, require_sound

    table = read_table(file, session)
    rules = TableRules(flash_size, session.partition_table_offset, secure_boot_v1)
    problems = check_table(table, rules)
    lines = [
        f"{'wrong' if problem.fatal else 'odd'}: {problem.text} [{problem.code}]"
        for problem in problems
    ]
    count = len(table.partitions)
    text = (
        "\n".join(lines)
        or f"{count} partition{'s' if count != 1 else ''} up to {table.end:#x}: nothing is wrong."
    )
    told = [
        {"code": problem.code, "text": problem.text, "fatal": problem.fatal} for problem in problems
    ]
    sound = not any(problem.fatal for problem in problems)
    session.result("partitions check", text, {"sound": sound, "problems": told, "end": table.end})
    require_sound(table, rules, file or "the device's table")
