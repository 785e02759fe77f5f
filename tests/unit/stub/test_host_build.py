"""The stub's sources on this PC with sanitizers: long streams of every kind, damaged streams, internal checks.

The protocol itself: tests/conformance/test_stub.py, which also runs on this build.
"""

from __future__ import annotations

import hashlib
import lzma
import random
import zlib
from collections.abc import Iterator

import pytest
from tests.stub_drivers.frames import (
    BAD_LENGTH,
    BAD_STREAM,
    LZMA_FORMS,
    NOT_IMPLEMENTED,
    TOO_LITTLE,
    TOO_MUCH,
    frame,
    pack,
    pack_for,
    pieces,
    text,
    words,
)
from tests.stub_drivers.host_program import HostStub

from espwire.compress import convert_branches
from espwire.protocol import stub as s
from espwire.protocol.commands import checksum
from espwire.protocol.opcodes import Op

CODECS = (s.Codec.RAW, s.Codec.ZLIB, s.Codec.LZMA_RISCV)
PLENTIFUL_BYTES = bytes.fromhex("C0 DB DC DD 11 13 00 FF")  # escapes, flow control, blank


@pytest.fixture
def stub() -> Iterator[HostStub]:
    found = HostStub()
    yield found
    found.close()


def test_it_can_do_everything(stub):
    told = s.parse_capabilities(stub.call(s.AskCapabilities().packet())[0].body)
    assert told.features == s.Feature(0x12FFF) | s.Feature.LZMA_RISCV


@pytest.mark.parametrize("size", [1, 2, 3, 4, 63, 64, 65, 4095, 4096, 4097, 70_001])
@pytest.mark.parametrize("codec", CODECS)
def test_writes_of_all_sizes(stub, size, codec):
    data = text(size)
    stream = pack_for(codec, data)
    assert stub.write(0x10000, size, stream, codec).in_flash == size
    assert stub.read(0xF000, 0x1000) == b"\xff" * 0x1000
    assert stub.read(0x10000, size + 5000) == data + b"\xff" * 5000


def test_encrypted_data_goes_another_way(stub):
    data = text(4096)
    stub.write(0x4000, 4096, data, s.Codec.RAW, s.WRITE_ENCRYPTED)
    assert stub.read(0x4000, 4096) == bytes(byte ^ 0xA5 for byte in data)


KINDS = {
    "stored": (0, zlib.Z_DEFAULT_STRATEGY),
    "fixed": (9, zlib.Z_FIXED),
    "huffman only": (9, zlib.Z_HUFFMAN_ONLY),
    "runs": (9, zlib.Z_RLE),
    "best": (9, zlib.Z_DEFAULT_STRATEGY),
    "quick": (1, zlib.Z_DEFAULT_STRATEGY),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "data", [text(100_000), b"\0" * 200_000, random.Random(5).randbytes(50_000), b"x"]
)
def test_every_kind_of_block_is_unpacked(stub, kind, data):
    level, strategy = KINDS[kind]
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    stream = packer.compress(data[: len(data) // 2]) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += packer.compress(data[len(data) // 2 :]) + packer.flush()
    assert stub.write(0, len(data), stream).status == 0
    reply, _ = stub.call(frame(Op.SPI_FLASH_MD5, words(0, len(data), 0, 0)))
    assert reply.body == hashlib.md5(data).digest()


def test_an_abort_ends_a_frame_that_unpacks_to_megabytes(stub):
    stream = pack(bytes(2_000_000))
    stub.call(s.WriteOpen(0, 2_000_000, len(stream), s.Codec.ZLIB, 0, 1).packet())
    stub.post(pieces(stream)[0], s.Abort(5).packet())
    assert stub.ask(s.WriteData(0).packet(), answers=2)[0][4:8] == b"\5\0\0\0"


@pytest.mark.parametrize(
    ("last", "told"),
    [
        (s.StubReset().packet(), "reset"),
        (frame(Op.FLASH_END, words(0)), "reset"),
        (frame(Op.FLASH_DEFL_END, words(0)), "reset"),
        (frame(Op.MEM_END, words(0, 0x40080000)), "jump to 0x40080000"),
    ],
)
def test_what_ends_it_is_done_after_the_answer(stub, last, told):
    stub.ask(last)
    assert told in stub.close()


def test_the_baud_rate_changes_after_the_answer(stub):
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(921600, 115200)))[1] == 0
    assert "baud 115200 to 921600" in stub.close()


@pytest.mark.parametrize("size", [5, 300])
def test_blocks_for_ram_that_leave_the_next_one_unaligned_do_not_harm(stub, size):
    code = text(size)
    stub.unseal()
    assert stub.call(frame(Op.MEM_BEGIN, words(2 * size, 2, size, 0x40080000)))[1] == 0
    statuses = [
        stub.call(frame(Op.MEM_DATA, words(size, number, 0, 0) + code, checksum(code)))[1]
        for number in range(2)
    ]
    assert statuses == ([0, 0xC200] if size % 4 else [0, 0])
    assert stub.call(frame(Op.SPI_ATTACH, words(1)))[1] == NOT_IMPLEMENTED


def finish(stub: HostStub, size: int, stream: bytes) -> s.Report:
    """The last report of a write."""
    return stub.write(0, size, stream, transfer=3)


def mutate(pick: random.Random, stream: bytes) -> bytes:
    found = bytearray(stream)
    for _ in range(pick.choice((1, 1, 2, 5))):
        match pick.randrange(4):
            case 0:
                found[pick.randrange(len(found))] ^= 1 << pick.randrange(8)
            case 1:
                del found[pick.randrange(1, len(found) + 1) :]
            case 2:
                at = pick.randrange(len(found))
                found[at:at] = pick.randbytes(pick.randrange(1, 9))
            case _:
                found[2:] = pick.randbytes(len(found) - 1)
    return bytes(found)


@pytest.mark.parametrize("part", range(2))
def test_mutated_streams_end_as_in_zlib(stub, part, request):
    """A stream that zlib accepts is written, any other ends with a status; the sanitizers check both."""
    many = 10_000 if "soak" in request.config.getoption("-m") else 1000
    pick = random.Random(part)
    for _ in range(many):
        data = pick.choice(
            (text(pick.randrange(1, 3000), pick.randrange(9)), bytes(pick.randrange(1, 40_000)))
        )
        stream = mutate(pick, pack(data, pick.choice((0, 1, 9)), pick.randrange(5)))
        try:
            unpacker = zlib.decompressobj()
            expected = unpacker.decompress(stream)
            good = expected == data and unpacker.eof and not unpacker.unused_data
        except zlib.error:
            good = False
        last = finish(stub, len(data), stream)
        assert (last.status == 0) is good or (last.status == 0 and unpacker.unused_data)
        if last.status == 0:
            assert stub.call(s.Hash(0, len(data)).packet())[0].body == hashlib.md5(data).digest()
        elif len(stream) < 6:
            assert last.status in (TOO_LITTLE, BAD_STREAM)


def lzma_good(data: bytes, stream: bytes) -> bool:
    """Whether liblzma decompresses the stream to ``data``."""
    form = LZMA_FORMS[s.Codec.LZMA_RISCV]
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=form.build_filters())
    try:
        return unpacker.decompress(stream) == convert_branches(data, 0) and unpacker.eof
    except lzma.LZMAError:
        return False


@pytest.mark.parametrize("part", range(2))
def test_mutated_lzma_streams_end_as_in_liblzma(stub, part, request):
    """As above. Without a sum over the data, some mutated streams are valid, for other data."""
    many, survivors = 10_000 if "soak" in request.config.getoption("-m") else 1000, 0
    pick = random.Random(part)
    for _ in range(many):
        data = pick.choice(
            (text(pick.randrange(1, 3000), pick.randrange(9)), bytes(pick.randrange(1, 40_000)))
        )
        stream = mutate(pick, pack_for(s.Codec.LZMA_RISCV, data))
        last = stub.write(0, len(data), stream, s.Codec.LZMA_RISCV)
        assert last.status in (0, BAD_STREAM, TOO_LITTLE, TOO_MUCH)
        if lzma_good(data, stream):
            assert last.status == 0
            assert stub.call(s.Hash(0, len(data)).packet())[0].body == hashlib.md5(data).digest()
        survivors += last.status == 0
    assert survivors < many / 4


def test_random_bytes_are_no_lzma_stream_and_do_no_harm(stub):
    pick = random.Random(8)
    for _ in range(200):
        stream = b"\0" + pick.randbytes(pick.randrange(1, 9000))
        last = stub.write(0x4000, 30_000, stream, s.Codec.LZMA_RISCV)
        assert last.status in (BAD_STREAM, TOO_LITTLE, TOO_MUCH)
    assert stub.read(0x3000, 0x1000) == stub.read(0xC000, 0x1000) == b"\xff" * 0x1000


def test_lzma_streams_of_every_length_around_full_frames(stub):
    """2048 bytes in a frame: N frames and 0 to 5 bytes; the size announced, or left open."""
    found, size = set(), 1500
    while len(found) < 6 and size < 40_000:
        size += 1
        data = random.Random(size).randbytes(size)
        stream = pack_for(s.Codec.LZMA_RISCV, data)
        if len(stream) % 2048 > 5:
            size += (2048 - len(stream) % 2048) // 2
            continue
        found.add(len(stream) % 2048)
        for announced in (None, 0):
            last = stub.write(0, size, stream, s.Codec.LZMA_RISCV, announced=announced)
            assert (last.status, last.in_flash) == (0, size), len(stream)
            assert stub.call(s.Hash(0, size).packet())[0].body == hashlib.md5(data).digest()
    assert found == {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("byte", PLENTIFUL_BYTES)
def test_data_of_a_single_byte_value(stub, codec, byte):
    data = bytes([byte]) * 9001
    assert stub.write(0, len(data), pack_for(codec, data), codec).status == 0
    assert stub.read(0, len(data)) == data


def test_only_an_lzma_stream_may_leave_its_size_open(stub):
    for codec, status in ((s.Codec.RAW, BAD_LENGTH), (s.Codec.ZLIB, BAD_LENGTH)):
        assert stub.call(s.WriteOpen(0, 4096, 0, codec, 0, 1).packet())[1] == status
    assert stub.call(s.WriteOpen(0, 4096, 0, s.Codec.LZMA, 0, 1).packet())[1] == NOT_IMPLEMENTED
    assert stub.call(s.WriteOpen(0, 4096, 0, s.Codec.LZMA_RISCV, 0, 1).packet())[1] == 0
    stub.abort()


def test_calls_in_any_data_are_restored(stub):
    """Data made of pieces of calls, so that calls overlap, end at the end of a step, and look like others."""
    pick, parts = random.Random(4), [bytes([one]) for one in b"\xef\x17\x97\x67\x00\x80\xe7\x10"]
    parts += [bytes.fromhex("EF000010"), bytes.fromhex("97000000E7800000"), b"\0"]
    for _ in range(60):
        data = b"".join(pick.choices(parts, k=pick.randrange(1, 4000)))
        stub.write(0x20000, len(data), pack_for(s.Codec.LZMA_RISCV, data), s.Codec.LZMA_RISCV)
        assert stub.read(0x20000, len(data)) == data


def test_the_harness_sees_a_violation():
    """Programming without write enable is a violation, as is programming from 0 to 1."""
    stub = HostStub()
    stub.call(s.SpiTransaction(0x02, 0, 24, 0, b"\0", 0, s.SPI_WAIT).packet())
    with pytest.raises(AssertionError, match="violation: program without enable"):
        stub.close()
