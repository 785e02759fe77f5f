"""``backup`` and ``restore``: the whole flash in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.inputs import check_writable
from espwire.cli.options import (
    Pins,
    allow_option,
    dry_run_option,
    flash_options,
    progress_option,
)
from espwire.sizes import format_size
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.flash.backup import BackedUp, Restored
    from espwire.image.backup_file import Backup


@click.command()
@click.argument("file", metavar="FILE")
@flash_options
@progress_option
@click.pass_obj
def backup(context: Context, file: str, pins: Pins) -> None:
    """FILE is a new zip file, with one file per partition and a manifest.json. After an interruption, repeat the
    command: it continues."""
    from espwire.flash.backup import backup_flash, check_new

    file = context.name_file(file)
    check_new(file)
    check_writable(file)

    def read(device: Device) -> tuple[str, BackedUp]:
        name = context.name_file(file, device)
        return name, backup_flash(device, name, report=context.report)

    file, done = context.run_operation(read, pins=pins)
    size = format_size(done.backup.board.flash_size)
    text = f"Done: {size} of flash saved in {escape(file)}."
    if done.backup.board.encrypted:
        text += " It is encrypted, and can only be restored to this chip."
    data = describe_backup(done.backup, file)
    context.finish("backup", text, data | {"bytes_read": done.read, "bytes_resumed": done.resumed})


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--skip",
    multiple=True,
    metavar="NAME",
    help="Leave out a part of the backup, such as nvs; the flash keeps what it has there. Repeatable.",
)
@allow_option
@flash_options
@dry_run_option
@progress_option
@click.pass_obj
def restore(
    context: Context,
    file: str,
    skip: tuple[str, ...],
    allow: frozenset[str],
    pins: Pins,
    dry_run: bool,
) -> None:
    """Only what differs is written. FILE must be of this board, unless --allow other-chip is given."""
    from espwire.flash.backup import check_skip, restore_flash
    from espwire.flash.findings import Policy
    from espwire.image.backup_file import read_backup

    saved = read_backup(file)
    check_skip(saved, skip)

    def write(device: Device) -> Restored:
        return restore_flash(
            device,
            saved,
            skip=skip,
            policy=Policy(consents=allow),
            dry_run=dry_run,
            journal=context.journal(device),
            report=context.report,
        )

    done = context.run_operation(write, pins=pins)
    plan, skipped = done.plan, list(dict.fromkeys(part.name for part in done.skipped))
    unchecked = [] if dry_run else list(plan.unchecked)
    size = f"{format_size(saved.board.flash_size)} of flash"
    without = f" without {', '.join(map(escape, skipped))}" if skipped else ""
    if dry_run:
        text = f"Nothing was written (--dry-run): {size}{without}."
    elif not plan.written:
        text = f"Done: already up to date ({size}{without})."
    else:
        how = "but not fully verified" if unchecked else "and verified"
        text = f"Done: {size}{without} restored {how}; {plan.written:,} bytes had to be written."
    more = {
        "written": not dry_run,
        "bytes_written": 0 if dry_run else plan.written,
        "verified": not dry_run and not unchecked,
        "unchecked": unchecked,
        "skipped": skipped,
    }
    context.finish("restore", text, describe_backup(saved, file) | more)


def describe_backup(saved: Backup, file: str) -> dict[str, Any]:
    """A backup for programs."""
    from espwire.image.backup_file import describe_part

    return {
        "file": file,
        **saved.board._asdict(),
        "parts": [describe_part(part) for part in saved.parts],
    }
