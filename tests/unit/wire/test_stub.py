"""The own stub's frames: golden bytes written by hand, and packing against parsing."""

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.wire import slip
from espwire.wire import stub as s
from espwire.wire.commands import ReadReg, Reply, Request

WORD = st.integers(0, 0xFFFFFFFF)


def parse_stub_command(request):
    """The typed command of a request to our stub, beyond the vendor's; None where it is none or malformed."""
    kind = s.STUB_COMMANDS.get(request.op)
    checked = kind is s.WriteData or request.check
    if kind is None or (checked and zlib.crc32(request.body) != request.check):
        return None
    return kind.parse(request.body)


GOLDEN = [
    (s.AskCapabilities(), "00f0 0400 00000000 01000000"),
    (
        s.WriteOpen(0x1000, 0x20, 0x18, s.Codec.ZLIB, s.WRITE_NO_ERASE, 7),
        "00f1 1800 1dce2c69 00100000 20000000 18000000 01000000 02000000 07000000",
    ),
    (s.WriteData(0x800, b"\xaa\xbb"), "00f2 0600 05d4e989 00080000 aabb"),
    (s.WriteData(0x800, b"\xaa\xbb", 0x33), "00f2 0600 20a5bc40 33080000 9988"),
    (s.ReadOpen(0, 0x2000, 0x400, 0x4000, 1), "00f3 1400 8dc47ecb 00000000 00200000 00040000 00400000 01000000"),
    (s.ReadAck(0x400, s.ACK_AGAIN), "00f4 0800 00000000 00040000 01000000"),
    (s.Hash(0x10000, 0x3000, 0x1000, s.HashKind.BLANK), "00f5 1000 941abc86 00000100 00300000 00100000 01000000"),
    (
        s.SpiTransaction(0x5A, 0x10, 24, 8, b"\x01", 4, s.SPI_WAIT),
        "00f6 1100 3fa50ff1 5a000000 10000000 18080104 02000000 01",
    ),
    (s.Batch((ReadReg(4).request(), ReadReg(8).request())), "00f7 1000 2c3347cd 0a000400 04000000 0a000400 08000000"),
    (s.Abort(0x11223344), "00f8 0400 00000000 44332211"),
    (s.StubReset(), "00f9 0400 00000000 00000000"),
]


@pytest.mark.parametrize(("command", "wire"), GOLDEN, ids=lambda value: type(value).__name__)
def test_each_command_packs_to_bytes_written_by_hand_and_parses_back(command, wire):
    assert command.packet() == bytes.fromhex(wire)
    assert parse_stub_command(command.request()) == command


def test_every_opcode_has_a_class_and_a_golden_frame():
    assert set(s.STUB_COMMANDS) == set(s.StubOp) == {command.op for command, _ in GOLDEN}


@pytest.mark.parametrize("command", [s.WriteData(0, b"abcd"), s.WriteOpen(0, 4, 4, 0, 0, 0), s.Hash(0, 4)])
def test_a_checked_request_with_a_flipped_bit_is_none(command):
    request = command.request()
    assert parse_stub_command(Request(request.op, request.check ^ 1, request.body)) is None


@given(st.binary(max_size=80))
def test_no_bytes_make_parsing_raise(body):
    for op in s.StubOp:
        parse_stub_command(Request(op, zlib.crc32(body), body))
        s.parse_report(Reply(op, 0, body))
        s.parse_read_packet(Reply(op, 0, body), 16)
    s.parse_capabilities(body)
    s.parse_batch_reply(body, (ReadReg(0).request(),))


@given(WORD, WORD, WORD, WORD, st.integers(0, 0xFFFF))
def test_a_report_comes_back(received, credit, in_flash, transfer, status):
    report = s.Report(received, credit, in_flash, transfer, status)
    assert s.parse_report(report.reply()) == report


@given(WORD, st.binary(min_size=1, max_size=64))
def test_a_read_packet_comes_back_and_damage_is_seen(position, data):
    packet = s.ReadPacket(position, data)
    reply = packet.reply()
    assert s.parse_read_packet(reply, len(data)) == packet
    spoiled = Reply(reply.op, reply.value, bytes([reply.body[0] ^ 1]) + reply.body[1:])
    found = s.parse_read_packet(spoiled, len(data))
    assert found is not None
    assert not found.intact


def test_a_blank_packet_needs_no_payload():
    packet = s.ReadPacket(0x400, b"\xff" * 32)
    assert len(packet.reply(short=True).body) == 6
    assert s.parse_read_packet(packet.reply(short=True), 32) == packet


def test_capabilities_come_back_and_nonsense_does_not():
    told = s.Capabilities(
        features=s.Feature.WRITE | s.Feature.READ,
        frame_payload=2048,
        write_window=28672,
        read_packet=4096,
        read_window=65536,
        cpu_hz=160_000_000,
        batch_bytes=512,
        image_chip_id=5,
        build=b"12345678",
    )
    assert s.parse_capabilities(told.pack()) == told
    assert len(told.pack()) == s.CAPABILITIES_BYTES == 44
    assert s.parse_capabilities(b"EWSX" + told.pack()[4:]) is None
    assert s.parse_capabilities(told.pack()[:-1]) is None


def test_a_batch_is_answered_in_parts_and_may_stop_early():
    requests = (ReadReg(4).request(), s.SpiTransaction(0x9F, read=3).request(), ReadReg(8).request())
    answers = (Reply(0x0A, 99, b"\0\0"), Reply(0xF6, 0, b"\xef\x40\x16\0\0"))
    data = b"".join(map(s.pack_batch_answer, answers))
    assert s.parse_batch_reply(data, requests) == answers
    assert s.parse_batch_reply(data[:-1], requests) is None


@pytest.mark.parametrize(
    "data", [b"\xc0" * 99, b"\xdb\xc0" * 99, bytes(range(256)) * 8, random.Random(1).randbytes(2048), b""]
)
def test_the_mask_that_is_found_needs_the_fewest_escapes(data):
    lengths = [len(slip.encode(s.mask_bytes(data, mask))) for mask in range(256)]
    assert lengths[s.find_mask(data)] == min(lengths)
    assert s.mask_bytes(s.mask_bytes(data, 0x5A), 0x5A) == data
