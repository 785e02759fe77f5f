"""RV32C: 16-bit instructions → the 32-bit ones that they stand for. Source: the RISC-V unprivileged specification."""

from __future__ import annotations

from espwire.virtual.cpu.engine import sign_extend
from espwire.virtual.cpu.memory import CpuFault

SP = 2
JALR_RA, JALR_ZERO = 1 << 7 | 0x67, 0x67
EBREAK = 0x00100073


def expand(c: int, pc: int) -> int:
    """The long form of the 16-bit instruction ``c``.

    :raises CpuFault: there is none, or only one with floating point or 64 bits
    """
    word = (_quadrant0, _quadrant1, _quadrant2)[c & 3](c)
    if word is None:
        raise CpuFault(f"illegal instruction {c:#06x}", pc, pc)
    return word


def _bits(c: int, *fields: tuple[int, int, int]) -> int:
    """Put bit fields together: (lowest bit in ``c``, how many, where they go)."""
    return sum((c >> low & (1 << count) - 1) << to for low, count, to in fields)


def _i(op: int, target: int, function: int, source: int, immediate: int) -> int:
    return (immediate & 0xFFF) << 20 | source << 15 | function << 12 | target << 7 | op


def _r(high: int, second: int, first: int, function: int, target: int) -> int:
    return high << 25 | second << 20 | first << 15 | function << 12 | target << 7 | 0x33


def _s(function: int, base: int, source: int, immediate: int) -> int:
    return (immediate >> 5 & 127) << 25 | source << 20 | base << 15 | function << 12 | (immediate & 31) << 7 | 0x23


def _b(function: int, source: int, offset: int) -> int:
    high = (offset >> 12 & 1) << 31 | (offset >> 5 & 63) << 25
    return high | source << 15 | function << 12 | (offset >> 1 & 15) << 8 | (offset >> 11 & 1) << 7 | 0x63


def _j(target: int, offset: int) -> int:
    parts = (offset >> 20 & 1) << 31 | (offset >> 1 & 0x3FF) << 21 | (offset >> 11 & 1) << 20
    return parts | (offset >> 12 & 0xFF) << 12 | target << 7 | 0x6F


def _quadrant0(c: int) -> int | None:
    target, base = 8 + (c >> 2 & 7), 8 + (c >> 7 & 7)
    offset = _bits(c, (10, 3, 3), (6, 1, 2), (5, 1, 6))
    match c >> 13:
        case 0:
            amount = _bits(c, (5, 1, 3), (6, 1, 2), (7, 4, 6), (11, 2, 4))
            return _i(0x13, target, 0, SP, amount) if amount else None
        case 2:
            return _i(0x03, target, 2, base, offset)
        case 6:
            return _s(2, base, target, offset)
    return None


def _quadrant1(c: int) -> int | None:
    target, base = c >> 7 & 31, 8 + (c >> 7 & 7)
    immediate = sign_extend(_bits(c, (2, 5, 0), (12, 1, 5)), 6)
    match c >> 13:
        case 0:
            return _i(0x13, target, 0, target, immediate)
        case 1 | 5 as kind:
            fields = ((2, 1, 5), (3, 3, 1), (6, 1, 7), (7, 1, 6), (8, 1, 10), (9, 2, 8), (11, 1, 4), (12, 1, 11))
            return _j(1 if kind == 1 else 0, sign_extend(_bits(c, *fields), 12))
        case 2:
            return _i(0x13, target, 0, 0, immediate)
        case 3 if target == SP:
            amount = sign_extend(_bits(c, (2, 1, 5), (3, 2, 7), (5, 1, 6), (6, 1, 4), (12, 1, 9)), 10)
            return _i(0x13, SP, 0, SP, amount) if amount else None
        case 3:
            return (immediate & 0xFFFFF) << 12 | target << 7 | 0x37 if immediate else None
        case 4:
            return _arithmetic(c, base, immediate)
        case kind:
            near = ((2, 1, 5), (3, 2, 1), (5, 2, 6), (10, 2, 3), (12, 1, 8))
            return _b(kind - 6, base, sign_extend(_bits(c, *near), 9))


def _arithmetic(c: int, target: int, immediate: int) -> int | None:
    kind = c >> 10 & 3
    if kind < 2:  # srli, srai; a shift by 32 or more is for 64 bits
        return None if c >> 12 & 1 else _i(0x13, target, 5, target, (c >> 2 & 31) | (0x400 if kind else 0))
    if kind == 2:
        return _i(0x13, target, 7, target, immediate)
    if c >> 12 & 1:
        return None
    high, function = ((32, 0), (0, 4), (0, 6), (0, 7))[c >> 5 & 3]
    return _r(high, 8 + (c >> 2 & 7), target, function, target)


def _quadrant2(c: int) -> int | None:
    target, second = c >> 7 & 31, c >> 2 & 31
    match c >> 13:
        case 0:
            return None if c >> 12 & 1 else _i(0x13, target, 1, target, second)
        case 2:
            return _i(0x03, target, 2, SP, _bits(c, (2, 2, 6), (4, 3, 2), (12, 1, 5))) if target else None
        case 4 if not c >> 12 & 1:
            if second:
                return _r(0, second, 0, 0, target)
            return target << 15 | JALR_ZERO if target else None
        case 4:
            if second:
                return _r(0, second, target, 0, target)
            return target << 15 | JALR_RA if target else EBREAK
        case 6:
            return _s(2, SP, second, _bits(c, (7, 2, 6), (9, 4, 2)))
    return None
