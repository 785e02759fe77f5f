"""Measure the pace of our packed stub on the CPU engine, for ``stub.own.pace`` in ``chips/data``.

    python tools/measure_pace.py [CHIP…]

Prints the pace of each chip and the ratio of each job. A test fails if the data is off by more than 10 %.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.stub_drivers.pace import measure

from espwire.device.stub_image import stub_chips


def main(chips: list[str]) -> None:
    """Print a line per chip."""
    for chip in chips or stub_chips():
        result = measure(chip)
        jobs = ", ".join(f"{job.name} {job.measured / job.expected:.3f}" for job in result.jobs)
        print(f"{chip}: pace = {result.pace:.2f} ({jobs})")


if __name__ == "__main__":
    main(sys.argv[1:])
