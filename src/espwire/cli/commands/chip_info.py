"""``chip-info``: all that can be told of the connected chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.device.device import Device


@click.command("chip-info", help="Show chip, revision, features, flash and security.")
@click.pass_obj
def command(session: Session) -> None:
    """Ask everything that a loader may be asked."""
    from espwire.errors import DeviceError
    from espwire.events import Warned

    with session.device(bulk=False) as device:
        try:
            device.attach_flash()
        except DeviceError as error:
            if error.code not in ("no-flash", "nand-flash"):
                raise
            session.report(
                Warned(code=error.code, text=str(error))
            )  # everything else can still be shown
        text, data = describe_device(device), device_data(device)
    session.result("chip-info", text, data)


def describe_device(device: Device) -> str:
    """Lines for people. Attach the flash first to have it in there."""
    from espwire.cli.commands.flash_id import describe_flash
    from espwire.device.identity import describe_mac

    rows = [("Chip", f"{device.description} ({device.chip.id})")]
    if device.revision_known:
        rows.append(("Revision", str(device.revision)))
    if device.features:
        rows.append(("Features", ", ".join(device.features)))
    if device.crystal_mhz is not None:
        rows.append(("Crystal", f"{device.crystal_mhz} MHz"))
    if device.mac:
        rows.append(("MAC", describe_mac(device.mac)))
    if device.eui64:
        rows.append(("EUI-64", describe_mac(device.eui64)))
    rows.append(("Security", describe_security(device)))
    lines = [f"{name + ':':<13} {value}" for name, value in rows]
    if device.flash is not None:
        lines.append(describe_flash(device.flash))
    return "\n".join(lines)


def describe_security(device: Device) -> str:
    """One line: what is on."""
    security = device.security
    if not security.known:
        return "this chip has no security features to tell of"
    found = [
        f"Secure Boot {'on' if security.secure_boot else 'off'}",
        f"Flash Encryption {'on' if security.flash_encryption else 'off'}",
    ]
    if security.secure_boot_v1:
        found.append("Secure Boot version 1")
    if device.secure_download:
        found.append("Secure Download Mode on")
    return ", ".join(found)


def device_data(device: Device) -> dict[str, Any]:
    """The same for programs."""
    from espwire.cli.commands.flash_id import flash_data
    from espwire.device.identity import known_mac

    security = device.security
    return {
        "chip": device.chip.id,
        "name": device.chip.name,
        "description": device.description,
        "revision": str(device.revision) if device.revision_known else None,
        "features": list(device.features),
        "crystal_mhz": device.crystal_mhz,
        "mac": known_mac(device.mac),
        "eui64": known_mac(device.eui64 or ""),
        "secure_download": device.secure_download,
        "security": {
            "known": security.known,
            "flags": security.flags,
            "flag_names": list(security.flag_names()),
            "secure_boot": security.secure_boot,
            "secure_boot_v1": security.secure_boot_v1,
            "flash_encryption": security.flash_encryption,
            "key_purposes": list(security.purpose_names(device.chip)),
        },
        "flash": None if device.flash is None else flash_data(device.flash),
    }
