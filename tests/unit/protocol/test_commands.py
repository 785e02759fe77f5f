"""Commands and replies: golden bytes by hand (not by our encoder), then every command there and back."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.protocol import commands as c

WORD = st.integers(0, 0xFFFFFFFF)
GOLDEN = [
    (c.Sync(), "0008240000000000" + "07071220" + "55" * 32),
    (c.ReadReg(0x40001000), "000a040000000000" + "00100040"),
    (
        c.WriteReg((c.RegWrite(0x3FF42028, 0x17),)),
        "0009100000000000" + "2820f43f17000000ffffffff00000000",
    ),
    (
        c.WriteReg((c.RegWrite(1, 2, 3, 4), c.RegWrite(5, 6, 7, 8))),
        "0009200000000000"
        + "01000000020000000300000004000000"
        + "05000000060000000700000008000000",
    ),
    (
        c.FlashBegin(0x800, 2, 0x400, 0x30000),
        "0002100000000000" + "00080000020000000004000000000300",
    ),
    (
        c.FlashBegin(0x800, 2, 0x400, 0x30000, 0),
        "0002140000000000" + "0008000002000000000400000000030000000000",
    ),
    (c.FlashData(1, b"\x01\x02"), "00031200ec000000" + "02000000010000000000000000000000" + "0102"),
    (c.FlashEnd(1), "0004040000000000" + "01000000"),
    (
        c.MemBegin(16, 1, 0x1800, 0x40080000),
        "0005100000000000" + "10000000010000000018000000000840",
    ),
    (c.MemEnd(0, 0x40080004), "0006080000000000" + "0000000004000840"),
    (c.MemData(0, b"\xef"), "0007110000000000" + "01000000000000000000000000000000" + "ef"),
    (
        c.SpiSetParams(0, 0x400000),
        "000b180000000000" + "000000000000400000000100001000000001" + "0000ffff0000",
    ),
    (c.SpiAttach(0, 0), "000d080000000000" + "0000000000000000"),
    (c.SpiAttach(0), "000d040000000000" + "00000000"),
    (c.ReadFlashSlow(0x1000, 64), "000e080000000000" + "0010000040000000"),
    (c.ChangeBaudrate(460800), "000f080000000000" + "0008070000000000"),
    (
        c.FlashDeflBegin(0x1000, 1, 0x400, 0x40000, 0),
        "0010140000000000" + "0010000001000000000400000000040000000000",
    ),
    (c.FlashDeflData(0, b"\x78"), "0011110097000000" + "01000000000000000000000000000000" + "78"),
    (c.FlashDeflEnd(1), "0012040000000000" + "01000000"),
    (c.SpiFlashMd5(0x10000, 0x4000), "0013100000000000" + "00000100004000000000000000000000"),
    (c.GetSecurityInfo(), "0014000000000000"),
    (c.SdcVerifBegin(1, 436), "0019080000000000" + "01000000b4010000"),
    (c.SdcVerifData(b"\x01"), "001a0500ee000000" + "0100000001"),
    (c.SdcVerifEnd(), "001b040000000000" + "00000000"),
    (c.SdcGenBegin(), "001c040000000000" + "01000000"),
    (c.SdcGenData(b"\x00\x01"), "001d0600ee000000" + "020000000001"),
    (c.SdcGenEnd(), "001e040000000000" + "01000000"),
    (c.EraseFlash(), "00d0000000000000"),
    (c.EraseRegion(0x1000, 0x2000), "00d1080000000000" + "0010000000200000"),
    (c.ReadFlash(0, 0x1000, 0x1000, 64), "00d2100000000000" + "00000000001000000010000040000000"),
    (c.RunUserCode(), "00d3000000000000"),
]


@pytest.mark.parametrize(
    "command, packet", GOLDEN, ids=lambda v: type(v).__name__ if not isinstance(v, str) else ""
)
def test_golden_bytes_both_ways(command, packet):
    assert command.packet().hex() == packet
    request = c.parse_request(bytes.fromhex(packet))
    assert request is not None
    assert c.parse_command(request) == command


def test_every_opcode_has_a_golden_packet():
    assert {command.op for command, _ in GOLDEN} == set(c.Op) == set(c.COMMANDS)


def value_for(field):
    if field.type == "bytes":
        return st.binary(max_size=64)
    if field.name == "writes":
        return st.lists(st.builds(c.RegWrite, WORD, WORD, WORD, WORD), min_size=1, max_size=4).map(
            tuple
        )
    return WORD


@given(st.sampled_from(sorted(c.COMMANDS)), st.data())
def test_every_command_comes_back(op, data):
    kind = c.COMMANDS[op]
    command = kind(*(data.draw(value_for(f)) for f in dataclasses.fields(kind)))
    assert c.parse_command(c.parse_request(command.packet())) == command


@given(st.binary(max_size=80))
def test_parsing_never_raises(frame):
    for request in (c.parse_request(frame), c.Request(frame[0] if frame else 0, 0, frame[1:])):
        if request is not None:
            command = c.parse_command(request)
            assert command is None or command.body() == request.body
    reply = c.parse_reply(frame)
    assert reply is None or reply.packet() == frame


@given(st.binary(max_size=2000))
def test_checksum_is_the_xor_of_all_bytes(data):
    expected = 0xEF
    for byte in data:
        expected ^= byte
    assert c.checksum(data) == expected


def test_a_frame_whose_size_field_lies_is_no_request_and_no_reply():
    assert c.parse_request(bytes.fromhex("000a630000000000" + "00100040")) is None
    assert c.parse_reply(bytes.fromhex("010a630000000000" + "00000000")) is None
    assert c.parse_reply(b"ets Jul 29 2019") is None


def test_the_classic_name_of_opcode_0x0b_is_kept():
    assert c.Op.CONFIGURE_SPI_PARAMS is c.Op.SPI_SET_PARAMS
