"""``run``: the loader starts the application."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command(
    "run",
    help="Start the application from the loader. No line is moved for it.",
)
@click.pass_obj
def command(session: Session) -> None:
    """Leave by the loader's own commands, and by nothing after them."""
    with session.device(bulk=False) as device:
        device.run()
        session.runs = True
    session.result("run", "The application was started.", {"started": True})
