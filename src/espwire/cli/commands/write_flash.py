"""``write-flash``: files → flash, verified."""

from __future__ import annotations

import click

from espwire.cli.options import dry_run_option, header_options, pairs_argument, progress_option
from espwire.cli.session import Session


@click.command("write-flash", help="Write files to flash, and verify them. Files are raw binary or Intel HEX.")
@pairs_argument
@header_options
@click.option("-z", "--compress", is_flag=True, help="Send compressed, or fail where the loader cannot.")
@click.option("-u", "--no-compress", is_flag=True, help="Send as it is.")
@click.option("-e", "--erase-all", is_flag=True, help="Erase the whole flash first.")
@click.option("--verify", is_flag=True, help="Write only if the result can be verified, which is done in any case.")
@click.option("--force", is_flag=True, help="Write even if a guard has a reason against it.")
@dry_run_option
@progress_option
@click.pass_obj
def command(
    session: Session,
    pairs: list[tuple[int, str]],
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    compress: bool,
    no_compress: bool,
    erase_all: bool,
    verify: bool,
    force: bool,
    dry_run: bool,
    no_progress: bool,
) -> None:
    """Read the files first, so that a bad one is told before the chip is touched."""
    from espwire.cli.parts import header_settings, read_pairs
    from espwire.errors import UsageError
    from espwire.flash.plan import Policy, Verify
    from espwire.flash.write import write_flash

    if compress and no_compress:
        raise UsageError("--compress and --no-compress exclude each other", hint="Leave both out: the tool chooses.")
    session.progress = not no_progress
    settings = header_settings(flash_mode, flash_freq, flash_size)
    parts = read_pairs(pairs)
    wanted = True if compress else False if no_compress else None
    policy = Policy(compress=wanted, verify=verify or None, erase_all=erase_all, force=force)
    with session.device() as device:
        made = write_flash(device, parts, policy=policy, settings=settings, dry_run=dry_run, report=session.report)
    size = sum(len(part.data) for part in parts)
    verified = not dry_run and any(isinstance(step, Verify) for step in made.steps)
    files = f"{len(pairs)} file{'s' if len(pairs) > 1 else ''}, {size:,} bytes"
    if dry_run:
        text = f"Nothing was written (--dry-run): {files}."
    else:
        text = f"Flash holds {files}." if verified else f"Wrote {files}; nothing was verified."
    session.result(
        "write-flash",
        text,
        {
            "written": not dry_run,
            "verified": verified,
            "bytes": size,
            "parts": [{"address": part.address, "size": len(part.data), "name": part.name} for part in parts],
        },
    )
