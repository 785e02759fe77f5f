"""The file that stores a flash chip's contents, mapped into memory.

The name comes from a URL, which may be untrusted, so nothing that exists is ever replaced or followed: the file must be a
regular file of exactly the flash's size, or absent, and is then created. It is locked while a chip uses it, since two
chips on the same file would overwrite each other's contents.
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
        """Write the contents to the file."""
        self.map.flush()

    def close(self) -> None:
        """Flush, and unlock the file."""
        try:
            self.map.flush()
            with contextlib.suppress(BufferError):  # a slice is in use: it keeps the mapping alive
                self.map.close()
        finally:
            unlock(self._descriptor)
            os.close(self._descriptor)


def open_flash_file(path: Path, size: int) -> FlashFile:
    """Map the file at ``path``. A file that does not exist is created, full of 0xFF.

    :raises DataError: (``flash-file-size``) the file has another size
    :raises FileError: codes ``flash-file`` (not a regular file, or the operating system reports an error), ``flash-file-busy``
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
    except (OSError, ValueError) as error:  # ValueError: the path contains a zero byte
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        hint = (
            "Free some space, or choose another disk."
            if full
            else "Check the path and its permissions."
        )
        raise _unusable(path, getattr(error, "strerror", None) or str(error), hint) from None


def _unusable(
    path: Path, reason: str, hint: str = "Choose a regular file, or a new name."
) -> FileError:
    return FileError(f"{path} cannot be used as flash: {reason}", hint=hint, code="flash-file")


def _create(path: Path, size: int) -> None:
    """Create a blank file under an unused name, completely or not at all."""
    with unfinished(path) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | BINARY
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            for at in range(0, size, MIB):
                file.write(_BLANK[: min(MIB, size - at)])
        _rename_new(temporary, path)


def _rename_new(temporary: str, path: Path) -> None:
    """Rename without replacing a file: if another chip was faster, its file is used and checked."""
    try:
        if os.name == "nt":  # renaming does not replace there
            os.rename(temporary, path)
        else:
            os.link(temporary, path, follow_symlinks=False)
    except FileExistsError:
        pass
    except (OSError, NotImplementedError, AttributeError):  # a system without hard links
        if not os.path.lexists(path):
            os.rename(temporary, path)


def _open_regular(path: Path) -> int:
    """Open only a regular file, since opening a device can block or have effects."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode):
        return os.open(path, os.O_RDWR | NO_BLOCKING | _NO_FOLLOW | BINARY)
    kinds = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe"}
    raise _unusable(path, f"it is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a regular file")


def _check(descriptor: int, path: Path, size: int) -> None:
    """Lock the file, check its size, and allocate all its blocks: writing to a hole on a full disk would crash."""
    if not lock(descriptor):
        raise FileError(
            f"{path} is in use as the flash of another virtual chip, or is being written",
            hint="Stop the other program, or choose another file.",
            code="flash-file-busy",
        )
    if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
        raise _unusable(path, "it was replaced just now")
    actual = os.fstat(descriptor).st_size
    if actual != size:
        raise DataError(
            f"{path} has {format_size(actual)}, but the flash has {format_size(size)}",
            hint="Choose another file, or set size= to the size of this file if that is a flash size.",
            code="flash-file-size",
        )
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno in NO_ROOM:
                raise
