"""Turns a TOML table into a frozen dataclass, strictly; an error names file and key. Knows no chip."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

from espwire.errors import TableError

T = TypeVar("T")


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def load_table(cls: type[T], table: Any, where: str) -> T:
    """``table`` as an instance of dataclass ``cls``.

    :param where: file and key so far, for errors: ``esp32.toml: flash``
    :raises TableError: a key is missing, unknown or of the wrong type
    """
    if not isinstance(table, Mapping):
        raise _wrong(where, "should be a table", table)
    hints = _hints(cast(Any, cls))
    values = {}
    for f in fields(cast(Any, cls)):
        if f.name in table:
            values[f.name] = _load(hints[f.name], table[f.name], f"{where}.{f.name}")
        elif f.default is MISSING and f.default_factory is MISSING:
            raise TableError(
                f"{where}.{f.name} is missing",
                hint="Add the key; chips/model.py says what it means.",
            )
    unknown = table.keys() - {f.name for f in fields(cast(Any, cls))}
    if unknown:
        raise TableError(
            f"{where}.{min(unknown)} is not a known key",
            hint="Remove it, or add it to chips/model.py.",
        )
    return cls(**values)


def _wrong(where: str, what: str, value: object) -> TableError:
    return TableError(f"{where} {what}, but is {value!r}", hint="Mend the data file.")


def _load(kind: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _load_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "should be a list", value)
        return tuple(_load(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(where, "should be a table", value)
        loaded = {
            _key(arguments[0], k, where): _load(arguments[1], v, f"{where}.{k}")
            for k, v in value.items()
        }
        return types.MappingProxyType(loaded)
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(where, f"should be one of {', '.join(map(str, arguments))}", value)
        return value
    if is_dataclass(kind):
        cls = cast(type, kind)
        return value if isinstance(value, cls) else load_table(cls, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise _wrong(where, f"should be of type {kind.__name__}", value)
    return value


def _load_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first member that takes the value; the last member's complaint if none does."""
    complaint: TableError | None = None
    for kind in kinds:
        if kind is types.NoneType:
            continue
        try:
            return _load(kind, value, where)
        except TableError as error:
            complaint = error
    assert complaint is not None
    raise complaint


def _key(kind: Any, key: str, where: str) -> Any:
    if kind is not int:
        return key
    if not key.isdecimal():
        raise _wrong(f"{where}.{key}", "should have a number as key", key)
    return int(key)
