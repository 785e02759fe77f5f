"""``ports``: which serial ports are here, and what is likely behind them. Opens none of them."""

from __future__ import annotations

import click

from espwire.cli.options import filter_option
from espwire.cli.session import Session


@click.command(
    "ports", help="List the serial ports and the boards that are likely connected; opens none."
)
@filter_option
@click.pass_obj
def command(session: Session) -> None:
    """Report a table, the likeliest port first."""
    from espwire.cli.ports import draw_table, list_data
    from espwire.transport.open_errors import find_holders
    from espwire.transport.ports import list_ports, list_system_ports, matches, parse_filter, rank

    wanted = parse_filter(session.port_filter)
    there = rank(list_ports(list_system_ports))
    found = [one for one in there if matches(one, wanted)]
    rows = list_data(found, find_holders([one.path for one in found]))
    session.result("ports", draw_table(rows, hidden=len(there) - len(found)), {"ports": rows})
