"""Requests without a checksum, damaged in one bit: the ROM carries out another command. Not so with our stub."""

from __future__ import annotations

import random

import pytest

from espwire.device.connect import connect
from espwire.errors import DeviceError, ToolError
from espwire.flash.read import read_flash
from espwire.protocol.opcodes import Op
from espwire.transport.base import Transport
from espwire.virtual.faults import Faults, parse_faults
from espwire.virtual.transport import open_virtual

START = bytes((0xC0, 0x00, Op.READ_FLASH_SLOW))
CASES = {"twin": 8, "engine": 3}


def flip_opcode(transport: Transport, mask: int) -> None:
    """Change the opcode of the next READ_FLASH_SLOW."""
    write, left = transport.write, [1]

    def damaged(data: bytes, deadline: float) -> None:
        if left and data.startswith(START):
            left.pop()
            data = data[:2] + bytes((data[2] ^ mask,)) + data[3:]
        write(data, deadline)

    vars(transport)["write"] = damaged


@pytest.mark.parametrize(
    "other",
    [
        Op.MEM_END,  # a jump to the requested size
        Op.READ_REG,  # of the flash address
    ],
)
def test_a_read_request_that_becomes_another_command_crashes_the_rom_and_is_reported(other):
    with connect("virtual:esp32c3?size=1MB", stub=False) as device:
        device.attach_flash()
        flip_opcode(device.transport, Op.READ_FLASH_SLOW ^ other)
        with pytest.raises(DeviceError) as caught:
            read_flash(device, 0, 0x1000)
    assert caught.value.code == "chip-reset"


@pytest.mark.parametrize("mode", CASES)
def test_the_stub_does_not_crash_if_one_bit_in_a_thousand_bytes_is_flipped(mode):
    content = random.Random(1).randbytes(0x1000) + b"program " * 0x200
    finished = fired = 0
    codes = set()
    for seed in range(CASES[mode]):
        transport = open_virtual(f"virtual:esp32c3?size=1MB&seed={seed}&stub={mode}")
        transport.chip.flash.contents[: len(content)] = content
        device = connect(transport, stub=True, baud=921600)
        device.attach_flash()
        boots = transport.chip.boots
        transport.chip.faults = Faults(parse_faults("flip:1e-3"), seed)
        try:
            finished += read_flash(device, 0x800, 0x1000) == content[0x800:0x1800]
        except ToolError as error:
            codes.add(error.code)
        fired += len(transport.chip.faults.fired)
        assert transport.chip.boots == boots
    assert finished
    assert fired
    assert "chip-reset" not in codes
