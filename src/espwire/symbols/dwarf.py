"""Reads entries of DWARF 2 to 5 debug information: units, abbreviations, attribute forms, address ranges.

Source: the DWARF standard, versions 4 and 5 (tables of tags, attributes and forms in section 7.5).
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterator
from typing import NamedTuple

from espwire.errors import ElfError

WORD = struct.Struct("<I")
HALF = struct.Struct("<H")
ADDRESS_MASK = 0xFFFFFFFF
LONGEST_NUMBER = 10  # bytes of a LEB128 number
MAX_SPECS = 64  # attributes of one entry
MAX_EFFORT = 500_000  # see Effort
CHARACTERS = 16  # of a name cost as much as one range

# attributes
NAME, STMT_LIST, LOW_PC, HIGH_PC, COMP_DIR = 0x03, 0x10, 0x11, 0x12, 0x1B
ABSTRACT_ORIGIN, SPECIFICATION, RANGES, CALL_FILE, CALL_LINE = 0x31, 0x47, 0x55, 0x58, 0x59
STR_OFFSETS_BASE, ADDR_BASE, RNGLISTS_BASE = 0x72, 0x73, 0x74
# forms
ADDR, BLOCK2, BLOCK4, DATA2, DATA4, DATA8, STRING = 0x01, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08
BLOCK, BLOCK1, DATA1, FLAG, SDATA, STRP, UDATA = 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E, 0x0F
REF_ADDR, REF1, REF2, REF4, REF8, REF_UDATA = 0x10, 0x11, 0x12, 0x13, 0x14, 0x15
INDIRECT, SEC_OFFSET, EXPRLOC, FLAG_PRESENT, STRX, ADDRX = 0x16, 0x17, 0x18, 0x19, 0x1A, 0x1B
REF_SUP4, STRP_SUP, DATA16, LINE_STRP, REF_SIG8 = 0x1C, 0x1D, 0x1E, 0x1F, 0x20
IMPLICIT_CONST, LOCLISTX, RNGLISTX = 0x21, 0x22, 0x23
STRX1, STRX2, STRX3, STRX4 = 0x25, 0x26, 0x27, 0x28
ADDRX1, ADDRX2, ADDRX3, ADDRX4 = 0x29, 0x2A, 0x2B, 0x2C
SIZES = {
    ADDR: 4, DATA2: 2, DATA4: 4, DATA8: 8, DATA1: 1, FLAG: 1, STRP: 4, REF_ADDR: 4, REF1: 1, REF2: 2,
    REF4: 4, REF8: 8, SEC_OFFSET: 4, FLAG_PRESENT: 0, REF_SUP4: 4, STRP_SUP: 4, DATA16: 16,
    LINE_STRP: 4, REF_SIG8: 8, IMPLICIT_CONST: 0, STRX1: 1, STRX2: 2, STRX3: 3, STRX4: 4,
    ADDRX1: 1, ADDRX2: 2, ADDRX3: 3, ADDRX4: 4,
}  # fmt: skip
INDEXED_STRINGS = frozenset({STRX, STRX1, STRX2, STRX3, STRX4})
INDEXED_ADDRESSES = frozenset({ADDRX, ADDRX1, ADDRX2, ADDRX3, ADDRX4})
NUMBERS = frozenset({SDATA, UDATA, REF_UDATA, STRX, ADDRX, LOCLISTX, RNGLISTX})
UNIT_REFERENCES = frozenset({REF1, REF2, REF4, REF8, REF_UDATA})


def damaged(reason: str) -> ElfError:
    """The error for debug information that is damaged, or of a kind that is not known."""
    return ElfError(
        f"the debug information cannot be used: {reason}",
        hint="Build the program again.",
        code="elf-debug",
    )


class Effort:
    """What one step of reading may cost: abbreviations, ranges and names are counted together.

    Entries can refer to the same bytes again and again. Without a limit, a small file could take hours and all memory.
    """

    def __init__(self) -> None:
        self._left = MAX_EFFORT

    def spend(self, amount: int = 1) -> None:
        """
        :raises ElfError: it was too much
        """
        self._left -= amount
        if self._left < 0:
            raise damaged("it is too large, or refers to the same data again and again")


class Spec(NamedTuple):
    """One attribute of an abbreviation; ``constant``: its value, for the form that has it here."""

    name: int
    form: int
    constant: int


class Abbreviation(NamedTuple):
    """The shape of an entry. ``steps``: how to skip its attributes: so many bytes, or (negative) the form."""

    tag: int
    has_children: bool
    specs: tuple[Spec, ...]
    steps: tuple[int, ...]
    size: int  # bytes of all attributes; -1: not fixed


Value = int | bytes
Attributes = dict[int, tuple[int, Value]]  # attribute → form, value


def read_uleb(data: bytes, at: int) -> tuple[int, int]:
    """An unsigned LEB128 number, and the offset after it.

    >>> read_uleb(b"\\xe5\\x8e\\x26", 0)
    (624485, 3)
    """
    value = data[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for n in range(1, LONGEST_NUMBER):
        byte = data[at + n]
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            return value, at + n + 1
    raise damaged("a number does not end")


def read_sleb(data: bytes, at: int) -> tuple[int, int]:
    """A signed LEB128 number, and the offset after it.

    >>> read_sleb(b"\\x7f", 0)
    (-1, 1)
    """
    value, end = read_uleb(data, at)
    bits = 7 * (end - at)
    return (value - (1 << bits) if value >> bits - 1 else value), end


def read_string(data: bytes, at: int) -> tuple[bytes, int]:
    """A zero-terminated string, and the offset after it."""
    end = data.find(b"\0", at)
    if end < 0 or at > len(data):
        raise damaged("a string does not end")
    return data[at:end], end + 1


class Unit:
    """A compilation unit: where its entries are, and the attributes of its first one."""

    def __init__(self, sections: dict[str, bytes], offset: int, effort: Effort) -> None:
        self.sections, self.offset, self.effort = sections, offset, effort
        data = sections.get("debug_info", b"")
        (length,) = WORD.unpack_from(data, offset)
        if length >= 0xFFFFFFF0:
            raise damaged("64-bit DWARF")
        self.end = offset + 4 + length
        if self.end > len(data) or length < 7:
            raise damaged("a unit is longer than its section")
        (self.version,) = HALF.unpack_from(data, offset + 4)
        if not 2 <= self.version <= 5:
            raise damaged(f"DWARF version {self.version}")
        self.type = 1
        if self.version >= 5:
            self.type = data[offset + 6]
            (self._abbreviations_at,) = WORD.unpack_from(data, offset + 8)
            self.first = offset + 12 + {4: 8, 5: 8, 2: 12, 6: 12}.get(self.type, 0)
        else:
            (self._abbreviations_at,) = WORD.unpack_from(data, offset + 6)
            self.first = offset + 11
        self.data = data
        self._abbreviations: dict[int, Abbreviation] = {}
        self._next_abbreviation = self._abbreviations_at
        found = self.read_entry(self.first)
        self.root: Attributes = {} if found is None else found[1]

    def abbreviation(self, code: int) -> Abbreviation:
        """The abbreviation with this code; the table is read as far as necessary."""
        known = self._abbreviations
        while code not in known:
            self.effort.spend()
            found, shape, self._next_abbreviation = _read_abbreviation(
                self.sections.get("debug_abbrev", b""), self._next_abbreviation
            )
            if shape is None:
                raise damaged("an entry has no abbreviation")
            known[found] = shape
        return known[code]

    def read_entry(self, at: int) -> tuple[Abbreviation, Attributes, int] | None:
        """The entry at ``at`` with the offset after it; None: the end of a list of children."""
        code, at = read_uleb(self.data, at)
        if not code:
            return None
        shape = self.abbreviation(code)
        attributes: Attributes = {}
        for name, form, constant in shape.specs:
            if form == IMPLICIT_CONST:
                attributes[name] = (DATA4, constant)
            else:
                kind, value, at = self._value(form, at)
                attributes[name] = (kind, value)
        return shape, attributes, at

    def skip(self, shape: Abbreviation, at: int) -> int:
        """The offset after the attributes at ``at``."""
        if shape.size >= 0:
            return at + shape.size
        data = self.data
        for step in shape.steps:
            if step >= 0:
                at += step
            elif -step in NUMBERS:
                for _ in range(LONGEST_NUMBER):
                    at += 1
                    if data[at - 1] < 0x80:
                        break
            else:
                at = self._value(-step, at)[2]
        return at

    def _value(self, form: int, at: int) -> tuple[int, Value, int]:
        data = self.data
        if form in SIZES:
            size = SIZES[form]
            if self.version == 2 and form == REF_ADDR:
                size = 4  # as large as an address
            end = at + size
            if end > self.end:
                raise damaged("an entry is longer than its unit")
            return form, int.from_bytes(data[at:end], "little") if size else 1, end
        if form == SDATA:
            value, at = read_sleb(data, at)
            return form, value, at
        if form in NUMBERS:
            value, at = read_uleb(data, at)
            return form, value, at
        if form == STRING:
            text, at = read_string(data, at)
            return form, text, at
        if form in (BLOCK, EXPRLOC):
            size, at = read_uleb(data, at)
        elif form in (BLOCK1, BLOCK2, BLOCK4):
            width = {BLOCK1: 1, BLOCK2: 2, BLOCK4: 4}[form]
            size, at = int.from_bytes(data[at : at + width], "little"), at + width
        elif form == INDIRECT:
            form, at = read_uleb(data, at)
            if form == INDIRECT:
                raise damaged("an indirect form of an indirect form")
            return self._value(form, at)
        else:
            raise damaged(f"form {form:#x}")
        if at + size > self.end:
            raise damaged("a block is longer than its unit")
        return form, data[at : at + size], at + size

    def text(self, value: tuple[int, Value] | None) -> str:
        """The value of an attribute that is a string; empty without one."""
        if value is None:
            return ""
        form, what = value
        if isinstance(what, bytes):
            return what.decode("utf-8", "replace")
        section = "debug_line_str" if form == LINE_STRP else "debug_str"
        if form in INDEXED_STRINGS:
            base = self.base(STR_OFFSETS_BASE, 8)
            (what,) = WORD.unpack_from(self.sections.get("debug_str_offsets", b""), base + 4 * what)
        elif form not in (STRP, LINE_STRP):
            return ""
        found = read_string(self.sections.get(section, b""), what)[0].decode("utf-8", "replace")
        self.effort.spend(len(found) // CHARACTERS)
        return found

    def base(self, attribute: int, default: int) -> int:
        """An offset that the unit's first entry has, for forms that are indexes."""
        value = self.root.get(attribute, (0, default))[1]
        return value if isinstance(value, int) else default

    def address(self, value: tuple[int, Value]) -> int:
        """The value of an attribute that is an address."""
        form, what = value
        if isinstance(what, bytes):
            raise damaged("an address that is a block")
        if form in INDEXED_ADDRESSES:
            return self._indexed_address(what)
        return what

    def _indexed_address(self, index: int) -> int:
        at = self.base(ADDR_BASE, 8) + 4 * index
        return int(WORD.unpack_from(self.sections.get("debug_addr", b""), at)[0])

    def reference(self, value: tuple[int, Value]) -> int:
        """The offset in .debug_info that an attribute refers to."""
        form, what = value
        if isinstance(what, bytes):
            raise damaged("a reference that is a block")
        return what + self.offset if form in UNIT_REFERENCES else what

    def ranges(self, attributes: Attributes) -> list[tuple[int, int]]:
        """The addresses of an entry's code, as half-open ranges."""
        low = attributes.get(LOW_PC)
        high = attributes.get(HIGH_PC)
        if RANGES in attributes:
            form, at = attributes[RANGES]
            if isinstance(at, bytes):
                raise damaged("ranges that are a block")
            start = self.base_address
            if self.version < 5:
                return list(self._old_ranges(at, start))
            if form == RNGLISTX:
                base = self.base(RNGLISTS_BASE, 12)
                at = base + WORD.unpack_from(self.sections["debug_rnglists"], base + 4 * at)[0]
            return list(self._new_ranges(at, start))
        if low is None or high is None:
            return []
        begin = self.address(low)
        is_address = high[0] == ADDR or high[0] in INDEXED_ADDRESSES
        end = self.address(high) if is_address else begin + self.address((DATA4, high[1]))
        return [(begin, end)]

    @property
    def base_address(self) -> int:
        """What the addresses in its lists of ranges are relative to."""
        low = self.root.get(LOW_PC)
        return 0 if low is None else self.address(low)

    def _old_ranges(self, at: int, base: int) -> Iterator[tuple[int, int]]:
        data = self.sections.get("debug_ranges", b"")
        for at_ in itertools.count(at, 8):
            self.effort.spend()
            begin, end = struct.unpack_from("<2I", data, at_)
            if begin == ADDRESS_MASK:
                base = end
            elif not begin and not end:
                return
            else:
                yield base + begin, base + end

    def _new_ranges(self, at: int, base: int) -> Iterator[tuple[int, int]]:
        data = self.sections.get("debug_rnglists", b"")
        while True:
            self.effort.spend()
            kind, at = data[at], at + 1
            if kind == 0:
                return
            if kind in (1, 2, 3, 4):
                first, at = read_uleb(data, at)
                second, at = read_uleb(data, at) if kind != 1 else (0, at)
                if kind == 1:
                    base = self._indexed_address(first)
                elif kind == 4:
                    yield base + first, base + second
                else:
                    begin = self._indexed_address(first)
                    yield begin, self._indexed_address(second) if kind == 2 else begin + second
            elif kind in (5, 6, 7):
                (first,), at = WORD.unpack_from(data, at), at + 4
                if kind == 5:
                    base = first
                elif kind == 6:
                    (second,), at = WORD.unpack_from(data, at), at + 4
                    yield first, second
                else:
                    second, at = read_uleb(data, at)
                    yield first, first + second
            else:
                raise damaged(f"kind {kind} in a list of ranges")


def _read_abbreviation(data: bytes, at: int) -> tuple[int, Abbreviation | None, int]:
    code, at = read_uleb(data, at)
    if not code:
        return 0, None, at
    tag, at = read_uleb(data, at)
    has_children, at = data[at] == 1, at + 1
    specs: list[Spec] = []
    while True:
        name, at = read_uleb(data, at)
        form, at = read_uleb(data, at)
        constant = 0
        if form == IMPLICIT_CONST:
            constant, at = read_sleb(data, at)
        if not name and not form:
            break
        specs.append(Spec(name, form, constant))
        if len(specs) > MAX_SPECS:
            raise damaged(f"an entry with more than {MAX_SPECS} attributes")
    steps: list[int] = []
    for _, form, _ in specs:
        if form not in SIZES:
            steps.append(-form)
        elif steps and steps[-1] >= 0:
            steps[-1] += SIZES[form]
        else:
            steps.append(SIZES[form])
    size = sum(steps) if all(step >= 0 for step in steps) else -1
    return code, Abbreviation(tag, has_children, tuple(specs), tuple(steps), size), at
