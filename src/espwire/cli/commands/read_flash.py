"""``read-flash``: flash → file."""

from __future__ import annotations

import click

from espwire.cli.options import progress_option, region_arguments
from espwire.cli.session import Session


@click.command("read-flash", help="Read flash into a file. SIZE may be ALL: up to the end of the flash.")
@region_arguments
@click.argument("file", metavar="FILE")
@progress_option
@click.pass_obj
def command(session: Session, address: int, size: int | None, file: str, no_progress: bool) -> None:
    """Stream to disk; the file is whole or absent."""
    from espwire.flash.read import read_to_file

    session.progress = not no_progress
    with session.device() as device:
        done = read_to_file(device, address, size, file, report=session.report)
    text = f"{file} holds {done:,} bytes from {address:#x}."
    session.result("read-flash", text, {"address": address, "size": done, "file": file})
