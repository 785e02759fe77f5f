"""Transfers against a ROM of a few lines: what goes out, what is repeated, and when it is given up."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib

import pytest

from espwire.chips.registry import load_chip
from espwire.device import transfer
from espwire.device.loader import Loader
from espwire.device.transfer import (
    erase_range,
    erase_size_to_send,
    flash_md5,
    read_slow,
    write_deflated,
    write_plain,
)
from espwire.errors import CommandFailed, NoReply, Unsupported
from espwire.protocol.dialect import EraseRule

BEGIN, DATA, SYNC, DEFL_BEGIN, DEFL_DATA, MD5, READ = 2, 3, 8, 0x10, 0x11, 0x13, 0x0E
LOST = object()


@pytest.fixture(autouse=True)
def no_erase_check(monkeypatch):
    """The scripts hold what one transfer sends; what is looked at around it has its own tests (test_erase_check.py)."""
    monkeypatch.setattr(transfer, "watch_erase", lambda loader, offset, size: None)


def unslip(frame: bytes) -> bytes:
    return frame.strip(b"\xc0").replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")


class TinyRom:
    """Just enough of a ROM. ``spoil(kind, number)`` may return an error code or LOST for the nth block."""

    def __init__(self, spoil=lambda op, number: None, seconds=0.0):
        self.flash = bytearray(b"\xff" * 0x40000)
        self.spoil, self.seconds = spoil, seconds
        self.begins: list[tuple[int, ...]] = []
        self.count = 0
        self.at = None

    def answer(self, frame):
        packet = unslip(frame)
        op, body = packet[1], packet[8:]
        repeats, status, result = 1, 0, b""
        words = struct.unpack(f"<{min(len(body), 20) // 4}I", body[: min(len(body), 20) // 4 * 4])
        if op in (BEGIN, DEFL_BEGIN):
            self.begins.append(words)
            size, offset = words[0], words[3]
            self.flash[offset : offset + size] = b"\xff" * size
            self.at, self.sequence, self.inflater = offset, 0, zlib.decompressobj()
        elif op in (DATA, DEFL_DATA):
            fault = self.spoil(op, self.count)
            self.count += 1
            if self.at is None or words[1] != self.sequence:
                status = 5
            elif fault is LOST:
                return []
            elif fault:
                status, self.at = fault, None
            else:
                data = body[16:] if op == DATA else self.inflater.decompress(body[16:])
                self.flash[self.at : self.at + len(data)] = data
                self.at += len(data)
                self.sequence += 1
        elif op == MD5:
            result = hashlib.md5(self.flash[words[0] : words[0] + words[1]]).hexdigest().encode()
        elif op == READ:
            result = bytes(self.flash[words[0] : words[0] + 64])
        elif op == SYNC:
            repeats = 8
        reply = (
            struct.pack("<BBHI", 1, op, len(result) + 4, 0x20120707)
            + result
            + bytes((bool(status), status, 0, 0))
        )
        framed = (
            b"\xc0" + reply.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc") + b"\xc0"
        )
        return [(self.seconds, framed * repeats)]


@pytest.fixture
def rom_and_loader(link_with):
    def make(chip="esp32", **keywords):
        rom = TinyRom(**keywords)
        transport = link_with(rom.answer)
        return rom, Loader(transport, load_chip(chip).rom), transport

    return make


def test_begin_has_four_words_on_the_esp32_and_five_on_the_esp32c3(scripted):
    # both requests are recorded
    for chip, request in (
        ("esp32", "c0000210000000000000400000100000000004000000000100c0"),
        ("esp32c3", "c000021400000000000040000010000000000400000000010000000000c0"),
    ):
        loader, transport = scripted({request: "c0010204000000100000000000c0"}, chip=chip)
        erase_range(loader, 0x10000, 0x4000)
        assert transport.sent[0].hex() == request


def test_the_last_block_is_padded_with_ff(rom_and_loader):
    rom, loader, transport = rom_and_loader()
    done = []
    write_plain(loader, 0x1000, b"A" * 1500, on_block=done.append)
    assert rom.begins == [(1500, 2, 0x400, 0x1000)]
    assert rom.flash[0x1000:0x1800] == b"A" * 1500 + b"\xff" * 548
    assert done == [1024, 1500]
    assert len(unslip(transport.sent[-1])) == 8 + 16 + 1024


@pytest.mark.parametrize(
    ("offset", "size", "sent"),
    [
        (0, 0x1000, 0x1000),  # one sector: half of two
        (0, 0x10000, 0x8000),  # one block: all of it is head
        (0, 0x20000, 0x10000),
        (0x1000, 0x20000, 0x11000),
        (0x10000, 20000, 0x3000),
        (0xF000, 0x3000, 0x2000),
    ],
)
def test_the_esp8266_is_told_less_than_it_erases(offset, size, sent):
    assert erase_size_to_send(EraseRule.ESP8266_HEAD_BUG, offset, size) == sent
    assert erase_size_to_send(EraseRule.TRUE_SIZE, offset, size) == size


def test_after_a_bad_block_a_new_begin_repeats_from_a_sector(rom_and_loader):
    data = random.Random(1).randbytes(20000)
    rom, loader, _ = rom_and_loader(spoil=lambda op, number: 7 if number == 9 else None)
    done = []
    write_plain(loader, 0x2000, data, on_block=done.append)
    assert rom.flash[0x2000 : 0x2000 + 20000] == data
    # nine blocks were confirmed, eight are sure: two sectors
    assert [begin[3] for begin in rom.begins] == [0x2000, 0x4000]
    assert rom.begins[1][0] == 20000 - 0x2000
    assert done[-1] == 20000


@pytest.mark.parametrize("write", [write_plain, write_deflated])
def test_a_lost_answer_is_survived_in_bounded_time(rom_and_loader, write):
    data = random.Random(2).randbytes(30000)
    rom, loader, transport = rom_and_loader(
        spoil=lambda op, number: LOST if number in (5, 17) else None
    )
    write(loader, 0, data, on_block=lambda done: None)
    assert rom.flash[:30000] == data
    assert transport.now() < 2 * 3.5


def test_a_deflated_write_begins_its_stream_anew(rom_and_loader):
    data = random.Random(3).randbytes(12000) + bytes(8001)
    rom, loader, _ = rom_and_loader(spoil=lambda op, number: 0x0B if number == 8 else None)
    done = []
    write_deflated(loader, 0x3000, data, on_block=done.append)
    assert rom.flash[0x3000 : 0x3000 + len(data)] == data
    assert len(rom.begins) == 2
    assert rom.begins[0][0] == 20480  # whole blocks
    assert rom.begins[1][3] == 0x4000
    assert done[-1] == len(data)


def test_a_deflate_block_has_time_for_what_it_unpacks_to(rom_and_loader):
    _, loader, transport = rom_and_loader(seconds=5.0)
    loader.transport = transport
    write_deflated(loader, 0, bytes(0x30000), on_block=lambda done: None)  # 196 KB: 7.9 s
    assert transport.now() == pytest.approx(10.0)


@pytest.mark.parametrize(("fault", "error"), [(7, CommandFailed), (LOST, NoReply)])
def test_a_block_that_never_arrives_ends_the_write_after_three_tries(rom_and_loader, fault, error):
    rom, loader, transport = rom_and_loader(spoil=lambda op, number: fault if number >= 4 else None)
    with pytest.raises(error):
        write_plain(loader, 0, bytes(0x4000), on_block=lambda done: None)
    assert len(rom.begins) <= 6
    assert transport.now() < 60


def test_a_begin_past_the_flash_is_not_repeated(scripted):
    begin = "c0000210000000000000040000010000000004000000f0ff7fc0"  # recorded
    loader, transport = scripted({begin: "c0010204000080000001060000c0"})
    with pytest.raises(CommandFailed, match=r"0x0106"):
        write_plain(loader, 0x7FFFF000, bytes(0x400), on_block=lambda done: None)
    assert len(transport.sent) == 1


def test_the_md5_is_asked_and_read_as_recorded(scripted):
    request = "c0001310000000000000000200004000000000000000000000c0"
    reply = "c00113240007071220323634616430633932316461653465633862366338656639363339346131643900000000c0"
    loader, _ = scripted({request: reply})
    assert flash_md5(loader, 0x20000, 0x4000).hex() == "264ad0c921dae4ec8b6c8ef96394a1d9"


def test_slow_reading_gives_what_was_asked_and_repeats_what_was_lost(rom_and_loader):
    rom, loader, transport = rom_and_loader()
    rom.flash[0x100:0x200] = random.Random(4).randbytes(0x100)
    answer, lost = transport._answer, [3]

    def lossy(frame):
        lost[0] -= 1
        return [] if lost[0] == 0 else answer(frame)

    transport._answer = lossy
    assert b"".join(read_slow(loader, 0x100, 200)) == rom.flash[0x100 : 0x100 + 200]
    assert [len(piece) for piece in read_slow(loader, 0, 130)] == [64, 64, 2]


def test_the_esp8266_rom_reads_nothing(rom_and_loader):
    _, loader, transport = rom_and_loader("esp8266")
    with pytest.raises(Unsupported):
        next(read_slow(loader, 0, 64))
    with pytest.raises(Unsupported):
        flash_md5(loader, 0, 64)
    assert not transport.sent


def test_an_encrypted_write_needs_a_rom_that_can(rom_and_loader):
    _, loader, _ = rom_and_loader("esp32")
    with pytest.raises(Unsupported, match="encrypted"):
        write_plain(loader, 0, bytes(32), on_block=lambda done: None, encrypted=True)
    rom, loader, _ = rom_and_loader("esp32c3")
    write_plain(loader, 0, bytes(32), on_block=lambda done: None, encrypted=True)
    assert rom.begins[0][4] == 1
