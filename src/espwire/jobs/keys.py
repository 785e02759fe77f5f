"""Reads the tables of a job file strictly: each value has its type, and unknown keys are errors with a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from espwire.errors import DataError
from espwire.text import shorten

T = TypeVar("T", str, int, bool, float)
_KINDS = {str: "a string", int: "a number", bool: "true or false", float: "a number"}


def build_mistake(text: str, hint: str = "Correct the job file.") -> DataError:
    """The error for a mistake in a job file."""
    return DataError(text, hint=hint, code="job-file")


class Keys:
    """The keys of one table. ``where`` names the table in errors.

    All methods raise ``DataError`` with code ``job-file``.
    """

    def __init__(self, table: Mapping[str, object], where: str) -> None:
        self._table, self.where = table, where

    def names(self) -> tuple[str, ...]:
        """All keys."""
        return tuple(self._table)

    def expect(self, *known: str) -> None:
        """Refuse all other keys."""
        for name in self._table:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(known)}."
                raise build_mistake(f"{self._at(shorten(name))} is not a known key", hint)

    def has(self, name: str) -> bool:
        """Whether the key is there."""
        return name in self._table

    def text(self, name: str, default: str | None = None) -> str:
        """A string that is not empty; without ``default``, it is required."""
        value = self._find(name, str, default)
        if not value and name in self._table:
            raise build_mistake(f"{self._at(name)} is empty")
        return value

    def number(self, name: str, default: int | None = None, *, least: int = 0) -> int:
        """A whole number from ``least`` to 2**32 - 1."""
        value = self._find(name, int, default)
        if not least <= value < 1 << 32:
            raise build_mistake(f"{self._at(name)} is {shorten(str(value))}, which is out of range")
        return value

    def seconds(self, name: str, default: float, *, most: float) -> float:
        """A time above 0."""
        value = self._find(name, float, default)
        if not 0 < value <= most:
            raise build_mistake(
                f"{self._at(name)} is {value:g}", f"Use a time of up to {most:g} seconds."
            )
        return value

    def flag(self, name: str) -> bool:
        """``true`` or ``false``; false if it is missing."""
        return self._find(name, bool, default=False)

    def place(self, name: str) -> int | str:
        """A flash address, or the name of a partition."""
        if not isinstance(self._table.get(name), str):
            return self.number(name)
        place = self.text(name)
        if place[0].isdecimal():
            text = f"{self._at(name)} is {shorten(place)!r}, which is not the name of a partition"
            raise build_mistake(text, f"Write an address without quotes: {name} = 0x10000.")
        return place

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of strings."""
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of strings")
        return tuple(value)

    def table(self, name: str) -> Keys | None:
        """A table inside this one, if it is there."""
        value = self._table.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(name, f"a table, [{name}]")
        return Keys(value, self._at(name))

    def tables(self, name: str) -> list[Keys]:
        """A list of tables."""
        value = self._table.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(name, f"a list of tables, [[{name}]]")
        return [Keys(item, self._at(name)) for item in value]

    def unknown_value(self, name: str, value: str, known: Iterable[str]) -> DataError:
        """The error for a value that is none of ``known``."""
        close = difflib.get_close_matches(value, list(known), n=1)
        hint = f"Did you mean {close[0]!r}?" if close else f"Use one of {', '.join(known)}."
        return build_mistake(f"{self._at(name)} is {shorten(value)!r}, which is unknown", hint)

    def _find(self, name: str, kind: type[T], default: T | None) -> T:
        value = self._table.get(name, default)
        if kind is float and type(value) is int:
            value = float(value)
        if value is None:
            raise build_mistake(f"{self.where} needs the key {name}", "Add the key.")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(name, _KINDS[kind])
        return value

    def _at(self, name: str) -> str:
        return f"{self.where} {name}" if self.where.endswith(":") else f"{self.where}: {name}"

    def _wrong(self, name: str, what: str) -> DataError:
        return build_mistake(
            f"{self._at(name)} must be {what}, got {shorten(repr(self._table.get(name)))}"
        )
