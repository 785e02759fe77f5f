"""The image of a mask ROM, made from its ELF file."""

import struct

from tests.elf_writer import NOBITS, Part, Program, write_elf

from espwire.virtual.soc.rom_elf import is_elf, make_rom_image

ROM, RAM = 0x40000000, 0x3FC80000


def test_initial_data_are_where_the_rom_copies_them_from():
    table = struct.pack("<6I", RAM, RAM + 4, ROM + 0x80, RAM + 8, RAM + 10, ROM + 0x84)
    elf = write_elf(
        Program(
            [
                Part(".text", ROM, b"code" + table),
                Part(".rodata", ROM + 0x40, b"constants"),
                Part(".data", RAM, b"data", flags=1),
                Part(".data_2", RAM + 8, b"da", flags=1),
                Part(".data_3", RAM + 16, b"nowhere", flags=1),
                Part(".bss", RAM + 32, b"", type=NOBITS),
            ]
        )
    )
    assert is_elf(elf)
    assert not is_elf(table)
    image = make_rom_image(elf, ROM, 0x100)
    assert image == (b"code" + table).ljust(0x40, b"\0") + b"constants".ljust(
        0x40, b"\0"
    ) + b"datada".ljust(0x80, b"\0")
