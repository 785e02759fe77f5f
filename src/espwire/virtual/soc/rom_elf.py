"""The image of a mask ROM, made from its ELF file.

The initial data of such a file are in sections that are not loaded. The ROM's start-up code copies them by a table of
start, end and source, which shows where the ROM holds them.
"""

from __future__ import annotations

import io
import struct

MAGIC = b"\x7fELF"


def is_elf(data: bytes) -> bool:
    """Whether it is an ELF file, by its magic number."""
    return data.startswith(MAGIC)


def make_rom_image(elf: bytes, start: int, size: int) -> bytes:
    """The ``size`` bytes of the ROM at ``start``; zeros for what the file does not have.

    Only for known files: a broken one raises errors of pyelftools.
    """
    from elftools.elf.elffile import ELFFile  # takes a noticeable time to load

    sections = [
        (section["sh_addr"], section.data(), section.name)
        for section in ELFFile(io.BytesIO(elf)).iter_sections()
        if section["sh_type"] == "SHT_PROGBITS" and section["sh_size"]
    ]
    image = bytearray(size)
    for address, data, _ in sections:
        if start <= address < start + size:
            image[address - start : address - start + len(data)] = data
    code = bytes(image)
    for address, data, name in sections:
        row = code.find(struct.pack("<2I", address, address + len(data)))
        if name.startswith(".data") and row >= 0:
            (source,) = struct.unpack_from("<I", code, row + 8)
            image[source - start : source - start + len(data)] = data
    return bytes(image)
