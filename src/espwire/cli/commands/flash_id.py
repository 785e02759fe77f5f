"""``flash-id``: which flash part the chip has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.flash_options import spi_connection_option
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.device.flash_id import FlashInfo


@click.command("flash-id", help="Show maker, device and size of the flash.")
@spi_connection_option
@click.pass_obj
def command(session: Session) -> None:
    """Attach the flash and ask it."""
    from espwire.errors import Unsupported

    with session.device() as device:
        info = device.attach_flash()
        if info.jedec is None:
            raise Unsupported(
                "the flash's id cannot be read in Secure Download Mode",
                hint="The flash is there; state its size with --flash-size where a command needs it.",
                code="secure-download-mode",
            )
    session.result("flash-id", describe_flash(info), flash_data(info))


def describe_flash(info: FlashInfo) -> str:
    """Lines for people."""
    from espwire.sizes import format_size

    if info.jedec is None:
        return "Flash:        its id cannot be read"
    maker = f" ({info.maker_name})" if info.maker_name else ""
    size = format_size(info.size) if info.size else "unknown"
    return (
        f"Manufacturer: {info.manufacturer:02x}{maker}\nDevice:       {info.device:04x}\n"
        f"Flash size:   {size}{' (assumed)' if info.assumed else ''}"
    )


def flash_data(info: FlashInfo) -> dict[str, Any]:
    """The same for programs."""
    return {
        "manufacturer": info.manufacturer if info.jedec is not None else None,
        "device": info.device if info.jedec is not None else None,
        "maker": info.maker_name,
        "size": info.size,
        "assumed": info.assumed,
    }
