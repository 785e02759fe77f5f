"""What 50 ms of network cost a write: ``python bench/remote_port.py [BYTES [BAUD]]``.

A paced virtual chip behind ``espwire serve-port``, and espwire as the client: at first without a delay, then with a proxy
that adds 25 ms in each direction. The data does not compress, so the serial line is the limit. Both times are those of
the whole command, with reset, identification, stub and verification.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from tests.slow_network import slow_network

PROGRAM = [sys.executable, "-m", "espwire"]
CHIP = "virtual:esp32c3?pace=1&size=4MB"
SIZE, BAUD, ROUND_TRIP = 1_000_000, 460_800, 0.05
LIMIT = 0.15


def measure(scheme: str, address: str, round_trip: float, baud: int, file: str) -> float:
    """Seconds of a write."""
    with slow_network(address, round_trip) as near:
        began = time.monotonic()
        subprocess.run(
            [
                *(*PROGRAM, "-p", f"{scheme}://{near}", "-b", str(baud), "--no-state"),
                *("write-flash", "0x10000", file),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.monotonic() - began


def compare(scheme: str, size: int, baud: int) -> float:
    """The share of its speed that a write loses."""
    times = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "app.bin")
        file.write_bytes(random.Random(size).randbytes(size))
        for round_trip in (0.0, ROUND_TRIP):
            with subprocess.Popen(  # a new chip: its flash is blank
                [*PROGRAM, "serve-port", CHIP, "--listen", "127.0.0.1:0"],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            ) as server:
                assert server.stdout is not None
                address = server.stdout.readline().rpartition("//")[2].strip()
                try:
                    times[round_trip] = measure(scheme, address, round_trip, baud, str(file))
                finally:
                    server.terminate()
    near, far = times[0.0], times[ROUND_TRIP]
    lost = 1 - near / far
    print(
        f"{scheme:8} {size:,} bytes at {baud}: {near:.2f} s, with 50 ms {far:.2f} s: "
        f"{lost:.1%} of the speed lost (limit {LIMIT:.0%})",
        flush=True,
    )
    return lost


def main() -> None:
    """Measure both schemes."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else SIZE
    baud = int(sys.argv[2]) if len(sys.argv) > 2 else BAUD
    for scheme in ("espwire", "rfc2217"):
        compare(scheme, size, baud)


if __name__ == "__main__":
    main()
