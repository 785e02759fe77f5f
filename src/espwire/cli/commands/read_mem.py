"""``read-mem``: one word of the address space."""

from __future__ import annotations

import click

from espwire.cli.number_types import parse_memory_address
from espwire.cli.session import Session


@click.command(
    "read-mem", help="Read one word of memory or of a register. ADDRESS is a multiple of 4."
)
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.pass_obj
def command(session: Session, address: int) -> None:
    """Check before connecting, then ask."""
    from espwire.device.memory_access import WORD, check_range

    check_range(address, WORD)
    with session.device(bulk=False) as device:
        word = device.read_mem(address)
    text = f"{word.address:#010x} = {word.value:#010x}"
    session.result("read-mem", text, {"address": word.address, "value": word.value})
