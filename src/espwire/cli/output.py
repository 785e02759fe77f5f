"""Standard output and error as the command line uses them: whole lines, and no failure to print stops the work.

A host program may have put anything in the place of ``sys.stdout``: a text sink with ``write`` alone, a closed
file, None. Such streams are used as far as they go.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from espwire.errors import FileError
from espwire.text import escape, escape_lines

GONE = frozenset({errno.EPIPE, errno.EINVAL, errno.ECONNRESET})  # EINVAL: a closed pipe on Windows
# what streams raise: OSError (disk, pipe), ValueError (closed, or an encoding), the others (a host program's sink)
STREAM_ERRORS = (OSError, ValueError, AttributeError, TypeError, RuntimeError)

COLOURS = {"error": "1;31", "A fatal error occurred": "1;31", "warning": "33", "hint": "36"}


def is_terminal(stream: TextIO | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream is a terminal that understands control codes; any stream-like object will do."""
    try:
        return stream is not None and stream.isatty() and environment.get("TERM") != "dumb"
    except STREAM_ERRORS:
        return False


def wants_colour(stream: TextIO | None, environment: Mapping[str, str]) -> bool:
    """Whether to print colours to this stream: NO_COLOR disables, FORCE_COLOR enables, default: on a terminal."""
    if environment.get("NO_COLOR") or stream is None:
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    if os.name == "nt" and not environment.get("WT_SESSION"):  # older consoles would show the codes
        return False
    return is_terminal(stream, environment)


def printable(text: str, most: int | None = None) -> str:
    """One line, with the escapes of ``espwire.text``; white space of any kind becomes a space.

    :param most: characters; a longer text is cut in its middle
    """
    if most is not None and len(text) > most:
        text = f"{text[: most // 2]} … {text[-most // 2 :]}"
    return (
        text
        if text.isprintable()
        else escape("".join(" " if sign.isspace() else sign for sign in text))
    )


def write_text(stream: TextIO, text: str) -> None:
    """Write and flush; what the stream's encoding lacks is written as escapes.

    :raises STREAM_ERRORS: the stream does not take it
    """
    try:
        stream.write(text)
    except UnicodeEncodeError as error:
        stream.write(text.encode(error.encoding, "backslashreplace").decode(error.encoding))
    flush = getattr(stream, "flush", None)
    if flush is not None:
        flush()


class Output:
    """Writes lines. When a stream fails, the work goes on; ``finish`` reports a full disk at the end."""

    diverted = False  # a file of data goes to standard output: text would spoil it

    def __init__(self) -> None:
        self._failed: set[int] = set()  # ids of streams that nothing more is written to
        self._lost: OSError | None = None

    def line(self, text: str, *, styled: bool = False) -> None:
        """Lines to standard output, or to standard error where data goes there.

        :param styled: the text has colours of ours, and what comes from elsewhere in it is escaped already
        """
        self.write(
            sys.stderr if self.diverted else sys.stdout,
            (text if styled else escape_lines(text)) + "\n",
        )

    def error_line(self, text: str, *, styled: bool = False) -> None:
        """One line to standard error; its first word in colour, where the stream shows colours."""
        text = text if styled else escape_lines(text)
        word, colon, rest = text.partition(": ")
        if colon and word in COLOURS and wants_colour(sys.stderr, os.environ):
            text = f"\x1b[{COLOURS[word]}m{word}:\x1b[0m {rest}"
        self.write(sys.stderr, text + "\n")

    def write(self, stream: TextIO | None, text: str) -> None:
        """Write to a stream of ours; after a failure, nothing more."""
        if stream is None or id(stream) in self._failed:
            return
        try:
            write_text(stream, text)
        except STREAM_ERRORS as error:
            self._failed.add(id(stream))
            if stream is sys.stdout and isinstance(error, OSError):
                self._lost = error

    def finish(self) -> None:
        """Report that standard output is incomplete. A reader that has gone (a closed pipe) is not a failure.

        :raises FileError: standard output did not take all of it, for example because the disk is full
        """
        lost, self._lost = self._lost, None
        if lost is not None and lost.errno not in GONE:
            raise lost_output(lost)


def lost_output(error: OSError) -> FileError:
    """The failure for standard output that cannot be written."""
    return FileError(
        f"cannot write to standard output: {error.strerror or error}",
        hint="The command itself ran to its end. Send its output to a file or pipe that can be written.",
        code="stdout",
    )


class StdoutForBar:
    """Standard output for rich, which would raise in its drawing thread when the terminal goes away."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def write(self, text: str) -> int:
        """Write; never fails."""
        self._output.write(sys.stdout, text)
        return len(text)

    def flush(self) -> None:
        """``write`` has done it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)


def discard_unwritten() -> None:
    """Drop what standard output and error do not take; Python would fail in its last flush otherwise."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except STREAM_ERRORS:
            with contextlib.suppress(*STREAM_ERRORS):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
