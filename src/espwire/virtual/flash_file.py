"""The file that keeps a flash chip's contents, mapped into memory. Knows sizes, no flash commands.

The name comes from a URL, which may come from somebody else, so nothing that exists is ever replaced or followed: the
file is a regular file of exactly the flash's size, or it does not exist and is created. It is locked while a chip uses
it: two chips on one file would overwrite each other's contents.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from pathlib import Path

from espwire.errors import DataError, FileError
from espwire.files import NO_ROOM, lock, unfinished, unlock
from espwire.sizes import MIB, format_size
from espwire.streams import BINARY, NO_BLOCKING

_BLANK = b"\xff" * MIB
_NO_FOLLOW: int = getattr(os, "O_NOFOLLOW", 0)


class FlashFile:
    """An open, locked flash file; ``map`` is its contents."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.map = mmap.mmap(descriptor, size)

    def flush(self) -> None:
        """Hand the contents to the file system."""
        self.map.flush()

    def close(self) -> None:
        """Flush, and let others use the file."""
        try:
            self.map.flush()
            with contextlib.suppress(
                BufferError
            ):  # somebody still holds a piece: the mapping ends with that piece
                self.map.close()
        finally:
            unlock(self._descriptor)
            os.close(self._descriptor)


def open_flash_file(path: Path, size: int) -> FlashFile:
    """The file at ``path`` as writable memory. If nothing has that name, it is created, full of 0xFF.

    :raises DataError: (``flash-file-size``) the file has another size
    :raises FileError: codes ``flash-file`` (not a regular file, or the system refuses), ``flash-file-busy``
    """
    try:
        if not os.path.lexists(path):
            _create(path, size)
        descriptor = _open_regular(path)
        try:
            _check(descriptor, path, size)
            return FlashFile(descriptor, size)
        except BaseException:
            os.close(descriptor)
            raise
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        hint = (
            "Make room, or choose another disk." if full else "Check the path and its permissions."
        )
        raise _unusable(path, getattr(error, "strerror", None) or str(error), hint) from None


def _unusable(
    path: Path, reason: str, hint: str = "Choose a regular file, or a new name."
) -> FileError:
    return FileError(f"{path} cannot be used as flash: {reason}", hint=hint, code="flash-file")


def _create(path: Path, size: int) -> None:
    """A blank file under a name that nothing has, whole or not at all."""
    with unfinished(path) as place:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | BINARY
        with os.fdopen(os.open(place, flags, 0o666), "wb") as file:
            for at in range(0, size, MIB):
                file.write(_BLANK[: min(MIB, size - at)])
        _name_new(place, path)


def _name_new(place: str, path: Path) -> None:
    """Rename, but never over something that exists: if another chip was quicker, its file is used and checked."""
    try:
        if os.name == "nt":  # where renaming does not replace anyway
            os.rename(place, path)
        else:
            os.link(place, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except (OSError, NotImplementedError):  # a file system without hard links
        if not os.path.lexists(path):
            os.rename(place, path)


def _open_regular(path: Path) -> int:
    """Opened only if it is a regular file, since opening alone can block or do something to a device."""
    found = os.lstat(path)
    if stat.S_ISREG(found.st_mode):
        return os.open(path, os.O_RDWR | NO_BLOCKING | _NO_FOLLOW | BINARY)
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    raise _unusable(
        path, f"it is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a regular file"
    )


def _check(descriptor: int, path: Path, size: int) -> None:
    """Locked, of the right size, and with all its blocks on the disk: a hole that finds no room would be a crash."""
    if not lock(descriptor):
        raise FileError(
            f"{path} is in use as the flash of another virtual chip, or is being written",
            hint="Stop the other program, or choose another file.",
            code="flash-file-busy",
        )
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        raise _unusable(path, "another file took its place just now")
    found = os.fstat(descriptor).st_size
    if found != size:
        raise DataError(
            f"{path} has {format_size(found)}, but the flash has {format_size(size)}",
            hint="Choose another file, or set size= to the size of this one if that is a flash size.",
            code="flash-file-size",
        )
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
