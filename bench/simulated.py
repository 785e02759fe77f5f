"""Simulated time of a ROM write of 1 MiB at 115200 baud through a 1 ms bridge, compared with the physical minimum."""

from __future__ import annotations

import os

from espwire.device.connect import connect
from espwire.protocol import slip
from espwire.protocol.commands import FlashData, Reply
from espwire.virtual.transport import open_virtual

SIZE, BAUD, LATENCY, BLOCK = 1 << 20, 115200, 0.001, 0x400


def main() -> None:
    """Print the time taken, the floor and their ratio."""
    transport = open_virtual(f"virtual:esp32c3?size=4MB&latency={LATENCY}")
    data = os.urandom(SIZE)
    with connect(transport, stub=False) as device:
        device.attach_flash()
        began = transport.now()
        device.backend.write(0x10000, data)
        taken = transport.now() - began
    blocks = [
        FlashData(at // BLOCK, data[at : at + BLOCK]).packet() for at in range(0, SIZE, BLOCK)
    ]
    up = sum(len(slip.encode(block)) for block in blocks) * 10 / BAUD
    acknowledgements = len(blocks) * (
        len(slip.encode(Reply(3, 0, bytes(4)).packet())) * 10 / BAUD + 2 * LATENCY
    )
    timing = transport.chip.flash.timing
    flash = SIZE / 0x10000 * timing.erase_64k_s + SIZE / 0x100 * timing.page_program_s
    floor = up + acknowledgements + flash
    print(
        f"simulated ROM write, 1 MiB    {taken:9.2f} s   floor {floor:6.2f} s (wire {up:.2f}, acknowledgements"
    )
    print(
        f"  {acknowledgements:.2f}, flash {flash:.2f})   ratio {taken / floor:.3f}   goal <= 1.05"
    )


if __name__ == "__main__":
    main()
