"""Interrupts and exceptions of the Xtensa engine."""

import pytest
from tests.unit.virtual.cpu.programs import DATA, RecordingBus
from xtensa_assembler import Assembler

from espwire.virtual.cpu.engine import MAX_NESTED, Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.cpu.xtensa_interrupts import LX7, LX106, Interrupts
from espwire.virtual.cpu.xtensa_word import (
    DEPC,
    EPC,
    EPS,
    EXCCAUSE,
    EXCVADDR,
    INTCLEAR,
    INTENABLE,
    INTERRUPT,
    PS,
)

CODE, VECTORS = 0x40080000, 0x40000000
KERNEL_MODE, USER_MODE = 0x00, 0x20


def make(*program, handlers=(), windows=True, ps=USER_MODE, core=LX7):
    """``handlers``: instructions by the offset of the vector."""
    code = Assembler(CODE)
    for instruction in (*program, ("waiti", 0), ("j", CODE + 3 * len(program))):
        code(*instruction)
    data = bytearray(0x400)
    for offset, instructions in dict(handlers).items():
        handler = Assembler(VECTORS + offset)
        for instruction in instructions:
            handler(*instruction)
        found = handler.assemble()
        data[offset : offset + len(found)] = found
    regions = [
        Region("data", DATA, bytearray(0x1000)),
        Region("code", CODE, bytearray(code.assemble()) + bytearray(16)),
        Region("rom", VECTORS, data, writable=False),
    ]
    isa = Xtensa(windows=windows, interrupts=True)
    engine = Engine(isa, Memory(regions, RecordingBus()), entry=CODE)
    engine.special[PS] = ps
    return engine, Interrupts(engine, core)


COUNT = ("addi", 5, 5, 1), ("wsr", 4, INTENABLE), ("rfe",)


@pytest.mark.parametrize(("ps", "vector"), [(USER_MODE, 0x340), (KERNEL_MODE, 0x300)])
def test_an_interrupt_of_level_1_goes_to_the_vector_of_its_mode(ps, vector):
    engine, interrupts = make(("wsr", 3, INTENABLE), ("nop",), handlers={vector: COUNT}, ps=ps)
    engine.registers[3] = 1 << 12
    interrupts.set_line(12, True)
    engine.run(1000)
    special = engine.special
    assert (special[EXCCAUSE], special[EPC + 1], special[PS]) == (4, CODE + 3, ps)
    assert (engine.registers[5], interrupts.taken) == (1, 1)


def test_a_line_interrupts_until_it_is_off():
    engine, interrupts = make(
        ("wsr", 3, INTENABLE), handlers={0x340: (("addi", 5, 5, 1), ("rfe",))}
    )
    engine.registers[3] = 1
    interrupts.set_line(0, True)
    engine.run(200)
    assert engine.registers[5] > 10
    interrupts.set_line(0, False)
    before = engine.registers[5]
    engine.run(400)
    assert engine.registers[5] - before <= 1
    assert engine.special[INTERRUPT] == 0


@pytest.mark.parametrize("ps", [USER_MODE | 1, USER_MODE | 0x10, 15])
def test_a_level_that_is_masked_does_not_interrupt(ps):
    engine, interrupts = make(("wsr", 3, INTENABLE), ("nop",), ps=ps)
    engine.registers[3] = 1
    interrupts.set_line(0, True)
    engine.run(4)
    assert interrupts.taken == 0
    assert engine.special[INTERRUPT] == 1


def test_rsil_unmasks_at_once():
    engine, interrupts = make(
        ("rsil", 2, 0), ("addi", 6, 6, 1), handlers={0x340: COUNT}, ps=USER_MODE | 3
    )
    engine.special[INTENABLE] = 2
    interrupts.set_line(1, True)
    engine.run(1000)
    assert engine.special[EPC + 1] == CODE + 3
    assert (engine.registers[2], engine.registers[6]) == (USER_MODE | 3, 1)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (19, 2),
        (21, 2),
        (11, 3),
        (23, 3),
        (27, 3),
        (29, 3),
        (24, 4),
        (30, 4),
        (16, 5),
        (31, 5),
        (14, 7),
    ],
)
def test_higher_levels_have_vectors_and_registers_of_their_own(line, level):
    vector = 0x180 + 0x40 * (level - 2)
    code = ("addi", 5, 5, 1), ("wsr", 4, INTENABLE), ("rsr", 6, PS), ("rfi", level)
    engine, interrupts = make(("nop",), handlers={vector: code}, ps=USER_MODE | 1)
    engine.special[INTENABLE] = 1 << line
    interrupts.set_line(line, True)
    engine.run(1000)
    assert (engine.special[EPC + level], engine.special[EPS + level]) == (CODE, USER_MODE | 1)
    assert engine.registers[6] == USER_MODE | 0x10 | level
    assert engine.registers[5] == 1


def test_the_highest_level_is_taken_first():
    first = ("mov", 7, 5), ("movi", 6, 1), ("wsr", 6, INTENABLE), ("rfi", 3)
    engine, interrupts = make(("nop",), handlers={0x1C0: first, 0x340: COUNT})
    engine.special[INTENABLE] = 1 | 1 << 23
    for line in (0, 23):
        interrupts.set_line(line, True)
    engine.run(1000)
    assert (engine.registers[7], engine.registers[5], interrupts.taken) == (0, 1, 2)


def test_a_program_requests_an_interrupt_itself():
    handler = ("addi", 5, 5, 1), ("wsr", 3, INTCLEAR), ("rfe",)
    engine, interrupts = make(
        ("wsr", 3, INTENABLE), ("wsr", 3, INTERRUPT), ("nop",), handlers={0x340: handler}
    )
    engine.registers[3] = 1 << 7
    engine.run(1000)
    assert (engine.registers[5], interrupts.taken, engine.special[INTERRUPT]) == (1, 1, 0)


def test_xsr_exchanges_the_enabled_lines():
    engine, _ = make(("xsr", 3, INTENABLE), ("xsr", 4, PS))
    engine.registers[3:5] = [5, USER_MODE | 2]
    engine.special[INTENABLE] = 9
    engine.run(4)
    assert (engine.registers[3], engine.special[INTENABLE]) == (9, 5)
    assert (engine.registers[4], engine.special[PS] & 15) == (USER_MODE, 2)


def test_waiti_waits_for_the_end_of_the_run_unless_a_line_is_on():
    engine, interrupts = make(("waiti", 1), ("nop",), handlers={0x340: COUNT})
    engine.run(1000)
    assert engine.cycles[0] >= 1000
    engine, interrupts = make(
        ("waiti", 0), ("nop",), handlers={0x340: (*COUNT[:2], ("mov", 6, 5), ("rfe",))}
    )
    engine.special[INTENABLE] = 1
    interrupts.set_line(0, True)
    engine.run(10)
    assert engine.registers[6] == 1


@pytest.mark.parametrize(
    ("instruction", "cause", "address"),
    [(("ill",), 0, CODE), (("syscall",), 1, CODE), (("quou", 2, 3, 4), 6, CODE), (("movsp", 5, 1), 5, CODE),
     (("l32i", 2, 3, 0), 28, 0x1000), (("s32i", 2, 3, 0), 29, 0x1000), (("jx", 3), 20, 0x1000), (("l32i", 2, 6, 0), 9, DATA + 1)],
)  # fmt: skip
def test_a_fault_is_an_exception_with_its_cause(instruction, cause, address):
    engine, _ = make(instruction, handlers={0x340: (("rsr", 7, EXCCAUSE), ("waiti", 0))})
    engine.registers[3], engine.registers[6] = 0x1000, DATA + 1
    engine.run(500)
    assert engine.registers[7] == cause
    assert engine.special[EXCVADDR] == address
    assert engine.special[EPC + 1] == (0x1000 if cause == 20 else CODE)


def test_an_exception_in_a_handler_goes_to_the_double_exception_vector():
    engine, _ = make(
        ("ill",), handlers={0x340: (("nop",), ("ill",)), 0x3C0: (("rsr", 7, DEPC), ("waiti", 0))}
    )
    engine.run(500)
    assert engine.registers[7] == VECTORS + 0x343
    assert engine.special[EPC + 1] == CODE


def test_a_fault_without_a_cause_ends_the_run():
    engine, _ = make(("nop",))
    engine.hooks[CODE + 3] = lambda engine: None
    with pytest.raises(CpuFault, match="did not return"):
        engine.run(100)


def test_the_lx106_has_its_own_vectors_and_one_level():
    engine, interrupts = make(("nop",), handlers={0x50: COUNT}, windows=False, core=LX106)
    engine.special[INTENABLE] = 1 << 23
    interrupts.set_line(23, True)
    engine.run(1000)
    assert (engine.registers[5], engine.special[EXCCAUSE]) == (1, 4)


def test_without_interrupts_the_lines_of_a_block_are_the_same():
    program = ("rsil", 2, 3), ("wsr", 2, PS), ("addi", 3, 3, 1)
    code = Assembler(CODE)
    for instruction in program:
        code(*instruction)
    regions = [
        Region("data", DATA, bytearray(16)),
        Region("code", CODE, bytearray(code.assemble()) + bytearray(16)),
    ]
    engine = Engine(Xtensa(), Memory(regions, RecordingBus()), entry=CODE)
    assert engine.special == {}
    with pytest.raises(CpuFault, match="illegal instruction 0x0"):
        engine.run(100)
    assert engine.registers[3] == 1
    assert len(engine._blocks) == 1


def test_a_handler_that_faults_at_once_ends_the_program():
    engine, _ = make(("ill",))  # all vectors are zeros
    with pytest.raises(CpuFault, match="illegal instruction"):
        engine.run(1000)
    assert 2 * MAX_NESTED <= engine.cycles[0] < 1000
    assert engine.special[DEPC] == VECTORS + 0x3C0
