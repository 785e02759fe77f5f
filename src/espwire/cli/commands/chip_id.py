"""``chip-id``: the ESP8266's id; later chips have none, and their MAC is told."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command(
    "chip-id", help="Show the chip id of an ESP8266; other chips have none, and show their MAC."
)
@click.pass_obj
def command(session: Session) -> None:
    """The id, or a warning and the MAC."""
    from espwire.errors import Unsupported
    from espwire.events import Warned

    with session.device(bulk=False) as device:
        if not device.mac:
            raise Unsupported(
                "neither chip id nor MAC can be read in Secure Download Mode",
                hint="get-security-info works in this mode, and tells which kind of chip it is.",
                code="secure-download-mode",
            )
        found, mac, name = device.legacy_chip_id, device.mac, device.chip.name
    if found is None:
        session.report(
            Warned(code="no-chip-id", text=f"an {name} has no chip id; its MAC is unique instead")
        )
    text = f"MAC: {mac}" if found is None else f"Chip ID: {found:#010x}"
    session.result("chip-id", text, {"chip_id": found, "mac": mac})
