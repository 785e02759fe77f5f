"""Runs machine code: each basic block is translated to a Python function when it is first reached.

The instruction set (``xtensa.py``, ``riscv.py``) translates an instruction to lines of Python that use

    r  registers (unsigned 32-bit)         s  special registers by number       w  [effects]
    c  [cycles]                            lim  [cycles at which to stop]
    D8 D16 D32  the first memory region    DB DE  its bounds
    L8 L16 L32 S8 S16 S32  all other memory   M  0xFFFFFFFF

Speed is 6 to 15 million instructions per second in CPython: enough for a stub and tens of KiB, not for megabytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from espwire.virtual.cpu.memory import CpuFault, Memory

CYCLES_PER_INSTRUCTION = 2  # conservative: the real cores need between one and two
LONGEST_BLOCK = 64
MAX_NESTED = 16  # faults of an exception handler's first block in a row: it would never end
FOLLOWED = 24  # instructions, after which a block ends at its next jump
# statements after which a block must end
ENDS = ("flush()", "c[0] = max", "raise ", "if loop(", "change(")
MASK, SIGN = 0xFFFFFFFF, 0x80000000

_CONSTANT_LOAD = re.compile(r"\bL32\((0x[0-9a-f]+)\)")
_STORE = re.compile(r"\bS(8|16|32)\(")

Jump = str  # an expression for the next program counter


@dataclass
class Block:
    """A basic block during translation. ``jump`` ends it, under ``condition`` if there is one."""

    pc: int
    lines: list[str] = field(default_factory=list)
    count: int = 0
    jump: Jump | None = None
    condition: str = ""

    def out(self, line: str) -> None:
        """Append a statement."""
        self.lines.append(line)

    def leave(self, condition: str, jump: Jump, count: int) -> None:
        """Append a conditional exit after ``count`` instructions."""
        cost = count * CYCLES_PER_INSTRUCTION
        self.lines += [f"if {condition}:", f"  c[0] += {cost}", f"  return {jump}"]


class InstructionSet(Protocol):
    """Translates instructions to Python."""

    registers: int
    special: Mapping[int, int]  # special registers after a reset, as far as they are not 0
    longest: int  # bytes of the longest instruction
    stack: str  # the stack pointer's name in the lines

    def translate(self, code: bytes, pc: int, block: Block) -> int:
        """Append the instruction at ``pc`` to ``block``; returns its size. CpuFault if it is illegal."""

    @property
    def names(self) -> Mapping[str, object]:
        """Names used in the lines, besides the common ones."""


class Interrupts(Protocol):
    """How a CPU leaves its program for a handler; made for one engine, which then looks for interrupts."""

    def take(self, pc: int) -> int:
        """Take the most urgent interrupt before the instruction at ``pc``; returns the handler's address."""

    def enter_exception(self, fault: CpuFault) -> int:
        """Take ``fault`` as an exception; returns the handler's address. Raises ``fault`` if there is no handler."""


Hook = Callable[["Engine"], None]


class Engine:
    """A CPU. ``hooks``: ROM functions by address; a hook does the work and sets ``pc`` to the return address, or moves
    the clock and is called again.

    ``special`` holds special registers (Xtensa) or CSRs (RISC-V) that were written. ``effects[0]`` increases whenever
    the program stores other than through the stack pointer: as long as it is constant, the program can only have changed
    registers and stack. ``effects[1]`` increases whenever it reads the cycle counter. ``pending[0]`` is not 0 if an interrupt may be taken; nothing looks
    at it while ``interrupts`` is None, and faults then end the run.
    """

    def __init__(
        self,
        isa: InstructionSet,
        memory: Memory,
        *,
        entry: int = 0,
        hooks: Mapping[int, Hook] | None = None,
    ) -> None:
        self.isa, self.memory, self.pc = isa, memory, entry
        self.hooks = dict(hooks or {})
        self.registers = [0] * isa.registers
        self.special = dict(isa.special)
        self.cycles = memory.cycles
        self.effects = [0, 0]
        self.interrupts: Interrupts | None = None
        self.pending = [0]
        self._limit = [0]
        self._handler = self._nested = 0
        self._blocks: dict[int, Callable[[], int]] = {}
        memory.code_changed = self.flush
        self._names = self._bind()

    @property
    def instructions(self) -> int:
        """Number of executed instructions, without the time of peripherals; wrong if the clock was moved."""
        waits = self.memory.accesses * self.memory.peripheral_cycles
        return (self.cycles[0] - waits) // CYCLES_PER_INSTRUCTION

    def run(self, limit: int) -> None:
        """Run until about ``limit`` cycles, to the end of a block.

        :raises CpuFault: the program has crashed; ``pc`` is that of the block
        """
        self._limit[0] = limit
        if self.interrupts is not None:
            self._run_with_interrupts(self.interrupts)
            return
        blocks, cycles, limits, pc = self._blocks, self.cycles, self._limit, self.pc
        try:
            while cycles[0] < limits[0]:
                block = blocks.get(pc)
                if block is None:
                    block = self._enter(pc)
                pc = block()
        except CpuFault as fault:
            fault.pc = fault.pc or pc
            raise
        finally:
            self.pc = pc

    def _run_with_interrupts(self, interrupts: Interrupts) -> None:
        blocks, cycles, limits, pc = self._blocks, self.cycles, self._limit, self.pc
        pending = self.pending
        try:
            while cycles[0] < limits[0]:
                try:
                    if pending[0]:
                        pc = interrupts.take(pc)
                    block = blocks.get(pc)
                    if block is None:
                        block = self._enter(pc)
                    pc = block()
                except CpuFault as fault:
                    fault.pc = fault.pc or pc
                    self._nested = self._nested + 1 if pc == self._handler else 0
                    if self._nested > MAX_NESTED:
                        raise
                    pc = self._handler = interrupts.enter_exception(fault)
                    cycles[0] += CYCLES_PER_INSTRUCTION
        finally:
            self.pc = pc

    def bind(self, names: Mapping[str, object]) -> None:
        """Let the lines of blocks that are not translated yet use more names."""
        self._names.update(names)

    def stop(self) -> None:
        """Let ``run`` return after the current block: for peripherals."""
        self._limit[0] = 0

    def flush(self) -> None:
        """Code has changed: discard the translated blocks."""
        self._blocks.clear()

    def _enter(self, pc: int) -> Callable[[], int]:
        hook = self.hooks.get(pc)
        block = self._wrap(hook, pc) if hook is not None else self._compile(pc)
        self._blocks[pc] = block
        return block

    def _wrap(self, hook: Hook, pc: int) -> Callable[[], int]:
        def call() -> int:
            self.pc = pc
            cycle = self.cycles[0]
            hook(self)
            if self.pc == pc and self.cycles[0] == cycle:
                raise CpuFault("a ROM function did not return", pc, pc)
            self.cycles[0] += CYCLES_PER_INSTRUCTION
            return self.pc

        return call

    def _compile(self, start: int) -> Callable[[], int]:
        block, pc = Block(start), start
        while block.jump is None:
            if pc in self.hooks and pc != start:
                block.jump = str(pc)
                break
            try:
                pc += self.isa.translate(self.memory.fetch(pc, self.isa.longest), pc, block)
            except CpuFault:
                if not block.count:
                    raise
                block.jump = str(pc)  # the fault is raised when the program gets there
                break
            block.count += 1
            pc = self._follow(block, pc)
            if block.jump is None and block.count >= LONGEST_BLOCK:
                block.jump = str(pc)
        names: dict[str, Any] = dict(self._names)
        self._bind_constants(block, names)
        _count_effects(block.lines, self.isa.stack)
        source = _assemble(block, following=pc)
        exec(source, names)
        compiled: Callable[[], int] = names["block"]
        return compiled

    def _make_load(self) -> Callable[[int], int]:
        """Loads of words outside the fast path; peripherals first, since they are read most."""
        memory, cycles, ports, read = self.memory, self.cycles, self.memory.ports, self.memory.read
        wait = memory.peripheral_cycles

        def load(address: int) -> int:
            port = ports.get(address)
            if port is None:
                return read(address, 4)
            memory.accesses += 1
            cycles[0] += wait
            return port()

        return load

    def _follow(self, block: Block, pc: int) -> int:
        """Continue at the target of a plain jump, and after a branch, which may leave the block in the middle."""
        if block.count >= FOLLOWED or block.jump is None or block.jump == str(block.pc):
            return pc
        if block.condition:
            block.leave(block.condition, block.jump, block.count)
            block.condition = ""
        elif block.jump.isdecimal() and int(block.jump) not in self.hooks and not _ends(block):
            pc = int(block.jump)
        else:
            return pc
        block.jump = None
        return pc

    def _bind_constants(self, block: Block, names: dict[str, Any]) -> None:
        """Loads from a constant address, such as constants in the code, access their memory directly."""
        for at, line in enumerate(block.lines):
            match = _CONSTANT_LOAD.search(line)
            region = self.memory.find(int(match[1], 16)) if match is not None else None
            if match is not None and region is not None and not region.start % 4:
                offset = int(match[1], 16) - region.start
                if offset % 4 or offset + 4 > len(region.data) // 4 * 4:
                    continue
                name = f"V{region.start:x}"
                names[name] = memoryview(region.data)[: len(region.data) // 4 * 4].cast("I")
                block.lines[at] = line.replace(match[0], f"{name}[{offset >> 2}]")

    def _bind(self) -> dict[str, object]:
        memory, fast = self.memory, self.memory.regions[0]
        view = memoryview(fast.data)
        read, write = memory.read, memory.write
        return {
            "r": self.registers,
            "s": self.special,
            "c": self.cycles,
            "lim": self._limit,
            "w": self.effects,
            "D8": view,
            "D16": view.cast("H"),
            "D32": view.cast("I"),
            "DB": fast.start,
            "DE": fast.end,
            "L8": lambda address: read(address, 1),
            "L16": lambda address: read(address, 2),
            "L32": self._make_load(),
            "S8": lambda address, value: write(address, value, 1),
            "S16": lambda address, value: write(address, value, 2),
            "S32": lambda address, value: write(address, value, 4),
            "M": MASK,
            "CpuFault": CpuFault,
            "flush": self.flush,
            **self.isa.names,
        }


def _ends(block: Block) -> bool:
    return bool(block.lines) and block.lines[-1].startswith(ENDS)


def _count_effects(lines: list[str], stack: str) -> None:
    """Count the block's first store other than through the stack pointer, and its first read of the cycle counter."""
    starts = (max(0, at - 2) for at, line in enumerate(lines) if _STORE.search(line))
    through_stack = (f"a = ({stack} ", f"a = {stack}")
    # an address, the fast path, the path that was found
    store = next((at for at in starts if not lines[at].startswith(through_stack)), None)
    clock = next((at for at, line in enumerate(lines) if "c[0] & M" in line), None)
    for at, number in sorted(((clock, 1), (store, 0)), key=lambda found: -(found[0] or 0)):
        if at is not None:
            lines.insert(at, f"w[{number}] += 1")


def _assemble(block: Block, following: int) -> str:
    """Source of a block's function. A block that jumps to its own start becomes a loop."""
    cost = f"c[0] += {block.count * CYCLES_PER_INSTRUCTION}"
    names = "r=r, s=s, c=c, w=w, lim=lim, D8=D8, D16=D16, D32=D32, DB=DB, DE=DE, M=M, L8=L8, L16=L16, L32=L32"
    head = f"def block({names}, S8=S8, S16=S16, S32=S32):"
    if block.condition and block.jump == str(block.pc):
        body = [*block.lines, cost, f"if not ({block.condition}): return {following}"]
        body.append(f"if c[0] >= lim[0]: return {block.pc}")
        return "\n".join([head, " while True:", *(f"  {line}" for line in body)])
    if block.count == 1 and block.jump == str(block.pc) and not block.condition:  # endless loop
        return "\n".join(
            [head, f" c[0] = max(c[0] + {CYCLES_PER_INSTRUCTION}, lim[0])", f" return {block.pc}"]
        )
    target = (
        f"{block.jump} if {block.condition} else {following}" if block.condition else block.jump
    )
    return "\n".join([head, *(f" {line}" for line in [*block.lines, cost, f"return {target}"])])


def load_lines(
    target: str, base: str, offset: int, bits: int, *, signed: bool = False
) -> list[str]:
    """Statements for ``target = memory[base + offset]``; ``target`` and ``base`` are expressions."""
    lines = [f"a = ({base} + {offset}) & M" if offset else f"a = {base}"]
    fast = _fast(bits)
    check = f"DB <= a < DE and not a & {bits // 8 - 1}" if bits > 8 else "DB <= a < DE"
    if not signed:
        return [*lines, f"{target} = {fast} if {check} else L{bits}(a)"]
    lines.append(f"v = {fast} if {check} else L{bits}(a)")
    return [*lines, f"{target} = v | {MASK << bits & MASK:#x} if v & {1 << bits - 1:#x} else v"]


def store_lines(value: str, base: str, offset: int, bits: int) -> list[str]:
    """Statements for ``memory[base + offset] = value``."""
    lines = [f"a = ({base} + {offset}) & M" if offset else f"a = {base}"]
    check = f"DB <= a < DE and not a & {bits // 8 - 1}" if bits > 8 else "DB <= a < DE"
    cut = "" if bits == 32 else f" & {(1 << bits) - 1:#x}"
    return [*lines, f"if {check}: {_fast(bits)} = {value}{cut}", f"else: S{bits}(a, {value}{cut})"]


def _fast(bits: int) -> str:
    return {8: "D8[a - DB]", 16: "D16[(a - DB) >> 1]", 32: "D32[(a - DB) >> 2]"}[bits]


def signed(term: str) -> str:
    """An expression for the register ``term`` as a signed number."""
    return f"(({term} ^ {SIGN:#x}) - {SIGN:#x})"


def ordered(term: str) -> str:
    """An expression that orders as signed in an unsigned comparison."""
    return f"({term} ^ {SIGN:#x})"


def sign_extend(value: int, bits: int) -> int:
    """A value of ``bits`` bits as a signed number.

    >>> sign_extend(0xFF, 8), sign_extend(0x7F, 8)
    (-1, 127)
    """
    return value - (1 << bits) if value >> (bits - 1) & 1 else value
