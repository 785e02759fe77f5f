"""``version``: which espwire this is."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command("version", help="Show the version.")
@click.pass_obj
def command(session: Session) -> None:
    """Report the version."""
    session.report_version()
