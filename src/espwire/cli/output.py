"""Standard output and error as the command line uses them: whole lines, and a reader who leaves stops nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from typing import TextIO

from espwire.errors import FileError

GONE = frozenset({errno.EPIPE, errno.EINVAL, errno.ECONNRESET})  # EINVAL: Windows' word for a closed pipe


COLOURS = {"error": "1;31", "A fatal error occurred": "1;31", "warning": "33", "hint": "36"}


def wants_colour(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Whether this stream is to have colours: NO_COLOR says no, FORCE_COLOR yes, else a terminal has them."""
    if environment.get("NO_COLOR") or stream is None:
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if os.name == "nt" and not environment.get("WT_SESSION"):  # older consoles would show the codes
        return False
    return stream.isatty() and environment.get("TERM") != "dumb"


def printable(text: str) -> str:
    """No control characters: what a chip, a file, its name or an argument holds must not drive the terminal."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)


class Output:
    """Writes lines. Flashing goes on when nobody reads any more; a full disk is told at the end."""

    def __init__(self) -> None:
        self._lost: OSError | None = None

    def line(self, text: str) -> None:
        """One line to standard output."""
        self._write(sys.stdout, text)

    def error_line(self, text: str) -> None:
        """One line to standard error; what kind of line it is in colour, where colour is wanted."""
        word, colon, rest = text.partition(": ")
        if colon and word in COLOURS and wants_colour(sys.stderr, os.environ):
            text = f"\x1b[{COLOURS[word]}m{word}:\x1b[0m {rest}"
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
