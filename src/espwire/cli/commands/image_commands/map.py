"""``image map``: a picture of a flash, as text and as SVG."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import input_format_option
from espwire.cli.output import is_terminal
from espwire.cli.places import flash_limit_option, table_offset_option
from espwire.cli.session import Session
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.image.flash_map import FlashMap


@click.command(
    "map",
    help="Draw what stands where: in FILE (a dump or a merged file of any format), or in the device.",
)
@click.argument("file", metavar="[FILE|PORT]", required=False)
@click.option("--svg", metavar="FILE", help="Draw it into this SVG file, too.")
@input_format_option
@flash_limit_option
@table_offset_option
@click.pass_obj
def command(session: Session, file: str | None, svg: str | None, flash_size: int | None) -> None:
    """Look, draw, write."""
    from espwire.chips.registry import load_chip
    from espwire.cli.parts import STDIN, name_source, read_source
    from espwire.cli.ports import is_port
    from espwire.cli.preconditions import check_output
    from espwire.files import keep_inputs, write_file
    from espwire.flash.partitions import read_map
    from espwire.image.flash_map import draw_text, map_dump
    from espwire.image.flash_map_svg import draw_svg
    from espwire.image.split import lay_out

    if svg is not None:
        check_output(svg)
    if file is not None and is_port(file):
        session.port, file = file, None
        session.given.add("port")
    if file is not None:
        if svg is not None and file != STDIN:
            keep_inputs(svg, [file])
        session.configure()
        chip = None if session.chip is None else load_chip(session.chip)
        title = name_source(file)
        flash = map_dump(
            lay_out(read_source(file), title, chip, format=session.input_format),
            chip,
            flash_size=flash_size,
        )
    else:
        with session.device() as device:
            offset = session.partition_table_offset
            flash = read_map(
                device, table_offset=offset, flash_size=flash_size, report=session.report
            )
            title = f"{device.chip.name} {device.mac}".strip()
    if svg is not None:
        write_file(svg, draw_svg(flash, title).encode())
    colour = not session.json and is_colourful()
    text = draw_text(flash, escape(title), colour=colour)
    if colour:  # escape sequences of ours: a result is text, in which none survives
        session.stop_drawing()
        session.output.line(text, styled=True)
    else:
        session.result("image map", text, describe_map(flash) | {"svg": svg})


def is_colourful() -> bool:
    """Whether standard output shows colours."""
    return is_terminal(sys.stdout) and not os.environ.get("NO_COLOR")


def describe_map(flash: FlashMap) -> dict[str, Any]:
    """The picture for programs."""
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
