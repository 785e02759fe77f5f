"""Reading ELF files: what is loaded where, which chip that can be; and anything broken ends in one clear error, soon."""

import contextlib
import random
import struct
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from elf_writer import NOBITS, XTENSA, Part, Program, write_elf
from espwire.chips.registry import load_chip
from espwire.errors import ElfError, ToolError
from espwire.image.elf import find_elf_chips, parse_elf
from espwire.image.elf2image import choose_chip, convert_elf

GOOD = Program(
    [
        Part(".text", 0x40380000, b"code"),
        Part(".data", 0x3FC80000, b"data" * 9),
        Part(".debug", 0, b"info"),
    ]
)


def code_of(data: bytes) -> str:
    with pytest.raises(ElfError) as caught:
        parse_elf(data)
    assert caught.value.hint
    return caught.value.code


def patched(data: bytes, offset: int, form: str, value: int) -> bytes:
    size = struct.calcsize("<" + form)
    return data[:offset] + struct.pack("<" + form, value) + data[offset + size :]


def test_sections_and_segments_come_with_names_addresses_and_bytes():
    elf = parse_elf(write_elf(GOOD))
    assert [(s.name, s.address, bytes(s.data)) for s in elf.sections] == [
        (".text", 0x40380000, b"code"),
        (".data", 0x3FC80000, b"data" * 9),
    ]
    assert [(s.address, bytes(s.data)) for s in elf.segments] == [
        (0x40380000, b"code"),
        (0x3FC80000, b"data" * 9),
    ]
    assert (elf.entry, elf.architecture) == (0x40380000, "riscv")


def test_a_section_counts_by_its_run_address_and_a_segment_by_its_load_address():
    elf = parse_elf(write_elf(Program([Part(".data", 0x3FC80000, b"data", load=0x42000020)])))
    assert elf.sections[0].address == 0x3FC80000
    assert elf.segments[0].address == 0x42000020


def test_what_holds_no_bytes_is_not_loaded():
    program = Program(
        [Part(".bss", 0x3FC80000, b"0000", type=NOBITS), Part(".empty", 0x3FC80000, b"")]
    )
    assert parse_elf(write_elf(program)).sections == ()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda data: b"", "elf-magic"),
        (lambda data: b"\xe9" + data[1:], "elf-magic"),
        (lambda data: data[:20], "elf-truncated"),
        (lambda data: patched(data, 4, "B", 2), "elf-class"),
        (lambda data: patched(data, 5, "B", 2), "elf-class"),
        (lambda data: patched(data, 48, "H", 0xFFFF), "elf-headers"),
        (lambda data: patched(data, 48, "H", 0x0FFF), "elf-truncated"),
        (lambda data: patched(data, 46, "H", 1), "elf-headers"),
        (lambda data: patched(data, 44, "H", 0xFFFF), "elf-headers"),
        (lambda data: patched(data, 32, "I", 0xFFFFFFF0), "elf-truncated"),
        (lambda data: patched(data, 50, "H", 99), "elf-names"),
        (lambda data: patched(data, 50, "H", 1), "elf-names"),
        (lambda data: data[:-30], "elf-truncated"),
        (lambda data: patched(data, 52 + 16, "I", 0x7FFFFFFF), "elf-truncated"),
    ],
)
def test_each_kind_of_damage_has_its_error(damage, code):
    assert code_of(damage(write_elf(GOOD))) == code


def test_random_damage_ends_in_an_elf_or_a_deliberate_error():
    chance, data = random.Random(5), write_elf(GOOD)
    for _ in range(600):
        bad = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            bad[chance.randrange(len(bad))] = chance.choice(
                (0, 1, 0x7F, 0xFF, chance.randrange(256))
            )
        with contextlib.suppress(ElfError):
            parse_elf(bytes(bad[: chance.randint(0, len(bad))] if chance.random() < 0.2 else bad))


def test_a_hostile_file_costs_neither_time_nor_memory():
    """4096 sections, the most allowed, each naming the same megabyte of bytes and one endless name."""
    count, blob = 4096, b"A" * 0x100000
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    table = 52 + len(blob)
    header += struct.pack(
        "<HHIIIIIHHHHHH", 2, 0xF3, 1, 0x40380000, 0, table, 0, 52, 32, 0, 40, count, 1
    )
    rows = struct.pack("<10I", 0, 3, 0, 0, 52, len(blob), 0, 0, 1, 0)
    row = [
        struct.pack("<10I", 5, 1, 6, 0x40000000 + n % 1000 * len(blob), 52, len(blob), 0, 0, 4, 0)
        for n in range(count - 2)
    ]
    data = header + blob + bytes(40) + rows + b"".join(row)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ToolError) as caught:
        convert_elf(data, load_chip("esp32c3"))
    seconds, peak = time.process_time() - start, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert caught.value.code == "elf-too-large"
    assert seconds < 5  # tracing makes it many times slower
    assert peak < 50e6


@pytest.mark.parametrize(
    ("addresses", "entry", "machine", "chips"),
    [
        ((0x40100000, 0x3FFE8000, 0x40240000), 0x40100004, XTENSA, ("esp8266",)),
        ((0x40080400, 0x3FFB0000, 0x400D0020, 0x3F400020), 0x40081000, XTENSA, ("esp32",)),
        ((0x40024000, 0x3FFC0000, 0x40080020, 0x3F000020), 0x40025000, XTENSA, ("esp32s2",)),
        ((0x40374000, 0x3FC90000, 0x42000020, 0x3C010020), 0x40375000, XTENSA, ("esp32s3",)),
        ((0x40380000, 0x3FC80000, 0x42000020), 0x40380000, 0xF3, ("esp32c3",)),
        ((0x4FF00000, 0x40000020), 0x4FF00000, 0xF3, ("esp32p4",)),
        ((0x10000000,), 0x10000000, 0xF3, ()),
        ((0x40380000,), 0x40380000, 0x28, ()),
    ],
)
def test_the_chip_is_found_by_machine_and_addresses(addresses, entry, machine, chips):
    program = Program(
        [Part(f".{n}", a, b"1234") for n, a in enumerate(addresses)], machine=machine, entry=entry
    )
    found = find_elf_chips(parse_elf(write_elf(program)))
    assert found[:1] == chips  # later chips with the same memory map may follow


def test_several_fitting_chips_are_an_error_that_names_them():
    elf = parse_elf(write_elf(Program([Part(".text", 0x40800000, b"code")], entry=0x40800000)))
    with pytest.raises(ElfError, match="esp32c6 or esp32h2") as caught:
        choose_chip(elf)
    assert caught.value.code == "elf-chip-unclear"
    assert "esp32c6" in caught.value.details["candidates"]


def test_a_program_that_names_its_chip_is_for_that_one():
    metadata = Part(".espressif.metadata", 0, b"ESP-IDFesp32c61serial", flags=0)
    program = Program([Part(".text", 0x40800000, b"code"), metadata], entry=0x40800000)
    assert find_elf_chips(parse_elf(write_elf(program))) == ("esp32c61",)


def test_no_fitting_chip_is_an_error():
    with pytest.raises(ElfError) as caught:
        choose_chip(parse_elf(write_elf(Program([Part(".text", 0x10000000, b"code")]))))
    assert caught.value.code == "elf-chip"
