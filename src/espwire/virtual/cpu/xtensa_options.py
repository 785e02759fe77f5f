"""Instructions that LX6 and LX7 have and the lx106 does not, besides register windows and loops.

Division, 64-bit products, MIN and MAX, sign extension, conditional store, loads and stores of several processors, user
registers. Caches and memory protection are not modelled: their instructions do nothing. No floating point.
"""

from __future__ import annotations

from espwire.virtual.cpu.engine import MASK, SIGN, Block, load_lines, signed, store_lines
from espwire.virtual.cpu.xtensa_word import SCOMPARE1, Word

USER_REGISTERS = 256  # their numbers in ``special`` begin here


def _min_max(i: Word, block: Block) -> None:
    keys = f"({i.as_}, {i.at})" if i.op2 > 5 else f"({i.as_}, {i.at}, key=lambda n: n ^ {SIGN:#x})"
    block.out(f"{i.ar} = {'max' if i.op2 & 1 else 'min'}{keys}")


def _multiply_high(i: Word, block: Block) -> None:
    a, b = (i.as_, i.at) if i.op2 == 10 else (signed(i.as_), signed(i.at))
    block.out(f"{i.ar} = {a} * {b} >> 32 & M")


def _compare(i: Word, block: Block) -> None:
    a, b = (i.as_, i.at) if i.op2 == 6 else (signed(i.as_), signed(i.at))
    block.out(f"{i.ar} = int({a} < {b})")


def _divide(i: Word, block: Block) -> None:
    block.out(f'if not {i.at}: raise CpuFault("division by zero", {i.pc}, {i.pc})')
    expression = (
        f"{i.as_} // {i.at}",
        f"divide({i.as_}, {i.at})[0]",
        f"{i.as_} % {i.at}",
        f"divide({i.as_}, {i.at})[1]",
    )[i.op2 - 12]
    block.out(f"{i.ar} = {expression}")


def divide(a: int, b: int) -> tuple[int, int]:
    """Quotient and remainder of registers as signed numbers, towards zero."""
    signed_a, signed_b = (a ^ SIGN) - SIGN, (b ^ SIGN) - SIGN
    quotient, remainder = divmod(abs(signed_a), abs(signed_b))
    if (signed_a < 0) != (signed_b < 0):
        quotient = -quotient
    return quotient & MASK, (-remainder if signed_a < 0 else remainder) & MASK


def _sign_extend(i: Word, block: Block) -> None:
    bit = 1 << i.t + 7
    block.out(f"{i.ar} = ({i.as_} & {2 * bit - 1:#x} ^ {bit:#x}) - {bit:#x} & M")


def _clamp(i: Word, block: Block) -> None:
    limit = 1 << i.t + 7
    block.out(f"{i.ar} = max({-limit}, min({limit - 1}, {signed(i.as_)})) & M")


def _load(i: Word, block: Block) -> None:
    block.lines += load_lines(i.at, i.as_, i.byte * 4, 32)


def _store(i: Word, block: Block) -> None:
    block.lines += store_lines(i.at, i.as_, i.byte * 4, 32)


def _store_conditionally(i: Word, block: Block) -> None:
    """s32c1i: the old value is returned, whether it is SCOMPARE1 and replaced or not."""
    block.lines += load_lines("v", i.as_, i.byte * 4, 32)
    block.out(f"if v == s.get({SCOMPARE1}, 0): S32(a, {i.at})")
    block.out(f"{i.at} = v")


def _read_user(i: Word, block: Block) -> None:
    block.out(f"{i.ar} = s.get({USER_REGISTERS | i.s << 4 | i.t}, 0)")


def _write_user(i: Word, block: Block) -> None:
    block.out(f"s[{USER_REGISTERS | i.special}] = {i.at}")


def _nothing(i: Word, block: Block) -> None:
    block.out("pass")


def _zero(i: Word, block: Block) -> None:
    block.out(f"{i.at} = 0")


# mask, value, writer
WRITERS = (
    *((0xFF000F, op2 << 20 | 2 << 16, _multiply_high) for op2 in (10, 11)),  # muluh, mulsh
    *(
        (0xFF000F, op2 << 20 | 2 << 16, _divide) for op2 in (12, 13, 14, 15)
    ),  # quou, quos, remu, rems
    *((0xFF000F, op2 << 20 | 2 << 16, _compare) for op2 in (6, 7)),  # saltu, salt: LX7
    *((0xFF000F, op2 << 20 | 3 << 16, _min_max) for op2 in (4, 5, 6, 7)),
    (0xFF000F, 0x230000, _sign_extend),
    (0xFF000F, 0x330000, _clamp),
    (0xFF000F, 0xE30000, _read_user),
    (0xFF000F, 0xF30000, _write_user),
    (0x00F00F, 0x00B002, _load),  # l32ai
    (0x00F00F, 0x00F002, _store),  # s32ri
    (0x00F00F, 0x00E002, _store_conditionally),
    (0x00F00F, 0x007002, _nothing),  # cache: dhwb, ihi…
    (0xFFF00F, 0x406000, _zero),  # rer
    (0xFFF00F, 0x407000, _nothing),  # wer
)
# memory protection, which the lx106 has too: its ROM sets it up
PROTECTION = (
    *((0xFFF00F, 0x500000 | r << 12, _zero) for r in (3, 5, 7, 11, 13, 15)),  # reads of the TLB
    *(
        (0xFFF00F, 0x500000 | r << 12, _nothing) for r in (4, 6, 12, 14)
    ),  # iitlb, witlb, idtlb, wdtlb
)
