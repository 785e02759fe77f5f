"""The own stub's frames: golden bytes written by hand, and packing against parsing."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import ReadReg, Reply, Request, parse_reply, parse_request
from espwire.protocol.opcodes import Op

WORD = st.integers(0, 0xFFFFFFFF)


def flip(content, bit):
    return content[: bit // 8] + bytes([content[bit // 8] ^ 1 << bit % 8]) + content[bit // 8 + 1 :]


def parse_stub_command(request):
    """The typed command of a sealed request to our stub, beyond the vendor's; None where it is none or damaged."""
    kind = s.STUB_COMMANDS.get(request.op)
    return kind.parse(request.body) if kind is not None and s.is_sealed(request.packet()) else None


GOLDEN = [
    (
        s.TrialBaudrate(2_000_000, 460_800, 100),
        "000f 0c00 c89ff096 80841e00 00080700 64000000",
    ),
    (s.AskCapabilities(), "00f0 0400 2d6fc430 02000000"),
    (
        s.WriteOpen(0x1000, 0x20, 0x18, s.Codec.ZLIB, s.WRITE_NO_ERASE, 7),
        "00f1 1800 d0186205 00100000 20000000 18000000 01000000 02000000 07000000",
    ),
    (s.WriteData(0x800, b"\xaa\xbb"), "00f2 0600 4bffcea5 00080000 aabb"),
    (s.WriteData(0x800, b"\xaa\xbb", 0x33), "00f2 0600 6e8e9b6c 33080000 9988"),
    (
        s.ReadOpen(0, 0x2000, 0x400, 0x4000, 1),
        "00f3 1400 d8d410e9 00000000 00200000 00040000 00400000 01000000",
    ),
    (s.ReadAck(0x400, s.ACK_AGAIN), "00f4 0800 03d1eb1d 00040000 01000000"),
    (
        s.Hash(0x10000, 0x3000, 0x1000, s.HashKind.BLANK),
        "00f5 1000 88622497 00000100 00300000 00100000 01000000",
    ),
    (
        s.SpiTransaction(0x5A, 0x10, 24, 8, b"\x01", 4, s.SPI_WAIT),
        "00f6 1100 9aac549d 5a000000 10000000 18080104 02000000 01",
    ),
    (
        s.Batch((ReadReg(4).request(), ReadReg(8).request())),
        "00f7 1000 c14d6ba8 0a000400 04000000 0a000400 08000000",
    ),
    (s.Abort(0x11223344), "00f8 0400 b01b7b56 44332211"),
    (s.StubReset(), "00f9 0400 75e2550f 00000000"),
]


@pytest.mark.parametrize(("command", "wire"), GOLDEN, ids=lambda value: type(value).__name__)
def test_each_command_packs_to_bytes_written_by_hand_and_parses_back(command, wire):
    assert s.seal(command.packet()) == bytes.fromhex(wire)
    assert parse_stub_command(parse_request(s.seal(command.packet()))) == command


def test_every_opcode_has_a_class_and_a_golden_frame():
    trial = {Op.CHANGE_BAUDRATE}  # the ROM's opcode with a longer body
    assert set(s.STUB_COMMANDS) == {*s.StubOp, *trial} == {command.op for command, _ in GOLDEN}


@pytest.mark.parametrize(
    "command", [command for command, _ in GOLDEN], ids=lambda value: type(value).__name__
)
def test_a_sealed_request_opens_with_no_bit_flipped(command):
    packet = s.seal(command.packet())
    assert s.is_sealed(packet)
    assert not [bit for bit in range(8 * len(packet)) if s.is_sealed(flip(packet, bit))]


@pytest.mark.parametrize(
    "reply", [Reply(0x0A, 0x1234, b"\0\0"), Reply(0xF7, 0, bytes(range(90)))], ids=["value", "data"]
)
def test_a_sealed_reply_opens_with_no_bit_flipped(reply):
    packet = s.seal_reply(reply)
    assert s.unseal(parse_reply(packet)) == reply
    found = [parse_reply(flip(packet, bit)) for bit in range(8 * len(packet))]
    assert not [one for one in found if one is not None and s.unseal(one) is not None]


def test_a_refusal_names_the_request_by_its_check_word_even_if_that_was_damaged():
    packet = s.seal(ReadReg(4).packet())
    check = int.from_bytes(packet[4:8], "little")
    assert s.refuses(Reply(0x0A, check, b"\xc1\0"), packet)
    assert s.refuses(Reply(0x0B, check, b"\xc1\0"), packet)
    assert s.refuses(Reply(0x0A, check ^ 0x100, b"\xc1\0"), packet)
    assert not s.refuses(Reply(0x0A, check ^ 0x101, b"\xc1\0"), packet)
    assert not s.refuses(Reply(0x0A, check, b"\xc2\0"), packet)


@given(st.binary(max_size=80))
def test_no_bytes_make_parsing_raise(body):
    for op in s.StubOp:
        parse_stub_command(parse_request(s.seal(Request(op, 0, body).packet())))
        s.parse_report(Reply(op, 0, body))
        s.parse_read_packet(Reply(op, 0, body), 16)
    s.parse_capabilities(body)
    s.parse_batch_reply(body, (ReadReg(0).request(),))


@given(WORD, WORD, WORD, WORD, st.integers(0, 0xFFFF))
def test_a_report_comes_back(received, credit, in_flash, transfer, status):
    report = s.Report(received, credit, in_flash, transfer, status)
    assert s.parse_report(report.reply()) == report


@given(WORD, st.binary(min_size=1, max_size=64))
def test_a_read_packet_comes_back(position, data):
    packet = s.ReadPacket(position, data)
    assert s.parse_read_packet(packet.reply(), len(data)) == packet


def test_a_blank_packet_needs_no_payload():
    packet = s.ReadPacket(0x400, b"\xff" * 32)
    assert len(packet.reply(short=True).body) == 2
    assert s.parse_read_packet(packet.reply(short=True), 32) == packet


def test_capabilities_come_back_and_nonsense_does_not():
    told = s.Capabilities(
        code_crc=0x12345678,
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
    assert len(told.pack()) == s.CAPABILITIES_BYTES == 48
    assert s.parse_capabilities(b"EWSX" + told.pack()[4:]) is None
    assert s.parse_capabilities(told.pack()[:-1]) is None


def test_a_batch_is_answered_in_parts_and_may_stop_early():
    requests = (
        ReadReg(4).request(),
        s.SpiTransaction(0x9F, read=3).request(),
        ReadReg(8).request(),
    )
    answers = (Reply(0x0A, 99, b"\0\0"), Reply(0xF6, 0, b"\xef\x40\x16\0\0"))
    data = b"".join(map(s.pack_batch_answer, answers))
    assert s.parse_batch_reply(data, requests) == answers
    assert s.parse_batch_reply(data[:-1], requests) is None


@pytest.mark.parametrize(
    "data",
    [b"\xc0" * 99, b"\xdb\xc0" * 99, bytes(range(256)) * 8, random.Random(1).randbytes(2048), b""],
)
def test_the_mask_that_is_found_needs_the_fewest_escapes(data):
    lengths = [len(slip.encode(s.mask_bytes(data, mask))) for mask in range(256)]
    assert lengths[s.find_mask(data)] == min(lengths)
    assert s.mask_bytes(s.mask_bytes(data, 0x5A), 0x5A) == data
