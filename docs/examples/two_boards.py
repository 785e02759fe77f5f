"""Flash two boards at once, each in its own thread, with progress, and cancel one of them halfway.

Run: python docs/examples/two_boards.py [PORT PORT]    (without ports: two virtual chips)
"""

from __future__ import annotations

import random
import sys
from concurrent.futures import ThreadPoolExecutor

import espwire

FIRMWARE = random.Random(1).randbytes(64 << 10)  # a real program reads a file


def flash(port: str, cancel: espwire.CancelToken, report: espwire.Report) -> str:
    """Flash one board; return the outcome as text."""
    try:
        with espwire.connect(port, cancel=cancel, report=report) as device:
            part = espwire.Blob(0x10000, FIRMWARE, "firmware")
            espwire.write_flash(device, [part], cancel=cancel, report=report)
            device.leave("hard-reset")
            return f"{device.chip.name} {device.mac} is flashed and verified"
    except espwire.Cancelled:
        return "stopped; its flash is half written"
    except espwire.ToolError as error:
        return f"failed: {error} [{error.code}]. {error.hint}"


def show(event: espwire.Event) -> None:
    """Called in the thread of the board. Prints complete lines, so that the output of two boards does not mix."""
    if isinstance(event, espwire.Progress) and event.task == "write":
        sys.stdout.write(f"{event.device}: {event.done * 100 // event.total} %\n")
    elif isinstance(event, espwire.Warned):
        sys.stdout.write(f"{event.device}: {event.text}\n")


def main(ports: list[str]) -> None:
    """Flash both; cancel the second when half of it is written."""
    cancels = [espwire.CancelToken() for _ in ports]

    def show_and_stop(event: espwire.Event) -> None:
        show(event)
        if isinstance(event, espwire.Progress) and event.done * 2 > event.total:
            cancels[1].cancel()  # can be called from any thread at any time

    sinks: list[espwire.Report] = [show, show_and_stop]
    with ThreadPoolExecutor(len(ports)) as pool:
        reports = [
            espwire.Reporter(sink, device=port) for sink, port in zip(sinks, ports, strict=True)
        ]
        outcomes = list(pool.map(flash, ports, cancels, reports))
    for port, outcome in zip(ports, outcomes, strict=True):
        sys.stdout.write(f"{port} {outcome}\n")


if __name__ == "__main__":
    main(sys.argv[1:] or ["virtual:esp32c3", "virtual:esp32"])
