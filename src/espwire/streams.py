"""Reads and writes pipes and devices in place, with timeouts; waits for file descriptors.

A *named* pipe or device is opened without blocking. It is an error if no program opens the other end of a pipe, or if no
byte moves for a minute. A name for a file that this process already has open (``/dev/stdin``, ``/dev/stdout``,
``/dev/fd/3``, the shell's ``<(command)``) was set up by the program that started the process: its other end exists, and
there is no timeout.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable

from espwire.errors import FileError

OPEN_S = 3.0  # for another program to open the other end of a named pipe
SILENCE_S = 60.0  # without a byte
STEP_S = 0.05
CHUNK = 0x100000
MOST_LINKS = 40
# these exist on POSIX only
NO_BLOCKING: int = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
BINARY: int = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def find_descriptor(path: str | os.PathLike[str]) -> int | None:
    """The number of the open file that ``/dev/stdout``, ``/dev/fd/3`` or a link to one of them names."""
    name = os.path.abspath(os.fspath(path))
    for _ in range(MOST_LINKS):
        folder, last = os.path.split(name)
        folder = os.path.realpath(folder)
        if last.isdecimal() and folder in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(last)
        if not os.path.islink(name):
            return None
        name = os.path.join(folder, os.readlink(name))
    return None


def is_stream(mode: int) -> bool:
    """Whether a file of this mode is a pipe or a character device."""
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def read_most(path: str | os.PathLike[str], most: int) -> bytes:
    """The first ``most`` bytes of a file, pipe or device.

    :raises OSError, ValueError: it cannot be read
    :raises FileError: codes ``no-writer``, ``silent-input``
    """
    owned = find_descriptor(path)
    inherited = owned is not None and not stat.S_ISREG(os.fstat(owned).st_mode)
    descriptor = (
        os.dup(owned)
        if inherited and owned is not None
        else os.open(path, os.O_RDONLY | NO_BLOCKING | BINARY)
    )
    try:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode):
            return _collect(lambda size: os.read(descriptor, size), most, first=found.st_size + 1)
        if inherited or not is_stream(found.st_mode):
            return _collect(lambda size: os.read(descriptor, size), most)
        return _collect(_reader(descriptor, path, fifo=stat.S_ISFIFO(found.st_mode)), most)
    finally:
        os.close(descriptor)


def _collect(read: Callable[[int], bytes], most: int, *, first: int = CHUNK) -> bytes:
    """Read to the end, or ``most`` bytes; without copying, if ``first`` is the size."""
    pieces, left, size = [], most, max(1, first)
    while left > 0 and (piece := read(min(left, size))):
        pieces.append(piece)
        left, size = left - len(piece), CHUNK
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _reader(descriptor: int, path: str | os.PathLike[str], *, fifo: bool) -> Callable[[int], bytes]:
    """A function that reads from a non-blocking pipe or device."""
    began = False

    def read(size: int) -> bytes:
        nonlocal began
        limit = time.monotonic() + SILENCE_S
        first = time.monotonic() + OPEN_S
        while True:
            data: bytes | None = None
            try:
                data = os.read(descriptor, size)
            except BlockingIOError:  # a program has it open for writing
                began = True
            if data or (data == b"" and (began or not fifo)):
                began = True
                return data
            now = time.monotonic()
            if data == b"" and now >= first:
                raise FileError(
                    f"no program writes to the pipe {os.fspath(path)!r}",
                    hint="Start the program that writes to it first.",
                    code="no-writer",
                )
            if now >= limit:
                raise FileError(
                    f"no data from {os.fspath(path)!r} for {SILENCE_S:.0f} seconds",
                    hint="Check the program that writes to it.",
                    code="silent-input",
                )
            if data is None:
                wait_ready(descriptor, limit - now)
            else:
                time.sleep(STEP_S)

    return read


class StreamWriter:
    """A pipe or device open for writing.

    :param silence: seconds without progress until writing fails; None: no limit
    """

    def __init__(
        self, descriptor: int, path: str | os.PathLike[str], *, silence: float | None
    ) -> None:
        self._descriptor, self._path, self._silence = descriptor, path, silence
        self.closed = False

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Write all of ``data``.

        :raises OSError: it cannot be written
        :raises FileError: code ``stuck-output``
        """
        rest = memoryview(data)
        began = time.monotonic()
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
                began = time.monotonic()
                continue
            except BlockingIOError:
                wait_ready(self._descriptor, STEP_S, write=True)
            if self._silence is not None and time.monotonic() >= began + self._silence:
                raise FileError(
                    f"the reader of {os.fspath(self._path)!r} accepted no data for {self._silence:.0f} seconds",
                    hint="Check the program that reads from it.",
                    code="stuck-output",
                )
        return len(data)

    def flush(self) -> None:
        """No effect: there is no buffer."""

    def close(self) -> None:
        """Close it; closing it again has no effect."""
        if not self.closed:
            self.closed = True
            os.close(self._descriptor)


def open_writer(path: str | os.PathLike[str], *, silence: float | None = None) -> StreamWriter:
    """Open a pipe or device for writing.

    :param silence: seconds without progress until writing fails; None: a minute
    :raises OSError, ValueError: it cannot be opened
    :raises FileError: code ``no-reader``, or it is not a pipe or device
    """
    owned = find_descriptor(path)
    if owned is not None:
        return StreamWriter(os.dup(owned), path, silence=None)
    descriptor = _open_other_end(path)
    try:
        if not is_stream(os.fstat(descriptor).st_mode):
            raise FileError(
                f"cannot write {os.fspath(path)!r}: it is no longer a pipe or device",
                code="file-write",
            )
    except BaseException:
        os.close(descriptor)
        raise
    return StreamWriter(descriptor, path, silence=SILENCE_S if silence is None else silence)


def _open_other_end(path: str | os.PathLike[str]) -> int:
    limit = time.monotonic() + OPEN_S
    while True:
        try:
            return os.open(path, os.O_WRONLY | NO_BLOCKING | BINARY)
        except OSError as error:
            if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(path).st_mode):
                raise
        if time.monotonic() >= limit:
            raise FileError(
                f"no program reads from the pipe {os.fspath(path)!r}",
                hint="Start the program that reads from it first.",
                code="no-reader",
            )
        time.sleep(STEP_S)


SELECT_LIMIT = (
    1024  # usual FD_SETSIZE; on Windows it limits the number of sockets, not their values
)


def wait_ready(descriptor: int, seconds: float, *, write: bool = False) -> bool:
    """Wait at most ``seconds`` until reading (or writing) does not block; errors and hang-ups count as ready.

    Descriptors above 1023, which ``select`` does not support, are allowed.

    :raises OSError, ValueError: the descriptor is closed
    """
    import select

    if sys.platform != "win32" and descriptor >= SELECT_LIMIT:
        poller = select.poll()
        poller.register(descriptor, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))
    read, written = ([], [descriptor]) if write else ([descriptor], [])
    # Windows reports a failed connection only as an exceptional condition
    return any(select.select(read, written, written, max(0.0, seconds)))
