"""``ports``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.context import Context
from espwire.cli.options import filter_option
from espwire.cli.output import align
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.transport.open_errors import Holder
    from espwire.transport.ports import PortIdentity

COLUMNS = ("port", "ids", "serial number", "location", "board", "used by")


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
    rows = list_data(matching, find_holders([port.path for port in matching]))
    text = draw_table(rows, excluded=len(all_ports) - len(matching))
    context.result("ports", text, {"ports": rows})


def list_data(ports: Sequence[PortIdentity], holders: Mapping[str, Holder]) -> list[dict[str, Any]]:
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


def draw_table(rows: Sequence[dict[str, Any]], *, excluded: int = 0) -> str:
    """The ports for people; ``excluded``: how many do not match the filter."""
    if not rows:
        if excluded:
            return f"No port matches the filter ({excluded} excluded)."
        return "No serial port found."
    return align([COLUMNS, *(_cells(row) for row in rows)])


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ids = "-" if row["vid"] is None else f"{row['vid']:04x}:{row['pid'] or 0:04x}"
    holder = row["holder"]
    used = "-" if holder is None else f"{escape(holder['name']) or 'process'} ({holder['pid']})"
    # USB strings come from the device: make them harmless
    texts = {name: escape(row[name]) or "-" for name in ("path", "serial", "location")}
    return (texts["path"], ids, texts["serial"], texts["location"], row["board"], used)
