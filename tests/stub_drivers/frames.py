"""Frames to and from a stub, valid or not: requests of any shape, parsed replies, compressible data."""

from __future__ import annotations

import random
import struct
import zlib

from espwire.compress import FOR_RISCV, FOR_XTENSA, compress_lzma
from espwire.protocol import stub as s
from espwire.protocol.commands import HEADER, Reply, parse_reply
from espwire.protocol.packed import HISTORY, unpack

BAD_LENGTH, BAD_CHECK, BAD_BLOCK, UNKNOWN = 0xC000, 0xC100, 0xC200, 0xC300
NOT_OPEN, BAD_STREAM, TOO_LITTLE, TOO_MUCH, NOT_IMPLEMENTED = 0xC600, 0xC700, 0xC800, 0xC900, 0xFF00
PAYLOAD, WINDOW = 2048, 13 * 2048
SECTOR = 4096
POKE = s.WriteData(0).packet()


def words(*values: int) -> bytes:
    """A body of 32-bit words."""
    return struct.pack(f"<{len(values)}I", *values)


def frame(op: int, body: bytes = b"", check: int = 0) -> bytes:
    """A request's content; any opcode, any body."""
    return HEADER.pack(0, op, len(body), check) + body


def sent(content: bytes) -> bytes:
    """A frame as espwire sends it: a request without a check word is sealed, anything else is unchanged."""
    open_yet = len(content) >= HEADER.size and not content[0] and not any(content[4:8])
    return s.seal(content) if open_yet else content


def opened(content: bytes) -> bytes:
    """A frame of the stub without its seal, which must be correct."""
    assert s.seal_frame(content[: -s.SEAL_BYTES]) == content, content.hex()
    reply = parse_reply(content)
    opened = s.unseal(reply) if reply is not None else None
    return opened.packet() if opened is not None else content[: -s.SEAL_BYTES]


def pieces(stream: bytes, mask: int = 0) -> list[bytes]:
    """A stream, cut for WRITE_DATA."""
    return [
        s.WriteData(at, stream[at : at + PAYLOAD], mask).packet()
        for at in range(0, len(stream), PAYLOAD)
    ]


def split(answer: bytes) -> tuple[Reply, int]:
    """A frame as a reply without its status, and the status."""
    direction, op, size, value = HEADER.unpack_from(answer)
    assert direction == 1
    assert size == len(answer) - HEADER.size
    return Reply(op, value, answer[HEADER.size : -2]), int.from_bytes(answer[-2:], "big")


def whole(answer: bytes) -> Reply:
    """A frame as a reply, its status at the end."""
    reply, status = split(answer)
    return Reply(reply.op, reply.value, reply.body + status.to_bytes(2, "big"))


def report(answer: bytes) -> s.Report:
    """A frame that is a report of a write."""
    found = s.parse_report(whole(answer))
    assert found is not None, answer
    return found


def packet(answer: bytes, size: int) -> s.ReadPacket:
    """A frame that is a packet of a read."""
    found = s.parse_read_packet(whole(answer), size)
    assert found is not None, answer
    return found


def open_checked(answer: bytes, size: int, before: bytes) -> tuple[int, bytes]:
    """Position and content of a packet of a checked read, which must have that size and suit what came before."""
    found = s.parse_checked_packet(whole(answer))
    assert found is not None, answer
    assert found.size == size
    if len(found.content) in (0, size):
        return found.position, found.content or b"\xff" * size
    content = unpack(found.content, size, before[-HISTORY:])
    assert content is not None
    return found.position, content


def damaged(content: bytes, at: int, mask: int = 1) -> bytes:
    """With a bit changed on the way."""
    content = sent(content)
    return content[:at] + bytes((content[at] ^ mask,)) + content[at + 1 :]


def text(size: int, seed: int = 1) -> bytes:
    """What packs like a program."""
    pick = random.Random(seed)
    some = [pick.randbytes(pick.randrange(3, 12)) for _ in range(300)]
    return b"".join(pick.choice(some) for _ in range(size // 3 + 1))[:size]


def pack(data: bytes, level: int = 9, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    """A zlib stream."""
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    return packer.compress(data) + packer.flush()


LZMA_FORMS = {form.codec: form for form in (FOR_XTENSA, FOR_RISCV)}


def codecs(features: s.Feature) -> list[s.Codec]:
    """What a stub decompresses."""
    lzma = (s.Codec.LZMA, s.Feature.LZMA), (s.Codec.LZMA_RISCV, s.Feature.LZMA_RISCV)
    return [s.Codec.RAW, s.Codec.ZLIB, *(codec for codec, feature in lzma if feature in features)]


def pack_for(codec: int, data: bytes) -> bytes:
    """``data`` as a stream in ``codec``."""
    if codec == s.Codec.RAW:
        return data
    if codec == s.Codec.ZLIB:
        return pack(data)
    return b"".join(piece for piece, _ in compress_lzma(data, LZMA_FORMS[s.Codec(codec)]))
