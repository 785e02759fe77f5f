"""esptool's exceptions. Each that we raise has the ``code`` and ``hint`` of the espwire error behind it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import IO, ParamSpec, TypeAlias, TypeVar

from espwire.errors import ToolError, Unsupported

ImageSource: TypeAlias = str | bytes | IO[bytes]
P = ParamSpec("P")
R = TypeVar("R")


class FatalError(RuntimeError):
    """What was asked for could not be done."""

    code = "error"
    hint = ""


class NotImplementedInROMError(FatalError):
    """The ROM loader cannot do it; a stub could."""


class NotSupportedError(FatalError):
    """This chip, or espwire so far, cannot do it."""


class UnsupportedCommandError(RuntimeError):
    """The loader does not know the command. Never raised here: see NotSupportedError."""


def translate(error: ToolError) -> FatalError:
    """An espwire error as one of esptool's."""
    made = (NotSupportedError if isinstance(error, Unsupported) else FatalError)(str(error))
    made.code, made.hint = error.code, error.hint
    return made


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
    """The bytes of a path, of an open file from its beginning, or as they are.

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
    """What to call it."""
    if isinstance(source, str):
        return source
    return "image" if isinstance(source, bytes) else str(getattr(source, "name", "image"))
