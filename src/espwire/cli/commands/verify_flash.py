"""``verify-flash``: does the flash hold these files?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from espwire.cli.flash_options import flash_options
from espwire.cli.options import header_options, input_format_option, progress_option
from espwire.cli.places import named_pairs_argument, place_options
from espwire.cli.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espwire.blob import Blob
    from espwire.device.device import Device

MAX_LISTED = 64


@click.command(
    "verify-flash", help="Compare flash with files. Ends with exit code 7 if it differs."
)
@named_pairs_argument
@header_options
@click.option(
    "-d",
    "--diff",
    is_flag=True,
    help="Say where it differs, byte by byte where the loader can read.",
)
@input_format_option
@flash_options
@place_options
@progress_option
@click.pass_obj
def command(
    session: Session,
    pairs: list[tuple[int | str, str]],
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    diff: bool,
    no_progress: bool,
) -> None:
    """Compare all files, then say what is wrong."""
    from espwire.blob import choose_for_chip
    from espwire.cli.parts import header_settings, read_pairs
    from espwire.cli.places import find_addresses, place_by_device, place_by_file
    from espwire.cli.preconditions import check_inputs
    from espwire.errors import VerifyError
    from espwire.flash.model import FlashTarget
    from espwire.flash.verify import verify_flash
    from espwire.flash.write import find_stated_size, prepare_blobs

    session.progress = not no_progress
    settings = header_settings(flash_mode, flash_freq, flash_size)
    pairs = place_by_file(pairs, session)
    check_inputs(file for _, file in pairs)
    known = find_addresses(pairs)  # None: a partition's name, which only the device can tell
    parts: Sequence[Blob] = () if known is None else read_pairs(known, session, settings=settings)
    with session.device() as device:
        if known is None:
            parts = read_pairs(place_by_device(pairs, device, session), session, settings=settings)
        parts = choose_for_chip(parts, device.chip.id)
        stated = find_stated_size(settings)
        target = FlashTarget.of(device, flash_size=stated)
        for part in parts:
            target.check_range(part.address, part.end, stated=stated)
        parts = prepare_blobs(parts, target, settings, report=session.report)
        try:
            verify_flash(device, parts, report=session.report)
        except VerifyError as error:
            if diff:
                report_differences(session, device, parts, error.ranges)
            raise
    size = sum(len(part.data) for part in parts)
    session.finish(
        "verify-flash", f"Done: flash holds all {size:,} bytes.", {"bytes": size, "equal": True}
    )


def report_differences(
    session: Session, device: Device, parts: Sequence[Blob], ranges: Sequence[tuple[int, int]]
) -> None:
    """One line per range that differs; with the bytes where they can be read."""
    lines: list[str] = []
    found: list[dict[str, int]] = []
    for start, end in ranges:
        line = f"{start:#010x}..{end:#010x} differs"
        part = next((p for p in parts if p.address <= start and end <= p.end), None)
        if part is not None and len(found) < MAX_LISTED and device.backend.limits.can_read:
            there = b"".join(device.read_flash(start, end - start))
            wanted = part.data[start - part.address : end - part.address]
            wrong = [at for at, (a, b) in enumerate(zip(there, wanted, strict=True)) if a != b]
            line += f" in {len(wrong)} bytes"
            for at in wrong[: MAX_LISTED - len(found)]:
                found.append({"address": start + at, "flash": there[at], "file": wanted[at]})
                line += f"\n  {start + at:#010x}: flash {there[at]:02x}, file {wanted[at]:02x}"
        lines.append(line)
    data = {"equal": False, "ranges": [list(pair) for pair in ranges], "bytes": found}
    session.result("verify-flash", "\n".join(lines), data)
