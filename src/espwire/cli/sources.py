"""Files named on the command line: reading them, and finding out before a port is opened that they cannot be used.

A command that fails because of a file must fail before it resets a board, and not after minutes of work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from espwire.errors import FileError, UsageError
from espwire.files import INPUT_LIMIT, open_output, read_file

STDIN = "-"


def read_source(path: str) -> bytes:
    """A file's bytes; ``-`` is standard input.

    :raises FileError: it cannot be read, or is larger than 256 MiB
    :raises UsageError: standard input is not usable, or was read before
    """
    if path != STDIN:
        return read_file(path)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "'-' reads standard input, which is a terminal",
            hint="Pipe a file into it; for a file named '-', write ./-.",
        )
    try:
        data = sys.stdin.buffer.read(INPUT_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read standard input: {error}", code="file-read") from None
    if len(data) > INPUT_LIMIT:
        raise FileError("standard input has more than 256 MiB", code="file-too-large")
    if not data:
        raise UsageError(
            "standard input is empty", hint="Pipe a file into it, and use '-' only once."
        )
    return data


def name_source(path: str) -> str:
    """A file's name for messages."""
    return "standard input" if path == STDIN else os.path.basename(path)


def check_readable(paths: Iterable[str]) -> None:
    """Read each file once, except standard input and pipes, which can be read only once.

    :raises FileError: a file cannot be read
    """
    for path in paths:
        if path != STDIN and (
            os.path.isfile(path) or not os.path.exists(path) or os.path.isdir(path)
        ):
            read_file(path)


class _StopWriting(Exception):
    """Leaves ``open_output`` so that the file keeps its old contents."""


def check_writable(path: str) -> None:
    """Start to write ``path`` and undo it; existing contents stay. Devices and pipes are not touched.

    :raises FileError: it cannot be written
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return
    try:
        with open_output(path, durable=False):
            raise _StopWriting
    except _StopWriting:
        pass
