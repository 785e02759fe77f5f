"""Reads flash into files and memory. The backend checks each piece; a file is written whole or not at all.

Reads into a file can be resumed: ``FILE.partial`` stores each block of 64 KiB once it is complete. The next run uses a
stored block only if the chip's MD5 shows that the flash still holds it, and reads the others.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.device.backends.stub import ReadTransfer
from espwire.errors import Unsupported, UsageError
from espwire.events import Finished, Note, Progress, Report, Warned, silent
from espwire.files import is_replaced, open_output
from espwire.flash.model import BLANK, Cancel, FlashTarget
from espwire.flash.plan import hint_at_stub
from espwire.flash.verify import has_content
from espwire.progress import track
from espwire.sizes import BLOCK, align_up, join_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.image.backup_file import Board
    from espwire.image.partial_read import PartialRead

PROGRESS_STEP = 0x1000
PACKED_SHARE = 2  # flash content typically takes this fraction of its size on the line
PARTIAL = ".partial"  # is appended to the name of the output

Block = tuple[int, int]  # half-open range of flash


def read_to_file(
    device: Device,
    address: int,
    size: int | None,
    path: str | os.PathLike[str],
    *,
    flash_size: int | None = None,
    resume: bool = True,
    decode: Callable[[int, bytes], bytes] | None = None,
    cancel: Cancel | None = None,
    report: Report = silent,
) -> int:
    """Read flash into a file; returns the number of bytes. After an interruption, the same call continues.

    :param size: bytes; None: up to the end of the flash (``ALL``)
    :param flash_size: bytes, where the caller knows better than the flash
    :param resume: store what was read in ``FILE.partial``: of more than 64 KiB, by a loader that computes MD5s, from a
        flash chip whose id is known, for a regular file
    :param decode: makes the file's content of the address and what was read, such as ``host_key.open_decoder``
    :raises Unsupported: this loader cannot read flash
    :raises UsageError: the range is empty or goes past the flash's end
    :raises VerifyError: a piece differed, three times, from the chip's own MD5 of it
    :raises FileError: the file cannot be written
    :raises DataError: code ``partial-of-other-board``: ``FILE.partial`` belongs to another board
    """
    size = _resolve_size(device, address, size, flash_size)
    target = FlashTarget.of(device, flash_size=flash_size)
    board = find_board(device, target) if resume else None
    if board is not None and size > BLOCK and target.limits.can_digest and is_replaced(path):
        with open_partial(path, board, report) as partial:
            reading = ResumableRead(device, partial, address, size, cancel=cancel, report=report)
            content = reading.run(list_blocks(address, address + size))
            with open_output(path) as file:
                file.write(content if decode is None else decode(address, content))
        return size
    name = os.path.basename(os.fspath(path))
    with (
        open_output(path) as file,
        closing(_read(device, address, size, name, cancel, report)) as pieces,
    ):
        if decode is not None:
            file.write(decode(address, b"".join(pieces)))
        for data in pieces:
            file.write(data)
    return size


def find_board(device: Device, target: FlashTarget) -> Board | None:
    """The board by MAC address and flash id; None: they are not known."""
    from espwire.image.backup_file import Board

    flash = device.flash
    if target.id_size is None or flash is None or not flash.id_hex or not device.mac:
        return None
    security = target.security
    return Board(
        chip=device.chip.id,
        mac=device.mac,
        flash_id=flash.id_hex,
        flash_size=target.id_size,
        encrypted=security is not None and security.flash_encryption,
    )


def list_blocks(start: int, end: int) -> list[Block]:
    """The blocks of a range: they begin at multiples of 64 KiB, except for the first."""
    edges = [start, *range(align_up(start + 1, BLOCK), end, BLOCK), end]
    return list(pairwise(edges))


@contextmanager
def open_partial(
    path: str | os.PathLike[str], board: Board, report: Report
) -> Iterator[PartialRead]:
    """The partial file of the output ``path``. It is removed when the block ends, and kept if the block raises.

    :raises FileError: it cannot be opened, or another process uses it
    :raises DataError: code ``partial-of-other-board``
    """
    from espwire.image.partial_read import PartialRead

    with PartialRead(os.fspath(path) + PARTIAL, board) as partial:
        complete = False
        try:
            yield partial
            complete = True
        finally:
            if not complete and partial.addresses:
                text = f"{partial.path} has what was read so far; the same command continues from there"
                report(Warned(code="read-incomplete", text=text))
        partial.remove()


class ResumableRead:
    """Reads blocks of the flash in a range, and stores each in a partial file.

    ``read``, ``resumed``: bytes from the flash, and from an earlier run.
    """

    def __init__(
        self,
        device: Device,
        partial: PartialRead,
        start: int,
        size: int,
        *,
        cancel: Cancel | None = None,
        report: Report = silent,
    ) -> None:
        self.device, self.partial, self.start, self.cancel = device, partial, start, cancel
        self.report = track(report, device.transport.now)
        self.read = self.resumed = 0
        self._content = bytearray(BLANK * size)

    def run(self, blocks: Iterable[Block]) -> bytes:
        """The content of the range; what is not in ``blocks`` is taken to be blank.

        :raises FileError: the partial file cannot be written
        :raises VerifyError: a piece differed, three times, from the chip's own MD5 of it
        """
        missing = [block for block in blocks if not self._resume(block)]
        if self.resumed:
            text = (
                f"continuing {self.partial.path}: {self.resumed:,} of its bytes are still in flash"
            )
            self.report(Note(text=text))
        self._read(missing)
        return bytes(self._content)

    def _check(self) -> None:
        if self.cancel is not None:
            self.cancel.check()

    def _resume(self, block: Block) -> bool:
        """Use the block of an earlier run if the flash still holds it."""
        self._check()
        start, end = block
        data = self.partial.read(start)
        if data is None or len(data) != end - start or not has_content(self.device, start, data):
            return False
        self._store(start, data)
        self.resumed += len(data)
        return True

    def _store(self, address: int, data: bytes) -> None:
        at = address - self.start
        self._content[at : at + len(data)] = data

    def _read(self, blocks: list[Block]) -> None:
        """Read the blocks, and store each once it is complete."""
        name = os.path.basename(self.partial.path.removesuffix(PARTIAL))
        total = sum(end - start for start, end in blocks)
        began, before = self.device.transport.now(), 0
        progress = _report_progress(self.report, name, total)
        self.device.tune_line("read", total // PACKED_SHARE)
        for start, end in join_ranges(blocks):
            pieces = self.device.backend.read(
                start, end - start, progress=partial(progress, before), report=self.report
            )
            with closing(pieces):
                for address, data in _cut(pieces, list_blocks(start, end)):
                    self._store(address, data)
                    self.partial.append(address, data)
                    self.read += len(data)
                    self._check()
            before += end - start
        seconds = self.device.transport.now() - began
        done = Finished(task="read", name=name, size=self.read, seconds=seconds, address=self.start)
        self.report(done)


def _report_progress(report: Report, name: str, total: int) -> Callable[[int, int], None]:
    """A function that reports how far a read is: bytes of earlier ranges, and of the one that is being read.

    It reports in steps, and nothing for a piece that is read again.
    """
    shown = -PROGRESS_STEP

    def progress(before: int, done: int) -> None:
        nonlocal shown
        done += before
        if done >= shown + PROGRESS_STEP or (done == total and shown < total):
            shown = done
            report(Progress(task="read", name=name, done=done, total=total))

    progress(0, 0)
    return progress


def _cut(pieces: Iterable[bytes], blocks: Iterable[Block]) -> Iterator[tuple[int, bytes]]:
    """The blocks, with their content."""
    pending, source = bytearray(), iter(pieces)
    for start, end in blocks:
        while len(pending) < end - start:
            pending += next(source)
        yield start, bytes(pending[: end - start])
        del pending[: end - start]
    for _ in source:  # checks what was read
        pass


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
) -> Generator[bytes, None, None]:
    """The bytes in pieces, with progress."""
    report = track(report, device.transport.now)
    began = device.transport.now()
    progress = partial(_report_progress(report, name, size), 0)
    device.tune_line("read", size // PACKED_SHARE)
    with closing(device.backend.read(address, size, progress=progress, report=report)) as pieces:
        for data in pieces:
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
