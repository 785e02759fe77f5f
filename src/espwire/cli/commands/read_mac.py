"""``read-mac``: the chip's address."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command("read-mac", help="Show the MAC address.")
@click.pass_obj
def command(session: Session) -> None:
    """Connecting has read it already."""
    with session.device() as device:
        mac = device.mac
    session.result("read-mac", f"MAC: {mac}", {"mac": mac})
