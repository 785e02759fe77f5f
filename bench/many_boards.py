"""How long a write to eight boards takes, compared with one: ``python bench/many_boards.py [BOARDS]``.

Each board is a process of its own (``espwire virtual serve --pace``), and so is each of the program's runs. Prints the
share of the computer that the program and the virtual chips use; a busy computer makes eight slower.
"""

from __future__ import annotations

import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

PROGRAM = [sys.executable, "-m", "espwire"]
SERVE = ["virtual", "serve", "esp32c3", "--pace", "--rfc2217", "--mac"]
BOARDS = 8
CASES = ((115_200, 200_000), (460_800, 1_000_000))  # baud rate, bytes that do not compress
LIMIT = 1.25
WAIT_S = 30.0


class Chips:
    """Virtual chips, each in a process."""

    def __init__(self, count: int, stack: ExitStack) -> None:
        self._processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*PROGRAM, *SERVE, f"24:0a:c4:00:03:{number:02x}"],
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for number in range(count)
        ]
        for process in self._processes:
            stack.callback(process.terminate)
        self.ports = [self._read_port(process) for process in self._processes]

    def _read_port(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"rfc2217://\S+", line)
        if found is None:
            raise SystemExit(f"no port in {line!r}")
        return found[0]

    def cpu(self) -> float:
        """Seconds of CPU that the processes have used."""
        ticks = 0
        for process in self._processes:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def cpu_of_children() -> float:
    """Seconds of CPU of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def write(ports: list[str], baud: int, size: int, folder: Path) -> float:
    """Write new content to the boards; the time in seconds."""
    file = folder / "app.bin"
    file.write_bytes(random.randbytes(size))
    line = [*PROGRAM, "--no-state", "-q", "-b", str(baud), "-p", ",".join(ports)]
    start = time.monotonic()
    done = subprocess.run(
        [*line, "write-flash", "0x10000", str(file)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - start


def main(count: int = BOARDS) -> None:
    """Print the figures."""
    if not sys.platform.startswith("linux"):
        print("many boards: measured on Linux only")
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        chips = Chips(count, stack)
        for baud, size in CASES:
            one = write(chips.ports[:1], baud, size, Path(folder))
            chips_before, before, load = chips.cpu(), cpu_of_children(), os.getloadavg()[0]
            several = write(chips.ports, baud, size, Path(folder))
            cores = several * (os.cpu_count() or 1)
            program = 100 * (cpu_of_children() - before) / cores
            virtual = 100 * (chips.cpu() - chips_before) / cores
            ratio = several / one
            print(
                f"{size:,} bytes at {baud}: one board {one:.1f} s, {count} boards {several:.1f} s,"
                f" ratio {ratio:.2f} ({'within' if ratio <= LIMIT else 'above'} {LIMIT});"
                f" CPU: program {program:.0f} %, virtual chips {virtual:.0f} %"
                f" of {os.cpu_count()} cores; load before {load:.1f}"
            )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
