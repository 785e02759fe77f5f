"""``make-image``: raw files for given addresses → an image."""

from __future__ import annotations

import click

from espwire.cli.options import header_options
from espwire.cli.session import Session


@click.command(
    "make-image",
    help="Make an image from raw files. Give -f FILE -a ADDRESS for each. For an ESP8266, which it is without --chip,"
    " OUTPUT is the beginning of the names: app.bin becomes app.bin0x00000.bin.",
)
@click.argument("output", metavar="OUTPUT")
@click.option(
    "-f", "--segfile", multiple=True, metavar="FILE", help="A file with a segment's bytes."
)
@click.option(
    "-a", "--segaddr", multiple=True, metavar="ADDRESS", help="The address of that segment."
)
@click.option(
    "-e", "--entrypoint", default="0", metavar="ADDRESS", help="Where the program starts; 0."
)
@header_options
@click.pass_obj
def command(
    session: Session,
    output: str,
    segfile: tuple[str, ...],
    segaddr: tuple[str, ...],
    entrypoint: str,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
) -> None:
    """Pair files and addresses, in the order given."""
    from espwire.cli.commands.elf2image import report
    from espwire.cli.parts import header_settings
    from espwire.errors import UsageError
    from espwire.image.elf2image import make_image
    from espwire.sizes import parse_number

    if len(segfile) != len(segaddr) or not segfile:
        raise UsageError(
            f"{len(segfile)} files and {len(segaddr)} addresses do not make pairs" if segfile or segaddr
            else "an image of nothing is none",
            hint="Give -f FILE -a ADDRESS for each segment.",
        )  # fmt: skip
    parts = [
        (parse_number(address, "address"), file)
        for address, file in zip(segaddr, segfile, strict=True)
    ]
    entry = parse_number(entrypoint, "entry address")
    settings = header_settings(flash_mode, flash_freq, flash_size)
    made = make_image(parts, output, chip=session.chip or "esp8266", entry=entry, settings=settings)
    report(session, "make-image", made)
