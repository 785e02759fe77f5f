"""esptool's own stub on the CPU engine, behind the chip's ROM, against its imitation: the same jobs, in simulated time.

    python bench/vendor_engine.py FOLDER [CHIP…] [--size BYTES] [--usb]

FOLDER has esptool's stubs, such as .venv-peer/lib/python3.11/site-packages/esptool/targets/stub_flasher/2. The folder
ESPWIRE_ROMS has the images of ROMs. The flash has the timing of data sheets (typ) and is full of old data.
"""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

from esptool_model import Esptool
from espwire.device.connect import connect
from espwire.virtual.soc.mask_rom import FOLDER_VARIABLE, find_images, load_mask_roms
from espwire.virtual.transport import VirtualTransport, open_virtual
from stub_speed import BASE, firmware

BAUD, QUERY = 921600, "profile=typ&latency=0.001"
# the stub uses four address bytes on any flash, so it needs one that has such commands
SIZES = {"esp32p4": "32MB"}
# the stub measures the crystal before it changes the rate, with a timer that is not modelled
SAME_RATE = {"esp32c2"}
JOBS = ("write", "MD5", "read")


def find_rom(chip: str) -> str:
    """The options of a virtual chip with its own ROM, the newest that is known.

    :raises FileNotFoundError: the folder has none
    """
    images = load_mask_roms()[chip].images
    found = find_images(Path(os.environ[FOLDER_VARIABLE]), images)
    for image in reversed(images):
        if image.sha256 in found:
            return f"&rom={found[image.sha256][0]}{image.options}"
    raise FileNotFoundError(chip)


def run(transport: VirtualTransport, chip: str, stub: Path, data: bytes) -> list[float]:
    """Seconds of each job, with the stub of the file."""
    contents = transport.chip.flash.contents
    contents[: BASE + 2 * len(data)] = random.Random(2).randbytes(BASE + 2 * len(data))
    baud = 115200 if chip in SAME_RATE else BAUD
    device = connect(transport, stub=stub, baud=baud)
    device.attach_flash()
    esptool, times = Esptool(transport), []
    for job in (esptool.send, esptool.verify, lambda at, data: esptool.read(at, len(data) // 4)):
        began = transport.now()
        job(BASE, data)
        times.append(transport.now() - began)
    assert bytes(contents[BASE : BASE + len(data)]) == data
    return times


def main() -> None:
    """Print a line per chip and job."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("chips", nargs="*")
    parser.add_argument("--size", type=lambda text: int(text, 0), default=0x20000)
    parser.add_argument("--usb", action="store_true")
    given = parser.parse_args()
    for chip in given.chips or load_mask_roms():
        stub = given.folder / f"{chip}.json"
        data = firmware(chip)[1][0x10000 : 0x10000 + given.size]
        port = f"virtual:{chip}?{QUERY}&size={SIZES.get(chip, '4MB')}"
        port += "&kind=usb-jtag" if given.usb else ""
        model = run(open_virtual(port), chip, stub, data)
        engine = run(open_virtual(port + find_rom(chip)), chip, stub, data)
        for job, mine, real in zip(JOBS, model, engine, strict=True):
            print(
                f"{chip:<9} {job:<5} engine {real:7.3f} s   imitation {mine:7.3f} s   "
                f"{mine / real:5.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
