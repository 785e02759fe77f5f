"""Standard output and error as the command line uses them: whole lines, and a reader who leaves stops nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import TextIO

from espwire.errors import FileError

GONE = frozenset({errno.EPIPE, errno.EINVAL, errno.ECONNRESET})  # EINVAL: Windows' word for a closed pipe


class Output:
    """Writes lines. Flashing goes on when nobody reads any more; a full disk is told at the end."""

    def __init__(self) -> None:
        self._lost: OSError | None = None

    def line(self, text: str) -> None:
        """One line to standard output."""
        self._write(sys.stdout, text)

    def error_line(self, text: str) -> None:
        """One line to standard error."""
        self._write(sys.stderr, text)

    def finish(self) -> None:
        """Everything is written, or somebody is told.

        :raises FileError: standard output took not all (a full disk, say)
        """
        lost, self._lost = self._lost, None
        if lost is not None and lost.errno not in GONE:
            raise FileError(
                f"standard output could not be written: {lost.strerror}", hint="The command itself ran to its end."
            )

    def mute(self, stream: TextIO | None = None) -> None:
        """Send what follows nowhere, so that no later flush fails."""
        for each in (stream,) if stream is not None else (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, each.fileno())
                os.close(nowhere)

    def _write(self, stream: TextIO | None, text: str) -> None:
        if stream is None or (self._lost is not None and stream is sys.stdout):
            return
        try:
            stream.write(text + "\n")
            stream.flush()
        except OSError as error:
            if stream is sys.stdout:
                self._lost = error
            self.mute(stream)
