"""Instructions of espwire's stub per byte of flash, polling included, counted on the CPU engines."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

from espwire.device.connect import connect
from espwire.device.stub_image import stub_chips
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


def main() -> None:
    """Print a line per chip."""
    for chip in stub_chips():
        counts = ", ".join(f"{name} {count:.0f}" for name, count in measure(chip).items())
        print(f"stub instructions a byte, {chip:<10} {counts}")


if __name__ == "__main__":
    main()
