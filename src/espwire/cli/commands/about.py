"""``chips``, ``completion``, ``version``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.context import Context
from espwire.cli.output import align

if TYPE_CHECKING:
    from espwire.chips.model import Chip

CHIP_COLUMNS = (
    *("chip", "--chip", "image id", "cpu", "cores", "MHz", "crystal", "bootloader at", "notes"),
)


@click.command()
@click.argument("names", nargs=-1, metavar="[CHIP]…")
@click.pass_obj
def chips(context: Context, names: tuple[str, ...]) -> None:
    from espwire.chips.registry import chip_ids, load_chip

    known = [load_chip(name) for name in names or chip_ids()]
    text = align([CHIP_COLUMNS, *(_chip_cells(chip) for chip in known)])
    context.result("chips", text, {"chips": [_chip_data(chip) for chip in known]})


def _chip_cells(chip: Chip) -> tuple[str, ...]:
    image_id = chip.identity.image_chip_id
    return (
        chip.name,
        chip.id,
        "-" if image_id is None else str(image_id),
        chip.cpu.architecture,
        str(chip.cpu.cores),
        str(chip.cpu.max_mhz),
        "/".join(map(str, chip.crystal.mhz)),
        f"{chip.flash.bootloader_offset:#x}",
        "" if chip.maturity == "released" else chip.maturity,
    )


def _chip_data(chip: Chip) -> dict[str, Any]:
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


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")), metavar="SHELL")
@click.option(
    "--program",
    type=click.Choice(("espwire", "esptool.py")),
    default="espwire",
    help="Program to complete. Default: espwire.",
)
@click.pass_obj
def completion(context: Context, shell: str, program: str) -> None:
    """\b
    bash: add to ~/.bashrc:  eval "$(espwire completion bash)"
    zsh:  add to ~/.zshrc, after compinit:  eval "$(espwire completion zsh)"
    fish: espwire completion fish > ~/.config/fish/completions/espwire.fish"""
    from espwire.cli.complete import build_script

    context.result("completion", build_script(shell, program), {"shell": shell, "program": program})


@click.command()
@click.pass_obj
def version(context: Context) -> None:
    context.report_version()
