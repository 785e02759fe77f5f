"""Whether espwire chooses the faster codec: a first write of 256 KiB with each, in simulated time, per chip and line.

    python bench/codec_choice.py [CHIP…]

The stub is its Python model. The flash has the timing of data sheets (typ) and is full of old data.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Collection
from dataclasses import replace

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.stub_image import stub_chips
from espwire.flash.model import Verify, Write
from espwire.flash.write import execute, write_flash
from espwire.protocol.stub import LZMA_CODECS, Codec
from espwire.virtual.transport import open_virtual
from stub_speed import BASE, USB, USB_CHIPS, firmware

SIZE = 0x40000
LINES = (115200, 921600, 2_000_000, USB)
CLOSE = 1.01  # codecs whose times differ by less are both right


def measure(chip: str, line: int | str) -> tuple[Codec, dict[Codec, float]]:
    """The codec that is chosen, and seconds of writing and verifying with each."""
    data, chosen, times = firmware(chip)[1][:SIZE], Codec.ZLIB, dict[Codec, float]()
    for codec in Codec:
        port = "kind=usb-jtag" if line == USB else "latency=0.001"
        transport = open_virtual(f"virtual:{chip}?size=4MB&profile=typ&{port}")
        transport.chip.flash.contents[:] = random.Random(2).randbytes(4 << 20)
        with connect(transport, baud=115200 if line == USB else int(line), stub=True) as device:
            device.attach_flash()
            planned = write_flash(device, [Blob(BASE, data)], dry_run=True)
            chosen, form = planned.writes[0].pieces[0].codec, device.backend.limits.lzma
            if codec in LZMA_CODECS and (form is None or form.codec != codec):
                continue
            steps = tuple(
                replace(step, pieces=tuple(replace(piece, codec=codec) for piece in step.pieces))
                if isinstance(step, Write)
                else step
                for step in planned.steps
                if isinstance(step, Write | Verify)
            )
            began = transport.now()
            execute(replace(planned, steps=steps), device)
            times[codec] = transport.now() - began
    return chosen, times


def main(chips: Collection[str] = ()) -> None:
    """Print a line per chip and line; a slower choice is marked."""
    for chip in chips or stub_chips():
        for line in LINES:
            if line == USB and chip not in USB_CHIPS:
                continue
            chosen, times = measure(chip, line)
            slow = times[chosen] / min(times.values())
            shown = "   ".join(f"{codec.name} {took:6.2f} s" for codec, took in times.items())
            wrong = f"   SLOWER by {100 * (slow - 1):.1f} %" if slow > CLOSE else ""
            print(f"{chip:<9} {line!s:<8} {shown:<54} chosen: {chosen.name}{wrong}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
