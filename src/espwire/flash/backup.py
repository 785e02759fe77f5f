"""Backs up the whole flash into a file, and restores it.

A backup reads blocks of 64 KiB into ``FILE.partial`` and makes the backup from it when it has all of them. If it is
interrupted, the next one keeps each block whose MD5, as the chip computes it, is still that of the flash. A restore is a
write of the whole flash by ``write_flash``, and like any other it writes only what differs and verifies everything.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.errors import FileError, SafetyStop, Unsupported, UsageError
from espwire.events import Event, Report, Warned, silent
from espwire.files import open_output
from espwire.flash.findings import Finding, Policy, build_fatal, stop_if_fatal
from espwire.flash.model import BLANK, Cancel, FlashTarget, Plan
from espwire.flash.read import (
    Block,
    ResumableRead,
    check_can_read,
    find_board,
    list_blocks,
    open_partial,
)
from espwire.flash.write import write_flash
from espwire.image.backup_file import (
    BOUND_TO_MAC,
    Backup,
    Board,
    Part,
    find_table,
    plan_parts,
    read_backup,
    write_backup,
)
from espwire.image.codec import is_image
from espwire.image.header import find_header_size
from espwire.image.model import HEADER
from espwire.sizes import BLOCK, align_down, align_up, format_size

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.flash.journal import Journal

# checks of content that this very board had, perhaps as its own ciphertext, do not stop a restore
OWN_CONTENT = frozenset({"wrong-offset", "not-an-image", "damaged-image", "plaintext"})


@dataclass(frozen=True)
class BackedUp:
    """A backup that was made. ``read``: bytes that were read; ``resumed``: bytes that an earlier run had read."""

    backup: Backup
    read: int
    resumed: int


@dataclass(frozen=True)
class Restored:
    """A restore. ``skipped``: the parts that were left out."""

    plan: Plan
    backup: Backup
    skipped: tuple[Part, ...]


def backup_flash(
    device: Device,
    path: str | os.PathLike[str],
    *,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> BackedUp:
    """Back up the whole flash to the new file ``path``. After an interruption, the same call continues.

    :raises Unsupported: codes ``secure-download-mode``, ``cannot-read-flash``, ``beyond-16mb``
    :raises UsageError: code ``flash-size-unknown``: the flash's id does not show its size
    :raises FileError: it cannot be written; code ``backup-exists``: it exists
    :raises DataError: code ``partial-of-other-board``
    :raises VerifyError: a piece differed, three times, from the chip's own MD5 of it
    """
    check_new(path)
    board = identify_board(device)
    check_can_read(device)
    _check_reach(device, board.flash_size)
    size = board.flash_size
    with open_partial(path, board, report) as partial:
        reading = ResumableRead(device, partial, 0, size, cancel=cancel, report=report)
        flash = reading.run(_find_written(device, size, cancel))
        parts = plan_parts(flash, calibration_size=device.chip.flash.calibration_size)
        with open_output(path) as file:
            backup = write_backup(file, board, flash, parts)
    return BackedUp(backup, reading.read, reading.resumed)


def check_new(path: str | os.PathLike[str]) -> None:
    """Refuse a file that exists: it may be the only backup of another board.

    :raises FileError: code ``backup-exists``
    """
    if os.path.isdir(path):
        raise FileError(
            f"{os.fspath(path)} is a folder, not a file",
            hint=f"Give the name of a new file in it, such as {os.path.join(path, 'backup.zip')}.",
            code="backup-exists",
        )
    if os.path.lexists(path):
        raise FileError(
            f"{os.fspath(path)} exists; a backup does not replace a file",
            hint="Give another file name, or remove that file.",
            code="backup-exists",
        )


def identify_board(device: Device) -> Board:
    """The board, with the flash size by the flash chip's id. Attaches the flash.

    :raises Unsupported: code ``secure-download-mode``
    :raises UsageError: code ``flash-size-unknown``
    """
    if device.secure_download:
        raise Unsupported(
            "the chip is in Secure Download Mode, so its flash cannot be read, and nothing shows which board it is",
            hint="Secure Download Mode is permanent: keep the files that the board was flashed with.",
            code="secure-download-mode",
        )
    board = find_board(device, FlashTarget.of(device))
    if board is None:
        raise UsageError(
            "the flash chip's id does not show its size, so it is unknown where the flash ends",
            hint="Use read-flash or write-flash with --flash-size.",
            code="flash-size-unknown",
        )
    return board


def _check_reach(device: Device, size: int) -> None:
    """:raises Unsupported: code ``beyond-16mb``"""
    limits = device.backend.limits
    if size > limits.reach:
        raise Unsupported(
            limits.describe_reach(f"the flash has {format_size(size)}"),
            hint="Read the first 16 MB with read-flash 0 16MB FILE.",
            code="beyond-16mb",
        )


def _find_written(device: Device, size: int, cancel: Cancel | None) -> list[Block]:
    """The blocks that are not blank."""
    backend = device.backend
    piece = size if backend.limits.digests_at_once else BLOCK
    blocks: set[Block] = set()
    for start in range(0, size, piece):
        if cancel is not None:
            cancel.check()
        end = min(start + piece, size)
        ranges = backend.find_written(start, end - start)
        for low, high in ((start, end),) if ranges is None else ranges:
            blocks.update(list_blocks(align_down(low, BLOCK), min(align_up(high, BLOCK), size)))
    return sorted(blocks)


def restore_flash(
    device: Device,
    backup: Backup | str | os.PathLike[str],
    *,
    skip: Collection[str] = (),
    policy: Policy | None = None,
    dry_run: bool = False,
    journal: Journal | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> Restored:
    """Write a backup back to flash and verify it. The bytes of image headers stay as they are in the backup.

    :param backup: a file, or what ``read_backup`` returned
    :param skip: names of parts that are left out; the flash keeps what it has there
    :param policy: the consent ``other-chip`` allows another board of the same kind
    :raises DataError: the backup cannot be used, before anything is sent
    :raises UsageError: code ``unknown-part``: ``skip`` names a part that the backup does not have
    :raises SafetyStop: the backup does not fit this board, or a safety check of ``write_flash`` fails
    :raises VerifyError: the flash does not hold what was written
    """
    if not isinstance(backup, Backup):
        backup = read_backup(backup)
    policy = policy or Policy()
    check_skip(backup, skip)
    board = identify_board(device)
    _check_usable(backup.board, board)
    if board.flash_size < backup.board.flash_size:
        _check_fits(backup, device, board.flash_size)  # before the consent, which does not help
    stop_if_fatal(find_board_differences(backup.board, board), policy)
    parts = [part for part in backup.parts if part.name not in skip]
    bound = find_bound(parts) if board.mac != backup.board.mac else ()
    if bound:
        text = f"{', '.join(bound)}: holds data bound to the board of the backup, such as RF calibration; --skip leaves it out"
        report(Warned(code="bound-to-board", text=text))
    if board.mac == backup.board.mac:
        policy = policy.replace(consents=policy.consents | OWN_CONTENT)
    plan = write_flash(
        device,
        _list_blobs(backup, parts, board.flash_size),
        policy=policy,
        dry_run=dry_run,
        journal=journal,
        cancel=cancel,
        report=_hide_blanked(report),
    )
    return Restored(plan, backup, tuple(part for part in backup.parts if part.name in skip))


def check_skip(backup: Backup, skip: Collection[str]) -> None:
    """:raises UsageError: code ``unknown-part``"""
    names = list(dict.fromkeys(part.name for part in backup.parts))
    unknown = [name for name in skip if name not in names]
    if unknown:
        raise UsageError(
            f"the backup has no part {unknown[0]!r}",
            hint=f"It has: {', '.join(names)}.",
            code="unknown-part",
        )


def _check_usable(saved: Board, board: Board) -> None:
    """Refuse what no consent makes useful.

    :raises SafetyStop: codes ``wrong-chip-backup``, ``backup-encryption``
    """
    if saved.chip != board.chip:
        raise SafetyStop(
            f"the backup is of an {saved.chip}, this is an {board.chip}",
            hint="Restore it to a board of its own kind.",
            code="wrong-chip-backup",
        )
    why = ""
    if saved.encrypted != board.encrypted:
        states = "encrypted", "not encrypted"
        first, second = states if saved.encrypted else reversed(states)
        why = f"the backup was made while the flash was {first}, which is now {second}"
    elif saved.encrypted and saved.mac != board.mac:
        why = f"the backup is encrypted with the key of {saved.mac}; this is {board.mac}"
    if why:
        raise SafetyStop(
            f"{why}: the chip could not start from it",
            hint="Write the files that the backed up board was flashed with.",
            code="backup-encryption",
        )


def find_board_differences(saved: Board, board: Board) -> list[Finding]:
    """Findings for a board that is not the one of the backup."""
    findings = []
    if saved.mac != board.mac:
        text = (
            f"the backup is of another board: its MAC address is {saved.mac}, this is {board.mac}"
        )
        findings.append(build_fatal("other-chip", text, by_name_only=True))
    if saved.flash_size != board.flash_size:
        sizes = f"{format_size(saved.flash_size)} of flash, this board has {format_size(board.flash_size)}"
        text = f"the backup is of {sizes}"
        findings.append(
            build_fatal("backup-flash-size", text, consent="other-chip", by_name_only=True)
        )
    return findings


def _check_fits(backup: Backup, device: Device, size: int) -> None:
    """Refuse a backup that does not work in a smaller flash: bootloader, partition table or data need more.

    :raises SafetyStop: code ``backup-too-large``
    """
    chip, flash, why = device.chip, backup.flash, ""
    head = flash[chip.flash.bootloader_offset :][: HEADER.size]
    stated = find_header_size(chip, head[3] & 0xF0) if is_image(head) else None
    table = find_table(flash)
    end = align_up(len(flash.rstrip(BLANK)), BLOCK)
    if end > size:
        why = f"it has data up to {end:#x}"
    if table is not None and table.end > size:
        why = f"its partition table ends at {table.end:#x}"
    if stated is not None and stated > size:
        why = f"the header of its bootloader states {format_size(stated)}"
    if why:
        raise SafetyStop(
            f"the backup does not fit into {format_size(size)} of flash: {why}",
            hint=f"Restore it to a board with {format_size(backup.board.flash_size)} of flash.",
            code="backup-too-large",
        )


def find_bound(parts: Collection[Part]) -> tuple[str, ...]:
    """Names of the parts with data that is bound to the MAC address."""
    return tuple(part.name for part in parts if part.kind in BOUND_TO_MAC and part.stored)


def _hide_blanked(report: Report) -> Report:
    """Without the warning that data becomes blank: here it becomes what it was, and ``--keep-gaps`` does not exist."""

    def pass_on(event: Event) -> None:
        if not (isinstance(event, Warned) and event.code == "data-erased"):
            report(event)

    return report if report is silent else pass_on


def _list_blobs(backup: Backup, parts: Collection[Part], size: int) -> list[Blob]:
    """The parts, as far as the flash goes; what is cut off is blank."""
    return [
        Blob(
            part.address,
            backup.read(part)[: size - part.address],
            f"gap at {part.address:#x}" if part.kind == "gap" else part.name,
        )
        for part in parts
        if part.address < size
    ]
