"""An Xtensa instruction's fields, and the numbers of special registers. Source: the Xtensa ISA reference."""

from __future__ import annotations

from espwire.virtual.cpu.memory import CpuFault

LBEG, LEND, LCOUNT, SAR, SCOMPARE1 = 0, 1, 2, 3, 12
WINDOWBASE, WINDOWSTART = 72, 73
EPC, DEPC, EPS, EXCSAVE = 176, 192, 192, 208  # of level n: plus n; EPS from level 2 on
INTERRUPT, INTCLEAR, INTENABLE = 226, 227, 228  # a write to INTERRUPT sets bits
PS, VECBASE, EXCCAUSE, CCOUNT, EXCVADDR = 230, 231, 232, 234, 238

# fields of PS
LEVEL, EXCEPTION, USER, OLD_BASE, INCREMENT, WINDOWS_ON = 15, 1 << 4, 1 << 5, 8, 16, 1 << 18


class Word:
    """An instruction, its fields by the manual's names."""

    def __init__(self, word: int, pc: int, size: int) -> None:
        self.word, self.pc, self.next = word, pc, pc + size
        self.t, self.s, self.r = word >> 4 & 15, word >> 8 & 15, word >> 12 & 15
        self.op1, self.op2 = word >> 16 & 15, word >> 20 & 15
        self.byte = word >> 16
        self.special = word >> 8 & 255
        self.at, self.as_, self.ar = f"r[{self.t}]", f"r[{self.s}]", f"r[{self.r}]"

    def illegal(self) -> CpuFault:
        return CpuFault(f"illegal instruction {self.word:#x}", self.pc, self.pc)
