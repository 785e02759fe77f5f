"""``erase-flash``: the whole flash becomes blank."""

from __future__ import annotations

import click

from espwire.cli.options import dry_run_option
from espwire.cli.session import Session


def _parse_size(context: click.Context, parameter: click.Parameter, value: str) -> int | None:
    from espwire.bits import parse_flash_size

    return None if value == "detect" else parse_flash_size(value)


@click.command("erase-flash", help="Erase the whole flash.")
@click.option(
    "-fs",
    "--flash-size",
    "flash_size",
    metavar="SIZE",
    default="detect",
    callback=_parse_size,
    help="4MB, …, where it cannot be read.",
)
@click.option("--force", is_flag=True, help="Erase even if a guard has a reason against it.")
@dry_run_option
@click.pass_obj
def command(session: Session, flash_size: int | None, force: bool, dry_run: bool) -> None:
    """Erase all sectors, and check that they are blank where the chip can tell."""
    from espwire.flash.erase import erase_flash
    from espwire.flash.plan import Policy

    with session.device() as device:
        size = erase_flash(
            device, flash_size=flash_size, policy=Policy(force=force), dry_run=dry_run, report=session.report
        )
    text = "Nothing was erased (--dry-run)." if dry_run else "The flash is erased."
    session.result("erase-flash", text, {"size": size, "erased": not dry_run})
