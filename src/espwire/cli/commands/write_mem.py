"""``write-mem``: one word of the address space, or some bits of it."""

from __future__ import annotations

import click

from espwire.cli.number_types import parse_memory_address
from espwire.cli.session import Session


def _parse_word(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from espwire.sizes import parse_number

    return parse_number(value, parameter.name or "number")


@click.command(
    "write-mem",
    help="Write one word of memory or of a register, or some of its bits. With MASK only the bits set in it.",
)
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.argument("value", metavar="VALUE", callback=_parse_word)
@click.argument("mask", metavar="[MASK]", default="0xffffffff", callback=_parse_word)
@click.pass_obj
def command(session: Session, address: int, value: int, mask: int) -> None:
    """Check before connecting, then write once. Nothing is read back: registers need not answer what was written."""
    from espwire.device.memory_access import WORD, check_range

    check_range(address, WORD)
    with session.device(bulk=False) as device:
        done = device.write_mem(address, value, mask)
    masked = "" if done.mask == 0xFFFFFFFF else f", mask {done.mask:#010x}"
    text = f"Wrote {done.value:#010x}{masked} to {done.address:#010x}."
    session.finish(
        "write-mem", text, {"address": done.address, "value": done.value, "mask": done.mask}
    )
