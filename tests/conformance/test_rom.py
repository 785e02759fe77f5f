"""The ROM loader's manners, as field notes and traces tell them. Runs on any port; see conftest."""

from __future__ import annotations

import hashlib
import os
import zlib

from espwire.chips.model import Chip
from espwire.device.device import Device
from espwire.protocol import slip
from espwire.protocol.commands import (
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    GetSecurityInfo,
    MemBegin,
    MemData,
    MemEnd,
    ReadFlashSlow,
    ReadReg,
    RegWrite,
    Request,
    SpiFlashMd5,
    Sync,
    WriteReg,
)
from espwire.protocol.opcodes import Op

from .conftest import Wire, failed, needs

BLOCK = 0x400


def begin(chip: Chip, size: int, offset: int) -> FlashBegin:
    return FlashBegin(size, size // BLOCK, BLOCK, offset, 0 if chip.rom.begin_words == 5 else None)


def deflate_begin(chip: Chip, size: int, blocks: int, offset: int) -> FlashDeflBegin:
    return FlashDeflBegin(size, blocks, BLOCK, offset, 0 if chip.rom.begin_words == 5 else None)


def md5(wire: Wire, offset: int, size: int) -> bytes:
    reply = wire.exchange(SpiFlashMd5(offset, size), 20)
    assert reply.body[32] == 0
    return bytes.fromhex(reply.body[:32].decode())


def test_sync_is_answered_eight_times(wire: Wire, chip: Chip) -> None:
    replies = wire.request(Sync())
    assert len(replies) == 8
    assert {reply.op for reply in replies} == {Op.SYNC}
    assert not any(failed(reply, chip) for reply in replies)
    assert {len(reply.body) for reply in replies} == {chip.rom.status_bytes}


def test_a_cut_frame_does_not_swallow_the_next_sync(wire: Wire) -> None:
    for cut in (1, 7, 20, 40):
        wire.send(slip.encode(Sync().packet())[:cut])
        wire.frames(0.2, 0.1)
        wire.send(slip.END)
        wire.frames(0.3, 0.2)  # a ROM may take the cut SYNC for a whole one
        assert len(wire.request(Sync())) == 8


def test_noise_before_a_request_is_survived(wire: Wire, chip: Chip) -> None:
    wire.send(b"hello, no frame\r\n\xc0\xc0\xc0\xdb\xc0" + bytes(range(1, 190)) + b"\xc0")
    wire.frames(0.3, 0.2)
    assert not failed(wire.exchange(ReadReg(chip.uart.clock_divider_address)), chip)


def test_requests_sent_at_once_are_answered_in_turn(wire: Wire, chip: Chip) -> None:
    request = slip.encode(ReadReg(chip.uart.clock_divider_address).packet())
    wire.send(request * 3)
    assert len(wire.frames()) == 3


def test_an_unknown_opcode_is_never_a_success_and_harms_nothing(wire: Wire, chip: Chip) -> None:
    wire.exchange(ReadReg(chip.uart.clock_divider_address))
    assert all(failed(reply, chip) for reply in wire.request(Request(0x55, 0, b"").packet(), 1.0))
    assert not failed(wire.exchange(ReadReg(chip.uart.clock_divider_address)), chip)


def test_a_size_field_that_lies_does_no_harm(wire: Wire, chip: Chip) -> None:
    address = chip.uart.clock_divider_address.to_bytes(4, "little")
    wire.request(bytes.fromhex("000a630000000000") + address, 1.0)
    assert len(wire.request(Sync())) == 8


def test_security_info_has_the_size_of_the_facts(wire: Wire, chip: Chip) -> None:
    wire.exchange(ReadReg(chip.uart.clock_divider_address))
    replies = wire.request(GetSecurityInfo(), 1.0)
    size = chip.identity.security_info_bytes
    if size:
        (reply,) = replies
        assert len(reply.body) == size + chip.rom.status_bytes
        assert not failed(reply, chip)
    else:
        assert all(failed(reply, chip) for reply in replies)


def test_registers_of_one_request_are_written_in_order_under_their_masks(
    wire: Wire, chip: Chip
) -> None:
    first = chip.spi.base + chip.spi.data_offset
    writes = (
        RegWrite(first, 0x11223344),
        RegWrite(first + 4, 0xAABBCCDD),
        RegWrite(first, 0xFFFFFFFF, 0x00FF0000),
    )
    assert not failed(wire.exchange(WriteReg(writes)), chip)
    assert wire.exchange(ReadReg(first)).value == 0x11FF3344
    assert wire.exchange(ReadReg(first + 4)).value == 0xAABBCCDD


def test_ram_takes_blocks_and_gives_them_back(wire: Wire, chip: Chip) -> None:
    if not chip.stub.reference_layouts:
        needs(chip, Op.SDC_GEN_END)  # no RAM known to be free
    address = chip.stub.reference_layouts[0]["bss_start"]
    data = os.urandom(1280)
    assert not failed(wire.exchange(MemBegin(len(data), 2, 1024, address)), chip)
    assert not failed(wire.exchange(MemData(0, data[:1024])), chip)
    assert not failed(wire.exchange(MemData(1, data[1024:])), chip)
    assert not failed(wire.exchange(MemEnd(1, 0)), chip)
    for at in (0, 512, 1020, 1024, 1276):
        assert wire.exchange(ReadReg(address + at)).value == int.from_bytes(
            data[at : at + 4], "little"
        )


def test_flash_id_is_plausible(flash: Device) -> None:
    assert flash.flash is not None
    assert flash.flash.size is not None
    assert flash.flash.size >= 0x40000


def test_plain_blocks_reach_the_flash(flash: Device, wire: Wire, chip: Chip, scratch: int) -> None:
    data = os.urandom(4 * BLOCK)
    assert not failed(wire.exchange(begin(chip, len(data), scratch), 20), chip)
    for number in range(4):
        block = FlashData(number, data[number * BLOCK : (number + 1) * BLOCK])
        assert not failed(wire.exchange(block, 20), chip)
    if Op.SPI_FLASH_MD5 in chip.rom.ops:
        assert md5(wire, scratch, len(data)) == hashlib.md5(data).digest()
    if Op.READ_FLASH_SLOW in chip.rom.ops:
        for at in (0, 64, 4032):
            assert wire.exchange(ReadFlashSlow(scratch + at, 64)).body[:64] == data[at : at + 64]


def test_a_slow_read_always_answers_64_bytes(
    flash: Device, wire: Wire, chip: Chip, scratch: int
) -> None:
    needs(chip, Op.READ_FLASH_SLOW)
    for size in (64, 16, 1):
        assert len(wire.exchange(ReadFlashSlow(scratch, size)).body) == 64 + chip.rom.status_bytes


def test_a_bad_checksum_is_refused_until_a_new_begin(
    flash: Device, wire: Wire, chip: Chip, scratch: int
) -> None:
    block = bytes(range(256)) * 4
    assert not failed(wire.exchange(begin(chip, 2 * BLOCK, scratch), 20), chip)
    good = FlashData(0, block).request()
    (refused,) = wire.request(Request(good.op, good.check ^ 1, good.body).packet(), 20)
    assert refused.body[-chip.rom.status_bytes :][:2] == b"\x01\x07"
    assert failed(wire.exchange(FlashData(0, block), 20), chip)
    assert not failed(wire.exchange(begin(chip, 2 * BLOCK, scratch), 20), chip)
    assert not failed(wire.exchange(FlashData(0, block), 20), chip)
    assert not failed(wire.exchange(FlashData(1, block), 20), chip)


def test_deflated_blocks_reach_the_flash(
    flash: Device, wire: Wire, chip: Chip, scratch: int
) -> None:
    needs(chip, Op.FLASH_DEFL_BEGIN)
    data = (b"squeeze me " * 800)[:0x2000]
    packed = zlib.compress(data, 9)
    blocks = -(-len(packed) // BLOCK)
    assert not failed(wire.exchange(deflate_begin(chip, len(data), blocks, scratch), 20), chip)
    for number in range(blocks):
        block = FlashDeflData(number, packed[number * BLOCK : (number + 1) * BLOCK])
        assert not failed(wire.exchange(block, 20), chip)
    assert md5(wire, scratch, len(data)) == hashlib.md5(data).digest()


def test_broken_deflate_data_is_refused(
    flash: Device, wire: Wire, chip: Chip, scratch: int
) -> None:
    needs(chip, Op.FLASH_DEFL_BEGIN)
    assert not failed(wire.exchange(deflate_begin(chip, 0x1000, 1, scratch), 20), chip)
    reply = wire.exchange(FlashDeflData(0, b"this is not a deflate stream, not at all" * 4), 20)
    assert reply.body[:2] == b"\x01\x0b"


def test_the_library_writes_verifies_and_reads_what_it_wrote(
    flash: Device, chip: Chip, scratch: int
) -> None:
    data = os.urandom(0x3000)
    flash.backend.write(scratch, data)
    if Op.SPI_FLASH_MD5 in chip.rom.ops:
        assert flash.flash_md5(scratch, len(data)) == hashlib.md5(data).digest()
    if Op.READ_FLASH_SLOW in chip.rom.ops:
        assert b"".join(flash.read_flash(scratch + 0x100, 0x250)) == data[0x100:0x350]
    flash.backend.erase(scratch, 0x2000)
    if Op.SPI_FLASH_MD5 in chip.rom.ops:
        assert (
            flash.flash_md5(scratch, 0x3000)
            == hashlib.md5(b"\xff" * 0x2000 + data[0x2000:]).digest()
        )


def test_the_baud_rate_changes_and_comes_back(flash: Device, chip: Chip) -> None:
    needs(chip, Op.CHANGE_BAUDRATE)
    if not flash.transport.info.can_change_baud:
        return  # over TCP there is no rate to change
    for baud in (460800, 115200):
        flash.change_baud(baud)
        assert flash.loader.read_reg(chip.uart.clock_divider_address)
