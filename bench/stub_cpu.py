"""Instructions of espwire's stub per byte of flash, counted on the CPU engines, with those in waiting loops apart.

Work is counted on a board without bit times, on which the flash is ready at the fourth look: the difference of a long and
a short job. What the virtual chip's CPU executes beyond that, at 921600 baud with the fast flash, is waiting.
ESPWIRE_FIRMWARE, or the collection of firmware next to this project, has the data; without it, it is made up.

Then reads without a wire to wait for: if these take less time than the wire, the CPU does not limit it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.stub_drivers.contents import CONTENTS
from tests.stub_drivers.frames import frame, text, words
from tests.stub_drivers.pace import LARGE, SMALL, Meter

from espwire.chips.registry import load_chip
from espwire.compress import deflate_zlib, find_lzma_form
from espwire.device.connect import connect
from espwire.device.stub_image import stub_chips
from espwire.protocol.stub import Codec, HashKind, StubOp
from espwire.virtual.cpu.engine import CYCLES_PER_INSTRUCTION
from espwire.virtual.soc.program import EngineProgram
from espwire.virtual.transport import open_virtual

BASE, CODE_FROM = 0x10000, 0x40000
COLLECTION = Path(__file__).resolve().parents[2] / "shared/firmware"


def load_code(chip: str) -> bytes:
    """Code of a large firmware for the chip."""
    folder = Path(os.environ.get("ESPWIRE_FIRMWARE") or COLLECTION, chip)
    files = sorted(folder.glob("*.bin"), key=lambda path: path.stat().st_size)
    if not files or files[-1].stat().st_size < CODE_FROM + LARGE:
        return text(LARGE)
    return files[-1].read_bytes()[CODE_FROM : CODE_FROM + LARGE]


def count_work(chip: str, data: bytes) -> dict[str, float]:
    """Instructions a byte of each job, waiting left out."""
    meter, lzma = Meter(chip, in_instructions=True), find_lzma_form(load_chip(chip))
    own = load_chip(chip).stub.own
    jobs: dict[str, Callable[[int], int]] = {
        "write raw": lambda size: meter.write(data[:size], Codec.RAW),
        "write deflate": lambda size: meter.write(data[:size], Codec.ZLIB),
        "hash": lambda size: meter.run(frame(StubOp.HASH, words(0, size, 0, HashKind.MD5))),
        "blank check": lambda size: meter.run(
            frame(StubOp.HASH, words(0x100000, size, 0, HashKind.BLANK))
        ),
    }
    if own is not None and own.can_lzma:
        jobs["write LZMA"] = lambda size: meter.write(data[:size], lzma.codec)
    return {name: (job(LARGE) - job(SMALL)) / (LARGE - SMALL) for name, job in jobs.items()}


def count_all(chip: str, data: bytes) -> dict[str, float]:
    """Instructions a byte of each job, waiting included."""
    transport = open_virtual(f"virtual:{chip}?stub=engine&profile=fast")
    device = connect(transport, stub=True, baud=921600)
    device.attach_flash()
    program, backend, size = transport.chip.program, device.backend, len(data)
    assert isinstance(program, EngineProgram)
    packed = deflate_zlib(data)
    jobs: dict[str, Callable[[], object]] = {
        "write raw": lambda: backend.write(BASE, data),
        "write deflate": lambda: backend.write(2 * BASE, data, packed=packed),
        "hash": lambda: backend.digests(BASE, size, size),
        "blank check": lambda: backend.find_written(4 * BASE, size),
        "read": lambda: list(backend.read(BASE, size)),
    }
    if backend.limits.lzma is not None:
        codec = backend.limits.lzma.codec
        jobs["write LZMA"] = lambda: backend.write(3 * BASE, data, packed=packed, codec=codec)
    found = {}
    for name, job in jobs.items():
        before = program.instructions
        job()
        found[name] = (program.instructions - before) / size
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
    """Print a line per chip and job."""
    for chip in stub_chips():
        data = load_code(chip)
        work = count_work(chip, data)
        for name, total in count_all(chip, data).items():
            waiting = (
                f"{work[name]:4.0f}, waiting {total - work[name]:4.0f}" if name in work else ""
            )
            print(f"stub instructions a byte, {chip:<10} {name:<14} {waiting or f'{total:4.0f}'}")
        reads = ", ".join(
            f"{name} {count:.0f} ({share:.0%})"
            for name, (count, share) in measure_reads(chip).items()
        )
        print(f"packed reads, of the wire {chip:<10} {reads}")


if __name__ == "__main__":
    main()
