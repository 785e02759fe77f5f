"""`Record`: the base class of immutable values that every run creates: events, and the tables of a chip.

It behaves like a frozen dataclass with keyword arguments, but such a class takes a fiftieth of the time to create.
"""

from __future__ import annotations

from inspect import get_annotations
from typing import Any, ClassVar, Self, dataclass_transform

REQUIRED = object()  # stands for the default of a field that has none


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record:
    """An immutable value. The annotated names of a subclass are its fields, after those of its base class."""

    __slots__ = ("__dict__",)
    _fields: ClassVar[dict[str, Any]] = {}  # names and defaults, in order

    def __init_subclass__(cls) -> None:
        own = get_annotations(cls)
        cls._fields = cls._fields | {name: vars(cls).get(name, REQUIRED) for name in own}

    def __init__(self, **values: Any) -> None:
        """:raises TypeError: a field is missing or unknown"""
        fields = self._fields | values
        if len(fields) != len(self._fields):
            raise TypeError(f"{type(self).__name__} has no field {list(fields)[-1]!r}")
        for name, value in fields.items():
            if value is REQUIRED:
                raise TypeError(f"{type(self).__name__} requires {name!r}")
        vars(self).update(fields)

    def replace(self, **values: Any) -> Self:
        """A copy with other values of some fields."""
        return type(self)(**(vars(self) | values))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is immutable: cannot delete {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def __repr__(self) -> str:
        return (
            f"{type(self).__qualname__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"
        )
