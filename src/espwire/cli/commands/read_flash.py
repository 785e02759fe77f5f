"""``read-flash``: flash → file."""

from __future__ import annotations

import click

from espwire.cli.flash_options import flash_options, known_size_option, parse_known_size
from espwire.cli.options import progress_option
from espwire.cli.places import place_options
from espwire.cli.session import Session
from espwire.text import escape


@click.command(
    "read-flash",
    help="Read flash into a file. SIZE may be ALL: up to the end of the flash. A partition's name may stand for both.",
)
@click.argument("words", metavar="ADDRESS SIZE FILE", nargs=-1, required=True)
@known_size_option("keep")
@flash_options
@place_options
@progress_option
@click.pass_obj
def command(session: Session, words: tuple[str, ...], flash_size: str, no_progress: bool) -> None:
    """Stream to disk; the file is whole or absent."""
    from espwire.cli.places import find_region, parse_region
    from espwire.cli.preconditions import check_output
    from espwire.flash.read import read_to_file

    place, size, (file,) = parse_region(words, files=1, strict=session.program.strict)
    check_output(file)
    session.progress = not no_progress
    known = parse_known_size(flash_size)
    with session.device() as device:
        address, size = find_region(session, device, place, size)
        done = read_to_file(device, address, size, file, flash_size=known, report=session.report)
    text = f"Done: {done:,} bytes read from {address:#x} into {escape(file)}."
    session.finish("read-flash", text, {"address": address, "size": done, "file": file})
