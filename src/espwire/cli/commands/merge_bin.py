"""``merge-bin``: several files into one, raw, UF2 or Intel HEX."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from espwire.cli.options import Number, chip_option, header_options, pairs_argument
from espwire.cli.session import Session
from espwire.escape import escape

if TYPE_CHECKING:
    from espwire.image.flash_settings import HeaderSettings
    from espwire.image.merge import MergePart

FORMATS = ("raw", "uf2", "hex")


@click.command("merge-bin", help="Merge files into one that holds them all: raw, UF2 or Intel HEX.")
@chip_option
@pairs_argument
@click.option("-o", "--output", metavar="FILE", required=True, help="What to write.")
@click.option("-f", "--format", "kind", type=click.Choice(FORMATS), default="raw", help="raw (the default), uf2, hex.")
@click.option(
    "-t", "--target-offset", type=Number(0), default=0, metavar="N", help="Where the raw file will be flashed."
)
@click.option("--pad-to-size", metavar="SIZE", help="Fill the raw file with 0xFF up to this flash size.")
@click.option("--chunk-size", type=Number(), metavar="N", help="Payload bytes of each UF2 block: a multiple of 4.")
@click.option("--md5-disable", is_flag=True, help="Write no MD5 sums into UF2 blocks.")
@click.option("-sc", "--spi-connection", hidden=True, expose_value=False)  # esptool 3 and 4 took it, to no effect
@header_options
@click.pass_obj
def command(
    session: Session,
    pairs: list[tuple[int, str]],
    output: str,
    kind: str,
    target_offset: int,
    pad_to_size: str | None,
    chunk_size: int | None,
    md5_disable: bool,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
) -> None:
    """Read, merge, write."""
    from espwire.chips.lookup import load_image_chip
    from espwire.cli.parts import STDIN, header_settings
    from espwire.events import Warned
    from espwire.files import check_total_size, keep_inputs, write_file
    from espwire.image.flash_settings import parse_size
    from espwire.image.merge import MergeOptions, find_merge_chip, merge_parts

    session.configure()
    keep_inputs(output, [path for _, path in pairs if path != STDIN])
    check_total_size(path for _, path in pairs)
    settings = header_settings(flash_mode, flash_freq, flash_size)
    parts = [part for address, path in pairs for part in _read(session, address, path, settings)]
    chip = load_image_chip(session.chip) if session.chip is not None else find_merge_chip(parts)
    options = MergeOptions(
        format=kind,  # type: ignore[arg-type]  # one of FORMATS: click has checked
        target_offset=target_offset,
        pad_to_size=None if pad_to_size is None else parse_size(pad_to_size),
        chunk_size=chunk_size,
        md5=not md5_disable,
        settings=settings,
    )
    merged = merge_parts(parts, chip, options)
    for text in merged.warnings:
        session.report(Warned(code="header-kept", text=text))
    write_file(output, merged.data)
    end = max(part.end for part in merged.parts)
    if kind == "raw" and options.pad_to_size is not None and end > options.pad_to_size:
        text = f"the parts end at {end:#x}, past the {pad_to_size} to pad to: the file is larger than that"
        session.report(Warned(code="merge-past-pad", text=text))
    count = len(merged.parts)
    place = f", to be flashed at {target_offset:#x}" if kind == "raw" else ""
    session.result(
        "merge-bin",
        f"{escape(output)}: {len(merged.data):,} bytes, {count} part{'s' if count > 1 else ''} for {chip.name}{place}.",
        {
            "output": output,
            "format": kind,
            "bytes": len(merged.data),
            "chip": chip.id,
            "target_offset": target_offset,
            "parts": [{"address": part.address, "bytes": len(part.data), "name": part.name} for part in merged.parts],
        },
    )


def _read(session: Session, address: int, path: str, settings: HeaderSettings) -> Iterator[MergePart]:
    """The parts of one file. What is raw, as most files are, needs no chip and no converting."""
    from espwire.cli.parts import name_source, read_source, require_data
    from espwire.events import Note
    from espwire.image.inputs import find_format, read_input
    from espwire.image.merge import MergePart

    name, data = name_source(path), read_source(path)
    kind = find_format(data)
    if kind == "raw":
        yield MergePart(address, data, name)
        return
    chip = None
    if kind == "elf" and session.chip is not None:
        from espwire.chips.registry import load_chip

        chip = load_chip(session.chip)
    pieces = read_input(data, name, chip=chip, settings=settings)
    require_data(pieces, name)
    for piece in pieces:
        if piece.note:
            session.report(Note(text=piece.note))
        yield MergePart(address if piece.address is None else piece.address, piece.data, name)
