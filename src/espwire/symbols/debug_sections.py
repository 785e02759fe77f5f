"""Reads the sections of an ELF file that debug information is in, and its table of symbols.

pyelftools takes seconds for the entries of one large C++ file, so this package reads DWARF itself: every loop advances in
the section's bytes, so a damaged file costs no more time than a good one.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

from espwire.errors import ElfError
from espwire.image.elf import MAX_HEADERS, MAX_NAME, check_kind

EXECUTABLE, COMPRESSED = 4, 0x800  # section flags
NOBITS = 8
SYMTAB = 2
FUNCTION, UNTYPED = 2, 0  # types of symbols
UNPACKED_LIMIT = 256 * 0x100000  # bytes of all compressed sections
# what this package reads
SECTIONS = frozenset(
    f".debug_{name}"
    for name in (
        *("info", "abbrev", "line", "str", "line_str", "str_offsets"),
        *("addr", "ranges", "rnglists", "frame"),
    )
)


class SymbolTable(NamedTuple):
    """Where the table of symbols is; ``code``: numbers of executable sections."""

    offset: int
    length: int
    strings: int
    code: frozenset[int]


class DebugFile(NamedTuple):
    """``code``: address ranges of executable sections; ``debug``: contents of ``SECTIONS`` by name, without the dot."""

    code: tuple[tuple[int, int], ...]
    debug: dict[str, bytes]
    symbols: SymbolTable | None
    machine: int


def read_debug_file(data: bytes) -> DebugFile:
    """
    :raises ElfError: not a 32-bit little-endian ELF file, or its section table is damaged
    """
    check_kind(data)
    try:
        return _read(data)
    except (struct.error, zlib.error, IndexError, ValueError) as error:
        raise ElfError(f"the ELF file is broken: {error}", code="elf-broken") from None


def _read(data: bytes) -> DebugFile:
    """
    :raises struct.error, zlib.error, IndexError, ValueError: the section table is damaged
    """
    (table,) = struct.unpack_from("<I", data, 0x20)
    size, count, names_at = struct.unpack_from("<3H", data, 0x2E)
    if size != 40 or count > MAX_HEADERS:
        raise ValueError(f"{count:,} section headers of {size} bytes")
    rows = [struct.unpack_from("<10I", data, table + 40 * n) for n in range(count)]
    names = rows[names_at][4] if count else 0
    code: list[tuple[int, int]] = []
    debug: dict[str, bytes] = {}
    symbols: SymbolTable | None = None
    room = UNPACKED_LIMIT
    for row in rows:
        _, kind, flags, address, offset, length, link = row[:7]
        if flags & EXECUTABLE and length:
            code.append((address, address + length))
        if kind == NOBITS:
            continue
        name = read_name(data, names + row[0])
        if name in SECTIONS and name[1:] not in debug:
            found = debug[name[1:]] = _contents(data[offset : offset + length], flags, room)
            room -= len(found) if flags & COMPRESSED else 0
        elif kind == SYMTAB:
            executable = frozenset(n for n, other in enumerate(rows) if other[2] & EXECUTABLE)
            symbols = SymbolTable(offset, length, rows[link][4], executable)
    return DebugFile(tuple(sorted(code)), debug, symbols, int.from_bytes(data[18:20], "little"))


def _contents(data: bytes, flags: int, room: int) -> bytes:
    """
    :param room: the most bytes that it may have after unpacking
    :raises zlib.error, ValueError: it is compressed in another way
    """
    if not flags & COMPRESSED:
        return data
    kind, size = struct.unpack_from("<2I", data)
    if kind != 1 or size > room:
        raise ValueError(f"a section compressed by method {kind}, {size:,} bytes")
    return zlib.decompressobj().decompress(data[12:], size)


def read_name(data: bytes, offset: int) -> str:
    """A name in a table of strings, at most ``MAX_NAME`` long."""
    end = data.find(b"\0", offset, offset + MAX_NAME)
    return data[offset : end if end >= 0 else offset + MAX_NAME].decode("utf-8", "replace")


def read_symbols(data: bytes, table: SymbolTable) -> list[tuple[int, int, int]]:
    """Functions, and labels of assembly code, which have no type: address, size (0: not known), offset of the name.

    Ordered by address. Names are not read: a file may have half a million labels.
    """
    rows = data[table.offset : table.offset + table.length]
    rows = rows[: len(rows) // 16 * 16]
    code, strings = table.code, table.strings
    return sorted(
        (value, size, strings + name)
        for name, value, size, info, _, section in struct.iter_unpack("<3I2BH", rows)
        if value and (info & 15 == FUNCTION or (info & 15 == UNTYPED and section in code))
    )
