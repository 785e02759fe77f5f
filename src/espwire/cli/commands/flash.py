"""``flash``: what a build folder or file holds → flash, each part where it belongs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.flash_options import allow_option, flash_options
from espwire.cli.number_types import FlashAddress
from espwire.cli.options import dry_run_option, header_options, input_format_option, progress_option
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.flash.model import Plan
    from espwire.image.build_file import BuildPlan

HELP = """Write a build folder or firmware file to its addresses, and verify it.

PATH is a build folder of ESP-IDF, PlatformIO or Arduino (or the project's folder, if it holds one build),
a flasher_args.json or flash_args, or one file: merged binary, Intel HEX, S-record, UF2, ELF."""


@click.command("flash", help=HELP)
@click.argument("path", metavar="PATH")
@header_options
@click.option("-e", "--erase-all", is_flag=True, help="Erase the whole flash first.")
@click.option(
    "--encrypt", is_flag=True, help="Have the chip encrypt the files that the build marks so."
)
@click.option(
    "--app-address",
    type=FlashAddress(0),
    metavar="ADDRESS",
    help="Where an image or ELF goes that stands alone.",
)
@input_format_option
@click.option("--show", is_flag=True, help="Show what goes where, and stop; needs no device.")
@click.option("--force", is_flag=True, help="Write even if a guard has a reason against it.")
@allow_option
@flash_options
@dry_run_option
@progress_option
@click.pass_obj
def command(
    session: Session,
    /,
    path: str,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    no_progress: bool,
    **choices: Any,
) -> None:
    """Read the build first, so that what is wrong with it is told before the chip is touched."""
    from espwire.blob import choose_for_chip
    from espwire.chips.registry import load_chip
    from espwire.cli.parts import header_settings
    from espwire.events import Note
    from espwire.flash.model import Policy
    from espwire.flash.write import write_build
    from espwire.image.build_dir import read_build
    from espwire.image.build_file import BuildRequest

    session.progress = not no_progress
    session.configure()
    settings = header_settings(flash_mode, flash_freq, flash_size)
    chip = None if session.chip is None else load_chip(session.chip)
    build = read_build(
        path,
        BuildRequest(
            chip=chip,
            settings=settings,
            app_address=choices["app_address"],
            format=session.input_format,
            consents=choices["allow"],
        ),
    )
    for line in (_head(build), *build.describe()):
        session.report(Note(text=line))
    if choices["show"]:
        for note in build.notes:
            session.report(Note(text=note))
        _tell(session, build, None, dry_run=False)
        return
    _take_options(session, build)
    policy = Policy(
        erase_all=choices["erase_all"], force=choices["force"], consents=choices["allow"]
    )
    with session.device(encrypt=choices["encrypt"]) as device:
        build = replace(build, blobs=choose_for_chip(build.blobs, device.chip.id))
        made = write_build(
            device,
            build,
            policy=policy,
            settings=settings,
            encrypt=choices["encrypt"],
            dry_run=choices["dry_run"],
            report=session.report,
        )
    _tell(session, build, made, dry_run=choices["dry_run"])


def _head(build: BuildPlan) -> str:
    """The plan's first line; the files follow."""
    made_for = f" for {' or '.join(build.chips)}" if build.chips else ""
    return f"{build.name}: {build.kind}{made_for}"


def _take_options(session: Session, build: BuildPlan) -> None:
    """Resets that the build asks for, unless the command line, a file or the environment says something else."""
    for name, value in (("before", build.before), ("after", build.after)):
        if value and name not in session.given:
            setattr(session, name, value)
    session.no_stub = session.no_stub or not build.stub


def _tell(session: Session, build: BuildPlan, made: Plan | None, *, dry_run: bool) -> None:
    written = made is not None and not dry_run
    unchecked = made.unchecked if made is not None and not dry_run else ()
    verified = written and not unchecked
    count = len(build.blobs)
    named = f"{count} file{'s' if count > 1 else ''}, {build.size:,} bytes"
    if not written:
        text = f"Nothing was written (--{'dry-run' if dry_run else 'show'}): {named}."
    else:
        what = (
            "nothing"
            if len(unchecked) == len([file for file in build.blobs if file.data])
            else "not all of it"
        )
        text = f"Done: {named} written" + (
            " and verified." if verified else f"; {what} was verified."
        )
    parts = [
        {"address": file.address, "size": len(file.data), "name": file.name, "role": file.kind}
        for file in build.blobs
    ]
    data = {"kind": build.kind, "chips": list(build.chips), "bytes": build.size, "parts": parts}
    session.finish(
        "flash",
        text,
        data | {"written": written, "verified": verified, "unchecked": list(unchecked)},
    )
