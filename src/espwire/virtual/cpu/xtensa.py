"""The Xtensa core instruction set, translated to Python (see engine.py): call0 ABI, density, MUL16, MULL, NSA.

That is the lx106 of the ESP8266. The other chips have register windows (xtensa_windows.py), loops (xtensa_loops.py) and
more instructions (xtensa_options.py); interrupts (xtensa_interrupts.py) are an option. No floating point.
Source: the Xtensa ISA reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from espwire.virtual.cpu import xtensa_interrupts, xtensa_loops, xtensa_options, xtensa_windows
from espwire.virtual.cpu.engine import (
    MASK,
    SIGN,
    Block,
    load_lines,
    ordered,
    sign_extend,
    signed,
    store_lines,
)
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa_word import CCOUNT, PS, SAR, Word

SAR_BITS = 63
SIGNED_CONSTANTS = (-1, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256)
UNSIGNED_CONSTANTS = (32768, 65536, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32, 64, 128, 256)

Writer = Callable[[Word, Block], None]


class Xtensa:
    """The instruction set of the ESP8266, or with ``windows`` that of ESP32, ESP32-S2 and ESP32-S3.

    ``interrupts``: for an engine with ``xtensa_interrupts.Interrupts``.
    """

    longest = 3
    stack = "r[1]"

    def __init__(self, *, windows: bool = False, interrupts: bool = False) -> None:
        self.registers = 64 if windows else 16
        self.special: Mapping[int, int] = xtensa_windows.RESET if windows or interrupts else {}
        self._loops = xtensa_loops.Loops() if windows else None
        added: list[tuple[int, int, Writer]] = []
        if windows:
            added += (*xtensa_windows.WRITERS, *xtensa_loops.WRITERS, *xtensa_options.WRITERS)
        if interrupts:
            added += xtensa_interrupts.WRITERS
        if windows or interrupts:
            added += xtensa_options.PROTECTION
        self._added = tuple(added)

    @property
    def names(self) -> Mapping[str, object]:
        """Functions that the lines use."""
        names = {"nsa": _nsa, "divide": xtensa_options.divide, **xtensa_windows.NAMES}
        if self._loops is not None:
            names["loop"] = self._loops.start
        return names

    def translate(self, code: bytes, pc: int, block: Block) -> int:
        """Append the instruction at ``pc``; returns its size in bytes."""
        word = int.from_bytes(code[:3], "little")
        size = 2 if word & 15 >= 8 else 3
        if len(code) < size:
            raise CpuFault("code runs out of its memory", pc, pc)
        fields = Word(word, pc, size)
        writer = self._find_writer(word)
        if writer is None:
            raise fields.illegal()
        writer(fields, block)
        if self._loops is not None:
            self._loops.close(fields, block)
        return size

    def _find_writer(self, word: int) -> Writer | None:
        for mask, value, writer in self._added:
            if word & mask == value:
                return writer
        return _BY_OP0.get(word & 15)


# --- two-byte instructions ---


def _l32i_n(i: Word, block: Block) -> None:
    block.lines += load_lines(i.at, i.as_, i.r * 4, 32)


def _s32i_n(i: Word, block: Block) -> None:
    block.lines += store_lines(i.at, i.as_, i.r * 4, 32)


def _add_n(i: Word, block: Block) -> None:
    block.out(f"{i.ar} = ({i.as_} + {i.at}) & M")


def _addi_n(i: Word, block: Block) -> None:
    block.out(f"{i.ar} = ({i.as_} + {i.t or -1}) & M")


def _movi_branch_n(i: Word, block: Block) -> None:
    if i.t < 8:
        value = (i.t & 7) << 4 | i.r
        block.out(f"{i.as_} = {(value - 128 if value >= 96 else value) & MASK:#x}")
        return
    block.condition = f"{i.as_} {'!=' if i.t & 4 else '=='} 0"
    block.jump = str(i.pc + 4 + ((i.t & 3) << 4 | i.r))


def _mov_return_n(i: Word, block: Block) -> None:
    if i.r == 0:
        block.out(f"{i.at} = {i.as_}")
    elif i.r == 15 and i.t == 0:
        block.jump = "r[0]"
    elif i.r == 15 and i.t == 3:
        block.out("pass")
    else:
        raise i.illegal()


# --- three-byte instructions ---


def _qrst(i: Word, block: Block) -> None:
    if i.op1 in (4, 5):  # extui
        block.out(f"{i.ar} = {i.at} >> {i.s | (i.op1 & 1) << 4} & {(2 << i.op2) - 1:#x}")
        return
    group = {0: _rst0, 1: _rst1, 2: _rst2, 3: _rst3}.get(i.op1)
    if group is None:
        raise i.illegal()
    group(i, block)


def _rst0(i: Word, block: Block) -> None:
    if i.op2 == 0:
        _st0(i, block)
    elif i.op2 == 4:
        _st1(i, block)
    elif i.op2 == 6 and i.s < 2:
        absolute = f"{i.at} if {i.at} < {SIGN:#x} else -{i.at} & M"
        block.out(f"{i.ar} = {absolute}" if i.s else f"{i.ar} = -{i.at} & M")
    else:
        expression = {
            1: f"{i.as_} & {i.at}",
            2: f"{i.as_} | {i.at}",
            3: f"{i.as_} ^ {i.at}",
            8: f"({i.as_} + {i.at}) & M",
            9: f"(({i.as_} << 1) + {i.at}) & M",
            10: f"(({i.as_} << 2) + {i.at}) & M",
            11: f"(({i.as_} << 3) + {i.at}) & M",
            12: f"({i.as_} - {i.at}) & M",
            13: f"(({i.as_} << 1) - {i.at}) & M",
            14: f"(({i.as_} << 2) - {i.at}) & M",
            15: f"(({i.as_} << 3) - {i.at}) & M",
        }.get(i.op2)
        if expression is None:
            raise i.illegal()
        block.out(f"{i.ar} = {expression}")


def _st0(i: Word, block: Block) -> None:
    """Jumps through registers, barriers, rsil."""
    m, n = i.t >> 2, i.t & 3
    if i.r == 0 and m == 2 and n in (0, 2):  # ret, jx
        block.jump = i.as_ if n == 2 else "r[0]"
    elif i.r == 0 and i.t == 12:  # callx0
        block.out(f"t = {i.as_}")
        block.out(f"r[0] = {i.next}")
        block.jump = "t"
    elif i.r == 2:
        if i.t == 0:  # isync: code may have changed
            block.out("flush()")
            block.jump = str(i.next)
        else:
            block.out("pass")  # rsync, esync, dsync, memw, extw, nop
    elif i.r == 6:
        block.out(f"{i.at}, s[{PS}] = s.get({PS}, 0), s.get({PS}, 0) & ~15 | {i.s}")
    elif i.r == 7:  # waiti: only the clock wakes it
        block.out("c[0] = max(c[0], lim[0])")
        block.jump = str(i.next)
    else:
        raise i.illegal()


def _st1(i: Word, block: Block) -> None:
    """Shift amounts, and counting leading bits."""
    line = {
        0: f"s[{SAR}] = {i.as_} & 31",
        1: f"s[{SAR}] = 32 - ({i.as_} & 31)",
        2: f"s[{SAR}] = ({i.as_} & 3) * 8",
        3: f"s[{SAR}] = 32 - ({i.as_} & 3) * 8",
        4: f"s[{SAR}] = {i.s | (i.t & 1) << 4}",
        14: f"{i.at} = nsa({i.as_})",
        15: f"{i.at} = 32 - {i.as_}.bit_length()",
    }.get(i.r)
    if line is None:
        raise i.illegal()
    block.out(line)


def _rst1(i: Word, block: Block) -> None:
    """Shifts, 16-bit multiplication, xsr."""
    amount = f"s.get({SAR}, 0)"
    low = "(({0} & 0xFFFF ^ 0x8000) - 0x8000)"
    if i.op2 == 6:
        number = i.special
        block.out(f"{i.at}, s[{number}] = {_special(number)}, {_cut(number, i.at)}")
        return
    expression = {
        0: f"({i.as_} << {32 - i.t}) & M",
        1: f"({i.as_} << {16 - i.t}) & M",
        2: f"{signed(i.at)} >> {i.s} & M",
        3: f"{signed(i.at)} >> {i.s | 16} & M",
        4: f"{i.at} >> {i.s}",
        8: f"(({i.as_} << 32 | {i.at}) >> {amount}) & M",
        9: f"{i.at} >> {amount}",
        10: f"({i.as_} << (32 - {amount} & {SAR_BITS})) & M",
        11: f"{signed(i.at)} >> {amount} & M",
        12: f"({i.as_} & 0xFFFF) * ({i.at} & 0xFFFF)",
        13: f"{low.format(i.as_)} * {low.format(i.at)} & M",
    }.get(i.op2)
    if expression is None:
        raise i.illegal()
    block.out(f"{i.ar} = {expression}")


def _rst2(i: Word, block: Block) -> None:
    """32-bit multiplication (mull)."""
    if i.op2 != 8:
        raise i.illegal()
    block.out(f"{i.ar} = {i.as_} * {i.at} & M")


def _rst3(i: Word, block: Block) -> None:
    """Special registers, conditional moves."""
    number = i.special
    if i.op2 == 0:
        block.out(f"{i.at} = {_special(number)}")
    elif i.op2 == 1:
        block.out(f"s[{number}] = {_cut(number, i.at)}")
    elif 8 <= i.op2 <= 11:
        test = ("== 0", "!= 0", f">= {SIGN:#x}", f"< {SIGN:#x}")[i.op2 - 8]
        block.out(f"if {i.at} {test}: {i.ar} = {i.as_}")
    else:
        raise i.illegal()


def _cut(number: int, value: str) -> str:
    """The bits of a value that a special register keeps."""
    return f"{value} & {SAR_BITS}" if number == SAR else value


def _special(number: int) -> str:
    return "c[0] & M" if number == CCOUNT else f"s.get({number}, 0)"


def _l32r(i: Word, block: Block) -> None:
    address = (i.pc + 3 & ~3) + ((i.word >> 8 | ~0xFFFF) << 2)
    block.out(f"{i.at} = L32({address & MASK:#x})")


def _lsai(i: Word, block: Block) -> None:
    """Loads, stores, addi, movi."""
    loads = {0: (8, False), 1: (16, False), 2: (32, False), 9: (16, True)}
    stores = {4: 8, 5: 16, 6: 32}
    if i.r in loads:
        bits, signed = loads[i.r]
        block.lines += load_lines(i.at, i.as_, i.byte * (bits // 8), bits, signed=signed)
    elif i.r in stores:
        bits = stores[i.r]
        block.lines += store_lines(i.at, i.as_, i.byte * (bits // 8), bits)
    elif i.r == 10:
        block.out(f"{i.at} = {sign_extend(i.s << 8 | i.byte, 12) & MASK:#x}")
    elif i.r == 12:
        block.out(f"{i.at} = ({i.as_} + {sign_extend(i.byte, 8)}) & M")
    elif i.r == 13:
        block.out(f"{i.at} = ({i.as_} + {sign_extend(i.byte, 8) << 8}) & M")
    else:
        raise i.illegal()


def _call(i: Word, block: Block) -> None:
    if i.t & 3:
        raise i.illegal()
    block.out(f"r[0] = {i.next}")
    block.jump = str((i.pc & ~3) + (sign_extend(i.word >> 6, 18) << 2) + 4)


def _si(i: Word, block: Block) -> None:
    """Jumps, and branches that compare with a constant."""
    n, m = i.t & 3, i.t >> 2
    near = i.pc + 4 + sign_extend(i.byte, 8)
    if n == 0:
        block.jump = str(i.pc + 4 + sign_extend(i.word >> 6, 18))
    elif n == 1:
        test = ("== 0", "!= 0", f">= {SIGN:#x}", f"< {SIGN:#x}")[m]
        block.condition, block.jump = (
            f"{i.as_} {test}",
            str(i.pc + 4 + sign_extend(i.word >> 12, 12)),
        )
    elif n == 2:
        constant = SIGNED_CONSTANTS[i.r] & MASK
        plain = f"{i.as_} {'!=' if m else '=='} {constant:#x}"
        compared = f"{ordered(i.as_)} {'>=' if m & 1 else '<'} {constant ^ SIGN:#x}"
        block.condition, block.jump = plain if m < 2 else compared, str(near)
    elif m >= 2:
        block.condition = f"{i.as_} {'>=' if m & 1 else '<'} {UNSIGNED_CONSTANTS[i.r]}"
        block.jump = str(near)
    else:
        raise i.illegal()


def _branch(i: Word, block: Block) -> None:
    """Branches that compare two registers, or test bits."""
    a, b = i.as_, i.at
    block.condition = (
        f"not {a} & {b}",
        f"{a} == {b}",
        f"{ordered(a)} < {ordered(b)}",
        f"{a} < {b}",
        f"not ~{a} & {b}",
        f"not {a} >> ({b} & 31) & 1",
        f"not {a} & {1 << i.t:#x}",
        f"not {a} & {1 << 16 + i.t:#x}",
        f"{a} & {b}",
        f"{a} != {b}",
        f"{ordered(a)} >= {ordered(b)}",
        f"{a} >= {b}",
        f"~{a} & {b}",
        f"{a} >> ({b} & 31) & 1",
        f"{a} & {1 << i.t:#x}",
        f"{a} & {1 << 16 + i.t:#x}",
    )[i.r]
    block.jump = str(i.pc + 4 + sign_extend(i.byte, 8))


_BY_OP0: dict[int, Writer] = {
    0: _qrst,
    1: _l32r,
    2: _lsai,
    5: _call,
    6: _si,
    7: _branch,
    8: _l32i_n,
    9: _s32i_n,
    10: _add_n,
    11: _addi_n,
    12: _movi_branch_n,
    13: _mov_return_n,
}


def _nsa(value: int) -> int:
    """Normalisation shift amount: how far a value can be shifted left without changing its sign."""
    return 31 - (value ^ MASK if value >> 31 else value).bit_length()
