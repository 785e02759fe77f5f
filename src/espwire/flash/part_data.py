"""What a part's data may be: bytes, a path, or a file that is open for reading in binary mode."""

from __future__ import annotations

import os
from typing import Protocol

from espwire.errors import UsageError
from espwire.files import read_file


class BinaryFile(Protocol):
    """A file object, such as ``open(path, "rb")`` or ``io.BytesIO``."""

    def read(self) -> bytes:
        """The rest of the file."""


Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryFile


def read_source(source: Source, what: str) -> tuple[bytes, str]:
    """The bytes, and the file's name if there is one.

    :param what: the argument's name, for messages
    :raises UsageError: code ``part``: it is none of these
    :raises FileError: the file cannot be read
    """
    if isinstance(source, bytes):
        return source, ""
    if isinstance(source, bytearray | memoryview):
        return bytes(source), ""
    if isinstance(source, str | os.PathLike):
        return read_file(source), os.path.basename(os.fspath(source))
    if callable(getattr(source, "read", None)):
        data, name = source.read(), getattr(source, "name", "")
        if isinstance(data, bytes):
            return data, os.path.basename(name) if isinstance(name, str) else ""
        raise UsageError(
            f"{what} is a text file (reading gave {type(data).__name__})",
            hint="Open it with mode 'rb'.",
            code="part",
        )
    raise UsageError(
        f"{what} must be bytes, a path or a binary file, not {type(source).__name__}",
        hint="Give the data itself, its file's path, or the opened file.",
        code="part",
    )


def check_address(address: object) -> int:
    """The address as it is.

    :raises UsageError: code ``part``: it is not an integer
    """
    if isinstance(address, bool) or not isinstance(address, int):
        raise UsageError(
            f"the address of a part must be an integer, not {type(address).__name__}",
            hint="For example: 0x10000, without quotes.",
            code="part",
        )
    return address


def check_name(name: object) -> str:
    """The name as it is.

    :raises UsageError: code ``part``: it is not a string
    """
    if not isinstance(name, str):
        raise UsageError(
            f"the name of a part must be a string, not {type(name).__name__}",
            hint="Leave it out.",
            code="part",
        )
    return name
