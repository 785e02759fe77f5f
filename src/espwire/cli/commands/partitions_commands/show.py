"""``partitions show``: a table, from wherever it is."""

from __future__ import annotations

import click

from espwire.cli.options import input_format_option
from espwire.cli.places import table_offset_option
from espwire.cli.session import Session


@click.command(
    "show", help="Show a table: of FILE (CSV, binary table or dump of flash), or of the device."
)
@click.argument("file", metavar="[FILE]", required=False)
@input_format_option
@table_offset_option
@click.pass_obj
def command(session: Session, file: str | None) -> None:
    """The rows; what is wrong with them as warnings."""
    from espwire.cli.tables import describe_table, draw_table, read_table
    from espwire.events import Warned
    from espwire.image.partition_table import TableRules, check_table

    table = read_table(file, session)
    for problem in check_table(table, TableRules(table_offset=session.partition_table_offset)):
        session.report(Warned(code=problem.code, text=problem.text))
    session.result("partitions show", draw_table(table), describe_table(table))
