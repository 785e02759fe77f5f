"""Measure whole processes, alternating with the peer, and print medians."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ESPWIRE = [
    str(Path(sys.executable).with_name("espwire"))
]  # the installed program, as the peer's is
# what pip installs is compiled, the peer as well: so may be what runs from this tree
ENVIRONMENT = {
    name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
}


def peer() -> list[str]:
    """esptool's command; ``make bench`` installs it into an environment of its own."""
    path = os.environ.get("ESPWIRE_PEER", "")
    if not Path(path).exists():
        sys.exit("set ESPWIRE_PEER to the executable of esptool 5.6.0 (make bench does)")
    return [path]


@dataclass(frozen=True)
class Run:
    """One finished process: seconds of wall clock and of CPU, peak resident bytes."""

    wall: float
    cpu: float
    peak: int


def run(command: Sequence[str]) -> Run:
    """Run to the end; a failure ends the bench with what the program said."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
    ) as process:
        assert process.stdout is not None
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\n{said.decode(errors='replace')}")
    return Run(time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def in_turn(ours: Sequence[str], theirs: Sequence[str], count: int) -> tuple[list[Run], list[Run]]:
    """Both commands ``count`` times, A B A B, after one warm-up each: a drifting machine hits both alike."""
    run(ours), run(theirs)
    pairs = [(run(ours), run(theirs)) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def median(values: Iterator[float] | Sequence[float]) -> float:
    """The median."""
    return statistics.median(values)


def ratio_line(
    name: str, ours: Sequence[float], theirs: Sequence[float], unit: str, goal: float
) -> str:
    """One printed line: medians, the median of the paired ratios, the goal."""
    ratio = median([a / b for a, b in zip(ours, theirs, strict=True)])
    return f"{name:<44} {median(ours):9.3f} {median(theirs):9.3f} {unit:<3} ratio {ratio:6.3f}  goal <= {goal}"


@contextmanager
def served(*arguments: str) -> Iterator[str]:
    """An ``espwire virtual serve`` process; gives its port."""
    with subprocess.Popen(
        [*ESPWIRE, "virtual", "serve", *arguments], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()
