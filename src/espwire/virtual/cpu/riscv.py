"""RV32IMAC + Zicsr, translated to Python (see engine.py). Machine mode only; interrupts are an option, which ROMs need.

Compressed instructions (RV32C) are expanded to their 32-bit forms first. Source: the RISC-V unprivileged specification.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from espwire.virtual.cpu.engine import (
    MASK,
    SIGN,
    Block,
    Engine,
    load_lines,
    ordered,
    sign_extend,
    signed,
    store_lines,
)
from espwire.virtual.cpu.memory import CpuFault, find_cause

CYCLE_CSRS = (
    0xB00,
    0xC00,
    0x7E2,
    0x802,
)  # mcycle, cycle, and the two names of the counter that Espressif's first cores have instead
COUNTER_CSRS = (range(0xB00, 0xB20), range(0xC00, 0xC20))
# CSRs of Espressif's cores: machine mode, own counters and pins, ids
MACHINE_CSRS = (
    range(0x300, 0x350),
    range(0x3A0, 0x3F0),
    range(0x7A0, 0x900),
    range(0xBC0, 0xC00),
    range(0xF11, 0xF15),
)
USER_CSRS = range(0x050)  # of user mode, which the ROMs of later chips clear
NOP = "pass"
ATOMIC, SYSTEM, WFI, MRET, ECALL = 0x2F, 0x73, 0x10500073, 0x30200073, 0x00000073
MSTATUS, MTVEC, MTVT, MEPC, MCAUSE, MTVAL = 0x300, 0x305, 0x307, 0x341, 0x342, 0x343
MIE, MPIE, MACHINE = 1 << 3, 1 << 7, 3 << 11  # of mstatus
INTERRUPT = 1 << 31  # of mcause
LEVEL_SHIFT = 16  # of mcause, with a CLIC: the level that was interrupted
READ_ONLY_CSR = 3  # the two top bits of its number


class RiscV:
    """The instruction set of the RISC-V chips. ``first``: the first cores, without atomics and standard counters.

    ``interrupts``: blocks end where an interrupt may become possible, and ``mret`` exists; see ``Interrupts``.
    """

    registers = 32
    special: Mapping[int, int] = {}
    longest = 4
    stack = "r[2]"

    def __init__(self, *, first: bool = False, interrupts: bool = False) -> None:
        self._first, self._interrupts = first, interrupts

    @property
    def names(self) -> Mapping[str, object]:
        """Functions that the lines use."""
        return {"div": _divide, "rem": _remain}

    def translate(self, code: bytes, pc: int, block: Block) -> int:
        """Append the instruction at ``pc``; returns its size in bytes."""
        if len(code) < 2:
            raise CpuFault("code runs out of its memory", pc, pc)
        word, size = int.from_bytes(code[:4], "little"), 4
        if word & 3 != 3:
            word, size = expand(word & 0xFFFF, pc), 2
        elif len(code) < 4:
            raise CpuFault("code runs out of its memory", pc, pc)
        writer = _WRITERS.get(word & 0x7F)
        if writer is None or (self._first and _is_beyond_first(word)):
            raise illegal(word, pc)
        fields = _Word(word, pc, size)
        if not self._interrupts or not _write_interrupt(fields, block):
            writer(fields, block)
        return size


class _Word:
    """A 32-bit instruction, its fields by name. Register 0 reads as 0; writes to it are dropped."""

    def __init__(self, word: int, pc: int, size: int) -> None:
        self.word, self.pc, self.next = word, pc, pc + size
        self.function = word >> 12 & 7
        self.high = word >> 25
        target, first, second = word >> 7 & 31, word >> 15 & 31, word >> 20 & 31
        self.target, self.second = target, second
        self.first_index = first
        self.d = f"r[{target}]" if target else "_"
        self.a = f"r[{first}]" if first else "0"
        self.b = f"r[{second}]" if second else "0"
        self.immediate = sign_extend(word >> 20, 12)

    def illegal(self) -> CpuFault:
        return illegal(self.word, self.pc)


def _is_beyond_first(word: int) -> bool:
    """Whether the first cores do not have it: an atomic, or a standard counter."""
    if word & 0x7F == ATOMIC:
        return True
    counter = any(word >> 20 in csrs for csrs in COUNTER_CSRS)
    return word & 0x7F == SYSTEM and bool(word >> 12 & 7) and counter


def illegal(word: int, pc: int) -> CpuFault:
    """The fault of an illegal instruction."""
    return CpuFault(f"illegal instruction {word:#x}", pc, pc)


def _lui(i: _Word, block: Block) -> None:
    block.out(f"{i.d} = {i.word & 0xFFFFF000:#x}")


def _auipc(i: _Word, block: Block) -> None:
    block.out(f"{i.d} = {(i.pc + (i.word & 0xFFFFF000)) & MASK:#x}")


def _jal(i: _Word, block: Block) -> None:
    w = i.word
    offset = (w >> 31) << 20 | (w >> 12 & 0xFF) << 12 | (w >> 20 & 1) << 11 | (w >> 21 & 0x3FF) << 1
    block.out(f"{i.d} = {i.next}")
    block.jump = str((i.pc + sign_extend(offset, 21)) & MASK)


def _jalr(i: _Word, block: Block) -> None:
    if i.function:
        raise i.illegal()
    block.out(f"t = ({i.a} + {i.immediate}) & {MASK & ~1:#x}")
    block.out(f"{i.d} = {i.next}")
    block.jump = "t"


def _branch(i: _Word, block: Block) -> None:
    w = i.word
    offset = (w >> 31) << 12 | (w >> 7 & 1) << 11 | (w >> 25 & 63) << 5 | (w >> 8 & 15) << 1
    conditions = {
        0: f"{i.a} == {i.b}",
        1: f"{i.a} != {i.b}",
        4: f"{ordered(i.a)} < {ordered(i.b)}",
        5: f"{ordered(i.a)} >= {ordered(i.b)}",
        6: f"{i.a} < {i.b}",
        7: f"{i.a} >= {i.b}",
    }
    if i.function not in conditions:
        raise i.illegal()
    block.condition = conditions[i.function]
    block.jump = str((i.pc + sign_extend(offset, 13)) & MASK)


def _load(i: _Word, block: Block) -> None:
    bits = {0: 8, 1: 16, 2: 32, 4: 8, 5: 16}.get(i.function)
    if bits is None:
        raise i.illegal()
    block.lines += load_lines(i.d, i.a, i.immediate, bits, signed=i.function < 2)


def _store(i: _Word, block: Block) -> None:
    bits = {0: 8, 1: 16, 2: 32}.get(i.function)
    if bits is None:
        raise i.illegal()
    block.lines += store_lines(i.b, i.a, sign_extend(i.high << 5 | i.target, 12), bits)


def _immediate(i: _Word, block: Block) -> None:
    value, shift = i.immediate & MASK, i.second
    if i.function in (1, 5) and i.high not in ((0,) if i.function == 1 else (0, 32)):
        raise i.illegal()
    expression = {
        0: f"({i.a} + {i.immediate}) & M",
        1: f"({i.a} << {shift}) & M",
        2: f"1 if {ordered(i.a)} < {value ^ SIGN:#x} else 0",
        3: f"1 if {i.a} < {value:#x} else 0",
        4: f"{i.a} ^ {value:#x}",
        5: f"{signed(i.a)} >> {shift} & M" if i.high else f"{i.a} >> {shift}",
        6: f"{i.a} | {value:#x}",
        7: f"{i.a} & {value:#x}",
    }[i.function]
    block.out(f"{i.d} = {expression}")


def _register(i: _Word, block: Block) -> None:
    a, b = i.a, i.b
    plain = {
        0: f"({a} + {b}) & M",
        1: f"({a} << ({b} & 31)) & M",
        2: f"1 if {ordered(a)} < {ordered(b)} else 0",
        3: f"1 if {a} < {b} else 0",
        4: f"{a} ^ {b}",
        5: f"{a} >> ({b} & 31)",
        6: f"{a} | {b}",
        7: f"{a} & {b}",
    }
    other = {0: f"({a} - {b}) & M", 5: f"{signed(a)} >> ({b} & 31) & M"}
    multiply = {
        0: f"({a} * {b}) & M",
        1: f"({signed(a)} * {signed(b)}) >> 32 & M",
        2: f"({signed(a)} * {b}) >> 32 & M",
        3: f"({a} * {b}) >> 32",
        4: f"div({a}, {b})",
        5: f"{a} // {b} if {b} else M" if b != "0" else "M",
        6: f"rem({a}, {b})",
        7: f"{a} % {b} if {b} else {a}" if b != "0" else a,
    }
    table = {0: plain, 32: other, 1: multiply}.get(i.high, {})
    if i.function not in table:
        raise i.illegal()
    block.out(f"{i.d} = {table[i.function]}")


def _fence(i: _Word, block: Block) -> None:
    if i.function > 1:
        raise i.illegal()
    block.out("flush()" if i.function == 1 else NOP)
    if i.function == 1:
        block.jump = str(i.next)


def _system(i: _Word, block: Block) -> None:
    number = i.word >> 20
    if i.function == 0:
        if i.word == WFI:  # only the clock wakes it
            block.out("c[0] = max(c[0], lim[0])")
            block.jump = str(i.next)
            return
        what = {ECALL: "environment call", EBREAK: "breakpoint"}.get(i.word, "illegal instruction")
        block.out(f'raise CpuFault("{what}", {i.pc}, {i.pc})')
        block.jump = str(i.next)
        return
    if i.function == 4:
        raise i.illegal()
    source = i.a if i.function < 4 else str(i.first_index)
    old = "c[0] & M" if number in CYCLE_CSRS else f"s.get({number}, 0)"
    block.out(f"t, v = {old}, {source}")
    writes = i.function & 3 == 1 or source != "0"
    known = any(number in csrs for csrs in (*MACHINE_CSRS, *COUNTER_CSRS))
    if not known or (writes and number >> 10 == READ_ONLY_CSR):
        raise i.illegal()
    change = {1: "v", 2: "t | v", 3: "t & ~v & M"}[i.function & 3]
    if number not in CYCLE_CSRS and writes:
        block.out(f"s[{number}] = {change}")
    block.out(f"{i.d} = t")


def _write_interrupt(i: _Word, block: Block) -> bool:
    """Append an instruction that concerns interrupts; False if this is none."""
    if i.word == MRET:
        block.jump = "mret()"
    elif i.word & 0x7F == SYSTEM and i.function and i.word >> 20 == MSTATUS:
        _system(i, block)
        block.out("look()")
        block.jump = str(i.next)
    elif i.word & 0x7F == SYSTEM and i.function and i.word >> 20 in USER_CSRS:
        block.out(f"{i.d} = 0")
    else:
        return False
    return True


class Interrupts:
    """Interrupts and exceptions of machine mode, as ``engine.Interrupts``.

    The controller decides which line is the most urgent and requests it. ``clic``: the core has levels, of which only a
    higher one interrupts a handler, and a table of handlers for lines that are vectored by hardware.
    Source: the RISC-V privileged specification; the CLIC specification, version 0.9.
    """

    def __init__(self, engine: Engine, *, clic: bool = False) -> None:
        self._engine, self._special, self._clic = engine, engine.special, clic
        self._line = self._level = self._active = 0
        self._vectored = False
        self.taken = 0
        engine.interrupts = self
        engine.bind({"mret": self._return, "look": self._look})

    def request(self, line: int, *, level: int = 1, vectored: bool = False) -> None:
        """The controller's most urgent line; 0: none."""
        self._line, self._level, self._vectored = line, level, vectored
        self._look()

    def take(self, pc: int) -> int:
        """Take the line that is requested."""
        special, line = self._special, self._line
        self.taken += 1
        cause = INTERRUPT | line | (self._active << LEVEL_SHIFT if self._clic else 0)
        self._active = self._level
        self._enter(pc, cause)
        if self._clic:
            if self._vectored:
                return self._engine.memory.read(special.get(MTVT, 0) + 4 * line, 4)
            return special.get(MTVEC, 0) & ~63
        vector = special.get(MTVEC, 0)
        return (vector & ~3) + (4 * line if vector & 1 else 0)

    def enter_exception(self, fault: CpuFault) -> int:
        """Enter the handler at mtvec, with the cause and the address that faulted."""
        special = self._special
        vector = special.get(MTVEC, 0)
        if not vector:
            raise fault
        special[MTVAL] = fault.address
        self._enter(fault.pc, find_cause(fault.what))
        return vector & (~63 if self._clic else ~3)

    def _enter(self, pc: int, cause: int) -> None:
        special = self._special
        status = special.get(MSTATUS, 0)
        special[MEPC], special[MCAUSE] = pc, cause
        special[MSTATUS] = status & ~(MIE | MPIE) | (MPIE if status & MIE else 0) | MACHINE
        self._engine.pending[0] = 0

    def _return(self) -> int:
        special = self._special
        status = special.get(MSTATUS, 0)
        special[MSTATUS] = status & ~MIE | (MIE if status & MPIE else 0) | MPIE
        if self._clic:
            self._active = special.get(MCAUSE, 0) >> LEVEL_SHIFT & 0xFF
        self._look()
        return special.get(MEPC, 0)

    def _look(self) -> None:
        """Whether the requested line interrupts now."""
        urgent = not self._clic or self._level > self._active
        enabled = self._special.get(MSTATUS, 0) & MIE
        self._engine.pending[0] = int(bool(self._line and enabled and urgent))


def _atomic(i: _Word, block: Block) -> None:
    """With one hart, an atomic is a load and a store; a reservation is valid until the next sc."""
    if i.function != 2:
        raise i.illegal()
    kind = i.high >> 2
    changes = {
        0: f"(v + {i.b}) & M",
        1: i.b,
        4: f"v ^ {i.b}",
        8: f"v | {i.b}",
        12: f"v & {i.b}",
        16: f"min(v, {i.b}, key=lambda n: n ^ {SIGN:#x})",
        20: f"max(v, {i.b}, key=lambda n: n ^ {SIGN:#x})",
        24: f"min(v, {i.b})",
        28: f"max(v, {i.b})",
    }
    if kind == 2:
        block.lines += [*load_lines("v", i.a, 0, 32), "s['reserved'] = a", f"{i.d} = v"]
    elif kind == 3:
        store = store_lines(i.b, i.a, 0, 32)
        block.out(f"kept = s.pop('reserved', None) == {i.a}")
        block.out(f"if kept: {store[0]}")
        block.out(f"if kept and DB <= a < DE and not a & 3: D32[(a - DB) >> 2] = {i.b}")
        block.out(f"elif kept: S32(a, {i.b})")
        block.out(f"{i.d} = 0 if kept else 1")
    elif kind in changes:
        block.lines += load_lines("v", i.a, 0, 32)
        block.out(f"t = {changes[kind]}")
        block.lines += ["if DB <= a < DE: D32[(a - DB) >> 2] = t", "else: S32(a, t)", f"{i.d} = v"]
    else:
        raise i.illegal()


_WRITERS: dict[int, Callable[[_Word, Block], None]] = {
    0x37: _lui,
    0x17: _auipc,
    0x6F: _jal,
    0x67: _jalr,
    0x63: _branch,
    0x03: _load,
    0x23: _store,
    0x13: _immediate,
    0x33: _register,
    0x0F: _fence,
    SYSTEM: _system,
    ATOMIC: _atomic,
}


def _divide(a: int, b: int) -> int:
    if not b:
        return MASK
    a, b = sign_extend(a, 32), sign_extend(b, 32)
    quotient = abs(a) // abs(b)
    return (quotient if (a < 0) == (b < 0) else -quotient) & MASK


def _remain(a: int, b: int) -> int:
    if not b:
        return a
    a, b = sign_extend(a, 32), sign_extend(b, 32)
    rest = abs(a) % abs(b)
    return (rest if a >= 0 else -rest) & MASK


SP = 2
JALR_RA, JALR_ZERO = 1 << 7 | 0x67, 0x67
EBREAK = 0x00100073


def expand(c: int, pc: int) -> int:
    """The 32-bit form of the 16-bit instruction ``c``.

    :raises CpuFault: illegal, or for floating point or 64 bits only
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
    return (
        (immediate >> 5 & 127) << 25
        | source << 20
        | base << 15
        | function << 12
        | (immediate & 31) << 7
        | 0x23
    )


def _b(function: int, source: int, offset: int) -> int:
    high = (offset >> 12 & 1) << 31 | (offset >> 5 & 63) << 25
    return (
        high
        | source << 15
        | function << 12
        | (offset >> 1 & 15) << 8
        | (offset >> 11 & 1) << 7
        | 0x63
    )


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
            fields = (
                (2, 1, 5),
                (3, 3, 1),
                (6, 1, 7),
                (7, 1, 6),
                (8, 1, 10),
                (9, 2, 8),
                (11, 1, 4),
                (12, 1, 11),
            )
            return _j(1 if kind == 1 else 0, sign_extend(_bits(c, *fields), 12))
        case 2:
            return _i(0x13, target, 0, 0, immediate)
        case 3 if target == SP:
            amount = sign_extend(
                _bits(c, (2, 1, 5), (3, 2, 7), (5, 1, 6), (6, 1, 4), (12, 1, 9)), 10
            )
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
        return (
            None
            if c >> 12 & 1
            else _i(0x13, target, 5, target, (c >> 2 & 31) | (0x400 if kind else 0))
        )
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
            return (
                _i(0x03, target, 2, SP, _bits(c, (2, 2, 6), (4, 3, 2), (12, 1, 5)))
                if target
                else None
            )
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
