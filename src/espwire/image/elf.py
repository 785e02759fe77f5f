"""Read the sections and segments that an ELF file loads, and find the chips that it can be for.

pyelftools parses the structures. Counts, offsets and sizes are checked first, so that a hostile file costs neither time
nor memory. Data are views of the file, not copies.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import ElfError
from espwire.image.model import ELF_MAGIC

if TYPE_CHECKING:
    from espwire.chips.model import Chip

HEADER_SIZE, SECTION_HEADER_SIZE, PROGRAM_HEADER_SIZE = 0x34, 0x28, 0x20
MAX_HEADERS = 4096  # a linked program has a few dozen
MAX_NAME = 256
ALLOCATED = 2  # section flag: it takes memory when the program runs
METADATA = ".espressif.metadata"
MACHINES = {0x5E: "xtensa", 0xF3: "riscv"}
LOADED_TYPES = frozenset({"SHT_PROGBITS", "SHT_INIT_ARRAY", "SHT_FINI_ARRAY", "SHT_PREINIT_ARRAY"})
# regions of a memory map that no program is loaded to, or that only describe how other regions are accessed
NOT_LOADABLE = ("PADDING", "IROM", "DROM", "DPORT", "MEM_INTERNAL", "BYTE_ACCESSIBLE")


class Section(NamedTuple):
    """Bytes that are loaded to ``address``: a section, several joined ones, or a segment, which has no name."""

    address: int
    data: bytes | memoryview
    name: str = ""

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)


class Elf(NamedTuple):
    """A program. ``sections`` and ``segments``: those with bytes to load, in file order.

    Sections have their run address, segments their load address. ``metadata``: the content of ``.espressif.metadata``,
    which names the chip. ``left_out``: names of sections with an address whose type is not loaded, such as notes.
    """

    machine: int
    entry: int
    sections: tuple[Section, ...]
    segments: tuple[Section, ...]
    metadata: bytes = b""
    left_out: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        """``xtensa``, ``riscv``, or the machine's number."""
        return MACHINES.get(self.machine, f"machine {self.machine:#x}")


def is_program(data: bytes) -> bool:
    """Whether the ELF header says executable, not object file or shared library."""
    return data[16:18] == b"\x02\x00"


def parse_elf(data: bytes) -> Elf:
    """The program in an ELF file.

    :raises ElfError: not a 32-bit little-endian ELF file, or its structure is broken
    """
    from elftools.common.exceptions import ELFError
    from elftools.construct import ConstructError

    check_kind(data)
    try:
        return _Reader(data).read()
    except (ELFError, ConstructError, UnicodeError, ValueError, IndexError, KeyError) as error:
        raise ElfError(f"the ELF file is broken: {error}", code="elf-broken") from None


def check_kind(data: bytes) -> None:
    """
    :raises ElfError: not a 32-bit little-endian ELF file, or shorter than its header
    """
    if not data.startswith(ELF_MAGIC):
        raise ElfError(
            "not an ELF file: it does not begin with 7f 45 4c 46",
            hint="Pass the .elf file that the linker wrote.",
            code="elf-magic",
        )
    if data[4:6] != b"\x01\x01":
        raise ElfError(
            "the ELF file is not for a 32-bit little-endian machine (offset 4)",
            hint="Build the program for the chip.",
            code="elf-class",
        )
    if len(data) < HEADER_SIZE:
        raise _cut("its header", 0, HEADER_SIZE, len(data))


class _Reader:
    """Walks along one file."""

    def __init__(self, data: bytes) -> None:
        from elftools.elf.structs import ELFStructs

        self.data, self.view, self.stream = data, memoryview(data), io.BytesIO(data)
        self.structs: Any = ELFStructs(little_endian=True, elfclass=32)
        self.structs.create_basic_structs()
        self.metadata = b""
        self.left_out: list[str] = []

    def read(self) -> Elf:
        header = self._parse(self.structs.Elf_Ehdr, 0)
        machine = int.from_bytes(self.data[18:20], "little")  # a number, unlike in pyelftools
        self.structs.create_advanced_structs()
        sections = tuple(self._sections(header))
        segments = tuple(self._segments(header))
        return Elf(
            machine, header["e_entry"], sections, segments, self.metadata, tuple(self.left_out)
        )

    def _parse(self, struct: Any, offset: int) -> Any:
        from elftools.common.utils import struct_parse

        return struct_parse(struct, self.stream, stream_pos=offset)

    def _table(self, what: str, offset: int, count: int, size: int, expected: int) -> Iterator[int]:
        """Offsets of a table's rows, after checking that the table is inside the file."""
        if not offset or not count:
            return
        if size != expected or count > MAX_HEADERS:
            raise ElfError(
                f"the ELF file has {count:,} {what} headers of {size} bytes, not at most {MAX_HEADERS:,} of {expected}",
                code="elf-headers",
            )
        if offset + count * size > len(self.data):
            raise _cut(f"the table of {what} headers", offset, count * size, len(self.data))
        yield from range(offset, offset + count * size, size)

    def _sections(self, header: Any) -> Iterator[Section]:
        start, size, count = header["e_shoff"], header["e_shentsize"], header["e_shnum"]
        rows = [
            self._parse(self.structs.Elf_Shdr, at)
            for at in self._table("section", start, count, size, SECTION_HEADER_SIZE)
        ]
        names = self._names(rows, header["e_shstrndx"])
        for row in rows:
            if not row["sh_size"] or row["sh_type"] == "SHT_NOBITS":
                continue
            name = self._name(names, row["sh_name"])
            if row["sh_type"] not in LOADED_TYPES:
                if row["sh_flags"] & ALLOCATED and row["sh_addr"]:
                    self.left_out.append(name)
            elif name == METADATA and row["sh_size"] <= MAX_NAME:
                self.metadata = bytes(
                    self._slice(f"section {name}", row["sh_offset"], row["sh_size"])
                )
            elif row["sh_addr"]:
                data = self._slice(f"section {name}", row["sh_offset"], row["sh_size"])
                yield Section(row["sh_addr"], data, name)

    def _names(self, rows: list[Any], index: int) -> tuple[int, int]:
        """Start and end of the string table with section names; 0, 0 if the file has none."""
        if not rows or not index:
            return 0, 0
        if index >= len(rows) or rows[index]["sh_type"] != "SHT_STRTAB":
            raise ElfError(
                f"section {index} of the ELF file is not a string table, but should hold the section names",
                code="elf-names",
            )
        start, size = rows[index]["sh_offset"], rows[index]["sh_size"]
        self._slice("the string table", start, size)
        return start, start + size

    def _name(self, names: tuple[int, int], offset: int) -> str:
        start, end = names[0] + offset, names[1]
        if start >= end:
            return ""
        stop = self.data.find(b"\0", start, min(end, start + MAX_NAME))
        return self.data[start : stop if stop >= 0 else min(end, start + MAX_NAME)].decode(
            "utf-8", "replace"
        )

    def _segments(self, header: Any) -> Iterator[Section]:
        start, size, count = header["e_phoff"], header["e_phentsize"], header["e_phnum"]
        for at in self._table("program", start, count, size, PROGRAM_HEADER_SIZE):
            row = self._parse(self.structs.Elf_Phdr, at)
            if row["p_type"] == "PT_LOAD" and row["p_paddr"] and row["p_filesz"]:
                data = self._slice(
                    f"the segment at {row['p_paddr']:#x}", row["p_offset"], row["p_filesz"]
                )
                yield Section(row["p_paddr"], data)

    def _slice(self, what: str, offset: int, size: int) -> memoryview:
        if offset + size > len(self.data):
            raise _cut(what, offset, size, len(self.data))
        return self.view[offset : offset + size]


def _cut(what: str, offset: int, size: int, total: int) -> ElfError:
    return ElfError(
        f"the ELF file is truncated: {what} needs {size:,} bytes at offset {offset:#x}, but the file has only {total:,}",
        hint="The file was not linked or copied completely: get it again.",
        code="elf-truncated",
    )


def find_elf_chips(elf: Elf) -> tuple[str, ...]:
    """Ids of the chips that the program can be for: the chip that it names, or else all that fit.

    Of those that fit, chips with the entry address in RAM are preferred: what is flash of one can be RAM of another.
    """
    named = find_named_chip(elf)
    if named is not None:
        return (named,)
    fitting = [chip for chip in map(load_chip, chip_ids()) if fits(elf, chip)]
    in_ram = [chip for chip in fitting if _is_ram(chip, elf.entry, elf.entry + 1)]
    return tuple(chip.id for chip in in_ram or fitting)


def find_named_chip(elf: Elf) -> str | None:
    """The chip that fits the program and whose id is in its metadata."""
    named = [name for name in chip_ids() if name.encode() in elf.metadata]
    longest_first = sorted(named, key=len, reverse=True)  # esp32c61 contains esp32c6
    return next((name for name in longest_first if fits(elf, load_chip(name))), None)


def fits(elf: Elf, chip: Chip) -> bool:
    """Whether ``chip`` has the program's machine, and memory or mapped flash at each of its addresses."""
    loaded = elf.sections or elf.segments
    same_machine = chip.cpu.elf_machine == elf.machine
    return (
        same_machine
        and bool(loaded)
        and all(
            chip.mapped_flash.holds(s.address) or _is_ram(chip, s.address, s.end) for s in loaded
        )
    )


def _is_ram(chip: Chip, start: int, end: int) -> bool:
    return any(
        region.start <= start and end <= region.end
        for region in chip.memory.map
        if not region.name.startswith(NOT_LOADABLE)
    )
