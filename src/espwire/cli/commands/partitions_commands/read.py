"""``partitions read``: the table of a device or a dump → a file."""

from __future__ import annotations

import click

from espwire.cli.options import named_input_format_option
from espwire.cli.places import table_offset_option
from espwire.cli.session import Session
from espwire.text import escape


@click.command(
    "read",
    help="Take the table from the device, or --from a dump, into FILE: CSV if it ends in .csv.",
)
@click.argument("file", metavar="FILE")
@click.option(
    "--from", "source", metavar="FILE", help="A dump of flash, or another table; else the device."
)
@click.option(
    "--format", "form", type=click.Choice(("csv", "bin")), help="Else as the name of FILE says."
)
@named_input_format_option
@table_offset_option
@click.pass_obj
def command(session: Session, file: str, source: str | None, form: str | None) -> None:
    """Read, write."""
    from espwire.cli.preconditions import check_output
    from espwire.cli.tables import describe_table, read_table
    from espwire.files import keep_inputs, write_file
    from espwire.image.partition_csv import build_csv
    from espwire.image.partition_table import build_table

    keep_inputs(file, [] if source is None else [source])
    check_output(file)
    table = read_table(source, session)
    form = form or ("csv" if file.lower().endswith(".csv") else "bin")
    data = (
        build_csv(table).encode()
        if form == "csv"
        else build_table(table, md5=table.md5_valid is not None)
    )
    write_file(file, data)
    count = len(table.partitions)
    text = f"{escape(file)} holds {count} partition{'s' if count != 1 else ''} as {form}."
    session.finish("partitions read", text, {"file": file, "format": form} | describe_table(table))
