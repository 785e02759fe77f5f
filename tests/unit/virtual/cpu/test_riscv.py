"""The RISC-V engine against unicorn (an independent emulator), on random code; the rest by hand-written code."""

import random
import struct

import pytest
from tests.unit.virtual.cpu.programs import CODE, DATA, PERIPHERAL, make_engine

from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.riscv import RiscV

CASES, SOAK_CASES, BATCH = 3_000, 30_000, 10
EDGES = [
    0,
    1,
    2,
    3,
    31,
    32,
    0x7F,
    0x80,
    0xFF,
    0x8000,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0xFFFFFFFE,
]
DATA_MIDDLE = DATA + 0x2000
BASE = 8  # x8 points into the data, and nothing writes to it


def _value(rng):
    return rng.choice(EDGES) if rng.random() < 0.5 else rng.getrandbits(32)


def _target(rng):
    return rng.choice([n for n in range(32) if n != BASE])


def _register_form(rng):
    function, high = rng.randrange(8), rng.choice([0, 1, 32])
    high = high if high != 32 or function in (0, 5) else 0
    return (
        high << 25
        | rng.randrange(32) << 20
        | rng.randrange(32) << 15
        | function << 12
        | _target(rng) << 7
        | 0x33
    )


def _immediate_form(rng):
    function = rng.randrange(8)
    immediate = rng.getrandbits(12)
    if function in (1, 5):
        immediate = rng.randrange(32) | (rng.choice([0, 0x400]) if function == 5 else 0)
    return immediate << 20 | rng.randrange(32) << 15 | function << 12 | _target(rng) << 7 | 0x13


def _memory_form(rng):
    function = rng.choice([0, 1, 2, 4, 5])
    size = {0: 1, 1: 2, 2: 4, 4: 1, 5: 2}[function]
    offset = rng.randrange(-2048, 2047) // size * size & 0xFFF
    if rng.random() < 0.5:
        return offset << 20 | BASE << 15 | function << 12 | _target(rng) << 7 | 0x03
    function = min(function, 2)
    offset = offset // 4 * 4
    return (
        (offset >> 5) << 25
        | rng.randrange(32) << 20
        | BASE << 15
        | function << 12
        | (offset & 31) << 7
        | 0x23
    )


def _branch_form(rng):
    """A branch over the next instruction."""
    function = rng.choice([0, 1, 4, 5, 6, 7])
    return (
        rng.randrange(32) << 20 | rng.randrange(32) << 15 | function << 12 | 4 << 8 | 0x63
    )  # to pc + 8


def _upper_form(rng):
    return rng.getrandbits(20) << 12 | _target(rng) << 7 | rng.choice([0x37, 0x17])


def _atomic_form(rng):
    kind = rng.choice([0, 1, 4, 8, 12, 16, 20, 24, 28])
    return kind << 27 | rng.randrange(32) << 20 | BASE << 15 | 2 << 12 | _target(rng) << 7 | 0x2F


def _compressed_form(rng):
    """Two 16-bit instructions that neither jump nor touch memory beyond the base, as one word."""
    word = 0
    for shift in (0, 16):
        while True:
            target, second = (
                rng.choice([n for n in range(1, 32) if n not in (2, BASE)]),
                rng.randrange(1, 32),
            )
            near, other = rng.randrange(1, 8), rng.randrange(8)  # x9…x15: x8 is the base
            immediate = rng.randrange(1, 32)
            form = rng.choice(
                [
                    0 << 13 | target << 7 | immediate << 2 | 1,  # c.addi
                    2 << 13 | target << 7 | immediate << 2 | (rng.randrange(2) << 12) | 1,  # c.li
                    3 << 13 | target << 7 | immediate << 2 | (rng.randrange(2) << 12) | 1,  # c.lui
                    4 << 13
                    | rng.randrange(3) << 10
                    | near << 7
                    | immediate << 2
                    | 1,  # c.srli, c.srai, c.andi
                    4 << 13
                    | 3 << 10
                    | near << 7
                    | rng.randrange(4) << 5
                    | other << 2
                    | 1,  # c.sub, xor, or, and
                    0 << 13 | target << 7 | immediate << 2 | 2,  # c.slli
                    4 << 13 | target << 7 | second << 2 | 2,  # c.mv
                    4 << 13 | 1 << 12 | target << 7 | second << 2 | 2,  # c.add
                    2 << 13 | 0 << 7 | near << 2 | rng.randrange(8) << 10 | 0,  # c.lw from x8
                    6 << 13 | 0 << 7 | other << 2 | rng.randrange(8) << 10 | 0,  # c.sw to x8
                ]
            )
            break
        word |= form << shift
    return word


FORMS = [_register_form] * 4 + [_immediate_form] * 3 + [_memory_form] * 3 + [_branch_form] * 2
FORMS += [_upper_form, _atomic_form, _compressed_form, _compressed_form, _compressed_form]


def _run_unicorn(code, registers, data, isa):
    unicorn = pytest.importorskip("unicorn", reason="unicorn is not installed")
    from unicorn import riscv_const as names

    machine = unicorn.Uc(unicorn.UC_ARCH_RISCV, unicorn.UC_MODE_RISCV32)
    machine.mem_map(CODE, 0x1000)
    machine.mem_map(DATA, 0x4000)
    machine.mem_write(CODE, code)
    machine.mem_write(DATA, bytes(data))
    for number in range(1, 32):
        machine.reg_write(getattr(names, f"UC_RISCV_REG_X{number}"), registers[number])
    machine.emu_start(CODE, CODE + len(code))
    found = [
        machine.reg_read(getattr(names, f"UC_RISCV_REG_X{number}")) & 0xFFFFFFFF
        for number in range(32)
    ]
    return found, bytes(machine.mem_read(DATA, 0x4000))


def _compare(rng, isa):
    """Run random instructions on both; returns the registers and the memory that differ."""
    words = [rng.choice(FORMS)(rng) for _ in range(BATCH)]
    words.append(0x00000013)  # what the last branch may skip to
    code = b"".join(struct.pack("<I", word) for word in words)
    registers = [0, *(_value(rng) for _ in range(31))]
    registers[BASE] = DATA_MIDDLE
    data = bytearray(rng.randbytes(0x4000))
    expected, expected_data = _run_unicorn(code, registers, data, isa)
    engine = make_engine(isa, code + struct.pack("<I", 0x10500073) * 2)  # wfi: stops
    engine.registers[:] = registers
    engine.memory.regions[0].data[:] = data
    engine.run(10_000)
    found = bytes(engine.memory.regions[0].data)
    return engine.registers != expected or found != expected_data, words


def _count_mismatches(cases, isa, seed=1):
    rng = random.Random(seed)
    return sum(_compare(rng, isa)[0] for _ in range(cases // BATCH))


def test_random_code_does_what_unicorn_does():
    assert _count_mismatches(CASES, RiscV()) == 0


@pytest.mark.soak
def test_much_random_code_does_what_unicorn_does():
    assert _count_mismatches(SOAK_CASES, RiscV(), seed=20261122) == 0


class _WrongRiscV(RiscV):
    """Takes the remainder's sign from the divisor, as Python does."""

    @property
    def names(self):
        return super().names | {"rem": lambda a, b: a % b if b else a}


def test_the_comparison_sees_a_wrong_remainder():
    assert _count_mismatches(CASES, _WrongRiscV()) > 0


def _code(*words):
    return b"".join(struct.pack("<I", word) for word in words)


def test_a_loop_stops_when_its_time_is_up_and_goes_on_later():
    engine = make_engine(RiscV(), _code(0x00150513, 0xFFDFF06F))  # addi a0,a0,1; j -4
    engine.run(400)
    first = engine.registers[10]
    assert 90 <= first <= 110
    engine.run(800)
    assert engine.registers[10] >= 2 * first - 20


def test_an_unaligned_load_faults():
    engine = make_engine(RiscV(), _code(0x00152503))  # lw a0, 1(a0)
    engine.registers[10] = DATA
    with pytest.raises(CpuFault, match="unaligned load at 0x3ffe8001"):
        engine.run(100)


def test_a_peripheral_takes_words_only_and_costs_its_cycles():
    engine = make_engine(
        RiscV(), _code(0x00052583, 0x00B52223, 0x00054583)
    )  # lw a1,0(a0); sw a1,4(a0); lbu a1,0(a0)
    engine.registers[10] = PERIPHERAL
    engine.memory.bus.words[PERIPHERAL] = 77
    with pytest.raises(CpuFault, match="load of 1 bytes from a peripheral"):
        engine.run(1000)
    assert engine.memory.bus.writes == [(PERIPHERAL + 4, 77)]
    assert engine.memory.accesses == 2
    assert engine.cycles[0] >= 40


@pytest.mark.parametrize("word", [0x00000000, 0xFFFFFFFF, 0x00000073, 0x00100073, 0x0000402F])
def test_an_illegal_instruction_faults_at_its_address(word):
    engine = make_engine(RiscV(), _code(0x00000013, word))
    with pytest.raises(CpuFault) as caught:
        engine.run(100)
    assert caught.value.pc == CODE + 4


def test_a_store_to_rom_faults():
    engine = make_engine(RiscV(), _code(0x00A52023))  # sw a0, 0(a0)
    engine.registers[10] = 0x40000000
    with pytest.raises(CpuFault, match="read-only"):
        engine.run(100)


def test_changed_code_runs_after_a_fence():
    # sw a1, 12(a0) overwrites the fourth word; fence.i; the new word sets a2 to 5
    engine = make_engine(RiscV(), _code(0x00B52623, 0x0000100F, 0x00000013, 0x00100613, 0x10500073))
    engine.registers[10], engine.registers[11] = CODE, 0x00500613
    engine.run(1000)
    assert engine.registers[12] == 5


def test_a_rom_function_is_a_hook():
    def double(engine: Engine) -> None:
        engine.registers[10] *= 2
        engine.pc = engine.registers[1]

    engine = make_engine(
        RiscV(), _code(0x000300E7, 0x10500073), hooks={0x40000010: double}
    )  # jalr ra, 0(t1)
    engine.registers[10], engine.registers[6] = 21, 0x40000010
    engine.run(1000)
    assert engine.registers[10] == 42


def test_the_cycle_counter_can_be_read():
    engine = make_engine(RiscV(), _code(0x00000013, 0xB0002573, 0x10500073))  # nop; csrr a0, mcycle
    engine.cycles[0] = 1000
    engine.run(5000)
    assert 1000 <= engine.registers[10] < 1100


def test_a_reservation_is_used_up_by_the_first_conditional_store():
    lr, sc = 0x100525AF, 0x18B52633  # lr.w a1,(a0)
    sc = 0x18D5262F  # sc.w a2, a3, (a0)
    engine = make_engine(RiscV(), _code(lr, sc, 0x18D5272F, 0x10500073))  # …; sc.w a4, a3, (a0)
    engine.registers[10], engine.registers[13] = DATA, 9
    engine.run(1000)
    assert (engine.registers[12], engine.registers[14]) == (0, 1)
    assert engine.memory.regions[0].data[0] == 9
