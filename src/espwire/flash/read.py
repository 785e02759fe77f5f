"""Reads flash into files and memory. The backend checks each piece; a file is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from espwire.device.backends.stub import ReadTransfer
from espwire.errors import Unsupported, UsageError
from espwire.events import Finished, Progress, Report, silent
from espwire.files import open_output
from espwire.flash.model import Cancel, FlashTarget
from espwire.flash.plan import hint_at_stub
from espwire.progress import track

if TYPE_CHECKING:
    from espwire.device.device import Device

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
    :raises VerifyError: a piece differed, three times, from the chip's own MD5 of it
    :raises FileError: the file cannot be written
    """
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
    size = _resolve_size(device, address, size, None)
    name = f"{address:#x}..{address + size:#x}"
    return b"".join(_read(device, address, size, name, cancel, report))


def open_read(device: Device, address: int, size: int) -> ReadTransfer:
    """Open a read of ``size`` bytes at ``address``: iterate over it for pieces, in order and checked.

    :raises Unsupported: our stub is not running: see ``Device.use_stub``
    :raises CommandFailed: the stub refuses
    """
    if device.flash is None:
        device.attach_flash()
    return ReadTransfer(device.loader, address, size)


def _read(
    device: Device, address: int, size: int, name: str, cancel: Cancel | None, report: Report
) -> Iterator[bytes]:
    """The bytes in pieces, with progress."""
    report = track(report, device.transport.now)
    began, shown = device.transport.now(), 0

    def progress(done: int) -> None:
        nonlocal shown
        if done >= shown + PROGRESS_STEP or done == size:  # not for a piece that is read again
            shown = done
            report(Progress(task="read", name=name, done=done, total=size))

    report(Progress(task="read", name=name, done=0, total=size))
    device.tune_line("read", size // 2)  # about what packed packets take
    for data in device.backend.read(address, size, progress=progress, report=report):
        if cancel is not None:
            cancel.check()
        yield data
    seconds = device.transport.now() - began
    report(Finished(task="read", name=name, size=size, seconds=seconds, address=address))


def check_can_read(device: Device) -> None:
    """:raises Unsupported: code ``cannot-read-flash``"""
    if not device.backend.limits.can_read:
        raise Unsupported(
            f"the {device.chip.name}'s {device.backend.limits.loader} loader cannot read flash",
            hint=hint_at_stub(secure=device.secure_download),
            code="cannot-read-flash",
        )


def _resolve_size(device: Device, address: int, size: int | None, flash_size: int | None) -> int:
    """The number of bytes to read, once nothing is wrong with the range."""
    check_can_read(device)
    target = FlashTarget.of(device, flash_size=flash_size)
    flash_size = target.real_size
    if size is None:
        if flash_size is None:
            raise UsageError("the flash size is unknown", hint="Give the size to read as a number.")
        size = flash_size - address
    if size <= 0 or address < 0:
        raise UsageError(f"nothing to read at {address:#x}", hint="Check address and size.")
    if flash_size is not None and address + size > flash_size:
        raise UsageError(
            f"{size:#x} bytes at {address:#x} exceed the flash, which ends at {flash_size:#x}",
            hint="Check address and size; ALL reads up to the end.",
            code="past-flash-end",
        )
    target.check_range(address, address + size)
    return size
