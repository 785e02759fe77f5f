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
UNPACKED_LIMIT = 512 * 0x100000  # bytes of one compressed section


class Symbol(NamedTuple):
    """A function by the linker's table; ``size`` 0: not known, as for assembly code."""

    address: int
    size: int
    name: str


class DebugFile(NamedTuple):
    """``code``: address ranges of executable sections; ``debug``: contents of .debug_* sections by name."""

    code: tuple[tuple[int, int], ...]
    debug: dict[str, bytes]
    symbols: tuple[Symbol, ...]
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
    symbols: tuple[Symbol, ...] = ()
    for row in rows:
        _, kind, flags, address, offset, length, link = row[:7]
        if flags & EXECUTABLE and length:
            code.append((address, address + length))
        if kind == NOBITS:
            continue
        name = _text(data, names + row[0])
        if name.startswith(".debug_"):
            debug[name[1:]] = _contents(data[offset : offset + length], flags)
        elif kind == SYMTAB:
            executable = {n for n, other in enumerate(rows) if other[2] & EXECUTABLE}
            symbols = _read_symbols(data, offset, length, rows[link][4], executable)
    return DebugFile(tuple(sorted(code)), debug, symbols, int.from_bytes(data[18:20], "little"))


def _contents(data: bytes, flags: int) -> bytes:
    """
    :raises zlib.error, ValueError: it is compressed in another way
    """
    if not flags & COMPRESSED:
        return data
    kind, size = struct.unpack_from("<2I", data)
    if kind != 1 or size > UNPACKED_LIMIT:
        raise ValueError(f"a section compressed by method {kind}, {size:,} bytes")
    return zlib.decompressobj().decompress(data[12:], size)


def _text(data: bytes, offset: int) -> str:
    end = data.find(b"\0", offset, offset + MAX_NAME)
    return data[offset : end if end >= 0 else offset + MAX_NAME].decode("utf-8", "replace")


def _read_symbols(
    data: bytes, offset: int, length: int, strings: int, code: set[int]
) -> tuple[Symbol, ...]:
    """Functions, and labels of assembly code, which have no type, by address. ``code``: numbers of executable sections."""
    table = data[offset : offset + length // 16 * 16]
    found = []
    for name, value, size, info, _, section in struct.iter_unpack("<3I2BH", table):
        if value and (info & 15 == FUNCTION or (info & 15 == UNTYPED and section in code)):
            found.append((value, size, name))
    return tuple(
        Symbol(value, size, _text(data, strings + name)) for value, size, name in sorted(found)
    )
