"""The functions of a unit, and the calls of functions that the compiler inlined."""

from __future__ import annotations

from typing import NamedTuple

from espwire.symbols.dwarf import (
    ABSTRACT_ORIGIN,
    CALL_FILE,
    CALL_LINE,
    CHARACTERS,
    NAME,
    SPECIFICATION,
    Attributes,
    Unit,
    read_uleb,
)

CLASS, STRUCTURE, UNION, NAMESPACE, SUBPROGRAM, INLINED = 0x02, 0x13, 0x17, 0x39, 0x2E, 0x1D
SCOPES = frozenset({CLASS, STRUCTURE, UNION, NAMESPACE})
FUNCTIONS = frozenset({SUBPROGRAM, INLINED})
MAX_DEPTH = 200  # of entries in each other
MAX_REFERENCES = 8  # from an entry to the one with its name


class Call(NamedTuple):
    """A function at an address. ``file`` and ``line``: where it was inlined; 0, 0 for one that was called."""

    name: str
    file: int
    line: int


class _Code(NamedTuple):
    """A function's code, or a place where it was inlined: the entry around it, and the depth."""

    low: int
    high: int
    offset: int
    around: int  # index in the list; -1: none
    depth: int
    file: int
    line: int


class FunctionTable:
    """The functions of one unit, found in one pass over its entries."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._code: list[_Code] = []
        self._scopes: dict[int, str] = {}
        self._names: dict[int, str] = {}
        self._walk()

    def find(self, address: int) -> list[Call]:
        """The functions at ``address``, innermost first: those before the last were inlined into the next."""
        best = -1
        for n, code in enumerate(self._code):
            if code.low <= address < code.high and (
                best < 0 or code.depth >= self._code[best].depth
            ):
                best = n
        found = []
        while best >= 0:
            code = self._code[best]
            found.append(Call(self._name(code.offset), code.file, code.line))
            best = code.around
        return found

    def _walk(self) -> None:
        unit, data = self._unit, self._unit.data
        at, depth = unit.first, 0
        scopes: list[str] = [""]  # by depth: namespaces and classes around the entry
        around: list[int] = [-1]  # by depth: the function around the entry
        while at < unit.end:
            offset = at
            code, at = read_uleb(data, at)
            if not code:
                depth -= 1
                if depth <= 0:
                    return
                del scopes[depth + 1 :], around[depth + 1 :]
                continue
            shape = unit.abbreviation(code)
            scope, parent = scopes[depth], around[depth]
            if shape.tag in FUNCTIONS or shape.tag in SCOPES:
                found = unit.read_entry(offset)
                assert found is not None
                _, attributes, at = found
                if shape.tag in SCOPES:
                    scope = self._inner(scope, shape.tag, attributes)
                else:
                    # a lambda's function is inside another one's entry, but it is not inlined there
                    parent = parent if shape.tag == INLINED else -1
                    parent = self._add(offset, attributes, scope, parent, depth)
            else:
                at = unit.skip(shape, at)
            if shape.has_children:
                depth += 1
                if depth > MAX_DEPTH:
                    return
                scopes.append(scope)
                around.append(parent)
            elif not depth:
                return

    def _inner(self, scope: str, tag: int, attributes: Attributes) -> str:
        unnamed = "(anonymous namespace)" if tag == NAMESPACE else "(unnamed class)"
        name = self._unit.text(attributes.get(NAME)) or unnamed
        self._unit.effort.spend(len(scope) // CHARACTERS)
        return f"{scope}{name}::"

    def _add(self, offset: int, attributes: Attributes, scope: str, around: int, depth: int) -> int:
        if scope:
            self._scopes[offset] = scope
        ranges = self._unit.ranges(attributes)
        first = around
        for low, high in ranges:
            if low and low < high:
                place = [attributes.get(name, (0, 0))[1] for name in (CALL_FILE, CALL_LINE)]
                file, line = (value if isinstance(value, int) else 0 for value in place)
                first = len(self._code)
                self._code.append(_Code(low, high, offset, around, depth, file, line))
        return first

    def _name(self, offset: int) -> str:
        if offset not in self._names:
            self._names[offset] = self._find_name(offset)
        return self._names[offset]

    def _find_name(self, offset: int) -> str:
        for _ in range(MAX_REFERENCES):
            if not self._unit.first <= offset < self._unit.end:
                break
            found = self._unit.read_entry(offset)
            if found is None:
                break
            attributes = found[1]
            if NAME in attributes:
                return self._scopes.get(offset, "") + self._unit.text(attributes[NAME])
            further = attributes.get(ABSTRACT_ORIGIN) or attributes.get(SPECIFICATION)
            if further is None:
                break
            offset = self._unit.reference(further)
        return ""
