"""``read-flash-status``: the flash part's status registers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.flash_options import spi_connection_option
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.device.flash_registers import FlashStatus


@click.command(
    "read-flash-status", help="Show the flash's status registers: register 1 in the low byte."
)
@click.option(
    "--bytes",
    "count",
    type=click.IntRange(1, 3),
    default=2,
    metavar="1|2|3",
    help="Registers; 2 if not given.",
)
@spi_connection_option
@click.pass_obj
def command(session: Session, count: int) -> None:
    """Ask the part by its own commands."""
    with session.device() as device:
        status = device.read_flash_status(count)
    session.result("read-flash-status", f"Status: {format_status(status)}", status_data(status))


def format_status(status: FlashStatus) -> str:
    """The number in hexadecimal, with as many digits as it has."""
    return f"{status.value:#0{2 + 2 * status.bytes}x}"


def status_data(status: FlashStatus) -> dict[str, Any]:
    """The same for programs."""
    return {"value": status.value, "bytes": status.bytes, "registers": list(status.registers)}
