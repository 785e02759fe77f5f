"""Zero-overhead loops of the Xtensa: the instruction before LEND is followed by the one at LBEG, LCOUNT times.

Where loops end is known from their ``loop`` instructions, which nearly always are translated before the loop's body. If
a body was translated before, all blocks are discarded. The body of a short loop becomes a loop in Python.
"""

from __future__ import annotations

from espwire.virtual.cpu.engine import SIGN, Block
from espwire.virtual.cpu.xtensa_word import EXCEPTION, LBEG, LCOUNT, LEND, PS, Word

LOOP, LOOPNEZ = 8, 9  # in the field r; 10 is loopgtz


class Loops:
    """The loops of one program: ``begins`` has the address of each one's first instruction, None if there are several."""

    def __init__(self) -> None:
        self.begins: dict[int, int | None] = {}  # by LEND
        self._passed: set[int] = set()  # addresses after translated instructions

    def start(self, s: dict[int, int], begin: int, end: int) -> bool:
        """LBEG and LEND are set. Returns whether blocks were translated without it."""
        s[LBEG], s[LEND] = begin, end
        if end not in self.begins:
            self.begins[end] = begin
            return end in self._passed
        if self.begins[end] in (begin, None):
            return False
        self.begins[end] = None
        return True

    def close(self, i: Word, block: Block) -> None:
        """Continue at LBEG if a loop ends after this instruction, and it does not jump itself."""
        self._passed.add(i.next)
        if i.next not in self.begins or (block.jump is not None and not block.condition):
            return
        if block.jump is not None:
            block.leave(block.condition, block.jump, block.count + 1)
        begin = self.begins[i.next]
        block.out(f"t = s[{LCOUNT}] if s[{LEND}] == {i.next} and not s[{PS}] & {EXCEPTION} else 0")
        block.out(f"if t: s[{LCOUNT}] = t - 1")
        block.condition, block.jump = "t", f"s[{LBEG}]" if begin is None else str(begin)


def _loop(i: Word, block: Block) -> None:
    """``loop``, ``loopnez``, ``loopgtz``."""
    end = i.pc + 4 + i.byte
    block.out(f"s[{LCOUNT}] = ({i.as_} - 1) & M")
    block.out(f"if loop(s, {i.next}, {end}): flush()")
    skip = f"{i.as_} == 0" if i.r == LOOPNEZ else f"not 0 < {i.as_} < {SIGN:#x}"
    block.jump = str(i.next) if i.r == LOOP else f"{end} if {skip} else {i.next}"


def _write_bounds(i: Word, block: Block) -> None:
    """``wsr`` of LBEG or LEND."""
    begin, end = (i.at, f"s[{LEND}]") if i.special == LBEG else (f"s[{LBEG}]", i.at)
    block.out(f"if loop(s, {begin}, {end}): flush()")
    block.jump = str(i.next)


# mask, value, writer
WRITERS = (
    *((0x00F0FF, r << 12 | 0x76, _loop) for r in (8, 9, 10)),
    *((0xFFFF0F, 0x130000 | number << 8, _write_bounds) for number in (LBEG, LEND)),
)
