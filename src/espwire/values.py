"""The standard library's ``dataclass``, made when a class is first used and not when it is defined.

Defining one takes 0.4 ms, and a run defines two hundred that it never uses: that was half of every command's start.
Type checkers see the real thing. ``slots`` are not possible here: they need the class while it is being defined.
"""

from __future__ import annotations

import dataclasses
from _thread import RLock

# Not typing.TYPE_CHECKING, which costs the import of typing; type checkers know this name too.
__all__ = ["dataclass"]
TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(cls=None, /, **options):
        """As ``dataclasses.dataclass``; completed by the first instance, or when somebody asks for the fields."""

        def announce(cls):
            pending = _Pending(cls, options)
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

    def __init__(self, cls: type, options: dict[str, bool]) -> None:
        self.cls = cls
        self.options: dict[str, bool] | None = options
        self.new: object = None

    def __get__(self, instance: object, owner: type | None = None) -> object:
        self.complete()
        return self.cls.__dataclass_fields__  # type: ignore[attr-defined]  # the real ones by now

    def complete(self) -> None:
        """Let the standard library do it."""
        with _lock:
            if self.options is not None:
                dataclasses.dataclass(**self.options)(
                    self.cls
                )  # puts the real fields in this one's place
                self.new.__wrapped__ = vars(self.cls)["__init__"]  # type: ignore[attr-defined]  # its signature
                self.options = None
