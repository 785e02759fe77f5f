"""Streams and reads that end at or just after a full block, odd lengths, and bytes that a link may change.

As test_stub.py: on the stub's model, on CPU engines, on this PC, at any port.
"""

from __future__ import annotations

import hashlib
import random
from functools import cache

import pytest
from tests.stub_drivers.client import StubClient
from tests.stub_drivers.contents import CONTENTS, CRITICAL
from tests.stub_drivers.frames import PAYLOAD, frame, pack_for, text, words

from espwire.protocol import stub as s
from espwire.protocol.commands import checksum
from espwire.protocol.opcodes import Op

from .stub_targets import md5, require

pytestmark = pytest.mark.slow

LEFT = range(6)  # bytes after the last full block
BLOCK = 1024  # of the vendor's commands
PACKET = 4096  # of a read
ODD = 2049  # bytes of one value


@cache
def find_data(codec: s.Codec, packed: int) -> tuple[bytes, bytes]:
    """Data whose stream has a given size, and that stream."""
    for seed in range(2000):
        data = random.Random(seed).randbytes(packed - seed % 80)
        stream = pack_for(codec, data)
        if len(stream) == packed:
            return data, stream
    raise AssertionError(packed)


@pytest.mark.parametrize("codec", list(s.Codec))
@pytest.mark.parametrize("blocks", [1, 3])
def test_streams_of_full_frames_and_a_few_bytes(
    stub: StubClient, base: int, codec: s.Codec, blocks: int
) -> None:
    require(stub, codec)
    for left in LEFT:
        data, stream = find_data(codec, blocks * PAYLOAD + left)
        open_end = codec in (s.Codec.LZMA, s.Codec.LZMA_RISCV)
        for announced in (None, 0) if open_end else (None,):
            written = stub.write(base, len(data), stream, codec, announced=announced)
            assert (written.status, written.in_flash) == (0, len(data)), left
            assert md5(stub, base, len(data)) == hashlib.md5(data).digest(), left


@pytest.mark.parametrize("codec", list(s.Codec))
def test_bytes_that_are_escaped_or_blank(stub: StubClient, base: int, codec: s.Codec) -> None:
    require(stub, codec)
    for data in (b"".join(byte * 301 for byte in CRITICAL) * 2, *(byte * ODD for byte in CRITICAL)):
        assert stub.write(base, len(data), pack_for(codec, data), codec).status == 0
        assert md5(stub, base, len(data)) == hashlib.md5(data).digest(), data[:1]


def test_packed_reads_that_end_near_a_full_packet(stub: StubClient, base: int) -> None:
    data = CONTENTS["mixed"](2 * PACKET + LEFT.stop)
    stub.write(base, len(data), data, s.Codec.RAW)
    for size in (
        *(blocks * PACKET + left for blocks in (1, 2) for left in LEFT),
        *(1, 2, 3, 5, PACKET - 1),
    ):
        assert stub.read_checked(base, size, PACKET)[0] == data[:size], size
        assert stub.read_checked(base + 1, size, PACKET)[0] == data[1 : size + 1], size


@pytest.mark.parametrize(
    "content", [name for name in CONTENTS if name.startswith(("only", "bytes"))]
)
def test_packed_reads_of_bytes_that_are_escaped_or_blank(
    stub: StubClient, base: int, content: str
) -> None:
    data = CONTENTS[content](2 * ODD)
    stub.write(base, len(data), data, s.Codec.RAW)
    for packed in (True, False):
        assert stub.read_checked(base, len(data), packed=packed)[0] == data


# --- the vendor's commands ---


def vendor_write(stub: StubClient, base: int, data: bytes, stream: bytes | None = None) -> None:
    """Write in the vendor's blocks: ``stream`` is compressed data, else the last block is filled up."""
    begin = Op.FLASH_BEGIN if stream is None else Op.FLASH_DEFL_BEGIN
    sent = data.ljust(-(-len(data) // BLOCK) * BLOCK, b"\xff") if stream is None else stream
    blocks = [sent[at : at + BLOCK] for at in range(0, len(sent), BLOCK)]
    assert stub.call(frame(begin, words(len(data), len(blocks), BLOCK, base)))[1] == 0
    for number, block in enumerate(blocks):
        body = words(len(block), number, 0, 0) + block
        assert stub.call(frame(begin + 1, body, checksum(block)))[1] == 0
    assert md5(stub, base, len(data)) == hashlib.md5(data).digest()
    assert stub.call(frame(begin + 2, words(1)))[1] == 0


def vendor_read(stub: StubClient, base: int, size: int) -> bytes:
    """Read in the vendor's packets, with the MD5 at the end."""
    assert stub.call(frame(Op.READ_FLASH, words(base, size, BLOCK, 2)))[1] == 0
    found = b""
    while len(found) < size:
        found += stub.next()
        stub.post(words(len(found)))
    assert stub.next() == hashlib.md5(found).digest()
    return found


@pytest.mark.parametrize("left", LEFT)
def test_the_vendors_blocks_and_a_few_bytes(stub: StubClient, base: int, left: int) -> None:
    data, stream = find_data(s.Codec.ZLIB, 2 * BLOCK + left)
    plain = text(2 * BLOCK + left, left)
    stub.unseal()
    vendor_write(stub, base, data, stream)
    vendor_write(stub, base, plain)
    for size in (BLOCK + left, 2 * BLOCK + left):
        assert vendor_read(stub, base, size) == plain[:size]


@pytest.mark.parametrize("byte", CRITICAL)
def test_the_vendors_commands_with_bytes_that_are_escaped_or_blank(
    stub: StubClient, base: int, byte: bytes
) -> None:
    data = byte * ODD
    stub.unseal()
    vendor_write(stub, base, data, pack_for(s.Codec.ZLIB, data))
    vendor_write(stub, base, data)
    assert vendor_read(stub, base, len(data)) == data
