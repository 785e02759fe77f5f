"""Every bench, one after the other: ``make bench``."""

from __future__ import annotations

import memory
import rom_cpu
import simulated
import slip
import startup
import trips


def main() -> None:
    """Print all figures."""
    for bench in (memory, startup, rom_cpu, slip, trips, simulated):  # memory first: a child counts what we hold
        bench.main()


if __name__ == "__main__":
    main()
