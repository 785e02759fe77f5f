"""``write-flash-status``: the flash part's status registers are written and read back."""

from __future__ import annotations

import click

from espwire.cli.flash_options import allow_option, spi_connection_option
from espwire.cli.session import Session


def _parse_value(context: click.Context, parameter: click.Parameter, value: str) -> int:
    from espwire.sizes import parse_number

    return parse_number(value, "value")


@click.command(
    "write-flash-status",
    help="Write the flash's status registers, register 1 in the low byte, and read them back. Wrong bits can lock the"
    " flash: see its data sheet.",
)
@click.argument("value", metavar="VALUE", callback=_parse_value)
@click.option(
    "--bytes",
    "count",
    type=click.IntRange(1, 3),
    default=2,
    metavar="1|2|3",
    help="Registers; 2 if not given.",
)
@click.option(
    "--non-volatile", is_flag=True, help="To last without power; else until the flash's next reset."
)
@allow_option
@spi_connection_option
@click.pass_obj
def command(
    session: Session, value: int, count: int, non_volatile: bool, allow: frozenset[str]
) -> None:
    """Check before connecting; report before and after."""
    from espwire.cli.commands.read_flash_status import format_status, status_data
    from espwire.device.flash_registers import check_status
    from espwire.events import Warned

    check_status(count, value)
    with session.device() as device:
        change = device.write_flash_status(value, count, non_volatile=non_volatile, consents=allow)
    if change.disturbed is not None:
        was, now = change.disturbed
        text = f"this flash changed status register 2 from {was:#04x} to {now:#04x} as well: write it with --bytes 2"
        session.report(Warned(code="status-2-changed", text=text))
    text = f"Status before: {format_status(change.before)}\nStatus after:  {format_status(change.after)}"
    data = {
        "before": status_data(change.before),
        "after": status_data(change.after),
        "non_volatile": change.non_volatile,
    }
    session.result("write-flash-status", text, data)
