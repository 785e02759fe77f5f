"""``load-ram``: a program from an image into RAM."""

from __future__ import annotations

import os

import click

from espwire.cli.options import progress_option
from espwire.cli.session import Session


@click.command(
    "load-ram",
    help="Put a program into RAM and start it. FILE is an image; the flash is not touched.",
)
@click.argument("file", metavar="FILE")
@click.option("--force", is_flag=True, help="Also over the RAM that the ROM uses itself.")
@progress_option
@click.pass_obj
def command(session: Session, file: str, force: bool, no_progress: bool) -> None:
    """Read the file first; once the program runs, nothing resets the chip."""
    from espwire.files import read_file
    from espwire.flash.memory import load_ram

    session.progress = not no_progress
    data = read_file(file)
    with session.device() as device:
        done = load_ram(device, data, name=os.path.basename(file), force=force, report=session.report)
        session.after = "no-reset"  # what runs now shall go on
    text = (
        f"RAM holds {len(done.segments)} segments, {done.size:,} bytes; the program at {done.entry:#010x} was started."
    )
    segments = [{"address": address, "size": size} for address, size in done.segments]
    session.result("load-ram", text, {"entry": done.entry, "segments": segments})
