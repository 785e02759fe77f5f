"""The standard library's ``dataclass``, made when a class is first used and not when it is defined, and faster then.

Defining one takes 0.4 ms, and a run defines two hundred that it never uses: that was half of every command's start.
Of those 0.4 ms most goes into compiling six methods. Here one is compiled, ``__init__``; the others are closures.
Type checkers see the real thing. ``slots`` are not possible here: they need the class while it is being defined.
"""

from __future__ import annotations

import dataclasses
from _thread import RLock
from operator import attrgetter
from reprlib import recursive_repr

# Not typing.TYPE_CHECKING, which costs the import of typing; type checkers know this name too.
__all__ = ["dataclass"]
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from dataclasses import Field, dataclass
    from typing import Any
else:

    def dataclass(cls=None, /, *, frozen=False, eq=True, repr=True, kw_only=False):
        """As ``dataclasses.dataclass``; completed by the first instance, or when somebody asks for the fields."""

        def announce(cls):
            pending = _Pending(cls, frozen=frozen, eq=eq, repr=repr, kw_only=kw_only)
            cls.__dataclass_fields__ = pending

            def __new__(kind, /, *arguments, **keywords):
                if pending.options is not None:
                    pending.complete()
                return object.__new__(kind)

            cls.__new__ = pending.new = __new__
            return cls

        return announce if cls is None else announce(cls)


_lock = RLock()  # two threads may make the first instance at once; a base is completed on the way


class _Pending:
    """Stands for the fields of a class until somebody asks for them.

    What makes instances waits for ``complete`` and only then looks for ``__init__``: no thread sees half a class.
    """

    def __init__(self, cls: type, **options: bool) -> None:
        self.cls = cls
        self.options: dict[str, bool] | None = options
        self.new: object = None

    def __get__(self, instance: object, owner: type | None = None) -> object:
        self.complete()
        return self.cls.__dataclass_fields__  # type: ignore[attr-defined]  # the real ones by now

    def complete(self) -> None:
        """Let the standard library find the fields, and add the methods."""
        with _lock:
            if self.options is not None:
                options = dict(self.options)
                kw_only = options.pop("kw_only")
                self.cls.__doc__ = self.cls.__doc__ or self.cls.__name__  # else its signature is worked out for one
                # puts the real fields in this one's place
                dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(self.cls)
                _add_methods(self.cls, **options)
                self.new.__wrapped__ = vars(self.cls)["__init__"]  # type: ignore[attr-defined]  # its signature
                self.options = None


class _Factory:
    """What a signature shows for a default that is made anew for each instance."""

    def __repr__(self) -> str:
        return "<factory>"


_FACTORY = _Factory()


def _add_methods(cls: type, *, frozen: bool, eq: bool, repr: bool) -> None:
    """What ``dataclasses.dataclass`` would add; what the class itself defines stays."""
    fields = dataclasses.fields(cls)  # it is one by now
    made: dict[str, Any] = {"__init__": _make_init(cls, fields, frozen)}
    if repr:
        made["__repr__"] = _make_repr([field.name for field in fields if field.repr])
    if eq:
        made |= _make_comparison([field.name for field in fields if field.compare], frozen)
    if frozen:
        made |= _make_frozen(cls, frozenset(field.name for field in fields))
    own = vars(cls)
    for name, method in made.items():
        if own.get(name) is None:  # a class that defines __eq__ alone has None as its __hash__
            setattr(cls, name, method)


def _make_init(cls: type, fields: tuple[Field[Any], ...], frozen: bool) -> Callable[..., None]:
    """The one method that is compiled: it is called most, and its signature is for people."""
    known: dict[str, Any] = {"_factory_": _FACTORY, "_set_": object.__setattr__, "__name__": cls.__module__}
    me = "self" if all(field.name != "self" for field in fields) else "_self_"
    lines = []
    for at, field in enumerate(fields):
        name = value = field.name
        if field.default_factory is not dataclasses.MISSING:
            known[f"_make_{at}_"] = field.default_factory
            value = f"_make_{at}_() if {name} is _factory_ else {name}" if field.init else f"_make_{at}_()"
        elif not field.init:
            continue  # the class has its default, if it has one
        # not by way of __dict__: once that has been asked for, reading an attribute takes five times as long
        lines.append(f" _set_({me}, {name!r}, {value})" if frozen else f" {me}.{name} = {value}")
    if hasattr(cls, "__post_init__"):
        lines.append(f" {me}.__post_init__()")
    taken = [field for field in fields if field.init]
    placed, named = [field for field in taken if not field.kw_only], [field for field in taken if field.kw_only]
    words = [me, *(field.name for field in placed), *(["*"] if named else []), *(field.name for field in named)]
    exec("\n".join([f"def __init__({', '.join(words)}):", *lines, " return None"]), known)
    made: Any = known["__init__"]
    made.__defaults__ = tuple(_default(field) for field in placed if _has_default(field))
    made.__kwdefaults__ = {field.name: _default(field) for field in named if _has_default(field)}
    made.__annotations__ = {field.name: field.type for field in (*placed, *named)} | {"return": None}
    made.__qualname__ = f"{cls.__qualname__}.__init__"  # complaints about arguments name it
    return made  # type: ignore[no-any-return]


def _has_default(field: Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _default(field: Field[Any]) -> object:
    return _FACTORY if field.default is dataclasses.MISSING else field.default


def _make_repr(names: list[str]) -> Callable[[object], str]:
    @recursive_repr()
    def __repr__(self: object) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    return __repr__


def _make_comparison(names: list[str], frozen: bool) -> dict[str, object]:
    """``__eq__``, and with it ``__hash__``: of values that never change only."""
    key: Callable[[object], object] = attrgetter(*names) if len(names) > 1 else _few(names)

    def __eq__(self: object, other: object) -> bool:
        return key(self) == key(other) if other.__class__ is self.__class__ else NotImplemented

    def __hash__(self: object) -> int:
        return hash(key(self))

    return {"__eq__": __eq__, "__hash__": __hash__ if frozen else None}


def _few(names: list[str]) -> Callable[[object], object]:
    """As ``attrgetter``, which gives no tuple for one name and takes none for none."""
    return lambda one: tuple(getattr(one, name) for name in names)


def _make_frozen(cls: Any, names: frozenset[str]) -> dict[str, object]:
    def __setattr__(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    def __delattr__(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return {"__setattr__": __setattr__, "__delattr__": __delattr__}
