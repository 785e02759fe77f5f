"""Flash → file: streamed to disk, each piece checked by the chip's MD5, the file whole or absent; never interpreted."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from espwire.device.retry import LossLimit
from espwire.errors import CommandFailed, NoReply, Unsupported, UsageError, VerifyError
from espwire.events import Finished, Progress, Report, Warned, silent, thin_out
from espwire.files import open_output
from espwire.flash.checks import hint_at_stub
from espwire.flash.survey import check_reach, survey_device
from espwire.flash.verify import Cancel, can_read, read_md5
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp

if TYPE_CHECKING:
    from espwire.device.device import Device

PIECE = 0x10000  # also the most that is held in memory
ATTEMPTS = 3
RESTARTS = 30  # of one piece, each after a lost answer
PROGRESS_STEP = 0x1000


def read_to_file(
    device: Device,
    address: int,
    size: int | None,
    path: str | os.PathLike[str],
    *,
    flash_size: int | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> int:
    """Read flash into a file; returns the number of bytes.

    :param size: bytes; None: up to the end of the flash (``ALL``)
    :param flash_size: bytes, where the caller knows better than the flash
    :raises Unsupported: this loader cannot read flash
    :raises UsageError: the range is empty or goes past the flash's end
    :raises VerifyError: a piece came differently, three times, than the chip's own MD5 of it says
    :raises FileError: the file cannot be written
    """
    _check_can_read(device)
    size = _resolve_size(device, address, size, flash_size)
    with open_output(path) as file:
        for data in _read(device, address, size, os.path.basename(os.fspath(path)), cancel, report):
            file.write(data)
    return size


def read_flash(
    device: Device,
    address: int,
    size: int | None = None,
    *,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> bytes:
    """Read flash into memory, checked as ``read_to_file`` does.

    :param size: bytes; None: up to the end of the flash
    :raises Unsupported, UsageError, VerifyError: as ``read_to_file``
    """
    _check_can_read(device)
    size = _resolve_size(device, address, size, None)
    return b"".join(
        _read(device, address, size, f"{address:#x}..{address + size:#x}", cancel, report)
    )


def _read(
    device: Device, address: int, size: int, name: str, cancel: Cancel | None, report: Report
) -> Iterator[bytes | bytearray]:
    """The bytes in pieces, with progress."""
    report = thin_out(report, device.transport.now)
    began, limit = device.transport.now(), LossLimit(device.loader)
    furthest = at = 0

    def on_bytes(done: int) -> None:
        nonlocal furthest
        if (
            at + done >= furthest + PROGRESS_STEP or at + done == size
        ):  # a piece read again shows no progress
            furthest = at + done
            report(Progress(task="read", name=name, done=furthest, total=size))

    report(Progress(task="read", name=name, done=0, total=size))
    if device.loader.supports(
        StubOp.READ_OPEN
    ):  # each packet is checked on its way: no pieces are needed
        for data in _stream(device, address, size):
            if cancel is not None:
                cancel.check()
            yield data
            furthest += len(data)
            report(Progress(task="read", name=name, done=furthest, total=size))
    else:
        for at in range(0, size, PIECE):
            if cancel is not None:
                cancel.check()
            yield _read_piece(device, address + at, min(PIECE, size - at), on_bytes, limit, report)
    report(
        Finished(
            task="read",
            name=name,
            size=size,
            seconds=device.transport.now() - began,
            address=address,
        )
    )


def read_bytes(
    device: Device,
    address: int,
    size: int,
    *,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> bytes:
    """Read a small piece of flash into memory, checked as ``read_to_file`` does.

    :raises Unsupported, UsageError, VerifyError: as ``read_to_file``
    """
    _check_can_read(device)
    size = _resolve_size(device, address, size, None)
    if device.loader.supports(StubOp.READ_OPEN):
        return b"".join(_stream(device, address, size))
    data, limit = bytearray(), LossLimit(device.loader)
    for at in range(0, size, PIECE):
        if cancel is not None:
            cancel.check()
        data += _read_piece(
            device, address + at, min(PIECE, size - at), lambda done: None, limit, report
        )
    return bytes(data)


def _check_can_read(device: Device) -> None:
    if not can_read(device):
        raise Unsupported(
            f"the {device.chip.name}'s {device.loader.dialect.name} loader cannot read flash",
            hint=hint_at_stub(secure=device.secure_download),
            code="cannot-read-flash",
        )


def _resolve_size(device: Device, address: int, size: int | None, flash_size: int | None) -> int:
    target = survey_device(device, flash_size=flash_size)
    flash_size = target.survey.real_size
    if size is None:
        if flash_size is None:
            raise UsageError(
                "the flash size is not known", hint="Give the size to read as a number."
            )
        size = flash_size - address
    if size <= 0 or address < 0:
        raise UsageError(
            f"there is nothing to read at {address:#x}", hint="Check address and size."
        )
    if flash_size is not None and address + size > flash_size:
        raise UsageError(
            f"{address:#x} and {size:#x} go past the end of the flash at {flash_size:#x}",
            hint="Check address and size; ALL reads up to the end.",
            code="past-flash-end",
        )
    check_reach(target, address, address + size)
    return size


def _read_piece(
    device: Device,
    address: int,
    size: int,
    on_bytes: Callable[[int], None],
    limit: LossLimit,
    report: Report,
) -> bytearray:
    """One piece, read again while it differs from the chip's MD5."""
    for attempt in range(ATTEMPTS):
        piece = _fetch(device, address, size, on_bytes, limit)
        if _is_right(device, address, piece):
            return piece
        if attempt + 1 < ATTEMPTS:
            report(
                Warned(
                    code="reread",
                    text=f"{size} bytes at {address:#x} came damaged; reading them again",
                )
            )
    raise VerifyError(
        f"what was read at {address:#x} differs from the chip's own MD5, {ATTEMPTS} times",
        ranges=((address, address + size),),
        hint="Lower --baud, and check cable and supply.",
    )


def _stream(device: Device, address: int, size: int) -> Iterator[bytes]:
    """``size`` bytes; after a broken transfer it goes on where it was."""
    done = stuck = restarts = 0
    while done < size:
        before = done
        try:
            for data in device.read_flash(address + done, size - done):
                done += len(data)
                yield data
        except (NoReply, CommandFailed):
            restarts += 1
            stuck = stuck + 1 if done == before else 1
            if (
                stuck >= device.loader.settings.retry.block_attempts
                or restarts > RESTARTS + done // PIECE
            ):
                raise


def _fetch(
    device: Device, address: int, size: int, on_bytes: Callable[[int], None], limit: LossLimit
) -> bytearray:
    """``size`` bytes; after a lost answer it goes on where it was, for reading changes nothing."""
    piece, stuck = bytearray(), 0
    for _ in range(RESTARTS):
        before = len(piece)
        try:
            for data in device.read_flash(address + before, size - before):
                piece += data
                on_bytes(len(piece))
                limit.check()
        except (NoReply, CommandFailed):
            limit.check()
            stuck = stuck + 1 if len(piece) == before else 1
            if stuck >= device.loader.settings.retry.block_attempts:
                raise
        if len(piece) >= size:
            return piece[:size]
    raise NoReply(
        f"the flash at {address:#x} could not be read: too many answers were lost",
        hint="Lower --baud.",
    )


def _is_right(device: Device, address: int, piece: bytearray) -> bool:
    if not device.loader.supports(Op.SPI_FLASH_MD5):
        return True
    return (
        read_md5(device, address, len(piece)) == hashlib.md5(piece, usedforsecurity=False).digest()
    )
