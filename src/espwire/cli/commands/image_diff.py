"""``image-diff``: in what two firmware files differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from espwire.cli.options import chip_option, input_format_option
from espwire.cli.session import Session
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.image.diff import ImageDiff, SegmentDiff

LISTED = 32  # ranges of sectors that the text names


@click.command("image-diff", help="Compare two firmware files. Ends with exit code 7 if they do.")
@chip_option
@input_format_option
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.pass_obj
def command(session: Session, old: str, new: str) -> None:
    """Compare, tell, and fail if they differ: as verify-flash does."""
    from espwire.chips.registry import load_chip
    from espwire.cli.parts import name_source, read_source
    from espwire.errors import VerifyError
    from espwire.image.diff import diff_images

    session.configure()
    chip = load_chip(session.chip) if session.chip is not None else None
    names = name_source(old), name_source(new)
    found = diff_images(
        read_source(old), read_source(new), chip, names=names, format=session.input_format
    )
    session.result("image-diff", "\n".join(draw(found)), diff_data(found))
    if not found.same:
        raise VerifyError(
            f"the files differ in {found.changed_sectors} of {found.sector_count} sectors",
            hint="Exit code 7 tells scripts so; nothing is wrong with either file.",
            code="images-differ",
            ranges=found.sectors,
        )


def draw(found: ImageDiff) -> Iterator[str]:
    """Lines for people."""
    if found.same:
        yield f"The files hold the same {found.old_size:,} bytes."
        return
    if found.old_size != found.new_size:
        yield f"size: {found.old_size:,} → {found.new_size:,} bytes"
    for field in found.fields:
        yield escape(f"{field.item}, {field.field}: {field.old} → {field.new}")
    for segment in found.segments:
        yield _draw_segment(segment)
    yield f"{found.changed_sectors} of {found.sector_count} sectors of 4 KiB differ:"
    for start, end in found.sectors[:LISTED]:
        yield f"  {start:#010x}..{end:#010x}"
    if len(found.sectors) > LISTED:
        yield f"  and {len(found.sectors) - LISTED} ranges more (all of them with --json)"


def _draw_segment(segment: SegmentDiff) -> str:
    name = f"{segment.item}, segment {segment.number}"
    if segment.old_address is None or segment.new_address is None:
        return f"{name}: only in the {'second' if segment.old_address is None else 'first'} file"
    moved = (
        ""
        if segment.old_address == segment.new_address
        else f", moved to {segment.new_address:#010x}"
    )
    grown = (
        ""
        if segment.old_size == segment.new_size
        else f", {segment.old_size:,} → {segment.new_size:,} bytes"
    )
    changed = f"{segment.changed:,} bytes differ" if segment.changed else "same bytes"
    return f"{name} at {segment.old_address:#010x}{moved}{grown}: {changed}"


def diff_data(found: ImageDiff) -> dict[str, object]:
    """The same for programs."""
    from dataclasses import asdict

    return {
        **asdict(found),
        "segments": [asdict(segment) | {"same": segment.same} for segment in found.segments],
        "sectors": [list(pair) for pair in found.sectors],
    }
