"""Xtensa cases that the comparison with the emulator rarely contains: extreme shifts, tables of constants, the lx106."""

import struct

import pytest
from tests.unit.virtual.cpu.programs import CODE, DATA, make_engine

from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa import Xtensa

WAIT = b"\x00\x70\x00"  # waiti 0
SAR = 3
ALL = 0xFFFFFFFF


def run(code, *, registers=()):
    engine = make_engine(Xtensa(), code + WAIT)
    for number, value in dict(registers).items():
        engine.registers[number] = value
    engine.run(5_000)
    return engine


def qrst(op2, op1, r, s, t):
    return struct.pack("<I", op2 << 20 | op1 << 16 | r << 12 | s << 8 | t << 4)[:3]


def shifted(op2, s, t, amount):
    """Result of a shift by SAR of a3 (s) and a4 (t), with SAR set by WSR."""
    code = qrst(1, 3, 0, SAR, 5) + qrst(op2, 1, 2, 3, 4)
    return run(code, registers={3: s, 4: t, 5: amount}).registers[2]


SRC, SRL, SLL, SRA = 8, 9, 10, 11


@pytest.mark.parametrize(
    ("op2", "s", "t", "amount", "expected"),
    [
        (SLL, 0x80000001, 0, 32, 0x80000001), (SLL, 3, 0, 0, 0), (SLL, 3, 0, 1, 0x80000000), (SLL, ALL, 0, 40, 0),
        (SLL, ALL, 0, 63, 0), (SRL, 0, ALL, 32, 0), (SRL, 0, ALL, 31, 1), (SRL, 0, ALL, 0, ALL), (SRL, 0, ALL, 45, 0),
        (SRA, 0, 0x80000000, 32, ALL), (SRA, 0, 0x80000000, 31, ALL), (SRA, 0, 0x7FFFFFFF, 40, 0),
        (SRC, 0x11112222, 0x33334444, 16, 0x22223333), (SRC, 0x11112222, 0x33334444, 0, 0x33334444),
        (SRC, 0x11112222, 0x33334444, 32, 0x11112222), (SRC, 0x11112222, 0x33334444, 48, 0x1111),
    ],
)  # fmt: skip
def test_shifts_by_sar_at_its_ends(op2, s, t, amount, expected):
    assert shifted(op2, s, t, amount) == expected


def test_sar_has_six_bits():
    engine = run(
        qrst(1, 3, 0, SAR, 5) + qrst(0, 3, 0, SAR, 2), registers={5: ALL}
    )  # wsr a5, sar; rsr a2, sar
    assert engine.registers[2] == 63


@pytest.mark.parametrize(
    ("r", "t", "value", "sar"),
    [
        (0, 0, 33, 1),
        (1, 0, 33, 31),
        (1, 0, 0, 32),
        (2, 0, 3, 24),
        (2, 0, 4, 0),
        (3, 0, 1, 24),
        (3, 0, 0, 32),
    ],
)  # ssr, ssl, ssa8l, ssa8b
def test_shift_amounts_come_from_registers(r, t, value, sar):
    assert run(qrst(4, 0, r, 5, t), registers={5: value}).special[SAR] == sar


@pytest.mark.parametrize("amount", [0, 15, 16, 31])
def test_ssai_has_five_bits(amount):
    assert run(qrst(4, 0, 4, amount & 15, amount >> 4)).special[SAR] == amount


@pytest.mark.parametrize("amount", [1, 15, 16, 17, 31])
def test_slli_and_srai_and_srli(amount):
    left = 32 - amount
    code = qrst(left >> 4, 1, 2, 3, left & 15) + qrst(2 | amount >> 4, 1, 4, amount & 15, 3)
    engine = run(code, registers={3: 0x80000001})
    assert engine.registers[2] == 0x80000001 << amount & ALL
    assert engine.registers[4] == (0x80000001 - (1 << 32) >> amount) & ALL
    if amount < 16:
        assert (
            run(qrst(4, 1, 2, amount, 3), registers={3: 0x80000001}).registers[2]
            == 0x80000001 >> amount
        )


@pytest.mark.parametrize(
    ("shift", "bits"), [(0, 1), (0, 16), (15, 16), (16, 16), (31, 1), (20, 12)]
)
def test_extui_cuts_bits_out(shift, bits):
    engine = run(qrst(bits - 1, 4 | shift >> 4, 2, shift & 15, 3), registers={3: 0xA5C3F00F})
    assert engine.registers[2] == 0xA5C3F00F >> shift & (1 << bits) - 1


@pytest.mark.parametrize(("value", "zeros"), [(0, 32), (1, 31), (ALL, 0), (0x8000, 16)])
def test_nsau_counts_leading_zeros(value, zeros):
    assert run(qrst(4, 0, 15, 3, 2), registers={3: value}).registers[2] == zeros


@pytest.mark.parametrize(
    ("op2", "op1", "expected"),
    [
        (12, 1, 0xFFFF * 0x8000),
        (13, 1, 0x8000),
        (8, 2, 0x1FFFF * 0xFFFF8000 & ALL),
    ],  # mul16u, mul16s, mull
)
def test_products(op2, op1, expected):
    assert (
        run(qrst(op2, op1, 2, 3, 4), registers={3: 0x1FFFF, 4: 0xFFFF8000}).registers[2] == expected
    )


@pytest.mark.parametrize("value", [-32, -1, 0, 1, 95])
def test_movi_n_reaches_from_minus_32_to_95(value):
    code = struct.pack("<H", (value & 15) << 12 | 2 << 8 | (value >> 4 & 7) << 4 | 0xC)
    assert run(code).registers[2] == value & ALL


@pytest.mark.parametrize(
    ("field", "constant"), [(0, -1), (1, 1), (9, 10), (10, 12), (14, 128), (15, 256)]
)
def test_branches_know_their_signed_constants(field, constant):
    code = struct.pack("<I", 3 << 16 | field << 12 | 2 << 8 | 2 << 4 | 6)[
        :3
    ]  # beqi a2, constant, over the next
    code += b"\x1c\x03" * 2 + b"\x3d\xf0"  # movi.n a3, 16; twice; nop.n
    assert run(code, registers={2: constant & ALL}).registers[3] == 0
    assert run(code, registers={2: constant + 1 & ALL}).registers[3] == 16


@pytest.mark.parametrize(("field", "constant"), [(0, 32768), (1, 65536), (2, 2), (15, 256)])
def test_branches_know_their_unsigned_constants(field, constant):
    code = struct.pack("<I", 3 << 16 | field << 12 | 2 << 8 | 3 << 6 | 3 << 4 | 6)[
        :3
    ]  # bgeui a2, constant
    code += b"\x1c\x03" * 2 + b"\x3d\xf0"
    assert run(code, registers={2: constant}).registers[3] == 0
    assert run(code, registers={2: constant - 1}).registers[3] == 16


@pytest.mark.parametrize("bit", [0, 1, 15, 16, 31])
def test_bits_are_counted_from_the_lowest(bit):
    code = struct.pack("<I", 3 << 16 | (14 | bit >> 4) << 12 | 2 << 8 | (bit & 15) << 4 | 7)[
        :3
    ]  # bbsi a2, bit
    code += b"\x1c\x03" * 2 + b"\x3d\xf0"
    assert run(code, registers={2: 1 << bit}).registers[3] == 0
    assert run(code, registers={2: ALL ^ 1 << bit}).registers[3] == 16


def test_l32r_reaches_back_from_the_next_word():
    engine = make_engine(
        Xtensa(), b"\x78\x56\x34\x12" + b"\x3d\xf0" + b"\x21\xfe\xff" + WAIT
    )  # nop.n; l32r a2, -2
    engine.pc = CODE + 4
    engine.run(100)
    assert engine.registers[2] == 0x12345678


def test_rsil_gives_the_old_level_and_sets_the_new():
    engine = run(qrst(0, 0, 6, 5, 2) + qrst(0, 0, 6, 3, 3))  # rsil a2, 5; rsil a3, 3
    assert (engine.registers[2], engine.registers[3], engine.special[230]) == (0, 5, 3)


@pytest.mark.parametrize(
    "code",
    [
        b"\x00\x00\x00",  # ill
        b"\x36\x41\x00",  # entry
        b"\x1d\xf0",  # retw.n
        b"\x6d\xf0",  # ill.n
        b"\x00\x50\x00",  # syscall
        b"\x00\x41\x00",  # break
        qrst(2, 3, 2, 3, 4),  # sext
        qrst(3, 3, 2, 3, 4),  # clamps
        qrst(6, 2, 2, 3, 4),  # saltu
        qrst(12, 2, 2, 3, 4),  # quou
        b"\x76\x82\x05",  # loop
        b"\x0e\x00",  # nothing at all
    ],
)
def test_an_unsupported_instruction_faults_at_its_address(code):
    with pytest.raises(CpuFault, match="illegal instruction") as caught:
        run(code)
    assert caught.value.pc == CODE


@pytest.mark.parametrize("code", [*(qrst(op2, 3, 2, 3, 4) for op2 in range(4, 8)), b"\xe0\x02\x00"])
def test_the_lx106_has_neither_minimum_nor_windows(code):
    with pytest.raises(CpuFault, match="illegal instruction"):
        run(code, registers={2: CODE + 3})


def test_unaligned_words_fault_in_either_direction():
    for kind in (2, 6):
        with pytest.raises(CpuFault, match="unaligned"):
            run(struct.pack("<I", kind << 12 | 3 << 8 | 4 << 4 | 2)[:3], registers={3: DATA + 2})
