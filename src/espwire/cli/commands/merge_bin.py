"""``merge-bin``: several files into one, raw, UF2 or Intel HEX."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from espwire.cli.flash_options import allow_option
from espwire.cli.options import (
    FlashAddress,
    Number,
    chip_option,
    header_options,
    named_input_format_option,
    pairs_argument,
)
from espwire.cli.session import Session
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.chips.lookup import ImageChip
    from espwire.flash.plan import Part, Policy
    from espwire.image.flash_settings import HeaderSettings

FORMATS = ("raw", "uf2", "hex")


@click.command("merge-bin", help="Merge files into one that holds them all: raw, UF2 or Intel HEX.")
@chip_option
@pairs_argument
@click.option("-o", "--output", metavar="FILE", required=True, help="What to write.")
@named_input_format_option
@click.option("-f", "--format", "kind", type=click.Choice(FORMATS), default="raw", help="raw (the default), uf2, hex.")
@click.option(
    "-t", "--target-offset", type=FlashAddress(0), default=0, metavar="N", help="Where the raw file will be flashed."
)
@click.option("--pad-to-size", metavar="SIZE", help="Fill the raw file with 0xFF up to this flash size.")
@click.option("--chunk-size", type=Number(), metavar="N", help="Payload bytes of each UF2 block: a multiple of 4.")
@click.option("--md5-disable", is_flag=True, help="Write no MD5 sums into UF2 blocks.")
@click.option("-sc", "--spi-connection", hidden=True, expose_value=False)  # esptool 3 and 4 took it, to no effect
@header_options
@click.option("--force", is_flag=True, help="Merge even if a safety check fails.")
@allow_option
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
    force: bool,
    allow: frozenset[str],
) -> None:
    """Read, merge, write."""
    from espwire.cli.parts import STDIN, header_settings
    from espwire.events import Warned
    from espwire.files import keep_inputs, write_file
    from espwire.flash.plan import Policy
    from espwire.image.flash_settings import parse_size
    from espwire.image.inputs import choose_for_chip
    from espwire.image.merge import MergeOptions, MergePart, merge_parts

    session.configure()
    keep_inputs(output, [path for _, path in pairs if path != STDIN])
    settings = header_settings(flash_mode, flash_freq, flash_size)
    parts: Sequence[Part] = [part for address, path in pairs for part in _read(session, address, path, settings)]
    chip = _find_chip(session, parts)
    parts = choose_for_chip(parts, chip.id)
    _check(session, parts, chip, Policy(force=force, consents=allow))
    options = MergeOptions(
        format=kind,  # type: ignore[arg-type]  # one of FORMATS: click has checked
        target_offset=target_offset,
        pad_to_size=None if pad_to_size is None else parse_size(pad_to_size),
        chunk_size=chunk_size,
        md5=not md5_disable,
        settings=settings,
    )
    merged = merge_parts([MergePart(part.address, part.data, part.name) for part in parts], chip, options)
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
        f"{output}: {len(merged.data):,} bytes, {count} part{'s' if count != 1 else ''} for {chip.name}{place}.",
        {
            "output": output,
            "format": kind,
            "bytes": len(merged.data),
            "chip": chip.id,
            "target_offset": target_offset,
            "parts": [{"address": part.address, "bytes": len(part.data), "name": part.name} for part in merged.parts],
        },
    )


def _read(session: Session, address: int, path: str, settings: HeaderSettings) -> Iterator[Part]:
    """The parts of one file."""
    from espwire.cli.parts import name_source, read_source, require_data
    from espwire.events import Note
    from espwire.flash.plan import Part
    from espwire.image.inputs import make_pieces
    from espwire.image.read_any import read_any

    name, data = name_source(path), read_source(path)
    content = read_any(data, name, session.peer_format)
    chip = None
    if content.format in ("elf", "uf2") and session.chip is not None:
        from espwire.chips.registry import load_chip

        chip = load_chip(session.chip)
    asked = session.input_format == "elf"
    pieces = make_pieces(content, data, name, chip=chip, settings=settings, asked=asked)
    require_data(pieces, name)
    for note in dict.fromkeys(piece.note for piece in pieces if piece.note):
        session.report(Note(text=note))
    for piece in pieces:
        at = address if piece.address is None else piece.address
        yield Part(at, piece.data, name, made_for=piece.chips, one_of=piece.one_of)


def _find_chip(session: Session, parts: Sequence[Part]) -> ImageChip:
    """The chip that ``--chip`` names, or that the files are for.

    :raises DataError, UsageError: nothing tells it, or several are possible
    """
    from espwire.chips.lookup import load_image_chip
    from espwire.image.inputs import require_one_chip
    from espwire.image.merge import MergePart, find_merge_chip

    if session.chip is not None:
        return load_image_chip(session.chip)
    certain = [MergePart(part.address, part.data, part.name) for part in parts if not part.one_of]
    if len(certain) < len(parts):
        try:
            return find_merge_chip(certain)
        except UsageError:
            require_one_chip(parts)
    return find_merge_chip([MergePart(part.address, part.data, part.name) for part in parts])


def _check(session: Session, parts: Sequence[Part], chip: ImageChip, policy: Policy) -> None:
    """Report what speaks against merging the parts for the chip.

    :raises SafetyStop: a consent is missing
    """
    from espwire.events import Warned
    from espwire.flash.guards import stop_if_fatal
    from espwire.flash.image_safety import find_place_problems

    found = [finding for part in parts if part.data for finding in find_place_problems(part, chip)]
    stop_if_fatal(found, policy)
    for finding in found:
        session.report(Warned(code=finding.code, text=finding.text))
