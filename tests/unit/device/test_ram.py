"""Starting a program from RAM: what may be lost then, and what may not."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.device.loader import Loader
from espwire.device.ram import find_ram_block, start_program
from espwire.errors import CommandFailed, LinkLost
from espwire.link.base import LinkInfo

JTAG = LinkInfo(name="x", kind="usb-jtag", vid=0x303A, pid=0x1001)
OTG = LinkInfo(name="x", kind="usb-otg", vid=0x303A, pid=0x0002)
UART = LinkInfo(name="x", kind="uart")
# MEM_END, jump to 0x40080000; hand-written
MEM_END = "c0000608000000000000000000000008" + "40c0"
REFUSED = "c00106040000000000" + "01060000" + "c0"


def test_the_answer_to_the_start_may_be_lost(scripted):
    loader, link = scripted({})
    start_program(loader, 0x40080000)
    assert [frame.hex() for frame in link.sent] == [MEM_END]
    assert link.now() < 0.5


def test_a_refusal_is_not_lost(scripted):
    loader, _ = scripted({MEM_END: REFUSED})
    with pytest.raises(CommandFailed):
        start_program(loader, 0x40080000)


@pytest.mark.parametrize("info", [JTAG, OTG, UART])
def test_native_usb_may_leave_with_the_loader(link_with, info):
    def vanish(request):
        raise LinkLost("gone")

    link = link_with(vanish)
    link.info = info
    loader = Loader(link, load_chip("esp32s3").rom)
    if info is UART:
        with pytest.raises(LinkLost):
            start_program(loader, 0x40080000)
    else:
        start_program(loader, 0x40080000)


def test_the_ram_block_hangs_on_the_port(link_with):
    chip = load_chip("esp32s3")
    link = link_with(lambda request: [])
    for info, size in ((UART, chip.rom.ram_block), (JTAG, chip.rom.ram_block), (OTG, 0x800)):
        link.info = info
        assert find_ram_block(Loader(link, chip.rom), chip) == size
