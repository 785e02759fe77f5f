"""``split-image``: a merged file or a dump of flash → the files it was made of."""

from __future__ import annotations

import click

from espwire.cli.number_types import FlashAddress
from espwire.cli.options import chip_option, input_format_option
from espwire.cli.session import Session
from espwire.text import escape

ARGUMENTS = "flash_args"


@click.command(
    "split-image",
    help="Split a merged file into bootloader, partition table and partitions. FILE: BIN, Intel HEX, S-record or UF2.",
)
@chip_option
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    required=True,
    help="A new folder; one that holds files is refused.",
)
@click.option(
    "-t",
    "--target-offset",
    type=FlashAddress(0),
    metavar="N",
    help="The flash address where a raw file starts.",
)
@input_format_option
@click.pass_obj
def command(session: Session, file: str, output: str, target_offset: int | None) -> None:
    """Cut, write all files, and one that write-flash can read: ``write-flash @flash_args``."""
    from espwire.chips.registry import load_chip
    from espwire.cli.parts import name_source, read_source
    from espwire.files import write_folder
    from espwire.image.split import split_image

    session.configure()
    chip = load_chip(session.chip) if session.chip is not None else None
    blobs = split_image(
        read_source(file),
        name_source(file),
        chip,
        target_offset=target_offset,
        format=session.input_format,
    )
    files = {blob.name: blob.data for blob in blobs}
    files[ARGUMENTS] = "".join(f"{blob.address:#x} {blob.name}\n" for blob in blobs).encode()
    write_folder(output, files)
    rows = [f"{blob.address:#010x}  {len(blob.data):>10,} bytes  {blob.name}" for blob in blobs]
    rows.append(
        f"Written to {escape(output)}, with {ARGUMENTS} for `espwire write-flash @{ARGUMENTS}` in that folder."
    )
    found = [
        {"address": blob.address, "bytes": len(blob.data), "file": blob.name, "kind": blob.kind}
        for blob in blobs
    ]
    session.result("split-image", "\n".join(rows), {"folder": output, "parts": found})
