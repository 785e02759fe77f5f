"""``split-image``: a merged file or a dump of flash → the files it was made of."""

from __future__ import annotations

import os

import click

from espwire.cli.options import Number, chip_option
from espwire.cli.session import Session
from espwire.escape import escape

ARGUMENTS = "flash_args"


@click.command(
    "split-image", help="Cut a merged BIN, HEX, S-record or UF2 into boot loader, partition table and partitions."
)
@chip_option
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", metavar="FOLDER", required=True, help="A new folder; one that holds files is refused.")
@click.option("-t", "--target-offset", type=Number(0), metavar="N", help="The flash address where a raw file starts.")
@click.pass_obj
def command(session: Session, file: str, output: str, target_offset: int | None) -> None:
    """Cut, write all files, and one that write-flash can read: ``write-flash @flash_args``."""
    from espwire.chips.lookup import load_image_chip
    from espwire.files import read_file, write_folder
    from espwire.image.split import split_image

    session.configure()
    chip = load_image_chip(session.chip) if session.chip is not None else None
    parts = split_image(read_file(file), os.path.basename(file), chip, target_offset=target_offset)
    files = {part.file: part.data for part in parts}
    files[ARGUMENTS] = "".join(f"{part.address:#x} {part.file}\n" for part in parts).encode()
    write_folder(output, files)
    rows = [f"{part.address:#010x}  {len(part.data):>10,} bytes  {part.file}" for part in parts]
    rows.append(f"Written to {escape(output)}, with {ARGUMENTS} for `espwire write-flash @{ARGUMENTS}` in that folder.")
    found = [{"address": part.address, "bytes": len(part.data), "file": part.file, "kind": part.kind} for part in parts]
    session.result("split-image", "\n".join(rows), {"folder": output, "parts": found})
