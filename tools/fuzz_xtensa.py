"""The Xtensa engine against `qemu-system-xtensa -cpu lx106`, on random instructions: run by hand, never in CI.

    python tools/fuzz_xtensa.py --seed 1 --cases 30000

Needs Debian's packages gcc-xtensa-lx106 and qemu-system-misc. Each case sets three registers, runs one instruction
(or one branch), and stores the result; both ends run the same ELF file, and the stored words are compared.
"""

from __future__ import annotations

import argparse
import random
import shlex
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.xtensa import SIGNED_CONSTANTS, UNSIGNED_CONSTANTS, Xtensa

CODE, DATA, BATCH = 0x40100000, 0x3FFE0000, 1500
EDGES = [
    0,
    1,
    2,
    3,
    31,
    32,
    33,
    0x7F,
    0x80,
    0xFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
]
ASSEMBLE = [
    "xtensa-lx106-elf-gcc",
    "-nostdlib",
    "-mtext-section-literals",
    "-Wa,--no-transform,--text-section-literals",
]
ASSEMBLE += ["-Wa,--auto-litpools", f"-Wl,-Ttext={CODE:#x}", "-Wl,-e,_start"]
EMULATE = shlex.split(
    "qemu-system-xtensa -M sim -cpu lx106 -m 64M -display none -serial none -monitor none -semihosting"
)
THREE = shlex.split(
    "add sub and or xor addx2 addx4 addx8 subx2 subx4 subx8 mull mul16u mul16s add.n"
)
BRANCHES = [
    "beq",
    "bne",
    "blt",
    "bge",
    "bltu",
    "bgeu",
    "bany",
    "bnone",
    "ball",
    "bnall",
    "bbc",
    "bbs",
]
HEAD = [
    ".text",
    ".global _start",
    ".literal_position",
    f".literal .Lbuf, {DATA:#x}",
    "_start:",
    "l32r a1, .Lbuf",
]
# write(1, buffer, size) and exit(0) by semihosting
TAIL = [
    "l32r a4, .Lbuf",
    "sub a5, a1, a4",
    "movi a2, 4",
    "movi a3, 1",
    "simcall",
    "movi a2, 1",
    "movi a3, 0",
    "simcall",
]


def _value(rng: random.Random) -> int:
    return rng.choice(EDGES) if rng.random() < 0.5 else rng.getrandbits(32)


def _with_constant(rng: random.Random) -> str:
    width, shift = rng.randrange(1, 17), rng.randrange(32)
    return rng.choice(
        [
            f"slli a5, a3, {rng.randrange(1, 32)}",
            f"srli a5, a3, {rng.randrange(16)}",
            f"srai a5, a3, {rng.randrange(32)}",
            f"extui a5, a3, {shift}, {min(width, 32 - shift)}",
            f"addi a5, a3, {rng.randrange(-128, 128)}",
            f"addmi a5, a3, {rng.randrange(-128, 128) * 256}",
            f"movi a5, {rng.randrange(-2048, 2048)}",
            f"movi.n a5, {rng.randrange(-32, 96)}",
            f"addi.n a5, a3, {rng.choice([-1, *range(1, 16)])}",
        ]
    )


def _by_sar(rng: random.Random) -> list[str]:
    how, what = rng.choice(
        [
            "ssl sll",
            "ssr srl",
            "ssr sra",
            "ssai src",
            "ssa8l src",
            "ssr src",
            "ssai srl",
            "ssl src",
            "ssa8b src",
        ]
    ).split()
    amount = str(rng.randrange(32)) if how == "ssai" else "a4"
    return [f"{how} {amount}", f"{what} a5, a3, a4" if what == "src" else f"{what} a5, a3"]


def _branch(rng: random.Random) -> list[str]:
    test = rng.choice(
        [
            f"{rng.choice(BRANCHES)} a3, a4",
            f"{rng.choice(['beqz', 'bnez', 'bltz', 'bgez', 'beqz.n', 'bnez.n'])} a3",
            f"{rng.choice(['beqi', 'bnei', 'blti', 'bgei'])} a3, {rng.choice(SIGNED_CONSTANTS)}",
            f"{rng.choice(['bltui', 'bgeui'])} a3, {rng.choice(UNSIGNED_CONSTANTS)}",
            f"{rng.choice(['bbci', 'bbsi'])} a3, {rng.randrange(32)}",
        ]
    )
    return ["movi a5, 1", f"{test}, 1f", "movi a5, 0", "1:"]


def _memory(rng: random.Random) -> list[str]:
    """Store a3 and load it back in another width, behind the place of the results."""
    width = rng.choice(["s32i", "s16i", "s8i"])
    back = rng.choice(["l32i", "l16ui", "l16si", "l8ui"])
    at = rng.choice([64, 128, 252])
    return [
        f"{width} a3, a1, {at}",
        f"s32i a4, a1, {at + 4}" if rng.random() < 0.5 else "nop",
        f"{back} a5, a1, {at}",
    ]


def _case(rng: random.Random) -> list[str]:
    kinds = [
        lambda: [f"{rng.choice(THREE)} a5, a3, a4"],
        lambda: [f"{rng.choice(['neg', 'abs', 'nsau', 'nsa', 'mov.n'])} a5, a3"],
        lambda: [f"{rng.choice(['moveqz', 'movnez', 'movltz', 'movgez'])} a5, a3, a4"],
        lambda: [_with_constant(rng)],
        lambda: _by_sar(rng),
        lambda: _branch(rng),
        lambda: _memory(rng),
    ]
    return rng.choice(kinds)()


def build(rng: random.Random, cases: int, folder: Path) -> tuple[Path, list[list[str]]]:
    """An ELF file of ``cases`` cases, and what each does."""
    lines, done = list(HEAD), []
    for number in range(cases):
        for register in ("a3", "a4", "a5"):
            label = f".L{number}{register}"
            lines += [f".literal {label}, {_value(rng):#x}", f"l32r {register}, {label}"]
        code = _case(rng)
        done.append(code)
        lines += [*code, "s32i a5, a1, 0", "addi a1, a1, 4"]
    source, program = folder / "cases.S", folder / "cases.elf"
    source.write_text("\n".join([*lines, *TAIL, "9: j 9b"]) + "\n")
    subprocess.run([*ASSEMBLE, "-o", program, source], check=True)
    return program, done


def run_engine(program: Path, cases: int) -> tuple[int, ...]:
    """The words that the engine stores."""
    from elftools.elf.elffile import ELFFile

    with program.open("rb") as file:
        elf = ELFFile(file)
        code = next(s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD" and s["p_flags"] & 1)
        text, start, entry = code.data(), code["p_vaddr"], elf["e_entry"]
    memory = Memory(
        [
            Region("data", DATA, bytearray(0x20000)),
            Region("code", start, bytearray(text) + bytearray(16)),
        ],
        _Nothing(),
    )
    engine = Engine(Xtensa(), memory, entry=entry)
    try:
        engine.run(cases * 100)
    except CpuFault as fault:
        if "illegal instruction 0x5100" not in str(fault):  # simcall: the end
            raise
    return struct.unpack_from(f"<{cases}I", memory.regions[0].data)


class _Nothing:
    """No peripherals."""

    def read(self, address: int) -> int:
        raise CpuFault("nothing is mapped", address)

    def write(self, address: int, value: int) -> None:
        raise CpuFault("nothing is mapped", address)


def main() -> int:
    """Run, print counts; 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", type=int, default=3000)
    told = parser.parse_args()
    rng, kinds, wrong, began, done = random.Random(told.seed), Counter[str](), 0, time.time(), 0
    while done < told.cases:
        count = min(BATCH, told.cases - done)
        with tempfile.TemporaryDirectory() as folder:
            program, cases = build(rng, count, Path(folder))
            loader = ["-device", f"loader,file={program},cpu-num=0"]
            out = subprocess.run(
                [*EMULATE, *loader], capture_output=True, timeout=120, check=False
            ).stdout
            expected = struct.unpack(f"<{len(out) // 4}I", out)
            found = run_engine(program, count)
        if len(expected) != count:
            print(f"the emulator stored {len(expected)} of {count} results")
            return 1
        for code, theirs, ours in zip(cases, expected, found, strict=True):
            kinds[code[-1].split()[0] if code[-1] != "1:" else code[1].split()[0]] += 1
            if theirs != ours:
                wrong += 1
                print(f"differs: {'; '.join(code)}: {theirs:#x}, here {ours:#x}")
        done += count
    print(
        f"seed {told.seed}: {done} cases, {len(kinds)} kinds, {wrong} mismatches, {time.time() - began:.1f} s"
    )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
