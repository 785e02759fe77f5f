"""Instructions of espwire's stub per byte of flash, counted on the CPU engines.

First for jobs at 921600 baud, polling included; then for reads without a wire to wait for: if these take less time than
the wire, the CPU does not limit it.
"""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.stub_drivers.contents import CONTENTS
from tests.stub_drivers.pace import Meter

from espwire.chips.registry import load_chip
from espwire.device.connect import connect
from espwire.device.stub_image import stub_chips
from espwire.virtual.cpu.engine import CYCLES_PER_INSTRUCTION
from espwire.virtual.soc.program import EngineProgram
from espwire.virtual.transport import open_virtual

SIZE, BASE = 0x4000, 0x10000


def _code() -> bytes:
    """What packs like a program."""
    pick = random.Random(3)
    words = [pick.randbytes(4) for _ in range(900)]
    return b"".join(pick.choice(words) for _ in range(SIZE // 4))


def measure(chip: str) -> dict[str, float]:
    """Instructions a byte of each job."""
    transport = open_virtual(f"virtual:{chip}?stub=engine&profile=fast")
    device = connect(transport, stub=True, baud=921600)
    device.attach_flash()
    program = transport.chip.program
    assert isinstance(program, EngineProgram)
    backend, data = device.backend, _code()
    packed = zlib.compress(data, 9)
    jobs: dict[str, Callable[[], object]] = {
        "write": lambda: backend.write(BASE, data, packed=packed),
        "write raw": lambda: backend.write(2 * BASE, data),
        "read": lambda: list(backend.read(BASE, SIZE)),
        "hash": lambda: backend.digests(BASE, SIZE, SIZE),
        "blank check": lambda: backend.find_written(4 * BASE, SIZE),
    }
    found = {}
    for name, job in jobs.items():
        before = program.instructions
        job()
        found[name] = (program.instructions - before) / SIZE
    device.close()
    return found


READS = ("blank", "zeros", "program", "prose", "mixed", "random")
PART = 0x2000  # bytes; the difference of two reads leaves out what a read costs at its start
BAUD = 921600


def measure_reads(chip: str) -> dict[str, tuple[float, float]]:
    """Instructions per byte of packed reads, and the share of the CPU that they need at 921600 baud, by content."""
    own = load_chip(chip).stub.own
    assert own is not None
    found = {}
    for name in READS:
        data, meter = CONTENTS[name](3 * PART), Meter(chip)
        (small, one), (large, other) = (meter.read_packed(data[:n]) for n in (PART, 3 * PART))
        cycles, sent = (large - small) / (2 * PART), (other - one) / (2 * PART)
        found[name] = cycles / CYCLES_PER_INSTRUCTION, cycles / own.cpu_hz / (sent * 10 / BAUD)
    return found


def main() -> None:
    """Print two lines per chip."""
    for chip in stub_chips():
        counts = ", ".join(f"{name} {count:.0f}" for name, count in measure(chip).items())
        print(f"stub instructions a byte, {chip:<10} {counts}")
        reads = ", ".join(
            f"{name} {count:.0f} ({share:.0%})"
            for name, (count, share) in measure_reads(chip).items()
        )
        print(f"packed reads, of the wire {chip:<10} {reads}")


if __name__ == "__main__":
    main()
