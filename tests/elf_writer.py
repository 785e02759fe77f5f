"""Small ELF files for tests, written from the format's description; no linker needed. No tests here."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

XTENSA, RISCV = 0x5E, 0xF3
PROGBITS, NOBITS, INIT_ARRAY = 1, 8, 14


@dataclass
class Part:
    """A section and the segment that loads it. ``load``: the segment's load address, if it is another."""

    name: str
    address: int
    data: bytes
    type: int = PROGBITS
    flags: int = 6
    load: int | None = None


@dataclass
class Program:
    """What goes into one ELF file."""

    parts: list[Part]
    machine: int = RISCV
    entry: int = 0x40380000
    joined: list[tuple[int, bytes]] = field(
        default_factory=list
    )  # segments instead of one per section


def write_elf(program: Program) -> bytes:
    """The file: header, program headers, data, names, section headers."""
    loads = program.joined or [
        (part.address if part.load is None else part.load, part.data)
        for part in program.parts
        if part.type != NOBITS
    ]
    body = bytearray(bytes(52 + 32 * len(loads)))
    names = bytearray(b"\0")
    sections = [bytes(40)]
    for part in program.parts:
        body += bytes(-len(body) % 4)
        size = len(part.data)
        sections.append(
            struct.pack(
                "<10I", len(names), part.type, part.flags, part.address, len(body), size, 0, 0, 4, 0
            )
        )
        names += part.name.encode() + b"\0"
        if part.type != NOBITS:
            body += part.data
    programs = b""
    for address, data in loads:
        at = body.find(data, 52 + 32 * len(loads)) if data else len(body)
        if at < 0:
            at = len(body)
            body += data
        programs += struct.pack("<8I", 1, at, address, address, len(data), len(data), 7, 4)
    sections.append(
        struct.pack("<10I", len(names), 3, 0, 0, len(body), len(names) + 10, 0, 0, 1, 0)
    )
    body += names + b".shstrtab\0"
    body += bytes(-len(body) % 4)
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack(
        "<HHIIIIIHHHHHH",
        2,
        program.machine,
        1,
        program.entry,
        52 if loads else 0,
        len(body),
        0,
        52,
        32,
        len(loads),
        40,
        len(sections),
        len(sections) - 1,
    )
    body[:52] = header
    body[52 : 52 + len(programs)] = programs
    return bytes(body) + b"".join(sections)
