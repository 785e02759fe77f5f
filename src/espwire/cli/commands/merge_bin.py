"""``merge-bin``: several files into one, raw, UF2 or Intel HEX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.flash_options import allow_option
from espwire.cli.number_types import FlashAddress, Number
from espwire.cli.options import (
    chip_option,
    header_options,
    named_input_format_option,
    pairs_argument,
)
from espwire.cli.session import Session
from espwire.errors import UsageError
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.blob import Blob
    from espwire.chips.model import Chip
    from espwire.image.header import HeaderSettings
    from espwire.image.merge import Merged

FORMATS = ("raw", "uf2", "hex")
IMAGE_BEGINS = (b"\xe9", b"\xea", b"\xff")  # of images, and of files with blank bytes before one


@click.command("merge-bin", help="Merge files into one that holds them all: raw, UF2 or Intel HEX.")
@chip_option
@pairs_argument
@click.option("-o", "--output", metavar="FILE", required=True, help="What to write.")
@named_input_format_option
@click.option(
    "-f",
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="raw",
    help="raw (the default), uf2, hex.",
)
@click.option(
    "-t",
    "--target-offset",
    type=FlashAddress(0),
    default=0,
    metavar="N",
    help="Where the raw file will be flashed.",
)
@click.option(
    "--pad-to-size", metavar="SIZE", help="Fill the raw file with 0xFF up to this flash size."
)
@click.option(
    "--chunk-size",
    type=Number(),
    metavar="N",
    help="Payload bytes of each UF2 block: a multiple of 4.",
)
@click.option("--md5-disable", is_flag=True, help="Write no MD5 sums into UF2 blocks.")
@click.option(
    "-sc", "--spi-connection", hidden=True, expose_value=False
)  # esptool 3 and 4 took it, to no effect
@header_options
@click.option("--force", is_flag=True, help="Merge even if a safety check fails.")
@allow_option
@click.pass_obj
def command(
    session: Session,
    /,
    pairs: list[tuple[int, str]],
    output: str,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    **choices: Any,
) -> None:
    """Read, check, merge, write."""
    from espwire.blob import choose_for_chip
    from espwire.cli.parts import STDIN, header_settings
    from espwire.events import Warned
    from espwire.files import check_total_size, keep_inputs, write_file
    from espwire.image.header import parse_size
    from espwire.image.merge import MergeOptions, merge_blobs

    session.configure()
    keep_inputs(output, [path for _, path in pairs if path != STDIN])
    check_total_size(path for _, path in pairs)
    settings = header_settings(flash_mode, flash_freq, flash_size)
    pad_to_size = choices["pad_to_size"]
    options = MergeOptions(
        format=choices["kind"],
        target_offset=choices["target_offset"],
        pad_to_size=None if pad_to_size is None else parse_size(pad_to_size),
        chunk_size=choices["chunk_size"],
        md5=not choices["md5_disable"],
        settings=settings,
    )
    blobs: Sequence[Blob] = [
        blob for address, path in pairs for blob in _read(session, address, path, settings)
    ]
    chip = _find_chip(session, blobs)
    blobs = choose_for_chip(blobs, chip.id)
    merged = merge_blobs(blobs, chip, options)
    _check(session, blobs, chip, force=choices["force"], allow=choices["allow"])
    for text in merged.warnings:
        session.report(Warned(code="header-kept", text=text))
    write_file(output, merged.data)
    end = max(blob.end for blob in merged.blobs)
    if merged.format == "raw" and options.pad_to_size is not None and end > options.pad_to_size:
        text = f"the parts end at {end:#x}, past the {pad_to_size} to pad to: the file is larger than that"
        session.report(Warned(code="merge-past-pad", text=text))
    _tell(session, output, merged, chip)


def _tell(session: Session, output: str, merged: Merged, chip: Chip) -> None:
    count = len(merged.blobs)
    place = f", to be flashed at {merged.target_offset:#x}" if merged.format == "raw" else ""
    session.result(
        "merge-bin",
        f"{escape(output)}: {len(merged.data):,} bytes, {count} part{'s' if count > 1 else ''} for {chip.name}{place}.",
        {
            "output": output,
            "format": merged.format,
            "bytes": len(merged.data),
            "chip": chip.id,
            "target_offset": merged.target_offset,
            "parts": [
                {"address": blob.address, "bytes": len(blob.data), "name": blob.name}
                for blob in merged.blobs
            ],
        },
    )


def _read(session: Session, address: int, path: str, settings: HeaderSettings) -> tuple[Blob, ...]:
    """The blobs of one file."""
    from espwire.cli.parts import name_source, read_source, require_data
    from espwire.events import Note
    from espwire.image.read_any import make_blobs, read_any

    name = name_source(path)
    content = read_any(read_source(path), name, session.peer_format)
    chip = None
    if content.format in ("elf", "uf2") and session.chip is not None:
        from espwire.chips.registry import load_chip

        chip = load_chip(session.chip)
    convert = session.input_format == "elf"
    blobs = make_blobs(content, address, chip=chip, settings=settings, convert=convert)
    require_data(blobs, name)
    for note in dict.fromkeys(blob.note for blob in blobs if blob.note):
        session.report(Note(text=note))
    return blobs


def _find_chip(session: Session, blobs: Sequence[Blob]) -> Chip:
    """The chip that ``--chip`` names, or that the files are for.

    :raises DataError, UsageError: nothing tells it, or several are possible
    """
    from espwire.blob import require_one_chip
    from espwire.chips.registry import load_chip
    from espwire.image.merge import find_merge_chip

    if session.chip is not None:
        return load_chip(session.chip)
    certain = [blob for blob in blobs if not blob.one_of]
    if len(certain) < len(blobs):
        try:
            return find_merge_chip(certain)
        except UsageError:
            require_one_chip(blobs)
    return find_merge_chip(blobs)


def _check(
    session: Session,
    blobs: Sequence[Blob],
    chip: Chip,
    *,
    force: bool,
    allow: frozenset[str],
) -> None:
    """Report safety findings about the merged blobs.

    :raises SafetyStop: a consent is missing
    """
    boot = chip.flash.bootloader_offset
    doubtful = [
        blob for blob in blobs if blob.data[:1] in IMAGE_BEGINS or blob.address <= boot < blob.end
    ]
    if not doubtful:
        return  # the checks load much of the library
    from espwire.events import Warned
    from espwire.flash.model import Policy
    from espwire.flash.safety import find_boot_content_problems, find_misplaced, stop_if_fatal

    misplaced = [finding for blob in doubtful for finding in find_misplaced(blob, chip)]
    stop_if_fatal(misplaced, Policy(force=force, consents=allow))
    found = misplaced or [
        finding for blob in doubtful for finding in find_boot_content_problems(blob, chip)
    ]
    for finding in found:
        session.report(Warned(code=finding.code, text=finding.text))
