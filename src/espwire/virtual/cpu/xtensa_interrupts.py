"""Interrupts and exceptions of the Xtensa: an option of the instruction set, which ROMs need.

With it, blocks end at every instruction after which an interrupt may be taken. Timer interrupts and breakpoints are not
modelled. Sources: the Xtensa ISA reference; the tables of CPU interrupts in the technical reference manuals of ESP32,
ESP32-S2 and ESP32-S3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from espwire.virtual.cpu.engine import Block, Engine
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa_windows import PS_WRITERS
from espwire.virtual.cpu.xtensa_word import (
    DEPC,
    EPC,
    EPS,
    EXCCAUSE,
    EXCEPTION,
    EXCVADDR,
    INTCLEAR,
    INTENABLE,
    INTERRUPT,
    LEVEL,
    PS,
    USER,
    VECBASE,
    Word,
)

SYSCALL, LEVEL_1, ALLOCA, DIVISION, UNALIGNED = 1, 4, 5, 6, 9  # EXCCAUSE
FETCH, LOAD, STORE = 20, 28, 29
CAUSES = {
    "illegal instruction": 0,
    "system call": SYSCALL,
    "alloca": ALLOCA,
    "division by zero": DIVISION,
    "unaligned": UNALIGNED,
    "load": LOAD,
    "store": STORE,
    "instruction fetch": FETCH,
    "code runs out": FETCH,
}


class Core(NamedTuple):
    """Offsets of the vectors from VECBASE; the lines of each level above 1; the level that an exception masks."""

    kernel: int
    user: int
    double: int
    level_2: int  # each further level 0x40 later
    levels: Mapping[int, int]
    masked: int


LX106 = Core(0x30, 0x50, 0x70, 0, {}, 1)
LX7 = Core(
    0x300,
    0x340,
    0x3C0,
    0x180,
    {7: 1 << 14, 5: 0x84010000, 4: 0x53000000, 3: 0x28C08800, 2: 0x00380000},  # highest first
    3,
)


class Interrupts:
    """As ``engine.Interrupts``. ``taken`` counts interrupts."""

    def __init__(self, engine: Engine, core: Core = LX7) -> None:
        self._special, self._pending, self._core = engine.special, engine.pending, core
        self._lines = self._requested = 0
        self.taken = 0
        engine.interrupts = self
        engine.bind({"change": self._change, "pending": engine.pending})

    def set_line(self, number: int, on: bool) -> None:
        """An interrupt line of the CPU changes its level."""
        self._lines = self._lines & ~(1 << number) | on << number
        self.update()

    def update(self) -> None:
        """Find out whether an enabled line is on; ``take`` looks at the level."""
        special = self._special
        special[INTERRUPT] = self._lines | self._requested
        self._pending[0] = special[INTERRUPT] & special.get(INTENABLE, 0)

    def take(self, pc: int) -> int:
        """Take the interrupt of the highest level before the instruction at ``pc``, if that is not masked."""
        special, core = self._special, self._core
        ps, waiting = special[PS], self._pending[0]
        masked = max(ps & LEVEL, core.masked if ps & EXCEPTION else 0)
        level = next((n for n, lines in core.levels.items() if waiting & lines), 1)
        if level <= masked:
            return pc
        self.taken += 1
        if level == 1:
            return self._enter(LEVEL_1, pc)
        special[EPC + level], special[EPS + level] = pc, ps
        special[PS] = ps & ~LEVEL | level | EXCEPTION
        return special[VECBASE] + core.level_2 + 0x40 * (level - 2)

    def enter_exception(self, fault: CpuFault) -> int:
        """Enter the handler of exceptions, with the cause and the address that faulted."""
        cause = next((n for what, n in CAUSES.items() if fault.what.startswith(what)), None)
        if cause is None:
            raise fault
        self._special[EXCVADDR] = fault.address
        return self._enter(cause, fault.pc)

    def _enter(self, cause: int, pc: int) -> int:
        special, core = self._special, self._core
        special[EXCCAUSE] = cause
        ps = special[PS]
        special[PS] = ps | EXCEPTION
        if ps & EXCEPTION:
            special[DEPC] = pc
            return special[VECBASE] + core.double
        special[EPC + 1] = pc
        return special[VECBASE] + (core.user if ps & USER else core.kernel)

    def _change(self, number: int, value: int) -> None:
        """A program writes INTERRUPT (which sets bits), INTCLEAR or INTENABLE."""
        if number == INTERRUPT:
            self._requested |= value
        elif number == INTCLEAR:
            self._requested &= ~value
        else:
            self._special[number] = value
        self.update()


# --- instructions ---


def _change(i: Word, block: Block) -> None:
    block.out(f"change({i.special}, {i.at})")
    block.jump = str(i.next)


def _exchange_enable(i: Word, block: Block) -> None:
    block.out(f"t = s.get({INTENABLE}, 0)")
    block.out(f"change({INTENABLE}, {i.at})")
    block.out(f"{i.at} = t")
    block.jump = f"({i.next})"


def _rsil(i: Word, block: Block) -> None:
    block.out(f"{i.at}, s[{PS}] = s[{PS}], s[{PS}] & ~{LEVEL} | {i.s}")
    block.jump = f"({i.next})"


def _waiti(i: Word, block: Block) -> None:
    """Only an interrupt or the end of the run wakes it."""
    block.out(f"s[{PS}] = s[{PS}] & ~{LEVEL} | {i.s}")
    block.out("if not pending[0]: c[0] = max(c[0], lim[0])")
    block.jump = f"({i.next})"


def _rfe(i: Word, block: Block) -> None:
    block.out(f"s[{PS}] &= ~{EXCEPTION}")
    block.jump = f"settle(r, s, s[{EPC + 1}])"


def _rfde(i: Word, block: Block) -> None:
    block.jump = f"s[{DEPC}]"


def _rfi(i: Word, block: Block) -> None:
    block.out(f"s[{PS}] = s[{EPS + i.s}]")
    block.jump = f"settle(r, s, s[{EPC + i.s}])"


def _syscall(i: Word, block: Block) -> None:
    block.out(f'raise CpuFault("system call", {i.pc}, {i.pc})')
    block.jump = str(i.next)


# mask, value, writer
WRITERS = (
    *((0xFFFF0F, 0x130000 | n << 8, _change) for n in (INTERRUPT, INTCLEAR, INTENABLE)),  # wsr
    (0xFFFF0F, 0x610000 | INTENABLE << 8, _exchange_enable),
    *PS_WRITERS,
    (0xFFF00F, 0x006000, _rsil),
    (0xFFF0FF, 0x007000, _waiti),
    (0xFFFFFF, 0x003000, _rfe),
    (0xFFFFFF, 0x003200, _rfde),
    (0xFFF0FF, 0x003010, _rfi),
    (0xFFFFFF, 0x005000, _syscall),
)
