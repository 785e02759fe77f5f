"""``erase-flash``: the whole flash becomes blank."""

from __future__ import annotations

import click

from espwire.cli.flash_options import (
    allow_option,
    flash_options,
    known_size_option,
    parse_known_size,
)
from espwire.cli.options import dry_run_option
from espwire.cli.session import Session


@click.command("erase-flash", help="Erase the whole flash.")
@known_size_option("detect")
@click.option("--force", is_flag=True, help="Erase even if a guard has a reason against it.")
@allow_option
@flash_options
@dry_run_option
@click.pass_obj
def command(
    session: Session, flash_size: str, force: bool, allow: frozenset[str], dry_run: bool
) -> None:
    """Erase all sectors, and check that they are blank where the chip can tell."""
    from espwire.flash.erase import erase_flash
    from espwire.flash.model import Policy
    from espwire.sizes import format_size

    known = parse_known_size(flash_size)
    policy = Policy(force=force, consents=allow)
    with session.device() as device:
        size = erase_flash(
            device, flash_size=known, policy=policy, dry_run=dry_run, report=session.report
        )
    text = (
        "Nothing was erased (--dry-run)."
        if dry_run
        else f"Done: the whole flash is erased, {format_size(size)}."
    )
    session.finish("erase-flash", text, {"size": size, "erased": not dry_run})
