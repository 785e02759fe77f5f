"""Small ELF files whose entries refer to the same data again and again: limits end the reading, not time or memory.

Each is read with low limits, which take milliseconds to reach; the same file within them is read to its end.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from espwire.errors import ElfError
from espwire.symbols import debug_sections, dwarf, lines, unwind
from espwire.symbols.symbol_file import SymbolFile

TEXT = 0x42000000
ROOT = b"\1\x11\1\x11\1\x12\6\0\0"  # abbreviation 1: low and high address
WHOLE = b"\1" + struct.pack("<2I", TEXT, 0x1000)
FUNCTION = b"\2\x2e\0\x55\x17\0\0\0"  # abbreviation 2: a list of ranges
RANGES = struct.pack("<2I", 16, 32) * 500 + bytes(8)
NAMED = b"\2\x39\1\3\x0e\0\0\0"  # abbreviation 2: a namespace with a name


def write(path: Path, sections: dict[str, bytes], flags: int = 0) -> SymbolFile:
    """An ELF file with 4 KB of code, and these sections."""
    contents = {"": b"", ".text": bytes(0x1000), **sections}
    names = b"".join(name.encode() + b"\0" for name in contents) + b".names\0"
    contents[".names"] = names
    body, rows = b"", b""
    for name, data in contents.items():
        kind, address = (1, TEXT) if name == ".text" else (1, 0)
        bits = 6 if name == ".text" else flags * name.startswith(".debug")
        at = names.find(name.encode() + b"\0")
        rows += struct.pack("<10I", at, kind, bits, address, 52 + len(body), len(data), 0, 0, 1, 0)
        body += data
    count = len(contents)
    head = struct.pack(
        "<2H5I6H", 2, 243, 1, TEXT, 0, 52 + len(body), 0, 52, 32, 0, 40, count, count - 1
    )
    path.write_bytes(b"\x7fELF\1\1\1" + bytes(9) + head + body + rows)
    return SymbolFile(path)


def unit(entries: bytes) -> bytes:
    return struct.pack("<IHIB", len(entries) + 7, 4, 0, 4) + entries


def line_table(program: bytes, folders: bytes = b"", files: bytes = b"") -> bytes:
    header = bytes((1, 1, 1, 0xFB, 14, 13)) + bytes((0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
    header += folders + b"\0" + files + b"\0"
    table = struct.pack("<HI", 4, len(header)) + header + program
    return struct.pack("<I", len(table)) + table


BOMBS = {
    "units that share a long table of abbreviations": {
        ".debug_abbrev": b"".join(bytes((0x80 | n & 0x7F, n >> 7, 0x11, 0, 0, 0)) for n in range(1, 1000)),
        ".debug_info": unit(b"\xe7\x07") * 100,
    },
    "functions that share a long list of ranges": {
        ".debug_abbrev": ROOT + FUNCTION,
        ".debug_info": unit(WHOLE + (b"\2" + bytes(4)) * 100),
        ".debug_ranges": RANGES,
    },
    "namespaces that share a long name": {
        ".debug_abbrev": ROOT + NAMED,
        ".debug_info": unit(WHOLE + (b"\2" + bytes(4) + b"\0") * 50),
        ".debug_str": b"A" * 100_000 + b"\0",
    },
    "entries with many attributes": {
        ".debug_abbrev": ROOT + b"\2\x2e\0" + b"\x3f\x19" * 1000 + b"\0\0\0",
        ".debug_info": unit(WHOLE + b"\2"),
    },
    "files in a folder with a long name": {
        ".debug_abbrev": b"\1\x11\0\x11\1\x12\6\x10\x17\0\0\0",
        ".debug_info": unit(WHOLE + bytes(4)),
        ".debug_line": line_table(b"", b"A" * 10_000 + b"\0", b"a\0\1\0\0" * 50),
    },
    "a table with many lines": {
        ".debug_abbrev": b"\1\x11\0\x11\1\x12\6\x10\x17\0\0\0",
        ".debug_info": unit(WHOLE + bytes(4)),
        ".debug_line": line_table(b"\0\5\2" + struct.pack("<I", TEXT) + b"\x20" * 3000 + b"\0\1\1"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_what_refers_to_the_same_data_is_limited(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dwarf, "MAX_EFFORT", 5000)
    monkeypatch.setattr(lines, "MAX_ROWS", 1000)
    file = write(tmp_path / "a.elf", BOMBS[name])
    assert file.resolve(TEXT + 20) == ()
    assert file.damage.startswith("the debug information cannot be used: ")
    if name == "entries with many attributes":
        return  # never valid
    monkeypatch.setattr(dwarf, "MAX_EFFORT", 1_000_000)
    monkeypatch.setattr(lines, "MAX_ROWS", 1_000_000)
    file = write(tmp_path / "a.elf", BOMBS[name])
    file.resolve(TEXT + 20)
    assert not file.damage


def test_sections_are_unpacked_up_to_a_limit_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = struct.pack("<3I", 1, 6000, 1) + zlib.compress(bytes(6000))
    sections = {".debug_str": packed, ".debug_line_str": packed}
    write(tmp_path / "a.elf", sections, flags=0x800)
    monkeypatch.setattr(debug_sections, "UNPACKED_LIMIT", 10_000)
    with pytest.raises(ElfError, match="6,000 bytes"):
        write(tmp_path / "a.elf", sections, flags=0x800)
    write(tmp_path / "a.elf", {".debug_str": packed, ".debug_other": packed}, flags=0x800)


def test_remembered_states_of_a_frame_are_limited(tmp_path: Path) -> None:
    common = struct.pack("<IB", 0xFFFFFFFF, 1) + b"\0\1\x7c\1\x0c\2\0"
    own = struct.pack("<3I", 0, TEXT, 0x1000)

    def step(states: int) -> str:
        frames = [common, own + b"\x0a" * states]
        data = b"".join(struct.pack("<I", len(frame)) + frame for frame in frames)
        file = write(tmp_path / "a.elf", {".debug_frame": data})
        file.unwind(TEXT, {2: 0x3FC00000}, lambda address: TEXT)
        return file.damage

    assert not step(unwind.MAX_REMEMBERED)
    assert "call frame" in step(unwind.MAX_REMEMBERED + 1)


def test_an_address_in_a_table_of_lines_has_four_bytes(tmp_path: Path) -> None:
    program = b"\0\x89\1\2" + struct.pack("<I", TEXT) + b"\xff" * 132 + b"\x21" * 9 + b"\0\1\1"
    sections = BOMBS["a table with many lines"] | {".debug_line": line_table(program)}
    (place,) = write(tmp_path / "a.elf", sections).resolve(TEXT + 1)
    assert place.line == 2


def test_a_table_of_symbols_that_is_cut_is_used_as_far_as_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.elf"
    write(path, {".symtab": struct.pack("<3I2BH", 1, TEXT, 64, 2, 0, 1) + bytes(16)})
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[0x20:0x24], "little")
    data[table + 84 : table + 88] = (2).to_bytes(4, "little")  # its kind
    # moved to the end of the file, where 24 of its 32 bytes are left
    symbols = data[52 + 0x1000 : 52 + 0x1000 + 24]
    data[table + 96 : table + 100] = len(data).to_bytes(4, "little")
    data[table + 104 : table + 108] = (3).to_bytes(4, "little")  # names: those of the sections
    path.write_bytes(data + symbols)
    assert [place.function for place in SymbolFile(path).resolve(TEXT + 4)] == [".text"]
