"""``get-security-info``: flags, keys and ids as the ROM itself tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.device.security import SecurityInfo

UNSET, MAX_ECO = 0xFFFFFFFF, 0xFFFF


@click.command(
    "get-security-info",
    help="Show security flags and key purposes. Works in Secure Download Mode, too.",
)
@click.pass_obj
def command(session: Session) -> None:
    """Ask the ROM; where it cannot, say what the eFuses tell and fail."""
    from espwire.cli.commands.chip_info import describe_security
    from espwire.errors import Unsupported
    from espwire.events import Note

    with session.device(bulk=False) as device:
        try:
            info = device.read_security_info()
        except Unsupported:
            session.report(Note(text=f"what the eFuses tell: {describe_security(device)}"))
            raise
        text, data = describe_info(device, info), info_data(device, info)
    session.result("get-security-info", text, data)


def describe_info(device: Device, info: SecurityInfo) -> str:
    """Lines for people."""
    from espwire.image.header import format_chip_id

    count = info.flash_crypt_count or 0
    encryption = f"{'on' if info.flash_encryption else 'off'} (count {count:#05b})"
    rows = [
        (
            "Flags",
            "not available from the running stub" if info.flags is None else f"{info.flags:#010x}",
        ),
        *((" ", name) for name in info.flag_names()),
        ("Secure Boot", "on" if info.secure_boot else "off"),
        ("Flash Encryption", encryption),
        ("Secure Download Mode", "on" if info.secure_download else "off"),
        *((f"Key {number}", name) for number, name in enumerate(info.purpose_names(device.chip))),
    ]
    if info.chip_id is not None:
        rows.append(("Chip ID", format_chip_id(info.chip_id)))
    if info.eco is not None:
        rows.append(("ECO", _format_eco(info.eco)))
    return "\n".join(f"{name + ':' if name.strip() else '':<21} {value}" for name, value in rows)


def _format_eco(eco: int | None) -> str:
    from espwire.image.header import NOT_SET, format_invalid

    if eco is None or eco == UNSET:
        return NOT_SET
    return str(eco) if eco <= MAX_ECO else format_invalid(eco)


def info_data(device: Device, info: SecurityInfo) -> dict[str, Any]:
    """The same for programs; None for what is not set or invalid."""
    from espwire.image.header import known_chip_id

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
