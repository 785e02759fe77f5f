"""The layout of our own stub's commands, reports, packets and capabilities. The protocol is described in docs/protocol.md.

``CRC-32`` is zlib's. All words are 32-bit little-endian.

Every frame between espwire and its stub is *sealed*: a request carries a CRC-32 in its check word, a reply at its end,
over all other bytes of the frame, header included. A flipped bit makes either the length or the CRC wrong, even if it
splits a frame or joins two. So a frame that passes the check is exactly what was sent.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from functools import cache
from typing import Self

from espwire.protocol import slip
from espwire.protocol.commands import REQUEST, Command, Reply, Request
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import BAD_CHECKSUM

PROTOCOL_VERSION = 2  # 1: only some requests had a CRC, of the body alone
MAGIC = b"EWST"
HELLO = b"OHAI"
SEAL_BYTES = 4
DIGEST_BYTES = 16
HASH_RESULT_BYTES = 256  # at most, in one reply of HASH
_CAPABILITIES = struct.Struct("<4s8I8sI")
_REPORT = struct.Struct("<III")


class StubOp(IntEnum):
    """Opcodes of our stub. The vendor's plug-ins end at 0xEF."""

    CAPABILITIES = 0xF0
    WRITE_OPEN = 0xF1
    WRITE_DATA = 0xF2
    READ_OPEN = 0xF3
    READ_ACK = 0xF4
    HASH = 0xF5
    SPI = 0xF6
    BATCH = 0xF7
    ABORT = 0xF8
    RESET = 0xF9


class Feature(IntFlag):
    """Features in the reply to CAPABILITIES."""

    WRITE = 1
    DEFLATE = 2
    ENCRYPT = 4
    READ = 8
    HASH = 16
    SPI = 32
    BATCH = 64
    RESET = 128
    BLANK_PACKETS = 256
    RAM = 512
    READ_BACK = 1024
    MASK = 2048
    SECURITY_INFO = 4096
    PACKED_READS = 8192
    LZMA = 0x4000
    LZMA_RISCV = 0x8000
    TRIAL_RATE = 0x10000


class Codec(IntEnum):
    """Compression of the stream of a write. The forms of LZMA are in ``compress.py``."""

    RAW = 0
    ZLIB = 1
    LZMA = 2
    LZMA_RISCV = 3


LZMA_CODECS = (Codec.LZMA, Codec.LZMA_RISCV)


class HashKind(IntEnum):
    """What HASH computes for each piece."""

    MD5 = 0  # 16 bytes
    BLANK = 1  # one byte: 1 where all is 0xFF


WRITE_ENCRYPTED, WRITE_NO_ERASE = 1, 2
WRITE_READ_BACK = (
    4  # hash what is programmed while the wire is slower: SPI_FLASH_MD5 of the range then is quick
)
READ_SHORT_BLANKS, READ_CHECKED, READ_PACKED = 1, 2, 4
ACK_AGAIN = 1
SPI_WRITE_ENABLE, SPI_WAIT = 1, 2
REPORT_AGAIN = 1  # status of a report: what came after `received` is lost, send it again

STUB_COMMANDS: dict[int, type[Command]] = {}


@dataclass(frozen=True)
class AskCapabilities(Command, op=StubOp.CAPABILITIES, least=4, table=STUB_COMMANDS):
    """Request the capabilities. Other stubs reply with ``unknown_command``."""

    host_version: int = PROTOCOL_VERSION


def seal(packet: bytes) -> bytes:
    """The request with the CRC-32 of all other bytes in its check word, which other stubs ignore."""
    return (
        packet[:4]
        + zlib.crc32(packet[8:], zlib.crc32(packet[:4])).to_bytes(4, "little")
        + packet[8:]
    )


def is_sealed(packet: bytes) -> bool:
    """Whether a frame is a request with the right size and check word."""
    size = int.from_bytes(packet[2:4], "little")
    return len(packet) == size + 8 and packet[0] == REQUEST and seal(packet) == packet


def seal_frame(content: bytes) -> bytes:
    """``content`` followed by its CRC-32, as the stub sends it."""
    return content + zlib.crc32(content).to_bytes(SEAL_BYTES, "little")


def seal_reply(reply: Reply) -> bytes:
    """A reply as our stub sends it; its size includes the CRC-32."""
    return seal_frame(
        Reply(reply.op, reply.value, reply.body + bytes(SEAL_BYTES)).packet()[:-SEAL_BYTES]
    )


def unseal(reply: Reply) -> Reply | None:
    """The reply without its CRC-32; None: damaged, or never sealed."""
    packet = reply.packet()
    if len(reply.body) < SEAL_BYTES or seal_frame(packet[:-SEAL_BYTES]) != packet:
        return None
    return Reply(reply.op, reply.value, reply.body[:-SEAL_BYTES])


def refuses(reply: Reply, packet: bytes) -> bool:
    """Whether the stub reports that this request arrived damaged and was not carried out.

    The report carries the check word as it arrived, because the opcode may be the damaged part. The check word itself
    may differ by one bit.
    """
    damage = reply.value ^ int.from_bytes(packet[4:8], "little")
    return reply.body == BAD_CHECKSUM.to_bytes(2, "big") and damage.bit_count() <= 1


LONGEST_TRIAL_MS = 60_000


@dataclass(frozen=True)
class TrialBaudrate(Command, op=Op.CHANGE_BAUDRATE, least=12, table=STUB_COMMANDS):
    """Change the rate after the reply, and back once the stub has waited ``trial_ms`` without a sealed request.

    ``ChangeBaudrate``, sealed, confirms the new rate. ``trial_ms``: at most ``LONGEST_TRIAL_MS``; 0: no trial.
    """

    new: int
    old: int
    trial_ms: int


@dataclass(frozen=True)
class WriteOpen(Command, op=StubOp.WRITE_OPEN, least=24, table=STUB_COMMANDS):
    """Open a write of ``size`` bytes at ``offset``, sent as a stream of ``stream_size`` bytes in ``codec``.

    ``stream_size`` 0, for LZMA only: the stream ends with its first frame that is not full.
    """

    offset: int
    size: int
    stream_size: int
    codec: int
    flags: int
    transfer: int


@dataclass(frozen=True)
class WriteData(Command, op=StubOp.WRITE_DATA, least=4, table=STUB_COMMANDS):
    """A piece of the stream at its offset; without payload it requests a report.

    ``mask`` is XORed with each byte on the line; it is the lowest byte of the offset, which is a multiple of 256.
    """

    position: int
    data: bytes = field(default=b"", repr=False)
    mask: int = 0

    def body(self) -> bytes:
        return (self.position | self.mask).to_bytes(4, "little") + mask_bytes(self.data, self.mask)

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 4:
            return None
        position, data = int.from_bytes(body[:4], "little"), body[4:]
        mask = body[0] if data else 0
        return cls(position - mask, mask_bytes(data, mask), mask)


def mask_bytes(data: bytes, mask: int) -> bytes:
    """Each byte XORed with ``mask``."""
    return data.translate(_mask_table(mask)) if mask else data


@cache
def _mask_table(mask: int) -> bytes:
    return bytes(byte ^ mask for byte in range(0x100))


def find_mask(data: bytes) -> int:
    """The mask for which ``data`` needs the fewest escapes.

    >>> find_mask(b"\\xc0\\xdb")
    1
    """
    counts = [0] * 0x100
    for byte, count in Counter(data).items():
        counts[byte] = count
    end, escape = slip.END[0], slip.ESC[0]
    return min(range(0x100), key=lambda mask: counts[end ^ mask] + counts[escape ^ mask])


@dataclass(frozen=True)
class ReadOpen(Command, op=StubOp.READ_OPEN, least=20, table=STUB_COMMANDS):
    """Stream flash in packets; at most ``window`` bytes are unacknowledged. ``codes``: with ``READ_PACKED``."""

    offset: int
    size: int
    packet_size: int
    window: int
    flags: int = READ_SHORT_BLANKS
    codes: bytes = field(default=b"", repr=False)

    def body(self) -> bytes:
        words = (self.offset, self.size, self.packet_size, self.window, self.flags)
        return struct.pack("<5I", *words) + self.codes

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 20:
            return None
        offset, size, packet_size, window, flags = struct.unpack_from("<5I", body)
        return cls(offset, size, packet_size, window, flags, body[20:])


@dataclass(frozen=True)
class ReadAck(Command, op=StubOp.READ_ACK, least=8, table=STUB_COMMANDS):
    """``received`` bytes have arrived; ``ACK_AGAIN``: send again from there. No reply."""

    received: int
    flags: int = 0


@dataclass(frozen=True)
class Hash(Command, op=StubOp.HASH, least=16, table=STUB_COMMANDS):
    """One result for each ``piece`` bytes of the range; 0: one for the whole range."""

    offset: int
    size: int
    piece: int = 0
    kind: int = HashKind.MD5


@dataclass(frozen=True)
class SpiTransaction(Command, op=StubOp.SPI, least=16, table=STUB_COMMANDS):
    """One SPI transaction with the flash chip. ``dummy`` in cycles; at most 64 bytes each way."""

    opcode: int
    address: int = 0
    address_bits: int = 0
    dummy: int = 0
    write: bytes = b""
    read: int = 0
    flags: int = 0

    def body(self) -> bytes:
        lengths = self.address_bits | self.dummy << 8 | len(self.write) << 16 | self.read << 24
        return struct.pack("<IIII", self.opcode, self.address, lengths, self.flags) + self.write

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 16:
            return None
        opcode, address, lengths, flags = struct.unpack_from("<IIII", body)
        address_bits, dummy, written, read = lengths.to_bytes(4, "little")
        if len(body) != 16 + written or max(written, read) > 64:
            return None
        return cls(opcode, address, address_bits, dummy, body[16:], read, flags)


@dataclass(frozen=True)
class Batch(Command, op=StubOp.BATCH, table=STUB_COMMANDS):
    """Several requests in one frame; ``parse_batch_reply`` splits the reply."""

    requests: tuple[Request, ...]

    def body(self) -> bytes:
        parts = (struct.pack("<BBH", r.op, 0, len(r.body)) + _padded(r.body) for r in self.requests)
        return b"".join(parts)

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        found, at = [], 0
        while at < len(body):
            if at + 4 > len(body):
                return None
            op, zero, size = struct.unpack_from("<BBH", body, at)
            content = body[at + 4 : at + 4 + size]
            if zero or len(content) != size:
                return None
            found.append(Request(op, 0, content))
            at += 4 + len(_padded(content))
        return cls(tuple(found))


@dataclass(frozen=True)
class Abort(Command, op=StubOp.ABORT, least=4, table=STUB_COMMANDS):
    """End the current transfer; the reply's value is ``token``."""

    token: int


@dataclass(frozen=True)
class StubReset(Command, op=StubOp.RESET, least=4, table=STUB_COMMANDS):
    """Reply, then reset the chip (mode 0)."""

    mode: int = 0


@dataclass(frozen=True, kw_only=True)
class Capabilities:
    """The reply to CAPABILITIES. Sizes in bytes; ``frame_payload`` is for WRITE_DATA, windows count stream bytes.

    ``code_crc``: CRC-32 of the stub's code and constants as they lie in the chip's memory.
    """

    features: Feature
    frame_payload: int
    write_window: int
    read_packet: int
    read_window: int
    cpu_hz: int
    batch_bytes: int
    image_chip_id: int
    build: bytes
    code_crc: int

    def pack(self) -> bytes:
        """The reply's data."""
        words = (
            int(self.features),
            self.frame_payload,
            self.write_window,
            self.read_packet,
            self.read_window,
            self.cpu_hz,
            self.batch_bytes,
            self.image_chip_id,
        )
        return _CAPABILITIES.pack(MAGIC, *words, self.build, self.code_crc)


CAPABILITIES_BYTES = _CAPABILITIES.size
REPORT_BYTES = _REPORT.size


MIN_PAYLOAD, MAX_PAYLOAD = 256, 0x4000  # bytes of data in a frame that make sense


def parse_capabilities(data: bytes) -> Capabilities | None:
    """The capabilities in a reply's data, or None if they are invalid."""
    if len(data) < _CAPABILITIES.size:
        return None
    magic, features, *words, build, code_crc = _CAPABILITIES.unpack_from(data)
    payload, write_window, packet, read_window, cpu_hz, batch, chip_id = words
    if (
        magic != MAGIC
        or not MIN_PAYLOAD <= payload <= write_window
        or not MIN_PAYLOAD <= packet <= read_window
        or max(payload, packet) > MAX_PAYLOAD
    ):
        return None
    return Capabilities(
        features=Feature(features),
        frame_payload=payload,
        write_window=write_window,
        read_packet=packet,
        read_window=read_window,
        cpu_hz=cpu_hz,
        batch_bytes=batch,
        image_chip_id=chip_id,
        code_crc=code_crc,
        build=build,
    )


@dataclass(frozen=True)
class Report:
    """Progress of a write: stream bytes ``received`` in order, ``credit_end``: up to where more may be sent,
    ``in_flash``: uncompressed bytes that are programmed. ``status`` 0: success so far;
    ``REPORT_AGAIN``: send again from ``received``; else the write has failed."""

    received: int
    credit_end: int
    in_flash: int
    transfer: int
    status: int = 0

    def reply(self) -> Reply:
        """The frame's content."""
        data = _REPORT.pack(self.credit_end, self.in_flash, self.transfer)
        return Reply(StubOp.WRITE_DATA, self.received, data + self.status.to_bytes(2, "big"))


def parse_report(reply: Reply) -> Report | None:
    """The report in a reply, or None if it is not a report."""
    if reply.op != StubOp.WRITE_DATA or len(reply.body) != _REPORT.size + 2:
        return None
    status = int.from_bytes(reply.body[-2:], "big")
    credit_end, in_flash, transfer = _REPORT.unpack_from(reply.body)
    return Report(reply.value, credit_end, in_flash, transfer, status)


@dataclass(frozen=True)
class ReadPacket:
    """Flash content from ``position`` on, counted from the start of the read."""

    position: int
    data: bytes = field(repr=False)

    def reply(self, *, short: bool = False) -> Reply:
        """The frame's content. ``short``: the payload is left out (it is all 0xFF)."""
        return Reply(StubOp.READ_OPEN, self.position, (b"" if short else self.data) + b"\0\0")


def parse_read_packet(reply: Reply, expected: int) -> ReadPacket | None:
    """The packet in a reply, or None if it is not one. ``expected``: size in bytes, for a blank packet."""
    if reply.op != StubOp.READ_OPEN or reply.body[-2:] != b"\0\0":
        return None
    return ReadPacket(reply.value, reply.body[:-2] or b"\xff" * expected)


@dataclass(frozen=True)
class CheckedPacket:
    """A packet of a checked read: ``size`` bytes of flash from ``position`` on, counted from the start of the read.

    ``content``: these bytes; packed if there are fewer; empty if they are all 0xFF.
    """

    position: int
    size: int
    content: bytes = field(repr=False)

    def reply(self) -> Reply:
        """The frame's content."""
        body = self.size.to_bytes(2, "little") + self.content + b"\0\0"
        return Reply(StubOp.READ_OPEN, self.position, body)


def parse_checked_packet(reply: Reply) -> CheckedPacket | None:
    """The packet in a reply, or None if it is not one."""
    if reply.op != StubOp.READ_OPEN or len(reply.body) < 4 or reply.body[-2:] != b"\0\0":
        return None
    return CheckedPacket(reply.value, int.from_bytes(reply.body[:2], "little"), reply.body[2:-2])


def parse_batch_reply(data: bytes, requests: tuple[Request, ...]) -> tuple[Reply, ...] | None:
    """The replies in a batch, each with two status bytes at the end of its body; None: invalid."""
    found, at = [], 0
    for request in requests:
        if at == len(data):
            break
        if at + 8 > len(data):
            return None
        status, size, value = data[at : at + 2], *struct.unpack_from("<HI", data, at + 2)
        content = data[at + 8 : at + 8 + size]
        if len(content) != size:
            return None
        found.append(Reply(request.op, value, content + status))
        at += 8 + len(_padded(content))
    return tuple(found)


def pack_batch_answer(reply: Reply) -> bytes:
    """One reply inside a batch, as ``parse_batch_reply`` reads it."""
    content, status = reply.body[:-2], reply.body[-2:]
    return status + struct.pack("<HI", len(content), reply.value) + _padded(content)


def name_op(op: int) -> str:
    """The name of an opcode."""
    names: dict[int, str] = {int(one): one.name for one in (*Op, *StubOp)}
    return names.get(op, f"{op:#04x}")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
