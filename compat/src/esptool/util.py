"""esptool's exceptions and helpers. Exceptions raised here have the ``code`` and ``hint`` of espwire's error."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from typing import IO, ParamSpec, TypeAlias, TypeVar

from espwire.errors import ToolError, Unsupported

ImageSource: TypeAlias = str | bytes | IO[bytes]
P = ParamSpec("P")
R = TypeVar("R")


class FatalError(RuntimeError):
    """An operation failed."""

    code = "error"
    hint = ""

    @staticmethod
    def WithResult(message: str, result: bytes) -> FatalError:
        """An error that shows the bytes of a reply."""
        return FatalError(f"{message} (result was {hexify(result)})")


class NotImplementedInROMError(FatalError):
    """The ROM loader does not support the operation; a stub would."""


class NotSupportedError(FatalError):
    """The chip, or espwire, does not support the operation."""


class UnsupportedCommandError(RuntimeError):
    """The loader does not support the command. Never raised here: see NotSupportedError."""


def translate(error: ToolError) -> FatalError:
    """The exception of esptool for an espwire error."""
    translation = (NotSupportedError if isinstance(error, Unsupported) else FatalError)(str(error))
    translation.code, translation.hint = error.code, error.hint
    return translation


def translated(function: Callable[P, R]) -> Callable[P, R]:
    """``function``, raising FatalError where espwire raises its own errors."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ToolError as error:
            raise translate(error) from error

    return call


def read_source(source: ImageSource) -> bytes:
    """The bytes of a file by path, of an open file from its start, or the bytes themselves.

    :raises FileError: the path cannot be read
    """
    if isinstance(source, bytes):
        return source
    if isinstance(source, str):
        from espwire.files import read_file

        return bytes(read_file(source))
    source.seek(0)
    return source.read()


def name_source(source: ImageSource) -> str:
    """A name for messages."""
    if isinstance(source, str):
        return source
    return "image" if isinstance(source, bytes) else str(getattr(source, "name", "image"))


def flash_size_bytes(size: str | None) -> int | None:
    """Bytes of a flash size such as ``4MB``; None for None.

    :raises FatalError: not a flash size
    """
    from espwire.image.header import parse_size

    return None if size is None else translated(parse_size)(size)


def hexify(data: bytes, uppercase: bool = True) -> str:
    """Two hexadecimal digits per byte."""
    return data.hex().upper() if uppercase else data.hex()


def div_roundup(a: int, b: int) -> int:
    """``a / b``, rounded up.

    >>> div_roundup(9, 4), div_roundup(8, 4)
    (3, 2)
    """
    return -(-a // b)


def pad_to(data: bytes, alignment: int, pad_character: bytes = b"\xff") -> bytes:
    """Pad ``data`` to a multiple of ``alignment``."""
    return data.ljust(div_roundup(len(data), alignment) * alignment, pad_character)


def mask_to_shift(mask: int) -> int:
    """The number of the lowest set bit."""
    return (mask & -mask).bit_length() - 1


def byte(bitstr: bytes, index: int) -> int:
    """One byte as a number."""
    return bitstr[index]


def strip_chip_name(chip_name: str) -> str:
    """A chip's name as ``--chip`` takes it: ``esp32c3``."""
    return re.sub(r"[-()]", "", chip_name.lower())


def expand_chip_name(chip_name: str) -> str:
    """A chip's official name: ``ESP32-C3``; other names are returned unchanged."""
    from espwire.chips.index import NAMES

    return NAMES.get(chip_name, chip_name)


def get_key_from_value(table: dict[str, int], value: int) -> str | None:
    """The first key that has this value."""
    return next((key for key, other in table.items() if other == value), None)


def get_file_size(path_to_file: str) -> int:
    """Bytes of a file."""
    return os.path.getsize(path_to_file)


def get_bytes(source: ImageSource) -> tuple[bytes, str | None]:
    """The bytes of a path, an open file, or the bytes themselves; and the file's name."""
    name = source if isinstance(source, str) else getattr(source, "name", None)
    return translated(read_source)(source), name
