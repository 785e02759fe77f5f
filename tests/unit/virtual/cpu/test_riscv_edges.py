"""Cases that random RISC-V code rarely contains: division by zero, reserved encodings, unknown registers."""

import struct

import pytest
from tests.unit.virtual.cpu.programs import CODE, DATA, make_engine

from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.riscv import RiscV, expand

WFI = 0x10500073
MOST, LEAST = 0x7FFFFFFF, 0x80000000
ALL = 0xFFFFFFFF


def run(*words, registers=(), first=False, entry=0):
    code = b"".join(
        struct.pack("<I" if word & 3 == 3 else "<H", word) for word in words
    ) + struct.pack("<I", WFI)
    engine = make_engine(RiscV(first=first), code, words_only=False)
    for number, value in dict(registers).items():
        engine.registers[number] = value
    engine.pc += entry
    engine.run(500)
    return engine


def multiply(function, a, b):
    """x3 = x1 <function of the M extension> x2."""
    return run(
        1 << 25 | 2 << 20 | 1 << 15 | function << 12 | 3 << 7 | 0x33, registers={1: a, 2: b}
    ).registers[3]


@pytest.mark.parametrize(
    ("function", "a", "b", "expected"),
    [
        (4, 7, 0, ALL), (5, 7, 0, ALL), (6, 7, 0, 7), (7, 7, 0, 7),
        (4, LEAST, ALL, LEAST), (6, LEAST, ALL, 0), (5, LEAST, ALL, 0), (7, LEAST, ALL, LEAST),
        (4, ALL - 6, 2, ALL - 2), (6, ALL - 6, 2, ALL), (4, 7, ALL - 1, ALL - 2), (6, 7, ALL - 1, 1),
        (1, LEAST, LEAST, 0x40000000), (2, LEAST, ALL, LEAST), (3, ALL, ALL, ALL - 1), (2, ALL, ALL, ALL),
        (1, MOST, LEAST, 0xC0000000), (0, ALL, ALL, 1),
    ],
)  # fmt: skip
def test_products_and_quotients_at_the_edges(function, a, b, expected):
    assert multiply(function, a, b) == expected


@pytest.mark.parametrize(
    "word",
    [
        0x0000,  # all zeros
        0x0004,  # c.addi4spn x9, 0
        0x2000,  # c.fld
        0x8000,  # reserved; c.lbu of a later extension
        0x6101,  # c.addi16sp 0
        0x6081,  # c.lui x1, 0
        0x9001,  # c.srli by 32
        0x9401,  # c.srai by 32
        0x9C01,  # c.subw
        0x1006,  # c.slli by more than 31
        0x4002,  # c.lwsp x0
        0x8002,  # c.jr x0
        0x2002,  # c.fldsp
    ],
)
def test_reserved_short_instructions_are_illegal(word):
    with pytest.raises(CpuFault, match="illegal instruction"):
        expand(word, CODE)


@pytest.mark.parametrize(
    "hint", [0x0001, 0x0005, 0x4005, 0x6005, 0x800A, 0x900A, 0x0006, 0x8001, 0x8401]
)
def test_hints_do_nothing(hint):
    before = {number: number * 3 for number in range(1, 32)}
    assert run(hint, registers=before).registers == [0, *before.values()]


def test_a_jump_drops_the_lowest_bit_of_its_target():
    engine = run(
        0x00008167, 0x00100193, 0x00100213, registers={1: CODE + 9}
    )  # jalr x2, x1; li x3, 1; li x4, 1
    assert (engine.registers[2], engine.registers[3], engine.registers[4]) == (CODE + 4, 0, 1)


def test_a_link_register_may_be_the_jump_s_base():
    engine = run(0x000080E7, 0x00100193, 0x00100213, registers={1: CODE + 8})  # jalr x1, x1
    assert (engine.registers[1], engine.registers[3], engine.registers[4]) == (CODE + 4, 0, 1)


def test_a_short_call_links_behind_itself():
    engine = run(0x9082, 0x00100193, registers={1: CODE + 2})  # c.jalr x1
    assert engine.registers[1] == CODE + 2


@pytest.mark.parametrize("target", [0x00000000, DATA - 2, 0x60000000])
def test_a_jump_to_where_no_code_is_faults_there(target):
    with pytest.raises(CpuFault, match="instruction fetch") as caught:
        run(0x00008067, registers={1: target})
    assert caught.value.address == target


def test_an_instruction_that_lies_across_the_end_of_its_memory_faults():
    engine = make_engine(RiscV(), b"", words_only=False)
    engine.pc = engine.memory.regions[1].end - 2
    engine.memory.regions[1].data[-2:] = b"\x13\x00"
    with pytest.raises(CpuFault, match="code runs out"):
        engine.run(100)


@pytest.mark.parametrize(
    ("csr", "function", "source"),
    [
        (0xF14, 1, 0),  # csrw mhartid, zero: read-only
        (0xC00, 2, 1),  # csrs cycle, x1
        (0x100, 2, 0),  # csrr sstatus: no supervisor
        (0x001, 2, 0),  # fflags: no floating point
    ],
)
def test_an_unknown_or_read_only_csr_is_illegal(csr, function, source):
    with pytest.raises(CpuFault, match="illegal instruction"):
        run(csr << 20 | source << 15 | function << 12 | 3 << 7 | 0x73)


@pytest.mark.parametrize("csr", [0xF14, 0xC00])
def test_reading_by_setting_nothing_writes_nothing(csr):
    run(csr << 20 | 2 << 12 | 3 << 7 | 0x73)


def test_csr_bits_are_set_and_cleared_one_by_one():
    engine = run(
        0x3004D073, 0x30046173, 0x300471F3, 0x30002273
    )  # csrwi 9; csrrsi x2, 8; csrrci x3, 8; csrr x4
    assert [engine.registers[n] for n in (2, 3, 4)] == [9, 9, 1]


@pytest.mark.parametrize(
    "word",
    [
        0x1005202F | 10 << 15,  # lr.w
        0x00A5202F,  # amoadd.w
        0xB0002573,  # csrr a0, mcycle: they have another counter
        0xC0002573,  # rdcycle
    ],
)
def test_the_first_cores_have_neither_atomics_nor_the_standard_counters(word):
    run(word, registers={10: DATA})
    with pytest.raises(CpuFault, match="illegal instruction"):
        run(word, registers={10: DATA}, first=True)


def test_their_own_counter_counts():
    assert run(0x7E202573, first=True).registers[10] < 100  # csrr a0, mpccr


@pytest.mark.parametrize(
    "word", [0x0000200F, 0x0000700F, 0x00200073, 0x30200073, 0x02000033 | 1 << 30, 0x40001033]
)
def test_other_reserved_encodings_are_illegal(word):
    with pytest.raises(CpuFault):
        run(word)
