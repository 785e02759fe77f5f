"""esptool's own stub, instruction by instruction, behind the chip's real mask ROM, whose functions it calls.

It is code that espwire's authors did not write, so it checks ROM, engine and peripherals independently of our stub.
"""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest
from tests.roms import find_ports

from espwire.device.connect import connect
from espwire.transport.url import open_transport
from espwire.virtual.soc.mask_rom import load_mask_roms
from espwire.virtual.soc.rom_program import RomProgram

pytestmark = pytest.mark.slow
START, SIZE, FAST = 0x20000, 0x1000, 921600
# the stub uses four address bytes on any flash, so it needs one that has such commands
LARGE = {"esp32p4"}
# the stub measures the crystal before it changes the rate, with a timer that is not modelled
SAME_RATE = {"esp32c2"}
OLD = "revision=1"  # of a port: the chip has a stub of its own, esp32p4-rev1.json


NEVER_STARTS = {"esp32s31"}  # for a reason that is not known


@pytest.mark.parametrize("chip", [c for c in load_mask_roms() if c not in NEVER_STARTS])
def test_the_stub_of_esptool_runs_behind_the_rom(chip: str, esptool: str) -> None:
    ports = find_ports(chip)
    (folder,) = Path(esptool).parents[1].glob("lib/python*/site-packages/esptool/targets")
    for port in ports:
        stub = folder / "stub_flasher" / "2" / f"{chip}{'-rev1' if OLD in port else ''}.json"
        size = "size=32MB" if chip in LARGE else "size=4MB"
        transport = open_transport(port.replace("size=4MB", size))
        flash = transport.chip.flash.contents
        data = random.Random(chip).randbytes(SIZE)
        with connect(transport, stub=stub, baud=115200 if chip in SAME_RATE else FAST) as device:
            assert device.loader.dialect.name == "stub"
            assert isinstance(transport.chip.program, RomProgram)
            device.attach_flash()
            flash[START : START + SIZE] = bytes(SIZE)
            device.backend.write(START, data)
            assert device.flash_md5(START, SIZE) == hashlib.md5(data).digest()
            assert b"".join(device.read_flash(START, SIZE)) == data
            assert bytes(flash[START : START + SIZE]) == data
            device.backend.erase(START, SIZE)
            assert device.flash_md5(START, SIZE) == hashlib.md5(b"\xff" * SIZE).digest()
            assert device.read_mem(device.chip.identity.magic_address)
