"""Reading input files and writing output files whole or not at all. Knows no format; the only file I/O of the library.

An output file is written beside its final place and renamed into it, so that an error, a full disk or Ctrl-C leaves
either the old file or none.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from espwire.errors import FileError

INPUT_LIMIT = 256 * 0x100000  # twice the largest flash: anything above is surely the wrong file


def read_file(path: str | os.PathLike[str], *, limit: int = INPUT_LIMIT) -> bytes:
    """The whole file, at most ``limit`` bytes.

    :raises FileError: it cannot be read, or is larger
    """
    with _naming("read", path), open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise FileError(
            f"{os.fspath(path)} is larger than {limit // 0x100000} MiB",
            hint="Check that it is the right file.",
            code="file-too-large",
        )
    return data


class OutputFile:
    """What ``open_output`` gives: something to write bytes to."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike[str]) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``.

        :raises FileError: the disk is full, or the like
        """
        with _naming("write", self._path):
            self._file.write(data)


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    :raises FileError: it cannot be written
    """
    with open_output(path) as file:
        file.write(data)


@contextlib.contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[OutputFile]:
    """A file to write to; it gets its name when the block ends well and vanishes when it does not.

    A device or a pipe (``/dev/stdout``) is written to directly: it cannot be renamed.

    :raises FileError: it cannot be written; errors of the block itself pass as they are
    """
    with _naming("write", path):
        target = Path(os.path.realpath(path))  # a symbolic link stays, what it points to is replaced
        if target.is_dir():
            raise IsADirectoryError("it is a directory")
        special = target.exists() and not target.is_file()
        place = target if special else target.with_name(f".{target.name[:200]}.{secrets.token_hex(4)}.part")
        file = open(place, "wb" if special else "xb")  # noqa: SIM115  closed below, whatever happens
    try:
        yield OutputFile(file, path)
        with _naming("write", path):
            _finish(file, place, target)
    finally:
        with contextlib.suppress(OSError):  # closing again, or flushing to a full disk: the error is on its way
            file.close()
        if not special:
            place.unlink(missing_ok=True)


def _finish(file: BinaryIO, place: Path, target: Path) -> None:
    file.flush()
    if place != target:
        os.fsync(file.fileno())
    file.close()
    if place != target:
        if target.exists():
            shutil.copymode(target, place)
        os.replace(place, target)


@contextlib.contextmanager
def _naming(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the system's errors into ones that name the file."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"cannot {what} {os.fspath(path)!r}: {reason}", code=f"file-{what}") from None
