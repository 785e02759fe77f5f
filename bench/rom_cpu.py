"""CPU time of espwire and of esptool, each with the same virtual chip in another process, without pauses."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from measure import ESPWIRE, in_turn, peer, ratio_line, served

CHIP = "esp32c3"


def main(count: int = 5) -> None:
    """Print a line for the write of 1.5 MB and one for the read of 256 KiB."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "data.bin")
        data.write_bytes(os.urandom(1_500_000))
        with served(CHIP, "--tcp", "127.0.0.1:0", "--size", "4MB", "--profile", "instant") as port:
            common = [
                "--chip",
                CHIP,
                "--port",
                port,
                "--before",
                "no-reset",
                "--after",
                "no-reset",
                "--no-stub",
            ]
            jobs = [
                ("CPU, ROM write 1.5 MB uncompressed", ["write-flash", "-u", "0", str(data)], 0.25),
                (
                    "CPU, ROM read 256 KiB",
                    ["read-flash", "0", "0x40000", str(Path(folder, "out.bin"))],
                    0.3,
                ),
            ]
            for name, job, goal in jobs:
                a, b = in_turn([*ESPWIRE, *common, *job], [*peer(), *common, *job], count)
                print(ratio_line(name, [r.cpu for r in a], [r.cpu for r in b], "s", goal))


if __name__ == "__main__":
    main()
