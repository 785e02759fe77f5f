"""``erase-region``: a part of flash becomes blank."""

from __future__ import annotations

import click

from espwire.cli.options import dry_run_option, region_arguments
from espwire.cli.session import Session


@click.command("erase-region", help="Erase a part of flash: whole sectors of 4 KiB. SIZE may be ALL: up to the end.")
@region_arguments
@click.option("--force", is_flag=True, help="Erase even if a guard has a reason against it.")
@dry_run_option
@click.pass_obj
def command(session: Session, address: int, size: int | None, force: bool, dry_run: bool) -> None:
    """Erase, and check that it is blank where the chip can tell."""
    from espwire.flash.erase import erase_region
    from espwire.flash.plan import Policy

    with session.device() as device:
        erase_region(device, address, size, policy=Policy(force=force), dry_run=dry_run, report=session.report)
    text = "Nothing was erased (--dry-run)." if dry_run else "The region is erased."
    session.result("erase-region", text, {"address": address, "size": size, "erased": not dry_run})
