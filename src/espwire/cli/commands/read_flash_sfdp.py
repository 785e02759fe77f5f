"""``read-flash-sfdp``: what the flash part tells of itself."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from espwire.cli.flash_options import spi_connection_option
from espwire.cli.options import header_options
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.device.flash_registers import Sfdp


def _parse_word(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    from espwire.sizes import parse_number

    return (
        None
        if value is None
        else parse_number(value, "bytes" if parameter.name == "size" else "address")
    )


@click.command(
    "read-flash-sfdp",
    help="Read the flash chip's SFDP table, raw or decoded. Raw: 1 to 4 BYTES from ADDRESS of the table.",
)
@click.argument("address", metavar="ADDRESS", required=False, callback=_parse_word)
@click.argument("size", metavar="BYTES", required=False, callback=_parse_word)
@click.option(
    "--decode",
    is_flag=True,
    help="Read header and basic table, and show size, page, erases, quad enable.",
)
@header_options
@spi_connection_option
@click.pass_obj
def command(
    session: Session,
    address: int | None,
    size: int | None,
    decode: bool,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
) -> None:
    """Raw bytes, or everything by name. The header options must make sense, and change nothing."""
    from espwire.cli.parts import header_settings
    from espwire.device.flash_registers import check_sfdp_range
    from espwire.errors import UsageError

    header_settings(flash_mode, flash_freq, flash_size)
    if decode:
        if address is not None:
            raise UsageError("--decode reads the whole table", hint="Leave ADDRESS and BYTES out.")
        with session.device() as device:
            found = device.decode_flash_sfdp()
        session.result("read-flash-sfdp", describe_sfdp(found), asdict(found))
        return
    if address is None or size is None:
        raise UsageError("ADDRESS and BYTES are missing", hint="Give both (0 4), or --decode.")
    check_sfdp_range(address, size)
    with session.device() as device:
        data = device.read_flash_sfdp(address, size)
    text = f"SFDP {address:#x}: {data.hex(' ')}"
    session.result("read-flash-sfdp", text, {"address": address, "size": size, "data": data.hex()})


def describe_sfdp(found: Sfdp) -> str:
    """Lines for people."""
    from espwire.sizes import format_size

    def shown(value: object) -> str:
        return "not told" if value is None else str(value)

    erases = ", ".join(
        f"{format_size(kind.size)} by {kind.opcode:02x}h" for kind in found.erase_types
    )
    address_bytes = None if found.address_bytes is None else found.address_bytes.replace("_", " ")
    rows = [
        ("SFDP", f"version {found.major}.{found.minor}"),
        ("Size", shown(None if found.size is None else format_size(found.size))),
        ("Page", shown(None if found.page_size is None else f"{found.page_size} bytes")),
        ("Addresses", shown(None if address_bytes is None else f"{address_bytes} bytes")),
        ("Erases", erases or "not told"),
        ("Quad enable", shown(found.quad_enable_text)),
    ]
    lines = [f"{name + ':':<13} {value}" for name, value in rows]
    for table in found.tables:
        place = f"{table.words} words at {table.address:#x}"
        lines.append(
            f"{'Table:':<13} {table.id:#06x}, version {table.major}.{table.minor}, {place}"
        )
    return "\n".join(lines)
