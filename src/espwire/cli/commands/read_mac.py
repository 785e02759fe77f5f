"""``read-mac``: the chip's address."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command("read-mac", help="Show the MAC address.")
@click.pass_obj
def command(session: Session) -> None:
    """Connecting has read it already, unless the chip hides it."""
    from espwire.device.identity import describe_mac, known_mac
    from espwire.errors import Unsupported

    with session.device(bulk=False) as device:
        if not device.mac:
            raise Unsupported(
                "the MAC cannot be read in Secure Download Mode",
                hint="Look at the label of the board or module; the mode was burned into the chip.",
                code="secure-download-mode",
            )
        mac, eui64 = device.mac, device.eui64
    lines = [f"MAC: {describe_mac(mac)}", *([f"EUI-64: {describe_mac(eui64)}"] if eui64 else [])]
    session.result(
        "read-mac", "\n".join(lines), {"mac": known_mac(mac), "eui64": known_mac(eui64 or "")}
    )
