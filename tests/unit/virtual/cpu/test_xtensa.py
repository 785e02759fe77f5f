"""The Xtensa engine on hand-written code; tools/fuzz_xtensa.py compares it with qemu-system-xtensa."""

import struct

import pytest
from tests.unit.virtual.cpu.programs import CODE, DATA, PERIPHERAL, make_engine

from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa import Xtensa

WAIT = b"\x00\x70\x00"  # waiti 0: nothing more to do


def _run(code, *, registers=(), hooks=None, windows=False):
    engine = make_engine(Xtensa(windows=windows), code + WAIT, hooks=hooks)
    for number, value in dict(registers).items():
        engine.registers[number] = value
    engine.run(5_000)
    return engine


def _qrst(op2, op1, r, s, t):
    return struct.pack("<I", op2 << 20 | op1 << 16 | r << 12 | s << 8 | t << 4)[:3]


def _lsai(r, s, t, immediate):
    return struct.pack("<I", (immediate & 0xFF) << 16 | r << 12 | s << 8 | t << 4 | 2)[:3]


@pytest.mark.parametrize(
    ("op2", "op1", "expected"),
    [
        (8, 0, 0x80000003 + 5),  # add
        (9, 0, (2 * 0x80000003 + 5) & 0xFFFFFFFF),  # addx2
        (12, 0, 0x80000003 - 5),  # sub
        (15, 0, (8 * 0x80000003 - 5) & 0xFFFFFFFF),  # subx8
        (1, 0, 0x80000003 & 5),
        (2, 0, 0x80000003 | 5),
        (3, 0, 0x80000003 ^ 5),
        (8, 2, 0x8000000F),  # mull
        (12, 1, 15),  # mul16u
        (4, 3, 0x80000003),  # min, signed
        (6, 3, 5),  # minu
        (5, 3, 5),  # max
        (7, 3, 0x80000003),  # maxu
    ],
)
def test_arithmetic_on_two_registers(op2, op1, expected):
    engine = _run(_qrst(op2, op1, 2, 3, 4), registers={3: 0x80000003, 4: 5}, windows=op1 == 3)
    assert engine.registers[2] == expected


def test_shifts_take_their_amount_from_sar():
    left = _run(
        _qrst(4, 0, 1, 5, 0) + _qrst(10, 1, 2, 3, 0), registers={3: 0x80000001, 5: 4}
    )  # ssl a5; sll a2, a3
    assert left.registers[2] == 0x10
    right = _run(
        _qrst(4, 0, 0, 5, 0) + _qrst(11, 1, 2, 0, 3), registers={3: 0x80000000, 5: 4}
    )  # ssr a5; sra a2, a3
    assert right.registers[2] == 0xF8000000


def test_loads_and_stores_of_each_width():
    code = _lsai(6, 3, 4, 1) + _lsai(0, 3, 5, 4) + _lsai(9, 3, 6, 2) + _lsai(1, 3, 7, 2)
    engine = _run(code, registers={3: DATA, 4: 0x8000FFFE})
    assert engine.registers[5] == 0xFE
    assert engine.registers[6] == 0xFFFFFFFE & 0xFFFFFFFF
    assert engine.registers[7] == 0xFFFE


def test_code_memory_takes_words_only():
    with pytest.raises(CpuFault, match="supports words only"):
        _run(_lsai(0, 3, 5, 0), registers={3: CODE})


def test_a_byte_store_to_a_peripheral_faults_and_a_word_does_not():
    engine = _run(_lsai(6, 3, 4, 0), registers={3: PERIPHERAL, 4: 7})
    assert engine.memory.bus.writes == [(PERIPHERAL, 7)]
    with pytest.raises(CpuFault, match="store of 1 bytes to a peripheral"):
        _run(_lsai(4, 3, 4, 0), registers={3: PERIPHERAL})


def test_the_cycle_counter_is_a_special_register():
    engine = make_engine(Xtensa(), _qrst(0, 3, 14, 10, 2) + WAIT)  # rsr a2, ccount
    engine.cycles[0] = 777
    engine.run(5_000)
    assert 777 <= engine.registers[2] < 900


@pytest.mark.parametrize(
    ("value", "shift"),
    [(0, 31), (1, 30), (0xFFFFFFFF, 31), (0x80000000, 0), (0x00010000, 14), (0x7FFFFFFF, 0)],
)
def test_nsa_counts_the_sign_bits(value, shift):
    engine = _run(_qrst(4, 0, 14, 3, 2), registers={3: value})
    assert engine.registers[2] == shift


def test_a_branch_loop_counts_down():
    code = b"\x3b\x22"  # addi.n a2, a2, 3
    code = struct.pack("<H", 0x000B | 2 << 12 | 2 << 8 | 0 << 4)  # addi.n a2, a2, -1
    code += struct.pack("<I", (0x100 - 6) << 16 | 0 << 12 | 2 << 8 | 1 << 6 | 2 << 4 | 6)[
        :3
    ]  # bnei a2, -1, back
    engine = _run(code, registers={2: 99})
    assert engine.registers[2] == 0xFFFFFFFF
    assert engine.instructions >= 200
