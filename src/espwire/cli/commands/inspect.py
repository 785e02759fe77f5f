"""``image-info``, ``image-diff``, ``image map``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.image_text import draw_file, file_data
from espwire.cli.inputs import (
    STDIN,
    check_writable,
    load_chip_option,
    name_source,
    peer_format,
    read_source,
)
from espwire.cli.options import (
    chip_option,
    input_format_option,
    known_size_option,
    table_offset_option,
)
from espwire.cli.output import is_terminal
from espwire.cli.ports import is_port
from espwire.errors import ImageError, VerifyError
from espwire.files import keep_inputs, write_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.image.diff import ImageDiff, SegmentDiff
    from espwire.image.flash_map import FlashMap
    from espwire.image.read_any import FormatChoice
MAX_LISTED = 32  # ranges of sectors that image-diff prints


@click.command()
@chip_option
@click.option("--version", "-e", type=click.Choice(("1", "2")), hidden=True)  # of esptool 4
@input_format_option
@click.argument("file", metavar="FILE")
@click.pass_obj
def image_info(
    context: Context, version: str | None, input_format: FormatChoice, file: str
) -> None:
    """FILE may be raw binary, Intel HEX, S-record or UF2."""
    from espwire.image.inspect import inspect_bytes

    format = peer_format(context, input_format)
    info = inspect_bytes(
        read_source(file), name_source(file), load_chip_option(context), format=format
    )
    context.result("image-info", draw_file(info), file_data(info))
    if not info.intact:
        raise ImageError(
            f"{info.name} is damaged: {info.problems[0]}",
            hint="Build or download it again.",
            code="image-damaged",
            problems=list(info.problems),
        )


@click.command()
@chip_option
@input_format_option
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@click.pass_obj
def image_diff(context: Context, input_format: FormatChoice, old: str, new: str) -> None:
    """Exits with code 7 if they differ."""
    from espwire.image.diff import diff_images

    chip = load_chip_option(context)
    names = name_source(old), name_source(new)
    diff = diff_images(read_source(old), read_source(new), chip, names=names, format=input_format)
    data = {
        **asdict(diff),
        "segments": [asdict(segment) | {"same": segment.same} for segment in diff.segments],
        "sectors": [list(pair) for pair in diff.sectors],
    }
    context.result("image-diff", "\n".join(_draw_diff(diff)), data)
    if not diff.same:
        raise VerifyError(
            f"the files differ in {diff.changed_sectors} of {diff.sector_count} sectors",
            hint="Scripts can use the exit code, which is 7. Neither file is damaged.",
            code="images-differ",
            ranges=diff.sectors,
        )


def _draw_diff(diff: ImageDiff) -> Iterator[str]:
    if diff.same:
        yield f"Both files contain the same {diff.old_size:,} bytes."
        return
    if diff.old_size != diff.new_size:
        yield f"size: {diff.old_size:,} → {diff.new_size:,} bytes"
    for field in diff.fields:
        yield escape(f"{field.item}, {field.field}: {field.old} → {field.new}")
    for segment in diff.segments:
        yield _draw_segment(segment)
    yield f"{diff.changed_sectors} of {diff.sector_count} sectors of 4 KiB differ:"
    for start, end in diff.sectors[:MAX_LISTED]:
        yield f"  {start:#010x}..{end:#010x}"
    if len(diff.sectors) > MAX_LISTED:
        yield f"  and {len(diff.sectors) - MAX_LISTED} more ranges (--json lists all)"


def _draw_segment(segment: SegmentDiff) -> str:
    name = f"{segment.item}, segment {segment.number}"
    if segment.old_address is None or segment.new_address is None:
        return f"{name}: only in the {'second' if segment.old_address is None else 'first'} file"
    text = f"{name} at {segment.old_address:#010x}"
    if segment.old_address != segment.new_address:
        text += f", moved to {segment.new_address:#010x}"
    if segment.old_size != segment.new_size:
        text += f", {segment.old_size:,} → {segment.new_size:,} bytes"
    return f"{text}: {f'{segment.changed:,} bytes differ' if segment.changed else 'same bytes'}"


@click.command()
@click.argument("file", metavar="[FILE|PORT]", required=False)
@click.option("--svg", metavar="FILE", help="Also save the map as an SVG file.")
@input_format_option
@known_size_option
@table_offset_option
@click.pass_obj
def image_map(
    context: Context,
    file: str | None,
    svg: str | None,
    input_format: FormatChoice,
    flash_size: int | None,
    table_offset: int,
) -> None:
    """FILE is a dump or a merged file of any format. Without FILE, the device's flash is read."""
    from espwire.flash.partitions import read_map
    from espwire.image.flash_map import draw_text
    from espwire.image.flash_map_svg import draw_svg

    if svg is not None:
        check_writable(svg)
    if file is not None and is_port(file):
        context.options["port"], file = file, None
    if file is not None:
        if svg is not None and file != STDIN:
            keep_inputs(svg, [file])
        title = name_source(file)
        flash = _map_file(context, file, input_format, flash_size)
    else:
        with context.device() as device:
            flash = read_map(
                device, table_offset=table_offset, flash_size=flash_size, report=context.report
            )
            title = f"{device.chip.name} {device.mac}".strip()
    if svg is not None:
        write_file(svg, draw_svg(flash, title).encode())
    colour = not context.json and shows_colour()
    text = draw_text(flash, escape(title), colour=colour)
    if colour:  # in a result, escape sequences would be made visible
        context.stop_drawing()
        context.output.line(text, styled=True)
    else:
        context.result("image map", text, _map_data(flash) | {"svg": svg})


def _map_file(
    context: Context, file: str, format: FormatChoice, flash_size: int | None
) -> FlashMap:
    from espwire.image.flash_map import map_dump
    from espwire.image.split import lay_out

    chip = load_chip_option(context)
    data = lay_out(read_source(file), name_source(file), chip, format=format)
    return map_dump(data, chip, flash_size=flash_size)


def shows_colour() -> bool:
    """Whether standard output shows colours."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")


def _map_data(flash: FlashMap) -> dict[str, Any]:
    return {
        "flash_size": flash.size,
        "table_offset": flash.table_offset,
        "filled": [list(pair) for pair in flash.filled],
        "areas": [
            {
                "kind": area.kind,
                "name": area.name,
                "offset": area.offset,
                "size": area.size,
                "used": area.used,
                "detail": area.detail,
                "boots": area.boots,
                "overlaps": list(area.overlaps),
            }
            for area in flash.areas
        ],
        "notes": list(flash.notes),
    }
