"""``image map``: a picture of a flash, as text and as SVG."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.output import is_terminal
from espwire.cli.places import flash_limit_option, table_offset_option
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.image.map import FlashMap


@click.command("map", help="Draw what stands where: in FILE (a dump or a merged file of any format), or in the device.")
@click.argument("file", metavar="[FILE|PORT]", required=False)
@click.option("--svg", metavar="FILE", help="Draw it into this SVG file, too.")
@flash_limit_option
@table_offset_option
@click.pass_obj
def command(session: Session, file: str | None, svg: str | None, flash_size: int | None) -> None:
    """Look, draw, write."""
    from espwire.chips.registry import load_chip
    from espwire.cli.preconditions import check_output
    from espwire.files import keep_inputs, read_file, write_file
    from espwire.flash.map import read_map
    from espwire.image.map import map_dump
    from espwire.image.map_svg import draw_svg
    from espwire.image.map_text import draw_text
    from espwire.image.split import lay_out

    if svg is not None:
        check_output(svg)
    if file is not None and is_port(file):
        session.port, file = file, None
        session.given.add("port")
    if file is not None:
        if svg is not None:
            keep_inputs(svg, [file])
        session.configure()
        chip = None if session.chip is None else load_chip(session.chip)
        title = os.path.basename(file)
        flash = map_dump(lay_out(read_file(file), title), chip, flash_size=flash_size)
    else:
        with session.device() as device:
            offset = session.partition_table_offset
            flash = read_map(device, table_offset=offset, flash_size=flash_size, report=session.report)
            title = f"{device.chip.name} {device.mac}".strip()
    if svg is not None:
        write_file(svg, draw_svg(flash, title).encode())
    text = draw_text(flash, title, colour=not session.json and is_colourful())
    session.result("image map", text, describe_map(flash) | {"svg": svg})


def is_port(word: str) -> bool:
    """Whether a word names a port, not a file."""
    return "://" in word or word.lower().startswith(("virtual:", "com")) or word.startswith("/dev/")


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
