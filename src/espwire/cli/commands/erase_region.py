"""``erase-region``: a part of flash becomes blank."""

from __future__ import annotations

import click

from espwire.cli.flash_options import allow_option, flash_options
from espwire.cli.options import dry_run_option
from espwire.cli.places import place_options
from espwire.cli.session import Session


@click.command(
    "erase-region",
    help="Erase a part of flash: whole sectors of 4 KiB. SIZE may be ALL: up to the end. Or a partition, by its name.",
)
@click.argument("words", metavar="ADDRESS SIZE", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Erase even if a guard has a reason against it.")
@allow_option
@flash_options
@place_options
@dry_run_option
@click.pass_obj
def command(
    session: Session, words: tuple[str, ...], force: bool, allow: frozenset[str], dry_run: bool
) -> None:
    """Erase, and check that it is blank where the chip can tell."""
    from espwire.cli.places import find_region, parse_region
    from espwire.flash.erase import erase_region
    from espwire.flash.model import Policy

    place, size, _ = parse_region(words, files=0, strict=session.program.strict)
    policy = Policy(force=force, consents=allow)
    with session.device() as device:
        address, size = find_region(session, device, place, size)
        erase_region(device, address, size, policy=policy, dry_run=dry_run, report=session.report)
    what = f"everything from {address:#x} on" if size is None else f"{size:,} bytes at {address:#x}"
    text = "Nothing was erased (--dry-run)." if dry_run else f"Done: {what} erased."
    session.finish("erase-region", text, {"address": address, "size": size, "erased": not dry_run})
