"""`secure status`: the security of a connected chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.efuse.security_status import SecurityStatus


@click.command()
@click.pass_obj
def status(context: Context) -> None:
    """Nothing is changed. In Secure Download Mode, only what the ROM reports is shown."""
    from espwire.efuse.security_status import read_reported_status, read_status
    from espwire.efuse.wire import DeviceStore

    with context.device(bulk=False) as device:
        if device.secure_download:
            found = read_reported_status(device.chip, device.read_security_info())
        else:
            found = read_status(DeviceStore(device).read())
    context.result("secure status", describe_status(found), status_data(found))


def describe_status(status: SecurityStatus) -> str:
    """Lines for people."""
    rows = [
        ("Secure boot", status.secure_boot),
        ("Flash encryption", status.flash_encryption),
        ("Download mode", status.download_mode),
        ("JTAG over pins", status.pad_jtag),
        ("JTAG over USB", status.usb_jtag),
        ("Next write", status.next_write),
    ]
    for key in status.keys:
        revoked = ", revoked" if key.revoked else ""
        rows.append((key.block, f"{key.purpose or 'no purpose'}, {key.state}{revoked}"))
    lines = [f"{name + ':':<18} {text}" for name, text in rows]
    if not status.complete:
        lines.append("Secure Download Mode: eFuses cannot be read; this is what the ROM reports.")
    lines += [f"Note: {caveat.text} [{caveat.code}]" for caveat in status.caveats]
    if not status.openings:
        return "\n".join([*lines, "Nothing else is known to be open through this port."])
    lines.append("Whoever has this port or these pins can:")
    for opening in status.openings:
        lines += [f"  {opening.text} [{opening.code}]", f"    to prevent it: {opening.step}"]
    return "\n".join(lines)


def status_data(status: SecurityStatus) -> dict[str, Any]:
    """The same for programs."""
    return {
        "complete": status.complete,
        "secure_boot": status.secure_boot,
        "flash_encryption": status.flash_encryption,
        "download_mode": status.download_mode,
        "pad_jtag": status.pad_jtag,
        "usb_jtag": status.usb_jtag,
        "next_write": status.next_write,
        "caveats": [caveat._asdict() for caveat in status.caveats],
        "keys": [key._asdict() for key in status.keys],
        "openings": [opening._asdict() for opening in status.openings],
    }
