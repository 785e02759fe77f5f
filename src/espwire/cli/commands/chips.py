"""``chips``: what is known of the chips this program speaks to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.chips.model import Chip

HEAD = ("chip", "--chip", "image id", "cpu", "cores", "MHz", "crystal", "boot loader at", "notes")


@click.command("chips", help="List the chips this program knows, or tell more of some.")
@click.argument("names", nargs=-1, metavar="[CHIP]…")
@click.pass_obj
def command(session: Session, names: tuple[str, ...]) -> None:
    """Report a table."""
    from espwire.chips.registry import chip_ids, load_chip

    chips = [load_chip(name) for name in names or chip_ids()]
    rows = [HEAD, *(_row(chip) for chip in chips)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    session.result("chips", "\n".join(lines), {"chips": [_data(chip) for chip in chips]})


def _row(chip: Chip) -> tuple[str, ...]:
    return (
        chip.name,
        chip.id,
        "-" if chip.identity.image_chip_id is None else str(chip.identity.image_chip_id),
        chip.cpu.architecture,
        str(chip.cpu.cores),
        str(chip.cpu.max_mhz),
        "/".join(map(str, chip.crystal.mhz)),
        f"{chip.flash.bootloader_offset:#x}",
        "" if chip.maturity == "released" else chip.maturity,
    )


def _data(chip: Chip) -> dict[str, Any]:
    return {
        "id": chip.id,
        "name": chip.name,
        "image_chip_id": chip.identity.image_chip_id,
        "architecture": chip.cpu.architecture,
        "cores": chip.cpu.cores,
        "max_mhz": chip.cpu.max_mhz,
        "crystal_mhz": list(chip.crystal.mhz),
        "bootloader_offset": chip.flash.bootloader_offset,
        "flash_sizes": list(chip.flash.sizes),
        "flash_frequencies": list(chip.flash.frequencies),
        "flash_modes": list(chip.flash.modes),
        "usb_serial_jtag": chip.usb.serial_jtag,
        "usb_otg": chip.usb.otg,
        "rom_commands": sorted(op.name for op in chip.rom.ops),
        "maturity": chip.maturity,
    }
