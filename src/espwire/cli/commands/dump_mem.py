"""``dump-mem``: a piece of the address space → file."""

from __future__ import annotations

import click

from espwire.cli.number_types import parse_memory_address
from espwire.cli.options import progress_option
from espwire.cli.session import Session
from espwire.text import escape


def _parse_size(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from espwire.sizes import parse_number

    return parse_number(value, "size")


@click.command(
    "dump-mem",
    help="Read memory into a file. SIZE bytes from ADDRESS. The stub lies in RAM itself: --no-stub leaves all RAM as it"
    " was, but a ROM hands out one word per round trip, and each is read twice, since its answers have no checksum."
    " Registers that a read changes (a FIFO) are read twice, too: use read-mem for those.",
)
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.argument("size", metavar="SIZE", callback=_parse_size)
@click.argument("file", metavar="FILE")
@progress_option
@click.pass_obj
def command(session: Session, address: int, size: int, file: str, no_progress: bool) -> None:
    """Check before connecting; the file is whole or absent."""
    from espwire.cli.preconditions import check_output
    from espwire.device.memory_access import check_range
    from espwire.flash.load_ram import dump_mem

    check_range(address, size)
    check_output(file)
    session.progress = not no_progress
    with session.device() as device:
        dump = dump_mem(device, address, size, file, report=session.report)
    text = f"{escape(file)} holds {dump.size:,} bytes of memory from {address:#x}."
    data = {"address": dump.address, "size": dump.size, "file": file, "trips": dump.trips}
    session.finish("dump-mem", text, data)
