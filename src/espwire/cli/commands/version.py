"""``version``: which espwire this is."""

from __future__ import annotations

import click

from espwire.cli.session import Session


@click.command("version", help="Show the version.")
@click.pass_obj
def command(session: Session) -> None:
    """Report the version."""
    from espwire._version import __version__

    session.result("version", session.program.version_text, {"version": __version__})
