"""``write-flash``: files → flash, verified."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.flash_options import allow_option, flash_options
from espwire.cli.options import dry_run_option, header_options, input_format_option, progress_option
from espwire.cli.places import named_pairs_argument, place_options
from espwire.cli.session import Session
from espwire.cli.write_options import WriteChoices, encrypt_options, unchanged_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espwire.blob import Blob
    from espwire.flash.model import Plan


@click.command(
    "write-flash",
    help="Write files to flash, and verify them. Files: raw binary, Intel HEX, S-record, UF2, ELF.",
)
@named_pairs_argument
@header_options
@click.option("-z", "--compress", is_flag=True, help="Send compressed where the loader can.")
@click.option("-u", "--no-compress", is_flag=True, help="Send as it is.")
@click.option("-e", "--erase-all", is_flag=True, help="Erase the whole flash first.")
@click.option(
    "--verify",
    is_flag=True,
    help="Write only if the result can be verified, which is done in any case.",
)
@input_format_option
@encrypt_options
@unchanged_options
@click.option("--force", is_flag=True, help="Write even if a guard has a reason against it.")
@allow_option
@flash_options
@place_options
@dry_run_option
@progress_option
@click.pass_obj
def command(
    session: Session,
    /,
    pairs: list[tuple[int | str, str]],
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    dry_run: bool,
    no_progress: bool,
    **choices: Any,
) -> None:
    """Read the files first, so that a bad one is told before the chip is touched."""
    from espwire.blob import choose_for_chip
    from espwire.cli.parts import header_settings
    from espwire.cli.places import find_addresses, place_by_device, place_by_file
    from espwire.cli.preconditions import check_inputs
    from espwire.cli.write_options import read_parts
    from espwire.flash.write import write_flash

    chosen = WriteChoices(**choices)
    chosen.check()
    session.progress = not no_progress
    settings = header_settings(flash_mode, flash_freq, flash_size)
    pairs = place_by_file(pairs, session)
    check_inputs([*(file for _, file in pairs), *chosen.input_files()])
    known = find_addresses(pairs)  # None: a partition's name, which only the device can tell
    parts = [] if known is None else read_parts(known, chosen, session, settings=settings)
    with session.device(encrypt=bool(chosen.encrypt or chosen.encrypt_files)) as device:
        if known is None:
            parts = read_parts(
                place_by_device(pairs, device, session), chosen, session, settings=settings
            )
        parts = list(choose_for_chip(parts, device.chip.id))
        made = write_flash(
            device,
            parts,
            policy=chosen.policy(),
            settings=settings,
            dry_run=dry_run,
            report=session.report,
        )
    _tell(session, made, parts, files=len(pairs) + len(chosen.encrypt_files), dry_run=dry_run)


def _tell(
    session: Session, made: Plan, parts: Sequence[Blob], *, files: int, dry_run: bool
) -> None:
    size = sum(len(part.data) for part in parts)
    unchecked = made.unchecked
    verified = not dry_run and not unchecked and size > 0
    named = f"{files} file{'s' if files > 1 else ''}, {size:,} bytes"
    if dry_run:
        text = f"Nothing was written (--dry-run): {named}."
    elif not size:
        text = f"Nothing was written: {'the files are' if files > 1 else 'the file is'} empty."
    else:
        what = (
            "nothing"
            if len(unchecked) == len([part for part in parts if part.data])
            else "not all of it"
        )
        text = f"Done: {named} written" + (
            " and verified." if verified else f"; {what} was verified."
        )
    told = [{"address": part.address, "size": len(part.data), "name": part.name} for part in parts]
    data = {
        "written": not dry_run and size > 0,
        "verified": verified,
        "unchecked": [] if dry_run else list(unchecked),
    }
    session.finish("write-flash", text, data | {"bytes": size, "parts": told})
