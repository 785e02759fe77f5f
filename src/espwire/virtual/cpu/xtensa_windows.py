"""Register windows of the Xtensa: 64 registers, of which a program uses 16 at a time.

``call4``, ``call8`` and ``call12`` only note by how many registers the called function moves on; its ``entry`` moves, and
``retw`` moves back. The list of registers (``r``) is rotated for that, so that ``r[0]`` to ``r[15]`` are always the
registers that instructions use, and all other instructions are the same with windows and without.

WINDOWSTART marks the windows in which a function's registers begin. Where a function would reach registers of an older
one, an overflow exception saves the latter in its stack frame; where ``retw`` finds nothing at its window, an underflow
exception loads it again. Both are the program's own code, at VECBASE. The processor looks for an overflow when an
instruction uses the register; here ``settle`` does it earlier, after everything that moves the window: no instruction
needs a test then, and the program cannot notice except by reading WINDOWSTART.
"""

from __future__ import annotations

from collections.abc import Callable

from espwire.virtual.cpu.engine import (
    MASK,
    Block,
    Engine,
    Hook,
    load_lines,
    sign_extend,
    store_lines,
)
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa_word import (
    EPC,
    EXCEPTION,
    INCREMENT,
    LBEG,
    LCOUNT,
    LEND,
    OLD_BASE,
    PS,
    USER,
    VECBASE,
    WINDOWBASE,
    WINDOWS_ON,
    WINDOWSTART,
    Word,
)

WINDOWS, LAST = 16, 15  # of four registers each
OVERFLOW, UNDERFLOW, VECTOR_STEP = (
    0x00,
    0x40,
    0x80,
)  # from VECBASE, of frames of 4, 8 and 12 registers
HANDLERS_BYTES = 0x180
L32E, S32E, RFWO, RFWU = 0x090000, 0x490000, 0x003400, 0x003500
CALLED = 3 << INCREMENT  # in PS: by how many windows the next entry moves
CALLED_BY_8 = 2 << INCREMENT
RESET_VECTOR = 0x400  # from VECBASE
REGION, RETURN = (
    0xC0000000,
    0x3FFFFFFF,
)  # a return address has the callee's increment in its two top bits

Registers = list[int]
Specials = dict[int, int]


def enter(r: Registers, s: Specials, stack: int, size: int, pc: int) -> bool:
    """``entry``: move to the window of the called function. Returns whether it reaches registers of an older one."""
    ps = s[PS]
    if ps & (WINDOWS_ON | EXCEPTION) != WINDOWS_ON:
        raise CpuFault("illegal instruction: entry without register windows", pc, pc)
    windows = ps >> INCREMENT & 3
    count = 4 * windows
    r[count + stack] = r[stack] - size & MASK
    left = r[:count]
    del r[:count]
    r += left
    base = s[WINDOWBASE] = s[WINDOWBASE] + windows & LAST
    start = s[WINDOWSTART] = s[WINDOWSTART] | 1 << base
    return (start << WINDOWS | start) >> base & 0b1110 != 0


def leave(r: Registers, s: Specials, pc: int) -> int:
    """``retw`` at ``pc``; returns the address to continue at."""
    back, ps, base, start = r[0], s[PS], s[WINDOWBASE], s[WINDOWSTART]
    windows = back >> 30
    older = (start << WINDOWS | start) >> base + WINDOWS - windows & (1 << windows) - 1
    if (
        ps & (WINDOWS_ON | EXCEPTION) != WINDOWS_ON
        or not windows
        or older > 1
        or (not older and has_caller(s))
    ):
        raise CpuFault("illegal instruction: retw to another window than the caller's", pc, pc)
    rotate(r, s, -windows)
    if older:
        s[WINDOWSTART] = start & ~(1 << base)
        return pc & REGION | back & RETURN
    _enter_exception(s, base, pc)
    return s[VECBASE] + UNDERFLOW + VECTOR_STEP * (windows - 1)


def settle(r: Registers, s: Specials, pc: int) -> int:
    """The window or PS has changed: returns ``pc``, or an overflow handler that continues there."""
    if s[PS] & (WINDOWS_ON | EXCEPTION) != WINDOWS_ON:
        return pc
    base, start = s[WINDOWBASE], s[WINDOWSTART]
    others = (start << WINDOWS | start) >> base
    if not others & 0b1110:
        return pc
    _enter_exception(s, base, pc)
    distance = next(n for n in (1, 2, 3) if others >> n & 1)
    rotate(r, s, distance)
    others >>= distance
    size = next((n for n in (1, 2) if others >> n & 1), 3)
    return s[VECBASE] + OVERFLOW + VECTOR_STEP * (size - 1)


def rotate(r: Registers, s: Specials, windows: int) -> None:
    """Move the window by a signed number of windows."""
    s[WINDOWBASE] = s[WINDOWBASE] + windows & LAST
    r[:] = r[4 * windows :] + r[: 4 * windows]


def return_from_overflow(r: Registers, s: Specials) -> int:
    """``rfwo``; returns the address to continue at."""
    s[WINDOWSTART] &= ~(1 << s[WINDOWBASE])
    return _leave_exception(r, s)


def return_from_underflow(r: Registers, s: Specials) -> int:
    """``rfwu``; returns the address to continue at."""
    s[WINDOWSTART] |= 1 << s[WINDOWBASE]
    return _leave_exception(r, s)


def _enter_exception(s: Specials, base: int, pc: int) -> None:
    s[EPC + 1] = pc
    s[PS] = s[PS] & ~(LAST << OLD_BASE) | base << OLD_BASE | EXCEPTION


def _leave_exception(r: Registers, s: Specials) -> int:
    s[PS] &= ~EXCEPTION
    rotate(r, s, (s[PS] >> OLD_BASE & LAST) - s[WINDOWBASE])
    return settle(r, s, s[EPC + 1])


def has_caller(s: Specials) -> bool:
    """Whether the calling function's registers are in the register file."""
    start = s[WINDOWSTART]
    return (start << WINDOWS | start) >> s[WINDOWBASE] + WINDOWS - 3 & 0b111 != 0


def call_function(function: Hook, engine: Engine) -> None:
    """Run ``function`` as a program's call of a function with ``entry`` and ``retw``; its stack pointer is the caller's."""
    r, s, start = engine.registers, engine.special, engine.pc
    if not s[PS] & CALLED:
        raise CpuFault(
            "illegal instruction: a function with register windows, called without", start, start
        )
    enter(r, s, 1, 0, start)
    function(engine)
    engine.pc = leave(r, s, start)
    s[PS] &= ~CALLED  # so that a later call without windows is noticed


def start_function(engine: Engine) -> None:
    """Prepare the first function of a program, as if a ROM called it by ``call8``; the stack pointer is set already.

    Its return address is the reset vector. 64 bytes above the stack pointer must be free.
    """
    r, s, memory = engine.registers, engine.special, engine.memory
    s[PS] = WINDOWS_ON | USER | CALLED_BY_8
    r[8] = (s[VECBASE] + RESET_VECTOR) & RETURN | 2 << 30
    memory.load(s[VECBASE], window_handlers())
    memory.load(r[1] - 12, (r[1] + 64).to_bytes(4, "little"))


def window_handlers() -> bytes:
    """The manual's handlers of window exceptions, for VECBASE; ROMs have the same.

    A function's first four registers are saved below the stack pointer of the function that it calls, further ones below
    the stack pointer of its caller.
    """
    code = bytearray(HANDLERS_BYTES)
    for size in (4, 8, 12):
        callee, further = size + 1, range(4, size)  # the callee's stack pointer
        save = [_access(S32E, n, callee, 4 * n - 16) for n in range(4)]
        load = [_access(L32E, n, callee, 4 * n - 16) for n in range(4)]
        if further:
            save.insert(1, _access(L32E, 0, 1, -12))  # the caller's stack pointer
            load.insert(3, _access(L32E, size - 1, 1, -12))
        save += [_access(S32E, n, 0, 4 * (n - size) - 16) for n in further]
        load += [_access(L32E, n, size - 1, 4 * (n - size) - 16) for n in further]
        start = VECTOR_STEP * (size // 4 - 1)
        for at, words in ((start + OVERFLOW, [*save, RFWO]), (start + UNDERFLOW, [*load, RFWU])):
            code[at : at + 3 * len(words)] = b"".join(word.to_bytes(3, "little") for word in words)
    return bytes(code)


def _access(instruction: int, register: int, base: int, offset: int) -> int:
    return instruction | offset + 64 >> 2 << 12 | base << 8 | register << 4


# --- instructions ---


def _call(i: Word, block: Block) -> None:
    offset = sign_extend(i.word >> 6, 18) << 2
    _note_call(i, block, str((i.pc & ~3) + offset + 4))


def _callx(i: Word, block: Block) -> None:
    block.out(f"t = {i.as_}")
    _note_call(i, block, "t")


def _note_call(i: Word, block: Block, target: str) -> None:
    windows = i.t & 3
    block.out(f"r[{4 * windows}] = {windows << 30 | i.next & RETURN:#x}")
    block.out(f"s[{PS}] = s[{PS}] & {MASK ^ CALLED:#x} | {windows << INCREMENT:#x}")
    block.jump = target


def _entry(i: Word, block: Block) -> None:
    if i.s > 3:
        raise i.illegal()
    move = f"enter(r, s, {i.s}, {(i.word >> 12) * 8}, {i.pc})"
    block.leave(move, f"settle(r, s, {i.next})", block.count + 1)


def _retw(i: Word, block: Block) -> None:
    block.jump = f"leave(r, s, {i.pc})"


def _movsp(i: Word, block: Block) -> None:
    block.out(f'if not has_caller(s): raise CpuFault("alloca", {i.pc}, {i.pc})')
    block.out(f"{i.at} = {i.as_}")


def _rotw(i: Word, block: Block) -> None:
    block.out(f"rotate(r, s, {sign_extend(i.t, 4)})")
    block.jump = f"settle(r, s, {i.next})"


def _rfwo(i: Word, block: Block) -> None:
    block.jump = "return_from_overflow(r, s)"


def _rfwu(i: Word, block: Block) -> None:
    block.jump = "return_from_underflow(r, s)"


def _l32e(i: Word, block: Block) -> None:
    block.lines += load_lines(i.at, i.as_, 4 * i.r - 64, 32)


def _s32e(i: Word, block: Block) -> None:
    block.lines += store_lines(i.at, i.as_, 4 * i.r - 64, 32)


def _write_base(i: Word, block: Block) -> None:
    block.out(f"rotate(r, s, ({i.at} & {LAST}) - s[{WINDOWBASE}])")
    block.jump = f"settle(r, s, {i.next})"


def _write_start(i: Word, block: Block) -> None:
    block.out(f"s[{WINDOWSTART}] = {i.at} & {(1 << WINDOWS) - 1:#x}")
    block.jump = f"settle(r, s, {i.next})"


def _write_ps(i: Word, block: Block) -> None:
    block.out(f"s[{PS}] = {i.at}")
    block.jump = f"settle(r, s, {i.next})"


def _exchange_ps(i: Word, block: Block) -> None:
    block.out(f"{i.at}, s[{PS}] = s[{PS}], {i.at}")
    block.jump = f"settle(r, s, {i.next})"


Writer = Callable[[Word, Block], None]
# mask, value, writer
PS_WRITERS: tuple[tuple[int, int, Writer], ...] = (
    (0xFFFF0F, 0x130000 | PS << 8, _write_ps),
    (0xFFFF0F, 0x610000 | PS << 8, _exchange_ps),
)
WRITERS: tuple[tuple[int, int, Writer], ...] = (
    *((0x00003F, windows << 4 | 5, _call) for windows in (1, 2, 3)),
    *((0xFFF0FF, (12 | windows) << 4, _callx) for windows in (1, 2, 3)),
    (0x0000FF, 0x000036, _entry),
    (0xFFFFFF, 0x000090, _retw),
    (0x00FFFF, 0x00F01D, _retw),  # retw.n
    (0xFFF00F, 0x001000, _movsp),
    (0xFFFF0F, 0x408000, _rotw),
    (0xFFFFFF, RFWO, _rfwo),
    (0xFFFFFF, RFWU, _rfwu),
    (0xFF000F, L32E, _l32e),
    (0xFF000F, S32E, _s32e),
    (0xFFFF0F, 0x130000 | WINDOWBASE << 8, _write_base),
    (0xFFFF0F, 0x130000 | WINDOWSTART << 8, _write_start),
    *PS_WRITERS,
)
NAMES: dict[str, object] = {
    function.__name__: function
    for function in (
        enter,
        leave,
        settle,
        rotate,
        return_from_overflow,
        return_from_underflow,
        has_caller,
    )
}
RESET = {
    PS: 0x1F, WINDOWBASE: 0, WINDOWSTART: 1, VECBASE: 0x40000000,
    EPC + 1: 0, LBEG: 0, LEND: 0, LCOUNT: 0,
}  # fmt: skip
