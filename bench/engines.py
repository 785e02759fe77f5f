"""Instructions per CPU second of the engines: MD5 of 256 KiB by the chips' own ROM code, from the folder ESPWIRE_ROMS."""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.riscv import RiscV
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.cpu.xtensa_windows import start_function

SIZE, COUNT = 256 << 10, 5
ROM, RETURN, NEVER = 0x40000000, 0x40000400, 1 << 40
CONTEXT, DIGEST, DATA = 0x100, 0x200, 0x1000  # offsets in RAM; the stack is at its end


class Md5(NamedTuple):
    """Addresses of MD5Init, MD5Update and MD5Final in a ROM, and where there is RAM. ``goal`` in instructions a second."""

    name: str
    file: str
    functions: tuple[int, int, int]
    ram: int
    goal: float
    windows: bool = False


JOBS = (
    Md5("RISC-V (ESP32-C3)", "esp32c3-rom.bin", (0x400369D8, 0x40036A0A, 0x40036AD2), 0x3FC80000, 4e6),
    Md5("Xtensa with windows (ESP32-S3)", "esp32s3-rom.bin", (0x40033024, 0x40033044, 0x400330C8), 0x3FC88000, 1.5e6, True),
)  # fmt: skip


class _Nothing:
    """No peripherals."""

    def read(self, address: int) -> int:
        raise CpuFault("load from an unmapped address", address)

    def write(self, address: int, value: int) -> None:
        raise CpuFault("store to an unmapped address", address)


def measure(job: Md5, rom: bytes) -> float:
    """Instructions per CPU second, translation included. Checks the hash."""
    data = random.Random(1).randbytes(SIZE)
    ram = Region("RAM", job.ram, bytearray(SIZE + 0x8000), code=False)
    memory = Memory([ram, Region("ROM", ROM, bytearray(rom), writable=False)], _Nothing())
    memory.load(job.ram + DATA, data)
    isa = Xtensa(windows=True) if job.windows else RiscV(first=True)
    engine = Engine(isa, memory, hooks={RETURN: _stop})
    context, digest = job.ram + CONTEXT, job.ram + DIGEST
    calls = ((context,), (context, job.ram + DATA, SIZE), (digest, context))
    begin = time.process_time()
    for function, arguments in zip(job.functions, calls, strict=True):
        _call(engine, job, function, arguments)
    seconds = time.process_time() - begin
    if ram.data[DIGEST : DIGEST + 16] != hashlib.md5(data).digest():
        raise RuntimeError(f"{job.name}: wrong MD5")
    return engine.instructions / seconds


def _stop(engine: Engine) -> None:
    engine.pc = 0
    engine.stop()


def _call(engine: Engine, job: Md5, function: int, arguments: tuple[int, ...]) -> None:
    """Call a function as the ABI does it, and run until it returns to RETURN, whose hook stops the engine."""
    registers, stack = engine.registers, job.ram + SIZE + 0x7000
    if job.windows:
        registers[1] = stack
        start_function(engine)  # its return address is RETURN
    else:
        registers[1], registers[2] = RETURN, stack
    registers[10 : 10 + len(arguments)] = arguments
    engine.pc = function
    engine.run(NEVER)


def main() -> None:
    """Print a line for each engine."""
    folder = os.environ.get("ESPWIRE_ROMS")
    if folder is None:
        print("engines: not measured, ESPWIRE_ROMS names no folder of ROM images")
        return
    for job in JOBS:
        rom = Path(folder, job.file).read_bytes()
        rates = [measure(job, rom) for _ in range(COUNT)]
        found, goal = statistics.median(rates) / 1e6, job.goal / 1e6
        print(
            f"MD5 of 256 KiB, {job.name}: {found:.1f} M instructions per CPU second (goal {goal:.1f})"
        )


if __name__ == "__main__":
    main()
