"""``reset``: the chip is reset by the port's lines, and asked nothing."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command(
    "reset",
    help="Reset the chip by the port's lines. Nothing is sent to it.",
)
@click.pass_obj
def command(session: Session) -> None:
    """Open, pulse, close."""
    from espwire.device.connect import reset

    target = session.target()
    if session.port is None and not isinstance(target, str):
        session.port = target.identity.path
    how = reset(target, settings=session.settings(), report=session.report)
    session.result("reset", "The chip was reset.", {"sequence": how})
