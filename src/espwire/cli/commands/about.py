"""``chips``, ``ports``, ``completion``, ``version``: what the program supports and what is connected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import filter_option
from espwire.cli.output import align
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.cli.context import Context
    from espwire.transport.open_errors import Holder
    from espwire.transport.ports import PortIdentity

CHIP_COLUMNS = (
    *("chip", "--chip", "image id", "cpu", "cores", "MHz", "crystal", "bootloader at", "notes"),
)
PORT_COLUMNS = ("port", "ids", "serial number", "location", "board", "used by")


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
@filter_option
@click.pass_obj
def ports(context: Context) -> None:
    """Lists likely boards first. Opens no port."""
    from espwire.transport.open_errors import find_holders
    from espwire.transport.ports import list_ports, list_system_ports, matches, parse_filter, rank

    wanted = parse_filter(context.options.get("port_filter", ()))
    all_ports = rank(list_ports(list_system_ports))
    matching = [port for port in all_ports if matches(port, wanted)]
    rows = ports_data(matching, find_holders([port.path for port in matching]))
    text = draw_ports(rows, excluded=len(all_ports) - len(matching))
    context.result("ports", text, {"ports": rows})


def ports_data(
    ports: Sequence[PortIdentity], holders: Mapping[str, Holder]
) -> list[dict[str, Any]]:
    """The ports for programs."""
    from espwire.transport.ports import is_known, likely_board

    rows: list[dict[str, Any]] = []
    for port in ports:
        holder = holders.get(port.path)
        rows.append(
            {
                "path": port.path,
                "vid": port.vid,
                "pid": port.pid,
                "serial": port.serial,
                "location": port.location,
                "description": port.description,
                "manufacturer": port.manufacturer,
                "board": likely_board(port),
                "known": is_known(port),
                "holder": None if holder is None else {"pid": holder.pid, "name": holder.name},
            }
        )
    return rows


def draw_ports(rows: Sequence[dict[str, Any]], *, excluded: int = 0) -> str:
    """The ports for people; ``excluded``: how many do not match the filter."""
    if not rows:
        if excluded:
            return f"No port matches the filter ({excluded} excluded)."
        return "No serial port found."
    return align([PORT_COLUMNS, *(_port_cells(row) for row in rows)])


def _port_cells(row: dict[str, Any]) -> tuple[str, ...]:
    ids = "-" if row["vid"] is None else f"{row['vid']:04x}:{row['pid'] or 0:04x}"
    holder = row["holder"]
    used = "-" if holder is None else f"{escape(holder['name']) or 'process'} ({holder['pid']})"
    # USB strings come from the device: make them harmless
    texts = {name: escape(row[name]) or "-" for name in ("path", "serial", "location")}
    return (texts["path"], ids, texts["serial"], texts["location"], row["board"], used)


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
    from espwire.cli.app import build_script

    context.result("completion", build_script(shell, program), {"shell": shell, "program": program})


@click.command()
@click.pass_obj
def version(context: Context) -> None:
    context.report_version()
