"""The log of one board: its events as lines with the time of day, and what its process prints to standard error."""

from __future__ import annotations

import itertools
import os
import subprocess
import time
from pathlib import Path
from typing import TextIO

from espwire.cli.output import Output, printable
from espwire.cli.ports import plain_name
from espwire.cli.render import Plain
from espwire.errors import FileError
from espwire.events import Error, Event
from espwire.files import make_private_folder, naming_errors
from espwire.text import hide_token

KEPT_LOGS = 200  # in espwire's own folder


class _Stamped(Output):
    """Writes lines to a file. A full disk ends the log, never the board's run."""

    def __init__(self, file: TextIO) -> None:
        super().__init__()
        self._file = file

    def write(self, stream: TextIO | None, text: str) -> None:
        """Write to the file, whatever the stream."""
        super().write(self._file, f"{time.strftime('%H:%M:%S')} {text}")


class Log:
    """A new file in ``folder``; None: no log.

    :raises FileError: the file cannot be created
    """

    def __init__(self, folder: Path | None, port: str) -> None:
        self.path: Path | None = None
        self._file: TextIO | None = None
        self._lines: Plain | None = None
        if folder is None:
            return
        with naming_errors("write", folder):
            self.path, self._file = _create(folder, plain_name(port))
        self._output = _Stamped(self._file)
        self._lines = Plain(self._output, verbose=True)
        self.line(f"port {hide_token(port)}")

    @property
    def descriptor(self) -> int:
        """Where the process writes its standard error."""
        return subprocess.DEVNULL if self._file is None else self._file.fileno()

    def event(self, event: Event) -> None:
        """Add an event."""
        if self._lines is None:
            return
        if isinstance(event, Error):
            self.line(f"error: {printable(event.message)} [{event.code}]")
            self.line(f"hint: {printable(event.hint)}")
        else:
            self._lines(event)

    def line(self, text: str) -> None:
        """Add a line."""
        if self._lines is not None:
            self._output.line(text)

    def close(self) -> None:
        """Close the file."""
        self._lines = None
        if self._file is not None:
            try:
                self._file.close()
            except OSError:  # a full disk: the log is incomplete
                return


def _create(folder: Path, name: str) -> tuple[Path, TextIO]:
    """A new file, opened to append: the board's process writes to it as well."""
    day = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = folder / (f"{day}-{name}.log" if number == 1 else f"{day}-{name}-{number}.log")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except FileExistsError:
            continue
        return path, os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
    raise AssertionError("not reached")


def open_folder(named: str | None, use_state: bool) -> Path | None:
    """The folder for logs: ``named``, else espwire's own. Removes old logs of its own.

    :param use_state: whether espwire's own folder may be used
    :raises FileError: the folder ``named`` cannot be created
    """
    if named is not None:
        with naming_errors("write", named):
            os.makedirs(named, exist_ok=True)
        return Path(named)
    if not use_state:
        return None
    from espwire.cli.state import find_state_file

    folder = find_state_file().with_name("boards")
    try:
        make_private_folder(folder)
        for old in sorted(folder.glob("*.log"))[:-KEPT_LOGS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot write {str(folder)!r}: {error.strerror or error}",
            hint="Give another folder with --log-dir, or keep no logs with --no-state.",
            code="file-write",
        ) from None
    return folder
