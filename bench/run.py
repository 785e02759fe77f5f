"""Run all benchmarks: ``make bench``."""

from __future__ import annotations

import codec_choice
import default_rate
import efuse
import elf2image
import engines
import images
import many_boards
import memory
import monitor
import read_back
import remote_port
import rom_cpu
import second_flash
import secure
import simulated
import slip
import startup
import stub_cpu
import stub_speed
import trips


def main() -> None:
    """Print all figures."""
    # memory first: a child counts what we hold
    for bench in (
        memory,
        startup,
        images,
        rom_cpu,
        slip,
        trips,
        simulated,
        stub_cpu,
        stub_speed,
        second_flash,
        default_rate,
        codec_choice,
        read_back,
        engines,
        elf2image,
        many_boards,
        remote_port,
        secure,
        monitor,
        efuse,
    ):
        bench.main()


if __name__ == "__main__":
    main()
