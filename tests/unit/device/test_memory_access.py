"""Starting a program from RAM: what may be lost then, and what may not."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.device.loader import Loader
from espwire.device.memory_access import find_ram_block, start_program
from espwire.errors import CommandFailed, TransportLost
from espwire.transport.base import TransportInfo

JTAG = TransportInfo(name="x", kind="usb-jtag", vid=0x303A, pid=0x1001)
OTG = TransportInfo(name="x", kind="usb-otg", vid=0x303A, pid=0x0002)
UART = TransportInfo(name="x", kind="uart")
# MEM_END, jump to 0x40080000; hand-written
MEM_END = "c0000608000000000000000000000008" + "40c0"
REFUSED = "c00106040000000000" + "01060000" + "c0"


def test_the_answer_to_the_start_may_be_lost(scripted):
    loader, transport = scripted({})
    start_program(loader, 0x40080000)
    assert [frame.hex() for frame in transport.sent] == [MEM_END]
    assert transport.now() < 0.5


def test_a_refusal_is_not_lost(scripted):
    loader, _ = scripted({MEM_END: REFUSED})
    with pytest.raises(CommandFailed):
        start_program(loader, 0x40080000)


@pytest.mark.parametrize("info", [JTAG, OTG, UART])
def test_native_usb_may_leave_with_the_loader(link_with, info):
    def vanish(request):
        raise TransportLost("gone")

    transport = link_with(vanish)
    transport.info = info
    loader = Loader(transport, load_chip("esp32s3").rom)
    if info is UART:
        with pytest.raises(TransportLost):
            start_program(loader, 0x40080000)
    else:
        start_program(loader, 0x40080000)


def test_the_ram_block_hangs_on_the_port(link_with):
    chip = load_chip("esp32s3")
    transport = link_with(lambda request: [])
    for info, size in ((UART, chip.rom.ram_block), (JTAG, chip.rom.ram_block), (OTG, 0x800)):
        transport.info = info
        assert find_ram_block(Loader(transport, chip.rom), chip) == size
