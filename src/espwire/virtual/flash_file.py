"""The file that keeps a flash part's contents, mapped into memory. Knows sizes, nothing of flash commands."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from espwire.bits import MIB, format_size
from espwire.errors import DataError, FileError

_BLANK = b"\xff" * MIB


def open_flash_file(path: Path, size: int) -> mmap.mmap:
    """The file at ``path`` as writable memory; an absent or empty one is made first, full of 0xFF.

    :raises DataError: (``flash-file-size``) the file has another size
    :raises FileError: the operating system refuses
    """
    try:
        if not path.exists() or path.stat().st_size == 0:
            fresh = path.with_name(path.name + ".new")  # whole or absent: written beside, then moved
            with open(fresh, "wb") as file:
                for at in range(0, size, MIB):
                    file.write(_BLANK[: min(MIB, size - at)])
            os.replace(fresh, path)
        found = path.stat().st_size
        if found != size:
            raise DataError(
                f"{path} has {format_size(found)}, but the flash has {format_size(size)}",
                hint="Name the file's own size with size=, or another file.",
                code="flash-file-size",
            )
        with open(path, "r+b") as file:
            return mmap.mmap(file.fileno(), size)
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(
            f"{path} cannot be used as flash: {reason}",
            hint="Check the path and its permissions.",
            code="flash-file",
        ) from None
