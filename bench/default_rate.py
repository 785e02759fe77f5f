"""Default commands without --baud: a first write of a MiB, espwire against esptool at 115200, in simulated time. No test.

The flash has the timing of data sheets (typ) and is full of old data. See stub_speed.py for the firmware and the model
of esptool. The trials of baud rates count, and their time is shown.
"""

from __future__ import annotations

import random
from typing import NamedTuple
from unittest.mock import patch

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.line_tuner import LineTuner, RateMemory
from espwire.device.loader import Direction
from espwire.flash.write import write_flash
from espwire.virtual.transport import open_virtual
from stub_speed import BASE, Case, firmware, theirs


class Line(NamedTuple):
    """A link: the adapter, the highest rate that it carries, and the ratio that is asked for."""

    name: str
    query: str
    goal: float | None
    stable: int | None = None  # the rate that an earlier session has found


LINES = (
    Line("good for 2 Mbaud", "", 8.0),
    Line("CP2102, up to 921600", "adapter=cp2102", 6.5),
    Line("errors above 921600", "errors=1000000:0.01,1500000:0.01,2000000:0.1", 6.5),
    Line("1e-4 errors per byte at 2 Mbaud", "errors=2000000:1e-4", None),
    Line("good for 2 Mbaud, known", "", None, 2_000_000),
)
ESPTOOL_BAUD = 115_200


def ours(chip: str, line: Line) -> tuple[float, float, int]:
    """Seconds of the command, of its trials, and the rate at the end."""
    spent = [0.0]
    tune = LineTuner.tune

    def measure(tuner: LineTuner, direction: Direction, size: int) -> None:
        began = transport.now()
        tune(tuner, direction, size)
        spent[0] += transport.now() - began

    data = firmware(chip)[1]
    transport = open_virtual(f"virtual:{chip}?size=4MB&profile=typ&latency=0.001&{line.query}")
    contents = transport.chip.flash.contents
    contents[:] = random.Random(2).randbytes(len(contents))
    memory = RateMemory()
    memory.find_rate = lambda direction: line.stable  # type: ignore[method-assign]
    with (
        patch("espwire.device.connect._find_memory", lambda *_: memory),
        patch.object(LineTuner, "tune", measure),
        connect(transport, baud="auto") as device,
    ):
        write_flash(device, [Blob(BASE, data)])
        rate = device.loader.baud
        device.leave("hard-reset")
    return transport.now(), spent[0], rate


def main() -> None:
    """Print a line per chip and link."""
    for chip in ("esp32", "esp32c3"):
        other = theirs(Case("write", chip, ESPTOOL_BAUD, "2 ms"))
        for line in LINES:
            took, trials, rate = ours(chip, line)
            ratio = other / took
            goal = "" if line.goal is None else f"  goal >= {line.goal}"
            missed = " MISSED" if line.goal is not None and ratio < line.goal else ""
            print(
                f"{chip:<8} {line.name:<32} {took:6.2f} s at {rate}, trials {trials:.2f} s; esptool"
                f" {other:6.2f} s   ratio {ratio:5.2f}{goal}{missed}",
                flush=True,
            )
        print(f"{chip:<8} firmware: {firmware(chip)[0]}")


if __name__ == "__main__":
    main()
