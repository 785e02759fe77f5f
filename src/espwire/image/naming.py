"""Errors of what is handed bytes, with the name of the file that they came from. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from espwire.errors import ElfError, ImageError, UsageError


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Errors of parsing and converting, with the file's name before the rest."""
    try:
        yield
    except (ElfError, ImageError, UsageError) as error:
        raise type(error)(
            f"{name}: {error}", hint=error.hint, code=error.code, **error.details
        ) from None
