"""``image-info``: what a firmware file holds, and whether its checks hold."""

from __future__ import annotations

import click

from espwire.cli.options import chip_option, input_format_option
from espwire.cli.session import Session


@click.command(
    "image-info",
    help="Show what a firmware file holds, and check it. BIN, Intel HEX, S-record, UF2.",
)
@chip_option
@click.option(
    "--version", "-e", type=click.Choice(("1", "2")), hidden=True
)  # of esptool 4: there is one layout now
@input_format_option
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(session: Session, version: str | None, file: str) -> None:
    """Look into the file, then fail if something in it is wrong."""
    from espwire.chips.registry import load_chip
    from espwire.cli.image_text import draw_file, file_data
    from espwire.cli.parts import name_source, read_source
    from espwire.errors import ImageError
    from espwire.image.inspect import inspect_bytes

    session.configure()
    data = read_source(file)
    chip = load_chip(session.chip) if session.chip is not None else None
    found = inspect_bytes(data, name_source(file), chip, format=session.peer_format)
    session.result("image-info", draw_file(found), file_data(found))
    if not found.intact:
        raise ImageError(
            f"{found.name} is damaged: {found.problems[0]}",
            hint="Build it, or get it, again.",
            code="image-damaged",
            problems=list(found.problems),
        )
