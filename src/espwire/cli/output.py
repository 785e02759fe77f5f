"""Prints to standard output and standard error; a failure to print never stops the work.

A host program may have replaced ``sys.stdout`` by anything: an object with only ``write``, a closed file, None.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from espwire.errors import FileError
from espwire.text import escape, escape_lines

GONE = frozenset({errno.EPIPE, errno.EINVAL, errno.ECONNRESET})  # EINVAL: a closed pipe on Windows
# OSError: disk, pipe; ValueError: closed file, encoding; the others: a host program's object
STREAM_ERRORS = (OSError, ValueError, AttributeError, TypeError, RuntimeError)

COLOURS = {"error": "1;31", "A fatal error occurred": "1;31", "warning": "33", "hint": "36"}


def is_terminal(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal that supports control codes."""
    try:
        return stream is not None and stream.isatty() and environment.get("TERM") != "dumb"
    except STREAM_ERRORS:
        return False


def wants_colour(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Whether to print colours: NO_COLOR disables them, FORCE_COLOR enables them; default: on a terminal."""
    if environment.get("NO_COLOR") or stream is None:
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if os.name == "nt" and not environment.get("WT_SESSION"):  # older consoles would show the codes
        return False
    return is_terminal(stream, environment)


def printable(text: str, most: int | None = None) -> str:
    """Text as one line with the escapes of ``espwire.text``; any white space becomes a space.

    :param most: maximum number of characters; a longer text is cut in its middle
    """
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]} … {text[-most // 2 :]}"
    return (
        text
        if text.isprintable()
        else escape("".join(" " if sign.isspace() else sign for sign in text))
    )


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def write_text(stream: TextIO, text: str) -> None:
    """Write and flush; characters that the encoding lacks become escapes.

    :raises STREAM_ERRORS: the stream fails
    """
    try:
        stream.write(text)
    except UnicodeEncodeError as error:
        stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
    flush = getattr(stream, "flush", None)
    if flush is not None:
        flush()


class Output:
    """Prints lines. If a stream fails, the work continues; ``finish`` reports a full disk at the end."""

    diverted = False  # standard output receives a file of data: print text to standard error

    def __init__(self) -> None:
        self._failed: set[int] = set()  # ids of failed streams
        self._lost: OSError | None = None

    def line(self, text: str, *, styled: bool = False) -> None:
        """Print lines to standard output.

        :param styled: the text contains espwire's own colours; everything else in it is escaped already
        """
        self.write(
            sys.stderr if self.diverted else sys.stdout,
            (text if styled else escape_lines(text)) + "\n",
        )

    def error_line(self, text: str, *, styled: bool = False) -> None:
        """Print a line to standard error, its first word in colour if the stream shows colours."""
        text = text if styled else escape_lines(text)
        word, colon, rest = text.partition(": ")
        if colon and word in COLOURS and wants_colour(sys.stderr, os.environ):
            text = f"\x1b[{COLOURS[word]}m{word}:\x1b[0m {rest}"
        self.write(sys.stderr, text + "\n")

    def write(self, stream: TextIO | None, text: str) -> None:
        """Write to a stream, unless it failed before."""
        if stream is None or id(stream) in self._failed:
            return
        try:
            write_text(stream, text)
        except STREAM_ERRORS as error:
            self._failed.add(id(stream))
            if stream is sys.stdout and isinstance(error, OSError):
                self._lost = error

    def finish(self) -> None:
        """Report if standard output is incomplete. A closed pipe is not a failure.

        :raises FileError: standard output could not be written, for example because the disk is full
        """
        lost, self._lost = self._lost, None
        if lost is not None and lost.errno not in GONE:
            raise lost_output(lost, "The command itself was completed. ")


def lost_output(error: OSError, state: str = "") -> FileError:
    """The error for standard output that cannot be written. ``state``: a sentence about the command."""
    return FileError(
        f"cannot write to standard output: {error.strerror or error}",
        hint=f"{state}Redirect its output to a file or pipe that can be written.",
        code="stdout",
    )


class StdoutForBar:
    """Standard output for rich, whose drawing thread would raise when the terminal is closed."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, text: str) -> int:
        """Write; never fails."""
        self._output.write(sys.stdout, text)
        return len(text)

    def flush(self) -> None:
        """Nothing to do: ``write`` flushes."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


def discard_unwritten() -> None:
    """Drop text that cannot be written; otherwise Python would fail in its last flush."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except STREAM_ERRORS:
            with contextlib.suppress(*STREAM_ERRORS):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
