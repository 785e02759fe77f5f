"""A stub that an earlier client left running, also in the middle of a frame: recognised, and reset away or told.

The stub here is only its receiver, as the field notes tell of the vendor's: each END swaps "in a frame" and "between
frames", so a frame that was cut off leaves its idea of start and end upside down.
"""

from __future__ import annotations

import hashlib
import random
import zlib

import pytest

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.errors import ConnectError, Unsupported
from espwire.events import Note
from espwire.flash.erase import erase_region
from espwire.flash.findings import Policy
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.commands import (
    EraseRegion,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    ReadReg,
    Reply,
    SpiAttach,
    SpiFlashMd5,
    SpiSetParams,
    Sync,
    WriteReg,
    parse_command,
    parse_request,
)
from espwire.protocol.opcodes import Op
from espwire.transport.base import TransportInfo
from espwire.virtual.transport import open_virtual

END = 0xC0


class StubLink:
    """A virtual chip in whose RAM a stub runs until the chip is reset; ``inside``: a frame was begun and never ended."""

    def __init__(self, inside: bool, *, can_reset: bool = True, talks: bool = False):
        self.transport = open_virtual("virtual:esp32?boot=app")
        self.talks, self.left = talks, 0
        if not can_reset:
            self.transport.info = TransportInfo(
                name="stub", kind="tcp", can_reset=False, can_change_baud=False
            )
        self.inside, self.frame = inside, bytearray(b"\x00\x03\x10" * inside)
        self.answers = b""
        self.boots = self.transport.chip.boots

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def carry_out(self, command):
        """The answer of a stub that does its work: two status bytes, raw MD5, erasing while it writes."""
        chip, value, result = self.transport.chip, 0, b""
        contents, now = chip.flash.contents, self.transport.now()
        match command:
            case ReadReg(address):
                value = chip.registers.read(now, address)
            case WriteReg(writes):
                for write in writes:
                    now += write.delay_us / 1e6
                    chip.registers.write(now, write.address, write.value, write.mask)
            case FlashBegin(size, _, block, offset) | FlashDeflBegin(size, _, block, offset):
                assert block == 0x4000
                self.at, self.left, self.unzip = offset, size, zlib.decompressobj()
            case FlashData(_, data) | FlashDeflData(_, data):
                data = self.unzip.decompress(data) if isinstance(command, FlashDeflData) else data
                data = data[: self.left]
                contents[self.at : self.at + len(data)] = data
                self.at, self.left = self.at + len(data), self.left - len(data)
            case SpiFlashMd5(offset, size):
                assert self.left == 0, "a stub fails unless all announced bytes came"
                result = hashlib.md5(contents[offset : offset + size]).digest()
            case EraseRegion(offset, size):
                contents[offset : offset + size] = b"\xff" * size
            case SpiAttach(_, legacy):
                assert legacy is None
                chip.registers.attached = True
            case SpiSetParams():
                pass
            case _:
                return slip.encode(Reply(Op.SYNC, 0, b"\xc3\x00").packet())
        return slip.encode(Reply(command.op, value, result + bytes(2)).packet())

    @property
    def running(self):
        return self.transport.chip.boots == self.boots

    def write(self, data, deadline):
        if not self.running:
            self.transport.write(data, deadline)
            return
        for byte in data:
            if byte != END:
                self.frame += bytes([byte]) if self.inside else b""
                continue
            if self.inside and bytes(self.frame) == Sync().packet():
                self.answers += slip.encode(Reply(Op.SYNC, 0, bytes(2)).packet()) * 8
            elif self.inside and self.talks:
                (content,) = slip.Decoder().feed(slip.END + self.frame + slip.END) or (b"",)
                if (request := parse_request(content)) is not None:
                    self.answers += self.carry_out(parse_command(request))
            self.inside = not self.inside
            self.frame.clear()

    def read(self, timeout):
        if not self.running:
            self.answers = b""
            return self.transport.read(timeout)
        if self.answers:
            data, self.answers = self.answers, b""
            return data
        self.transport.sleep(timeout)
        return b""


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_with_lines_the_chip_is_reset_into_its_rom(inside, before):
    transport, events = StubLink(inside), []
    device = connect(transport, before=before, report=events.append, stub=False)
    assert device.attach_flash().size == 0x400000
    assert any("stub" in event.text for event in events if isinstance(event, Note)) is (
        before == "no-reset"
    )


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_without_lines_it_is_told(inside, before):
    transport = StubLink(inside, can_reset=False)
    with pytest.raises(ConnectError) as caught:
        connect(transport, before=before, stub=False)
    assert caught.value.code == "stub-running"
    assert "RESET" in caught.value.hint
    assert transport.now() < 2


@pytest.mark.parametrize("inside", [False, True])
def test_lines_that_reach_nothing_leave_the_stub_running_and_that_is_told(inside):
    transport = StubLink(inside)
    transport.set_lines = lambda *, dtr=None, rts=None: None
    with pytest.raises(ConnectError) as caught:
        connect(transport, stub=False)
    assert caught.value.code == "stub-running"


@pytest.mark.parametrize("compress", [None, False])
@pytest.mark.parametrize("inside", [False, True])
def test_without_lines_a_stub_that_works_is_used_as_it_is(inside, compress):
    transport, events = StubLink(inside, can_reset=False, talks=True), []
    data = random.Random(1).randbytes(5000) + bytes(40_001)
    with connect(transport, report=events.append, stub=False) as device:
        assert (device.chip.id, device.mac, device.loader.dialect.name) == (
            "esp32",
            "24:0a:c4:00:01:10",
            "stub",
        )
        assert device.attach_flash().size == 0x400000
        write_flash(
            device,
            [Blob(0x10000, data, "data")],
            policy=Policy(compress=compress),
            report=events.append,
        )
        contents = transport.chip.flash.contents
        assert bytes(contents[0x10000 : 0x10000 + len(data)]) == data
        erase_region(device, 0x10000, 0x1000)
        assert bytes(contents[0x10000:0x12000]) == b"\xff" * 0x1000 + data[0x1000:0x2000]
        with pytest.raises(Unsupported):
            list(device.read_flash(0, 64))
    assert any("earlier session left running" in e.text for e in events if isinstance(e, Note))
    assert transport.running
