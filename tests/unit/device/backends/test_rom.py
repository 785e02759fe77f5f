"""The ROM backend against a ROM of a few lines: what is sent, what is repeated, and when it gives up."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib

import pytest

from espwire.chips.registry import load_chip
from espwire.compress import deflate_zlib
from espwire.device.backends import rom as rom_backend
from espwire.device.backends.base import erase_size_to_send
from espwire.device.backends.rom import RomBackend
from espwire.device.loader import Loader
from espwire.errors import CommandFailed, DeviceError, NoReply, Unsupported, VerifyError
from espwire.protocol.dialect import EraseRule

BEGIN, DATA, SYNC, DEFL_BEGIN, DEFL_DATA, MD5, READ = 2, 3, 8, 0x10, 0x11, 0x13, 0x0E
LOST = object()


@pytest.fixture(autouse=True)
def no_erase_check(monkeypatch):
    """The scripts hold what one transfer sends; the checks around it are tested by test_one_flipped_bit.py."""
    monkeypatch.setattr(rom_backend, "watch_erase", lambda loader, offset, size: None)


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
def rom_and_backend(link_with):
    def make(chip="esp32", **keywords):
        rom = TinyRom(**keywords)
        transport = link_with(rom.answer)
        return rom, RomBackend(Loader(transport, load_chip(chip).rom), load_chip(chip)), transport

    return make


def test_begin_has_four_words_on_the_esp32_and_five_on_the_esp32c3(scripted):
    # both requests are recorded
    for chip, request in (
        ("esp32", "c0000210000000000000400000100000000004000000000100c0"),
        ("esp32c3", "c000021400000000000040000010000000000400000000010000000000c0"),
    ):
        loader, transport = scripted({request: "c0010204000000100000000000c0"}, chip=chip)
        RomBackend(loader, load_chip(chip)).erase(0x10000, 0x4000)
        assert transport.sent[0].hex() == request


def test_the_last_block_is_padded_with_ff(rom_and_backend):
    rom, backend, transport = rom_and_backend()
    done = []
    backend.write(0x1000, b"A" * 1500, progress=done.append)
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
def test_the_esp8266_erases_more_than_it_is_sent(offset, size, sent):
    assert erase_size_to_send(EraseRule.ESP8266_HEAD_BUG, offset, size) == sent
    assert erase_size_to_send(EraseRule.TRUE_SIZE, offset, size) == size


def test_after_a_bad_block_a_new_begin_repeats_from_a_sector(rom_and_backend):
    data = random.Random(1).randbytes(20000)
    rom, backend, _ = rom_and_backend(spoil=lambda op, number: 7 if number == 9 else None)
    done = []
    backend.write(0x2000, data, progress=done.append)
    assert rom.flash[0x2000 : 0x2000 + 20000] == data
    # nine blocks were confirmed, eight are sure: two sectors
    assert [begin[3] for begin in rom.begins] == [0x2000, 0x4000]
    assert rom.begins[1][0] == 20000 - 0x2000
    assert done[-1] == 20000


@pytest.mark.parametrize("compressed", [False, True])
def test_a_lost_reply_is_repaired_in_bounded_time(rom_and_backend, compressed):
    data = random.Random(2).randbytes(30000)
    rom, backend, transport = rom_and_backend(
        spoil=lambda op, number: LOST if number in (5, 17) else None
    )
    backend.write(0, data, packed=deflate_zlib(data) if compressed else None)
    assert rom.flash[:30000] == data
    assert transport.now() < 2 * 3.5


def test_a_compressed_write_restarts_its_stream(rom_and_backend):
    data = random.Random(3).randbytes(12000) + bytes(8004)
    rom, backend, _ = rom_and_backend(spoil=lambda op, number: 0x0B if number == 8 else None)
    done = []
    backend.write(0x3000, data, packed=deflate_zlib(data), progress=done.append)
    assert rom.flash[0x3000 : 0x3000 + len(data)] == data
    assert len(rom.begins) == 2
    assert rom.begins[0][0] == 20480  # whole blocks
    assert rom.begins[1][3] == 0x4000
    assert done[-1] == len(data)


def test_a_deflate_block_has_time_for_what_it_unpacks_to(rom_and_backend):
    _, backend, transport = rom_and_backend(seconds=5.0)
    data = bytes(0x30000)  # 196 KB: 7.9 s
    backend.write(0, data, packed=deflate_zlib(data))
    assert transport.now() == pytest.approx(10.0)


@pytest.mark.parametrize(("fault", "error"), [(7, CommandFailed), (LOST, NoReply)])
def test_a_block_that_never_arrives_ends_the_write_after_three_tries(rom_and_backend, fault, error):
    rom, backend, transport = rom_and_backend(
        spoil=lambda op, number: fault if number >= 4 else None
    )
    with pytest.raises(error) as caught:
        backend.write(0, bytes(0x4000))
    assert caught.value.written_until == 0  # three blocks are sure: not a whole sector
    assert len(rom.begins) <= 6
    assert transport.now() < 60


def test_a_begin_past_the_flash_is_not_repeated(scripted):
    begin = "c0000210000000000000040000010000000004000000f0ff7fc0"  # recorded
    loader, transport = scripted({begin: "c0010204000080000001060000c0"})
    with pytest.raises(CommandFailed, match=r"0x0106"):
        RomBackend(loader, load_chip("esp32")).write(0x7FFFF000, bytes(0x400))
    assert len(transport.sent) == 1


def test_the_md5_request_and_reply_are_as_recorded(scripted):
    request = "c0001310000000000000000200004000000000000000000000c0"
    reply = "c00113240007071220323634616430633932316461653465633862366338656639363339346131643900000000c0"
    loader, _ = scripted({request: reply})
    (digest,) = RomBackend(loader, load_chip("esp32")).digests(0x20000, 0x4000, 0x4000)
    assert digest.hex() == "264ad0c921dae4ec8b6c8ef96394a1d9"


def test_slow_reading_repeats_lost_requests(rom_and_backend):
    rom, backend, transport = rom_and_backend()
    rom.flash[0x100:0x200] = random.Random(4).randbytes(0x100)
    answer, lost = transport._answer, [3]

    def lossy(frame):
        lost[0] -= 1
        return [] if lost[0] == 0 else answer(frame)

    transport._answer = lossy
    assert b"".join(backend.read(0x100, 200)) == rom.flash[0x100 : 0x100 + 200]
    done = []
    assert [len(piece) for piece in backend.read(0, 130, progress=done.append)] == [130]
    assert done == [64, 128, 130]


def test_the_esp8266_rom_reads_nothing(rom_and_backend):
    _, backend, transport = rom_and_backend("esp8266")
    with pytest.raises(Unsupported):
        backend.read(0, 64)
    with pytest.raises(Unsupported):
        backend.digests(0, 64, 64)
    assert backend.find_written(0, 64) is None
    assert not transport.sent


def test_an_encrypted_write_needs_a_rom_that_can(rom_and_backend):
    _, backend, _ = rom_and_backend("esp32")
    with pytest.raises(Unsupported, match="encrypted"):
        backend.write(0, bytes(32), encrypted=True)
    rom, backend, _ = rom_and_backend("esp32c3")
    backend.write(0, bytes(32), encrypted=True)
    assert rom.begins[0][4] == 1


def test_a_lost_or_garbled_md5_is_requested_again_but_not_after_a_reset(
    rom_and_backend, monkeypatch
):
    _, backend, _ = rom_and_backend()
    errors = [NoReply("lost"), DeviceError("garbled", code="bad-reply")]
    whole = backend.loader.call

    def fail(*args, **keywords):
        if errors:
            raise errors.pop()
        return whole(*args, **keywords)

    monkeypatch.setattr(backend.loader, "call", fail)
    assert backend.digests(0, 64, 64) == [hashlib.md5(b"\xff" * 64).digest()]
    errors += [DeviceError("reset", code="chip-reset")]
    with pytest.raises(DeviceError, match="reset"):
        backend.digests(0, 64, 64)
    assert not errors


def test_a_piece_that_differs_from_its_md5_is_read_again(rom_and_backend):
    rom, backend, transport = rom_and_backend()
    rom.flash[:0x18000] = random.Random(6).randbytes(0x18000)
    answer, spoil = transport._answer, {0x40: 2, 0x10080: 1}

    def spoiled(frame):
        packet = unslip(frame)
        at = int.from_bytes(packet[8:12], "little")
        if packet[1] == READ and spoil.get(at):
            spoil[at] -= 1
            rom.flash[at] ^= 1
            answers = answer(frame)
            rom.flash[at] ^= 1
            return answers
        return answer(frame)

    transport._answer, events = spoiled, []
    assert b"".join(backend.read(0, 0x18000, report=events.append)) == rom.flash[:0x18000]
    assert [event.code for event in events] == ["reread"] * 3
    spoil[0x40] = 3
    with pytest.raises(VerifyError) as caught:
        b"".join(backend.read(0, 0x1000))
    assert caught.value.ranges == ((0, 0x1000),)


def test_a_failed_write_reports_how_far_it_came(rom_and_backend):
    rom, backend, _ = rom_and_backend(spoil=lambda op, number: 7 if number >= 22 else None)
    data = random.Random(7).randbytes(0x8000)
    with pytest.raises(CommandFailed) as caught:
        backend.write(0x4000, data)
    until = caught.value.written_until
    assert until == 0x4000 + 0x5000  # 22 blocks of 1 KiB were confirmed, 21 are sure
    assert rom.flash[0x4000:until] == data[: until - 0x4000]
