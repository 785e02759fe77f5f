"""``flash-id``, ``read-flash-status``, ``write-flash-status``, ``read-flash-sfdp``: the flash chip itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.inputs import header_settings
from espwire.cli.number_types import parse_plain
from espwire.cli.options import Pins, allow_option, header_options, pins_option
from espwire.errors import Unsupported, UsageError
from espwire.sizes import format_size

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.flash_id import FlashInfo
    from espwire.device.flash_registers import FlashStatus, Sfdp

count_option = click.option(
    "--bytes",
    "count",
    type=click.IntRange(1, 3),
    default=2,
    metavar="1|2|3",
    help="Number of status registers. Default: 2.",
)


@click.command()
@pins_option
@click.pass_obj
def flash_id(context: Context, pins: Pins) -> None:
    with context.device(pins=pins) as device:
        info = device.attach_flash()
        if info.jedec is None:
            raise Unsupported(
                "the id of the flash chip cannot be read in Secure Download Mode",
                hint="Give the flash size with --flash-size where a command needs it.",
                code="secure-download-mode",
            )
    context.result("flash-id", describe_flash(info), flash_data(info))


def describe_flash(info: FlashInfo) -> str:
    """Lines for people."""
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


@click.command()
@count_option
@pins_option
@click.pass_obj
def read_flash_status(context: Context, count: int, pins: Pins) -> None:
    """Register 1 is the low byte."""
    with context.device(pins=pins) as device:
        status = device.read_flash_status(count)
    context.result("read-flash-status", f"Status: {format_status(status)}", status_data(status))


@click.command()
@click.argument("value", metavar="VALUE", callback=parse_plain)
@count_option
@click.option(
    "--non-volatile",
    is_flag=True,
    help="Store the value permanently. Default: until the flash chip is reset.",
)
@allow_option
@pins_option
@click.pass_obj
def write_flash_status(
    context: Context, value: int, count: int, non_volatile: bool, allow: frozenset[str], pins: Pins
) -> None:
    """Register 1 is the low byte. The registers are read back. Wrong bits can lock the flash chip: see its data
    sheet."""
    from espwire.device.flash_registers import check_status

    check_status(count, value)
    with context.device(pins=pins) as device:
        change = device.write_flash_status(value, count, non_volatile=non_volatile, consents=allow)
    if change.disturbed is not None:
        before, after = change.disturbed
        text = f"this flash chip also changed status register 2 from {before:#04x} to {after:#04x}: write it with --bytes 2"
        context.warn("status-2-changed", text)
    text = f"Status before: {format_status(change.before)}\nStatus after:  {format_status(change.after)}"
    data = {
        "before": status_data(change.before),
        "after": status_data(change.after),
        "non_volatile": change.non_volatile,
    }
    context.result("write-flash-status", text, data)


def format_status(status: FlashStatus) -> str:
    """The value in hexadecimal, two digits per register."""
    return f"{status.value:#0{2 + 2 * status.bytes}x}"


def status_data(status: FlashStatus) -> dict[str, Any]:
    """The registers for programs."""
    return {"value": status.value, "bytes": status.bytes, "registers": list(status.registers)}


@click.command()
@click.argument("address", metavar="ADDRESS", required=False, callback=parse_plain)
@click.argument("size", metavar="BYTES", required=False, callback=parse_plain)
@click.option(
    "--decode",
    is_flag=True,
    help="Read the whole table and print size, page size, erase types and quad enable in readable form.",
)
@header_options
@pins_option
@click.pass_obj
def read_flash_sfdp(
    context: Context,
    address: int | None,
    size: int | None,
    decode: bool,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    pins: Pins,
) -> None:
    """Without --decode, reads 1 to 4 BYTES from ADDRESS of the table. The options -fm, -ff and -fs have no effect."""
    from espwire.device.flash_registers import check_sfdp_range

    header_settings(flash_mode, flash_freq, flash_size)
    if decode:
        if address is not None:
            raise UsageError("--decode reads the whole table", hint="Leave out ADDRESS and BYTES.")
        with context.device(pins=pins) as device:
            sfdp = device.decode_flash_sfdp()
        context.result("read-flash-sfdp", describe_sfdp(sfdp), asdict(sfdp))
        return
    if address is None or size is None:
        raise UsageError("ADDRESS and BYTES are missing", hint="Give both (0 4), or --decode.")
    check_sfdp_range(address, size)
    with context.device(pins=pins) as device:
        data = device.read_flash_sfdp(address, size)
    text = f"SFDP {address:#x}: {data.hex(' ')}"
    context.result("read-flash-sfdp", text, {"address": address, "size": size, "data": data.hex()})


def describe_sfdp(sfdp: Sfdp) -> str:
    """Lines for people."""
    erases = ", ".join(
        f"{format_size(kind.size)} by {kind.opcode:02x}h" for kind in sfdp.erase_types
    )
    rows = [
        ("SFDP", f"version {sfdp.major}.{sfdp.minor}"),
        ("Size", sfdp.size and format_size(sfdp.size)),
        ("Page", sfdp.page_size and f"{sfdp.page_size} bytes"),
        ("Addresses", sfdp.address_bytes and f"{sfdp.address_bytes.replace('_', ' ')} bytes"),
        ("Erases", erases),
        ("Quad enable", sfdp.quad_enable_text),
    ]
    lines = [f"{name + ':':<13} {value or 'not specified'}" for name, value in rows]
    for table in sfdp.tables:
        extent = f"{table.words} words at {table.address:#x}"
        lines.append(
            f"{'Table:':<13} {table.id:#06x}, version {table.major}.{table.minor}, {extent}"
        )
    return "\n".join(lines)
