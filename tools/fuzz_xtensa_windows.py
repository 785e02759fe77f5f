"""Random programs with register windows: our engine against `qemu-system-xtensa -cpu dc232b`.

    python tools/fuzz_xtensa_windows.py --seed 1 --cases 200
    python tools/fuzz_xtensa_windows.py --record tests/data/programs/xtensa_windows.txt

Needs Debian's qemu-system-misc, except for `--engine`, which compares with a recorded file. A program is a set of
functions that calculate with all instructions, run loops and call each other deeply enough for window overflows and
underflows. Each function logs registers; the log, the registers at the end and a checksum are compared. The dc232b has 32
registers instead of 64, which programs that follow the ABI cannot notice. It has no MULUH and MULSH. Without
`-singlestep`, qemu 7.2 calculates one program of twenty wrongly, differently from itself with it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shlex
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from xtensa_assembler import Assembler

from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.cpu.xtensa_windows import window_handlers

BASE, RESULT, STACK, SIZE = 0xD0000000, 0xD0010000, 0xD0038000, 0x40000
LOG_BYTES = 0x4000  # a ring behind the 20 words of the result
RESULT_BYTES = 0x50 + LOG_BYTES
RESET_VECTOR = 0xFE000000
VECBASE, WINDOWBASE, WINDOWSTART, PS, SAR, SCOMPARE1, LCOUNT = 231, 72, 73, 230, 3, 12, 2
EXCEPTION_EXIT = 0x77
EMULATE = shlex.split(
    "qemu-system-xtensa -M sim -cpu dc232b -m 64M -display none -serial none -monitor none -semihosting -singlestep -kernel"
)
THREE = shlex.split(
    "and or xor add addx2 addx4 addx8 sub subx2 subx4 subx8 mul16u mul16s mull min max minu maxu moveqz movnez movltz movgez"
)
BRANCHES = shlex.split("bnone beq blt bltu ball bbc bany bne bge bgeu bnall bbs")
EDGES = (0, 1, 2, 31, 32, 0x7F, 0x80, 0xFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
FUNCTIONS, DEPTH = 5, 26


class Program:
    """Writes one program; registers 2 to 15 are the functions' own, and ``[a1]`` is the depth that is left."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.code = Assembler(BASE)
        self._labels = 0
        self.code.data(window_handlers())
        for vector in (0x300, 0x340):
            self.code.org(BASE + vector)
            self._exit(EXCEPTION_EXIT)
        self.code.org(BASE + 0x400)
        self._start()
        for number in range(FUNCTIONS):
            self._function(number)

    @property
    def entry(self) -> int:
        """Where the program starts."""
        return self.code.labels["start"]

    def _exit(self, status: int) -> None:
        code = self.code
        code("movi", 2, 1)
        code("movi", 3, status)
        code("simcall")

    def _start(self) -> None:
        code = self.code
        for name, value in (("vectors", BASE), ("ps", 0x40020), ("stack", STACK), ("result", RESULT), ("size", RESULT_BYTES),
                            ("log", RESULT + 0x50), ("ring", LOG_BYTES - 4)):  # fmt: skip
            code.label(name)
            code.word(value)
        for value in EDGES:
            code.label(f"edge{value:x}")
            code.word(value)
        for number in range(FUNCTIONS):
            code.label(f"address{number}")
            code.word(f"function{number}")
        code.label("start")
        for register, name in ((VECBASE, "vectors"), (PS, "ps")):
            if register == PS:
                code("movi", 2, 0)
                code("wsr", 2, WINDOWBASE)
                code("movi", 2, 1)
                code("wsr", 2, WINDOWSTART)
                code("rsync")
            code("l32r", 2, name)
            code("wsr", 2, register)
            code("rsync")
        code("l32r", 1, "stack")
        code("addi", 2, 1, 96)
        code("addi", 3, 1, -16)
        code("s32i", 2, 3, 4)
        for n in range(2, 16):
            self._set(n)
        code("movi", 10, DEPTH)
        code("call8", "function0")
        code("mov", 5, 0)
        code("l32r", 0, "result")
        for n in range(1, 16):
            code("s32i", n, 0, 4 * n)
        for n, number in enumerate((SAR, LCOUNT)):
            code("rsr", 3, number)
            code("s32i", 3, 0, 64 + 4 * n)
        code("movi", 2, 4)
        code("movi", 3, 1)
        code("mov", 4, 0)
        code("l32r", 5, "size")
        code("simcall")
        self._exit(0)

    def _set(self, register: int) -> None:
        if self.rng.random() < 0.5:
            self.code("l32r", register, f"edge{self.rng.choice(EDGES):x}")
        else:
            self.code("movi", register, self.rng.randrange(-2048, 2048))

    def _function(self, number: int) -> None:
        code, rng = self.code, self.rng
        code.align()
        code.label(f"function{number}")
        code("entry", 1, rng.choice((64, 80, 96, 240)))
        if rng.random() < 0.3:
            code("movsp", rng.randrange(3, 16), rng.choice((2, 3)))
        code("s32i", 2, 1, 0)
        for n in range(4, 16):  # call12 passes no more than a2 and a3
            self._set(n)
        self._statements(rng.randrange(3, 12))
        calls = 2 if number < 2 else rng.randrange(1, 3)
        for call in range(calls):
            self._call(number, call)
            self._statements(rng.randrange(2, 8))
        self._log()
        code(rng.choice(("retw", "retw.n")))

    def _statements(self, count: int) -> None:
        for _ in range(count):
            kind = self.rng.random()
            if kind < 0.12:
                self._loop()
            elif kind < 0.2:
                self._log()
            elif kind < 0.3:
                self._branch()
            elif kind < 0.4:
                self._set(self.rng.randrange(2, 16))
            else:
                self._calculate()

    def _calculate(self) -> None:
        code, rng = self.code, self.rng
        a, b, c = (rng.randrange(2, 16) for _ in range(3))
        kind = rng.randrange(10)
        if kind < 3:
            code(rng.choice(THREE), a, b, c)
        elif kind == 3:
            code(rng.choice(("nsa", "nsau", "neg", "abs", "mov")), a, b)
        elif kind == 4:
            code(rng.choice(("sext", "clamps")), a, b, rng.randrange(7, 23))
        elif kind == 5:
            self._divide(a, b, c)
        elif kind == 6:
            amount = rng.choice(("ssl", "ssr", "ssa8l", "ssa8b"))
            code(amount, c)
            shift = rng.choice(("sll", "srl", "sra", "src"))
            code(*((shift, a, b, c) if shift == "src" else (shift, a, b)))
        elif kind == 7:
            self._access_memory(a, b)
        elif kind == 8:
            width, shift = rng.randrange(1, 17), rng.randrange(32)
            code("extui", a, b, shift, min(width, 32 - shift))
        else:
            shift = rng.choice(("slli", "srli", "srai"))
            code(shift, a, b, rng.randrange(1, 16))

    def _divide(self, a: int, b: int, c: int) -> None:
        self.code("movi", a, 1)
        self.code("moveqz", c, a, c)
        self.code(self.rng.choice(("quou", "quos", "remu", "rems")), a, b, c)

    def _access_memory(self, a: int, b: int) -> None:
        code, rng = self.code, self.rng
        kind = rng.randrange(4)
        if kind == 0:
            code("s32i", a, 1, 4)
            code("wsr", rng.choice((a, b)), SCOMPARE1)
            code("s32c1i", b, 1, 4)
            code("l32ai", a, 1, 4)
        elif kind == 1:
            code("s32ri", a, 1, 8)
            code(rng.choice(("l8ui", "l16ui", "l16si", "l32i")), b, 1, 8)
        elif kind == 2:
            code("wur", a, 231)
            code("rur", b, 231)
        else:
            code(rng.choice(("s8i", "s16i", "s32i")), a, 1, 12)
            code("s32i", b, 1, 4)
            code("l16ui", a, 1, 4)

    def _label(self) -> str:
        self._labels += 1
        return f"label{self._labels}"

    def _branch(self) -> None:
        """Over the next one or two instructions."""
        after, rng = self._label(), self.rng
        if rng.random() < 0.5:
            self.code(rng.choice(BRANCHES), rng.randrange(2, 16), rng.randrange(2, 16), after)
        else:
            self.code(rng.choice(("beqz", "bnez", "bltz", "bgez")), rng.randrange(2, 16), after)
        self._calculate()
        self.code.label(after)

    def _loop(self) -> None:
        code, rng = self.code, self.rng
        end, counter = self._label(), rng.randrange(2, 16)
        kind = rng.choice(("loop", "loopnez", "loopgtz"))
        code("movi", counter, rng.randrange({"loop": 1, "loopnez": 0, "loopgtz": -2}[kind], 6))
        code(kind, counter, end)
        self._calculate()
        if rng.random() < 0.4:
            self._branch()  # whose target may be the loop's end: the loop is left
        if rng.random() < 0.2:
            # the last instruction is a branch
            code(rng.choice(BRANCHES), rng.randrange(2, 16), rng.randrange(2, 16), f"{end}b")
        code.label(end)
        code("nop.n")
        code.label(f"{end}b")

    def _call(self, number: int, call: int) -> None:
        """Call a function with less depth, if any is left."""
        code, rng = self.code, self.rng
        after, windows = self._label(), rng.choice((1, 2, 3))
        first = 4 * windows
        code("l32i", 2, 1, 0)
        code("beqz", 2, after)
        if call == 0:
            code("addi", first + 2, 2, -1)
        else:
            code("srli", first + 2, 2, 2)
        if first + 3 < 16:
            code("xor", first + 3, rng.randrange(2, 16), rng.randrange(2, 16))
        callee = 1 - number if number < 2 and call == 0 else rng.randrange(FUNCTIONS)
        if rng.random() < 0.5:
            code(f"call{first}", f"function{callee}")
        else:
            pointer = rng.choice((first, 3))
            code("l32r", pointer, f"address{callee}")
            code(f"callx{first}", pointer)
        for n in range(first, 16):
            if n != first + 2:  # the result
                self._set(n)
        code.label(after)

    def _log(self) -> None:
        """Append a register to the log, and add it to the checksum."""
        code, rng = self.code, self.rng
        value, a, b, c = rng.sample(range(2, 16), 4)
        code("l32r", a, "result")
        code("l32i", b, a, 76)
        code("addx2", b, b, value)
        code("s32i", b, a, 76)
        code("l32i", b, a, 72)
        code("l32r", c, "ring")
        code("and", b, b, c)
        code("addi", c, b, 4)
        code("s32i", c, a, 72)
        code("add", b, b, a)
        code("s32i", value, b, 80)


def run_emulator(program: Program) -> bytes:
    """The result as qemu has it."""
    jump = Assembler(RESET_VECTOR)
    jump("j", "go")
    jump.align()
    jump.label("entry")
    jump.word(program.entry)
    jump.label("go")
    jump("l32r", 2, "entry")
    jump("jx", 2)
    segments = ((BASE, program.code.assemble()), (RESET_VECTOR, jump.assemble()))
    at = 52 + 32 * len(segments)
    file = b"\x7fELF\x01\x01\x01" + bytes(9)
    file += struct.pack(
        "<HHIIIIIHHHHHH", 2, 94, 1, program.entry, 52, 0, 0, 52, 32, len(segments), 0, 0, 0
    )
    for address, data in segments:
        file += struct.pack("<8I", 1, at, address, address, len(data), len(data), 7, 1)
        at += len(data)
    with tempfile.NamedTemporaryFile(suffix=".elf") as elf:
        elf.write(file + b"".join(data for _, data in segments))
        elf.flush()
        done = subprocess.run([*EMULATE, elf.name], capture_output=True, timeout=5, check=False)
    if done.returncode or len(done.stdout) != RESULT_BYTES:
        raise RuntimeError(
            f"qemu ended with {done.returncode}, {len(done.stdout)} bytes: {done.stderr.decode()}"
        )
    return done.stdout


class _Nothing:
    """No peripherals."""

    def read(self, address: int) -> int:
        raise CpuFault("nothing is mapped", address)

    def write(self, address: int, value: int) -> None:
        raise CpuFault("nothing is mapped", address)


def run_engine(program: Program) -> tuple[bytes, Engine]:
    """The result as the engine has it, and the engine."""
    code = program.code.assemble()
    memory = Memory(
        [Region("memory", BASE, bytearray(code) + bytearray(SIZE - len(code)))], _Nothing()
    )
    engine = Engine(Xtensa(windows=True), memory, entry=program.entry)
    try:
        engine.run(100_000_000)
    except CpuFault as fault:
        if "illegal instruction 0x5100" not in str(fault):  # simcall: the end
            raise
    return bytes(memory.regions[0].data[RESULT - BASE : RESULT - BASE + RESULT_BYTES]), engine


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def compare(seed: int) -> tuple[bool, int]:
    """Whether both ends have the same result, and how many instructions that took."""
    program = Program(seed)
    expected = run_emulator(program)
    found, engine = run_engine(program)
    if found != expected:
        at = next(n for n in range(0, RESULT_BYTES, 4) if found[n : n + 4] != expected[n : n + 4])
        print(
            f"seed {seed}: word {at // 4} is {found[at : at + 4][::-1].hex()}, expected {expected[at : at + 4][::-1].hex()}"
        )
    return found == expected, engine.instructions


def main() -> int:
    """Run, print counts; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument(
        "--record", type=Path, help="write seeds, programs and qemu's results as hashes"
    )
    options = parser.parse_args()
    began, wrong, total, lines = time.time(), 0, 0, []
    for seed in range(options.seed, options.seed + options.cases):
        if options.record:
            program = Program(seed)
            lines.append(
                f"{seed} {digest(program.code.assemble())} {digest(run_emulator(program))}\n"
            )
            continue
        same, instructions = compare(seed)
        wrong += not same
        total += instructions
    if options.record:
        options.record.write_text("".join(lines))
    print(
        f"{options.cases} programs, {total} instructions, {wrong} mismatches, {time.time() - began:.1f} s"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
