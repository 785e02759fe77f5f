"""The monitor's log file: complete lines of plain text, each written in one call, so that a crash leaves no partial line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from datetime import datetime
from types import TracebackType
from typing import BinaryIO

from espwire.errors import FileError
from espwire.files import keep_key
from espwire.monitor.text import Kind, Token
from espwire.streams import BINARY, NO_BLOCKING, StreamWriter, is_stream, open_writer

STUCK_S = 2.0  # a pipe whose reader is stuck for longer ends the log, not the monitor
LONGEST_LINE = 0x10000  # characters; bounds the memory for a line that never ends


class LineLog:
    """Writes tokens as lines, without colours and without characters deleted by backspace.

    :param stamp: returns the time to put before each line; None: no times
    """

    def __init__(
        self,
        file: BinaryIO | StreamWriter,
        name: str,
        *,
        stamp: Callable[[], datetime] | None = None,
    ) -> None:
        self.name, self.on = name, True
        self.failure: FileError | None = None
        self._file, self._stamp = file, stamp
        self.fresh = False  # created and still empty: removed if the monitor fails to start
        self.ahead = b""  # written before the first line
        self._line: list[str] = []
        self._size = 0
        self._began: datetime | None = None

    def __enter__(self) -> LineLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        if error is not None and self.fresh:
            with contextlib.suppress(OSError):
                os.unlink(self.name)

    def feed(self, tokens: list[Token]) -> None:
        """Add tokens, and write the lines that are complete."""
        if not self.on:
            return
        done = bytearray()
        for kind, text in tokens:
            if kind is Kind.TEXT:
                self._add(text)
            elif kind is Kind.BACK:
                self._take_back()
            if (
                kind is Kind.NEWLINE
                or (kind is Kind.RETURN and self._size)
                or self._size >= LONGEST_LINE
            ):
                done += self._end_line()
        self._write(bytes(done))

    def note(self, text: str) -> None:
        """Write a line of the monitor, after the chip's incomplete line."""
        if self.on:
            self._write(
                self._rest() + f"{self._time(None)}--- {text}\n".encode("utf-8", "backslashreplace")
            )

    def toggle(self) -> bool:
        """Turn the log off or on, with a note in the file; return whether it is on."""
        if self.on:
            self.note("log off")
            self.on = False
        else:
            self.on = True
            self.note("log on")
        return self.on

    def close(self) -> None:
        """Write the incomplete line and close the file; closing it again has no effect."""
        if not self._file.closed:
            self._write(self._rest())
            with contextlib.suppress(OSError):
                self._file.close()

    def _add(self, text: str) -> None:
        if not self._size and self._stamp is not None:
            self._began = self._stamp()
        self._line.append(text)
        self._size += len(text)

    def _take_back(self) -> None:
        if self._size:
            last = self._line.pop()
            self._size -= 1
            if len(last) > 1:
                self._line.append(last[:-1])

    def _rest(self) -> bytes:
        return self._end_line() if self._size else b""

    def _end_line(self) -> bytes:
        line = f"{self._time(self._began)}{''.join(self._line)}\n"
        self._line, self._size, self._began = [], 0, None
        return line.encode("utf-8", "backslashreplace")

    def _time(self, when: datetime | None) -> str:
        if self._stamp is None:
            return ""
        return f"{(when or self._stamp()).isoformat(' ', 'milliseconds')} "

    def _write(self, data: bytes) -> None:
        if not data or self.failure is not None:
            return
        data, self.ahead, self.fresh = self.ahead + data, b"", False
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) or 0 :]
        except (OSError, ValueError, FileError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self.failure = FileError(
                f"log {self.name!r} is incomplete: {reason}",
                hint="Free disk space, or choose another file.",
                code="log-broken",
            )


def open_log(
    path: str | os.PathLike[str],
    *,
    append: bool = False,
    stamp: Callable[[], datetime] | None = None,
) -> LineLog:
    """Create a log file, or append to it. A pipe or device gets each line immediately.

    :raises FileError: it exists already, or cannot be written
    """
    name = os.fspath(path)
    try:
        fresh = not os.path.lexists(path)
        stream = not fresh and os.path.exists(path) and is_stream(os.stat(path).st_mode)
        file = open_writer(path, silence=STUCK_S) if stream else _open_file(name, append=append)
        ahead = b"\n" if append and not stream and _ends_in_mid_line(path) else b""
    except FileExistsError:
        if os.path.isdir(path):
            raise FileError(
                f"cannot write {name!r}: it is a folder",
                hint="Add the name of a file.",
                code="file-write",
            ) from None
        raise FileError(
            f"log file {name!r} already exists",
            hint="Append to it with --append, or choose another name.",
            code="file-exists",
        ) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(f"cannot write {name!r}: {reason}", code="file-write") from None
    log = LineLog(file, name, stamp=stamp)
    log.fresh, log.ahead = fresh, ahead
    return log


def _open_file(name: str, *, append: bool) -> BinaryIO:
    """
    :raises OSError, ValueError: it cannot be opened
    :raises FileError: it is not a regular file
    """
    if append and os.path.lexists(name) and not os.path.isfile(name):
        what = "a dangling symbolic link" if os.path.islink(name) else "not a regular file"
        raise FileError(
            f"cannot write {name!r}: it is {what}", hint="Choose another file.", code="file-write"
        )
    if append:
        keep_key(name)
    flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_EXCL) | NO_BLOCKING | BINARY
    return open(os.open(name, flags, 0o666), "ab" if append else "wb", buffering=0)


def _ends_in_mid_line(path: str | os.PathLike[str]) -> bool:
    with open(path, "rb") as file:
        return (
            bool(file.seek(0, os.SEEK_END))
            and file.seek(-1, os.SEEK_END) >= 0
            and file.read(1) != b"\n"
        )
