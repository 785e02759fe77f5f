"""Runs the line number program of a unit: addresses to source files and lines (DWARF 2 to 5, section 6.2)."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from itertools import islice
from operator import le
from typing import NamedTuple

from espwire.symbols.dwarf import ADDRESS_MASK as WORD_MASK
from espwire.symbols.dwarf import (
    BLOCK,
    CHARACTERS,
    DATA1,
    DATA2,
    DATA4,
    DATA8,
    DATA16,
    LINE_STRP,
    STRING,
    STRP,
    UDATA,
    WORD,
    Unit,
    damaged,
    read_sleb,
    read_string,
    read_uleb,
)

MAX_ROWS = 2_000_000  # of one unit
MAX_FILES = 100_000
# standard opcodes
COPY, ADVANCE_PC, ADVANCE_LINE, SET_FILE, CONST_ADD_PC, FIXED_ADVANCE_PC = 1, 2, 3, 4, 8, 9
# extended opcodes
END_SEQUENCE, SET_ADDRESS = 1, 2


class Sequence(NamedTuple):
    """Rows with ascending addresses, up to ``end``. Arrays need a tenth of the memory of lists."""

    addresses: array[int]
    files: array[int]  # numbers of files
    lines: array[int]
    end: int


class _Header(NamedTuple):
    start: int  # of the program
    end: int
    unit_length: int  # of an instruction
    line_base: int
    line_range: int
    opcode_base: int
    lengths: bytes  # numbers of operands of standard opcodes


class LineTable:
    """The files and rows of one unit."""

    def __init__(self, unit: Unit, offset: int, directory: str, name: str) -> None:
        self._unit, self._directory = unit, directory
        self.files: list[str] = []
        header = self._read_header(unit.sections.get("debug_line", b""), offset, name)
        self.sequences: list[Sequence] = []
        self._run(unit.sections["debug_line"], header)
        self.sequences.sort(key=lambda found: found.addresses[0])

    def find(self, address: int) -> tuple[str, int] | None:
        """File and line of the code at ``address``."""
        for rows in self.sequences:
            if rows.addresses[0] <= address < rows.end:
                at = bisect_right(rows.addresses, address) - 1
                return self.file(rows.files[at]), rows.lines[at]
        return None

    def file(self, number: int) -> str:
        """The path of a file by its number; empty: not known."""
        return self.files[number] if 0 <= number < len(self.files) else ""

    def _read_header(self, data: bytes, at: int, name: str) -> _Header:
        length, version = struct.unpack_from("<IH", data, at)
        end = at + 4 + length
        if not 2 <= version <= 5 or end > len(data):
            raise damaged("the table of line numbers is damaged")
        at += 6 + (2 if version >= 5 else 0)
        (header_length,) = WORD.unpack_from(data, at)
        start = at + 4 + header_length
        at += 4
        unit_length, at = data[at], at + (2 if version >= 4 else 1)
        _, line_base, line_range, opcode_base = struct.unpack_from("<BbBB", data, at)
        lengths = data[at + 4 : at + 3 + opcode_base]
        at += 3 + opcode_base
        if version >= 5:
            self._read_files(data, at)
        else:
            self._read_old_files(data, at, name)
        return _Header(start, end, unit_length, line_base, line_range, opcode_base, lengths)

    def _join(self, folder: str, name: str) -> str:
        path = _join(folder, name)
        self._unit.effort.spend(len(path) // CHARACTERS)
        return path

    def _read_old_files(self, data: bytes, at: int, name: str) -> None:
        folders = [self._directory]
        while True:
            folder, at = read_string(data, at)
            if not folder:
                break
            folders.append(self._join(self._directory, folder.decode("utf-8", "replace")))
        self.files = [self._join(self._directory, name)]
        while True:
            file, at = read_string(data, at)
            if not file:
                break
            index, at = read_uleb(data, at)
            _, at = read_uleb(data, at)
            _, at = read_uleb(data, at)
            parent = folders[index] if index < len(folders) else ""
            self.files.append(self._join(parent, file.decode("utf-8", "replace")))

    def _read_files(self, data: bytes, at: int) -> None:
        folders, at = self._read_entries(data, at)
        paths = [self._join(self._directory, name) for name, _ in folders]
        files, _ = self._read_entries(data, at)
        self.files = [
            self._join(paths[index] if index < len(paths) else "", name) for name, index in files
        ]

    def _read_entries(self, data: bytes, at: int) -> tuple[list[tuple[str, int]], int]:
        """Names and numbers of folders, and the offset after them."""
        shape = []
        count, at = data[at], at + 1
        for _ in range(count):
            content, at = read_uleb(data, at)
            form, at = read_uleb(data, at)
            shape.append((content, form))
        total, at = read_uleb(data, at)
        if total > MAX_FILES or (total and not shape):
            raise damaged(f"a table of line numbers with {total:,} files")
        found = []
        for _ in range(total):
            name, index = "", 0
            for content, form in shape:
                value, at = self._read_form(data, at, form)
                if content == 1 and isinstance(value, str):
                    name = value
                elif content == 2 and isinstance(value, int):
                    index = value
            found.append((name, index))
        return found, at

    def _read_form(self, data: bytes, at: int, form: int) -> tuple[str | int, int]:
        if form == STRING:
            text, at = read_string(data, at)
            return text.decode("utf-8", "replace"), at
        if form in (STRP, LINE_STRP):
            return self._unit.text((form, WORD.unpack_from(data, at)[0])), at + 4
        if form == UDATA:
            return read_uleb(data, at)
        if form == BLOCK:
            size, at = read_uleb(data, at)
            return 0, at + size
        size = {DATA1: 1, DATA2: 2, DATA4: 4, DATA8: 8, DATA16: 16}.get(form, 0)
        if not size:
            raise damaged(f"form {form:#x} in a table of line numbers")
        return int.from_bytes(data[at : at + size], "little"), at + size

    def _run(self, data: bytes, header: _Header) -> None:
        at, end = header.start, header.end
        address, file, line = 0, 1, 1
        base, span, least = header.opcode_base, header.line_range, header.line_base
        step = header.unit_length
        rows = _Rows()
        if not span:
            raise damaged("the table of line numbers is damaged")
        while at < end:
            opcode = data[at]
            at += 1
            if opcode >= base:
                opcode -= base
                address += opcode // span * step
                line += least + opcode % span
                rows.add(address, file, line)
            elif opcode == 0:
                size, at = read_uleb(data, at)
                kind = data[at]
                if kind == SET_ADDRESS:
                    (address,) = WORD.unpack_from(data, at + 1)
                elif kind == END_SEQUENCE:
                    rows.end(address, self.sequences)
                    address, file, line = 0, 1, 1
                at += size
            elif opcode == COPY:
                rows.add(address, file, line)
            elif opcode == ADVANCE_LINE:
                value, at = read_sleb(data, at)
                line += value
            elif opcode == CONST_ADD_PC:
                address += (255 - base) // span * step
            elif opcode == FIXED_ADVANCE_PC:
                address += int.from_bytes(data[at : at + 2], "little")
                at += 2
            else:
                value = 0
                for _ in range(header.lengths[opcode - 1]):
                    value, at = read_uleb(data, at)
                if opcode == ADVANCE_PC:
                    address += value * step
                elif opcode == SET_FILE:
                    file = value


def _join(folder: str, name: str) -> str:
    if name.startswith("/") or name[1:2] == ":" or not folder:
        return name
    return f"{folder}/{name}"


class _Rows:
    """Rows of a sequence, until it ends."""

    def __init__(self) -> None:
        self._total = 0
        self._begin()

    def _begin(self) -> None:
        self._addresses, self._files, self._lines = array("I"), array("I"), array("I")

    def add(self, address: int, file: int, line: int) -> None:
        """Add a row; of several for one address, the last counts.

        :raises ElfError: there are too many
        """
        self._total += 1
        if self._total > MAX_ROWS:
            raise damaged(f"more than {MAX_ROWS:,} line numbers in a unit")
        address, file, line = address & WORD_MASK, file & WORD_MASK, line & WORD_MASK
        if self._addresses and self._addresses[-1] == address:
            self._files[-1], self._lines[-1] = file, line
        else:
            self._addresses.append(address)
            self._files.append(file)
            self._lines.append(line)

    def end(self, address: int, sequences: list[Sequence]) -> None:
        """Keep the sequence. One that begins at 0 is of code that the linker has dropped."""
        rows = Sequence(self._addresses, self._files, self._lines, address)
        self._begin()
        found = rows.addresses
        if found and found[0] and all(map(le, found, islice(found, 1, None))):
            sequences.append(rows)
