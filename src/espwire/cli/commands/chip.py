"""``chip-info``, ``read-mac``, ``chip-id``, ``get-security-info``, ``run``, ``reset``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.commands.flash_registers import describe_flash, flash_data
from espwire.errors import DeviceError, Unsupported
from espwire.image.header import NOT_SET, format_chip_id, format_invalid, known_chip_id

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.device.security import SecurityInfo

UNSET_ECO, MAX_ECO = 0xFFFFFFFF, 0xFFFF


@click.command()
@click.pass_obj
def chip_info(context: Context) -> None:
    with context.device(bulk=False) as device:
        try:
            device.attach_flash()
        except DeviceError as error:
            if error.code not in ("no-flash", "nand-flash"):
                raise
            context.warn(error.code, str(error))  # everything else can still be shown
        text, data = describe_device(device), device_data(device)
    context.result("chip-info", text, data)


def describe_device(device: Device) -> str:
    """Lines for people; with the flash chip if it is attached."""
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
    """The security features and their state, in a line."""
    security = device.security
    if not security.known:
        return "this chip has no security features"
    states = [
        f"Secure Boot {'on' if security.secure_boot else 'off'}",
        f"Flash Encryption {'on' if security.flash_encryption else 'off'}",
    ]
    if security.secure_boot_v1:
        states.append("Secure Boot version 1")
    if device.secure_download:
        states.append("Secure Download Mode on")
    return ", ".join(states)


def device_data(device: Device) -> dict[str, Any]:
    """The chip for programs."""
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


@click.command()
@click.pass_obj
def read_mac(context: Context) -> None:
    from espwire.device.identity import describe_mac, known_mac

    with context.device(bulk=False) as device:
        if not device.mac:
            raise Unsupported(
                "the MAC address cannot be read in Secure Download Mode",
                hint="Look at the label of the board or module.",
                code="secure-download-mode",
            )
        mac, eui64 = device.mac, device.eui64
    lines = [f"MAC: {describe_mac(mac)}", *([f"EUI-64: {describe_mac(eui64)}"] if eui64 else [])]
    data = {"mac": known_mac(mac), "eui64": known_mac(eui64 or "")}
    context.result("read-mac", "\n".join(lines), data)


@click.command()
@click.pass_obj
def chip_id(context: Context) -> None:
    """For other chips it shows the MAC address."""
    with context.device(bulk=False) as device:
        if not device.mac:
            raise Unsupported(
                "neither chip id nor MAC address can be read in Secure Download Mode",
                hint="Run get-security-info: it works in this mode and shows the kind of chip.",
                code="secure-download-mode",
            )
        number, mac, name = device.legacy_chip_id, device.mac, device.chip.name
    if number is None:
        context.warn("no-chip-id", f"{name} has no chip id; use its MAC address, which is unique")
    text = f"MAC: {mac}" if number is None else f"Chip ID: {number:#010x}"
    context.result("chip-id", text, {"chip_id": number, "mac": mac})


@click.command()
@click.pass_obj
def security_info(context: Context) -> None:
    """Works in Secure Download Mode as well."""
    with context.device(bulk=False) as device:
        try:
            info = device.read_security_info()
        except Unsupported:
            context.note(f"according to the eFuses: {describe_security(device)}")
            raise
        text, data = describe_security_info(device, info), security_data(device, info)
    context.result("get-security-info", text, data)


def describe_security_info(device: Device, info: SecurityInfo) -> str:
    """Lines for people."""

    flags = "not available from the running stub" if info.flags is None else f"{info.flags:#010x}"
    encryption = f"{_on(info.flash_encryption)} (count {info.flash_crypt_count or 0:#05b})"
    rows = [
        ("Flags", flags),
        *((" ", name) for name in info.flag_names()),
        ("Secure Boot", _on(info.secure_boot)),
        ("Flash Encryption", encryption),
        ("Secure Download Mode", _on(info.secure_download)),
        *((f"Key {number}", name) for number, name in enumerate(info.purpose_names(device.chip))),
    ]
    if info.chip_id is not None:
        rows.append(("Chip ID", format_chip_id(info.chip_id)))
    if info.eco is not None:
        rows.append(("ECO", _format_eco(info.eco)))
    return "\n".join(f"{name + ':' if name.strip() else '':<21} {value}" for name, value in rows)


def _on(state: bool) -> str:
    return "on" if state else "off"


def _format_eco(eco: int) -> str:

    if eco == UNSET_ECO:
        return NOT_SET
    return str(eco) if eco <= MAX_ECO else format_invalid(eco)


def security_data(device: Device, info: SecurityInfo) -> dict[str, Any]:
    """The same for programs; None for fields that are not set or invalid."""

    return {
        "flags": info.flags,
        "flag_names": list(info.flag_names()),
        "secure_boot": info.secure_boot,
        "flash_encryption": info.flash_encryption,
        "flash_crypt_count": info.flash_crypt_count,
        "secure_download": info.secure_download,
        "key_purposes": list(info.purpose_names(device.chip)),
        "chip_id": known_chip_id(info.chip_id),
        "eco": info.eco if info.eco is not None and info.eco <= MAX_ECO else None,
    }


@click.command()
@click.pass_obj
def run(context: Context) -> None:
    """Sends a command to the bootloader; does not use the port's control lines."""
    with context.device(bulk=False) as device:
        device.run()
        context.program_started = True
    context.result("run", "The application was started.", {"started": True})


@click.command()
@click.pass_obj
def reset(context: Context) -> None:
    """Sends nothing to the chip."""
    from espwire.device.connect import reset

    target = context.find_target()
    how = reset(target, settings=context.settings(), report=context.report)
    context.result("reset", "The chip was reset.", {"sequence": how})
