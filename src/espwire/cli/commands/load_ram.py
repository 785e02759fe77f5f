"""``load-ram``: a program from an image into RAM."""

from __future__ import annotations

import click

from espwire.cli.flash_options import allow_option
from espwire.cli.options import input_format_option, progress_option
from espwire.cli.session import Session


@click.command(
    "load-ram",
    help="Put a program into RAM and start it. FILE is an image (also as HEX) or an ELF; the flash is not touched.",
)
@click.argument("file", metavar="FILE")
@input_format_option
@click.option("--force", is_flag=True, help="Also over the RAM that the ROM uses itself.")
@allow_option
@progress_option
@click.pass_obj
def command(
    session: Session, file: str, force: bool, allow: frozenset[str], no_progress: bool
) -> None:
    """Read the file first; once the program runs, nothing resets the chip."""
    from espwire.cli.parts import choose_program, name_source, read_blobs
    from espwire.flash.load_ram import load_ram
    from espwire.flash.model import Policy

    session.progress = not no_progress
    blobs = read_blobs(file, session)
    if not any(blob.one_of for blob in blobs):
        choose_program(blobs, "", file)  # before the chip is reset
    policy = Policy(force=force, consents=allow)
    with session.device(bulk=False) as device:
        data = choose_program(blobs, device.chip.id, file)
        done = load_ram(device, data, name=name_source(file), policy=policy, report=session.report)
        session.runs = True
    text = f"RAM holds {len(done.segments)} segments, {done.size:,} bytes; the program at {done.entry:#010x} was started."
    segments = [{"address": address, "size": size} for address, size in done.segments]
    session.result("load-ram", text, {"entry": done.entry, "segments": segments})
