"""An ELF file that resolves addresses to functions, files and lines, and finds the callers on a copy of the stack."""

from __future__ import annotations

import hashlib
import os
import struct
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from espwire.errors import ElfError, FileError, name_file
from espwire.files import naming_errors, read_file
from espwire.symbols.debug_sections import DebugFile, read_debug_file, read_name, read_symbols
from espwire.symbols.dwarf import COMP_DIR, NAME, STMT_LIST, Effort, Unit
from espwire.symbols.functions import Call, FunctionTable
from espwire.symbols.lines import LineTable
from espwire.symbols.unwind import CFA_REGISTER, find_entry, step_out
from espwire.text import escape

ELF_LIMIT = 1024 * 0x100000
KEPT_UNITS = 64  # in memory at once
KEPT_ADDRESSES = 20_000  # that were resolved
MAX_FRAMES = 64  # of a stack
LABELS = (".L", "$")  # of the compiler, inside of functions
NEAR = 8  # entries of the index looked at before an address
DAMAGED = (ElfError, FileError, struct.error, IndexError, KeyError, ValueError, OverflowError)
RISCV = 0xF3
RETURN_ADDRESS, STACK_POINTER = 1, 2  # registers of RISC-V by their DWARF numbers


Tables = tuple[FunctionTable, LineTable | None]


class Frame(NamedTuple):
    """A place in the source. ``inlined``: the function before it was inlined here. Unknown: empty, 0."""

    function: str
    file: str
    line: int
    inlined: bool = False

    def __str__(self) -> str:
        place = f" at {self.file}:{self.line or '?'}" if self.file else ""
        return escape(f"{self.function or '??'}{place}")


@dataclass
class Index:
    """What is kept of an ELF file between runs: see ``symbols/cache.py``.

    ``units``: address ranges and the offset of their unit; ``frames``: addresses that were resolved.
    """

    code: list[tuple[int, int]]
    units: list[tuple[int, int, int]]
    sha256: str = ""
    frames: dict[int, tuple[Frame, ...]] = field(default_factory=dict)


def find_stamp(path: str) -> list[int]:
    """Size and time of change of a file, which identify its contents between runs.

    :raises FileError: it cannot be read
    """
    with naming_errors("read", path):
        found = os.stat(path)
    return [found.st_size, found.st_mtime_ns]


class SymbolFile:
    """Resolves addresses by one ELF file, which is read when an address needs it.

    :param index: of an earlier run, for the same file
    :raises FileError: the file cannot be read
    :raises ElfError: it is not an ELF file for a chip
    """

    def __init__(self, path: str | os.PathLike[str], index: Index | None = None) -> None:
        self.path = os.fspath(path)
        self.stamp = find_stamp(self.path)
        self.damage = ""  # why some addresses could not be resolved
        self.changed = index is None  # the index has something new
        self._tables: OrderedDict[int, Tables | None] = OrderedDict()  # None: it is damaged
        with name_file(self.name):
            self.index = index or self._build_index()
        self._lows = [low for low, _, _ in self.index.units]

    @property
    def name(self) -> str:
        """The file's name without folders."""
        return os.path.basename(self.path)

    def sha256(self) -> str:
        """SHA-256 of the file, as hexadecimal digits. ESP-IDF puts it into the application."""
        if not self.index.sha256:
            self.index.sha256 = hashlib.sha256(self._data).hexdigest()
            self.changed = True
        return self.index.sha256

    def holds(self, address: int) -> bool:
        """Whether ``address`` is in the program's code."""
        return any(low <= address < high for low, high in self.index.code)

    def resolve(self, address: int) -> tuple[Frame, ...]:
        """The places in the source at ``address``, innermost first; empty: outside of the code, or not known."""
        if not self.holds(address):
            return ()
        known = self.index.frames.get(address)
        if known is None:
            frames = self.index.frames
            known = frames[address] = self._resolve(address)
            self.changed = True
            if len(frames) > KEPT_ADDRESSES:
                del frames[next(iter(frames))]
        return known

    def unwind(
        self, pc: int, registers: dict[int, int], read_word: Callable[[int], int | None]
    ) -> list[int]:
        """The return addresses on the stack, innermost first, by the call frame information of RISC-V code.

        :param registers: by their DWARF numbers
        """
        found: list[int] = []
        at = pc
        while len(found) < MAX_FRAMES:
            caller = self._step(at, registers, read_word)
            if caller is None and not found and registers.get(RETURN_ADDRESS):
                caller = dict(registers)  # a jump to nowhere: its return address is in the register
                if self._file.machine != RISCV or self.holds(pc):
                    return found
            if caller is None:
                return found
            address = caller[RETURN_ADDRESS]
            if not self.holds(address - 1) or (
                found and caller.get(STACK_POINTER) == registers.get(STACK_POINTER)
            ):
                return found
            found.append(address)
            registers, at = caller, address - 1
        return found

    def _step(
        self, pc: int, registers: dict[int, int], read_word: Callable[[int], int | None]
    ) -> dict[int, int] | None:
        try:
            entry = find_entry(self._file.debug.get("debug_frame", b""), pc)
            if entry is None or entry.return_register != RETURN_ADDRESS:
                return None
            caller = step_out(entry, pc, registers, read_word)
        except DAMAGED as error:
            self.damage = str(error)
            return None
        if caller is not None:
            caller[STACK_POINTER] = caller.pop(CFA_REGISTER)
        return caller

    @cached_property
    def _data(self) -> bytes:
        return read_file(self.path, limit=ELF_LIMIT)

    @cached_property
    def _file(self) -> DebugFile:
        return read_debug_file(self._data)

    def _build_index(self) -> Index:
        sections = self._file.debug
        units = []
        effort = Effort()
        at, end = 0, len(sections.get("debug_info", b""))
        while at + 11 < end:
            try:
                unit = Unit(sections, at, effort)
                for low, high in unit.ranges(unit.root):
                    if low and low < high and self._is_code(low):
                        units.append((low, high, at))
                at = unit.end
            except DAMAGED as error:
                self.damage = str(error)
                step = int.from_bytes(sections["debug_info"][at : at + 4], "little") + 4
                at += step if step < 0xFFFFFFF0 else end
        return Index(list(self._file.code), sorted(units))

    def _is_code(self, address: int) -> bool:
        return any(low <= address < high for low, high in self._file.code)

    def _resolve(self, address: int) -> tuple[Frame, ...]:
        found: tuple[Frame, ...] = ()
        try:
            found = self._find_frames(address)
            if not found or not found[-1].function:
                file, line = (found[-1].file, found[-1].line) if found else ("", 0)
                name = self._find_symbol(address, inside=not file)
                found = (Frame(name, file, line),) if name else found
        except DAMAGED as error:
            self.damage = str(error) or type(error).__name__
        return found

    def _find_frames(self, address: int) -> tuple[Frame, ...]:
        """
        :raises ElfError, IndexError, …: one of ``DAMAGED``
        """
        at = bisect_right(self._lows, address)
        for low, high, offset in reversed(self.index.units[max(0, at - NEAR) : at]):
            if not low <= address < high:
                continue
            tables = self._load_unit(offset)
            if tables is None:
                continue
            functions, lines = tables
            calls = functions.find(address)
            file, line = (lines and lines.find(address)) or ("", 0)
            found = []
            for n, call in enumerate(calls or [Call("", 0, 0)]):
                found.append(Frame(call.name, file, line, inlined=n > 0))
                file, line = (lines.file(call.file) if lines else ""), call.line
            return tuple(found)
        return ()

    def _load_unit(self, offset: int) -> Tables | None:
        if offset in self._tables:
            self._tables.move_to_end(offset)
        else:
            self._tables[offset] = self._read_unit(offset)
            if len(self._tables) > KEPT_UNITS:
                self._tables.popitem(last=False)
        return self._tables[offset]

    def _read_unit(self, offset: int) -> Tables | None:
        try:
            unit = Unit(self._file.debug, offset, Effort())
            lines = None
            at = unit.root.get(STMT_LIST, (0, b""))[1]
            if isinstance(at, int):
                names = [unit.text(unit.root.get(name)) for name in (COMP_DIR, NAME)]
                lines = LineTable(unit, at, *names)
            return FunctionTable(unit), lines
        except DAMAGED as error:
            self.damage = str(error) or type(error).__name__
            return None

    @cached_property
    def _symbols(self) -> list[tuple[int, int, int]]:
        table = self._file.symbols
        return [] if table is None else read_symbols(self._data, table)

    def _find_symbol(self, address: int, *, inside: bool) -> str:
        """The name of the last symbol up to ``address``. ``inside``: its size must include the address."""
        at = bisect_right(self._symbols, (address, 0xFFFFFFFF, 0)) - 1
        for start, size, name_at in reversed(self._symbols[max(0, at - NEAR) : at + 1]):
            name = read_name(self._data, name_at)
            if not name or name.startswith(LABELS):
                continue
            return name if address < start + size or not size or not inside else ""
        return ""
