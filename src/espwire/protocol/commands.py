"""The commands of ROM bootloaders and stubs: one class per command, with its layout.

The host packs these, the virtual chip unpacks them, the tracer prints them. All words are 32-bit little-endian.
Differences between chips are in dialect.py.
Source: ``chips/data/protocol.toml``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, fields
from enum import IntEnum
from typing import ClassVar, Self

from espwire.protocol.opcodes import Op

HEADER = struct.Struct("<BBHI")
REQUEST, REPLY = 0, 1
ALL_BITS = 0xFFFFFFFF
COMMANDS: dict[int, type[Command]] = {}  # those of Op; our stub's own are in protocol/stub.py


def checksum(data: bytes) -> int:
    """XOR of all bytes and the seed 0xEF, by folding, which is fast."""
    size = len(data)
    word = int.from_bytes(data, "little")
    while size > 1:
        half = (size + 1) // 2
        word = (word >> (8 * half)) ^ (word & ((1 << (8 * half)) - 1))
        size = half
    return word ^ 0xEF


@dataclass(frozen=True)
class Request:
    """One request; ``check`` is the checksum word, which only data commands use."""

    op: int
    check: int
    body: bytes = field(repr=False)

    def packet(self) -> bytes:
        """The frame's content, before SLIP."""
        return HEADER.pack(REQUEST, self.op, len(self.body), self.check) + self.body


@dataclass(frozen=True)
class Command:
    """Base class: fields are the words of the body, in order; subclasses have opcode and minimum body size in bytes."""

    op: ClassVar[IntEnum]
    least: ClassVar[int]

    def __init_subclass__(
        cls,
        *,
        op: IntEnum | None = None,
        least: int = 0,
        table: dict[int, type[Command]] = COMMANDS,
    ) -> None:
        if op is not None:
            cls.op, cls.least = op, least
            table[op] = cls

    def body(self) -> bytes:
        """The request's body."""
        words = [value for f in fields(self) if (value := getattr(self, f.name)) is not None]
        return struct.pack(f"<{len(words)}I", *words)

    def request(self) -> Request:
        """The request, with its checksum."""
        return Request(self.op, 0, self.body())

    def packet(self) -> bytes:
        """The frame's content, before SLIP."""
        return self.request().packet()

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        """The command in a body, or None if the body is too short or has the wrong format."""
        if len(body) < cls.least or len(body) % 4:
            return None
        words = struct.unpack(f"<{len(body) // 4}I", body)
        return cls(*words) if len(words) <= len(fields(cls)) else None


@dataclass(frozen=True)
class DataBlock(Command):
    """Base class of data commands with a four-word header: length, sequence (from 0), two zeros; then the payload."""

    sequence: int
    data: bytes = field(repr=False)

    def body(self) -> bytes:
        return struct.pack("<IIII", len(self.data), self.sequence, 0, 0) + self.data

    def request(self) -> Request:
        return Request(self.op, checksum(self.data), self.body())

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 16:
            return None
        size, sequence, zero1, zero2 = struct.unpack_from("<IIII", body)
        return (
            cls(sequence, body[16:]) if size == len(body) - 16 and not zero1 and not zero2 else None
        )


@dataclass(frozen=True)
class FlashBegin(Command, op=Op.FLASH_BEGIN, least=16):
    """Erase ``erase_size`` bytes at ``offset`` and expect blocks. ``encrypted`` None: the four-word form."""

    erase_size: int
    blocks: int
    block_size: int
    offset: int
    encrypted: int | None = None


@dataclass(frozen=True)
class FlashData(DataBlock, op=Op.FLASH_DATA, least=16):
    """One block of plain data, padded with 0xFF to the block size."""


@dataclass(frozen=True)
class FlashEnd(Command, op=Op.FLASH_END, least=4):
    """End: ``stay`` 0 reboots, 1 runs the user program (ROM) or stays (stub)."""

    stay: int


@dataclass(frozen=True)
class MemBegin(Command, op=Op.MEM_BEGIN, least=16):
    """Expect ``size`` bytes for RAM at ``address``."""

    size: int
    blocks: int
    block_size: int
    address: int


@dataclass(frozen=True)
class MemEnd(Command, op=Op.MEM_END, least=8):
    """End of RAM download: ``stay`` 1 stays in the loader, else jump to ``entry``."""

    stay: int
    entry: int


@dataclass(frozen=True)
class MemData(DataBlock, op=Op.MEM_DATA, least=16):
    """One block for RAM."""


@dataclass(frozen=True)
class Sync(Command, op=Op.SYNC, least=36):
    """Synchronise: the ROM measures the baud rate on the 0x55 bytes and replies eight times."""

    def body(self) -> bytes:
        return b"\x07\x07\x12\x20" + b"\x55" * 32

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        return cls() if body == cls().body() else None


@dataclass(frozen=True)
class RegWrite:
    """One group of WRITE_REG: first the delay (microseconds), then the masked write."""

    address: int
    value: int
    mask: int = ALL_BITS
    delay_us: int = 0


@dataclass(frozen=True)
class WriteReg(Command, op=Op.WRITE_REG, least=16):
    """One or more register writes, carried out in order."""

    writes: tuple[RegWrite, ...]

    def body(self) -> bytes:
        return b"".join(
            struct.pack("<IIII", w.address, w.value, w.mask, w.delay_us) for w in self.writes
        )

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 16 or len(body) % 16:
            return None
        return cls(tuple(RegWrite(*group) for group in struct.iter_unpack("<IIII", body)))


@dataclass(frozen=True)
class ReadReg(Command, op=Op.READ_REG, least=4):
    """Read one word; it comes back in the reply's value field."""

    address: int


@dataclass(frozen=True)
class SpiSetParams(Command, op=Op.SPI_SET_PARAMS, least=24):
    """The geometry of the flash chip, in bytes."""

    id: int
    total: int
    block: int = 0x10000
    sector: int = 0x1000
    page: int = 0x100
    status_mask: int = 0xFFFF


@dataclass(frozen=True)
class SpiAttach(Command, op=Op.SPI_ATTACH, least=4):
    """Attach the SPI flash; ``pins`` 0 is the default. ``legacy`` None: the one-word form of stubs."""

    pins: int = 0
    legacy: int | None = None


@dataclass(frozen=True)
class ReadFlashSlow(Command, op=Op.READ_FLASH_SLOW, least=8):
    """Read up to 64 bytes of flash; the ROM always returns 64 bytes."""

    offset: int
    size: int


@dataclass(frozen=True)
class ChangeBaudrate(Command, op=Op.CHANGE_BAUDRATE, least=8):
    """Change the rate after the reply. ``old`` is 0 for a ROM."""

    new: int
    old: int = 0


@dataclass(frozen=True)
class FlashDeflBegin(Command, op=Op.FLASH_DEFL_BEGIN, least=16):
    """Like FlashBegin for zlib data: ``size`` unpacked bytes, ``blocks`` packed blocks."""

    size: int
    blocks: int
    block_size: int
    offset: int
    encrypted: int | None = None


@dataclass(frozen=True)
class FlashDeflData(DataBlock, op=Op.FLASH_DEFL_DATA, least=16):
    """One block of zlib data, not padded."""


@dataclass(frozen=True)
class FlashDeflEnd(Command, op=Op.FLASH_DEFL_END, least=4):
    """Like FlashEnd."""

    stay: int


@dataclass(frozen=True)
class SpiFlashMd5(Command, op=Op.SPI_FLASH_MD5, least=16):
    """MD5 of ``size`` bytes of flash at ``offset``."""

    offset: int
    size: int
    zero1: int = 0
    zero2: int = 0


@dataclass(frozen=True)
class GetSecurityInfo(Command, op=Op.GET_SECURITY_INFO):
    """Security flags, key purposes, and on most chips chip id and revision."""


@dataclass(frozen=True)
class SizedBlock(Command):
    """Base class of secure-debug data commands: length, then the payload; checksum as for data blocks."""

    data: bytes = field(repr=False)

    def body(self) -> bytes:
        return struct.pack("<I", len(self.data)) + self.data

    def request(self) -> Request:
        return Request(self.op, checksum(self.data), self.body())

    @classmethod
    def parse(cls, body: bytes) -> Self | None:
        if len(body) < 4 or int.from_bytes(body[:4], "little") != len(body) - 4:
            return None
        return cls(body[4:])


@dataclass(frozen=True)
class SdcVerifBegin(Command, op=Op.SDC_VERIF_BEGIN, least=8):
    """Announce a secure-debug certificate."""

    nonce_enable: int
    size: int


@dataclass(frozen=True)
class SdcVerifData(SizedBlock, op=Op.SDC_VERIF_DATA, least=4):
    """The certificate, or a part of it."""


@dataclass(frozen=True)
class SdcVerifEnd(Command, op=Op.SDC_VERIF_END, least=4):
    """Check the certificate; the status is the result."""

    zero: int = 0


@dataclass(frozen=True)
class SdcGenBegin(Command, op=Op.SDC_GEN_BEGIN, least=4):
    """Request the secure-debug information of the chip."""

    one: int = 1


@dataclass(frozen=True)
class SdcGenData(SizedBlock, op=Op.SDC_GEN_DATA, least=4):
    """The 32-byte nonce."""


@dataclass(frozen=True)
class SdcGenEnd(Command, op=Op.SDC_GEN_END, least=4):
    """The reply has 64 bytes: 32 of chip information, 32 zero."""

    one: int = 1


@dataclass(frozen=True)
class EraseFlash(Command, op=Op.ERASE_FLASH):
    """Stub: erase all."""


@dataclass(frozen=True)
class EraseRegion(Command, op=Op.ERASE_REGION, least=8):
    """Stub: erase whole sectors."""

    offset: int
    size: int


@dataclass(frozen=True)
class ReadFlash(Command, op=Op.READ_FLASH, least=16):
    """Stub: stream flash in packets of ``packet_size`` bytes, ``in_flight`` of them unacknowledged at most."""

    offset: int
    size: int
    packet_size: int
    in_flight: int


@dataclass(frozen=True)
class RunUserCode(Command, op=Op.RUN_USER_CODE):
    """Old stubs: leave and run the application; no reply."""


@dataclass(frozen=True)
class Reply:
    """One reply: ``value`` is the header's word, ``body`` is result bytes then status bytes."""

    op: int
    value: int
    body: bytes = field(repr=False)

    def packet(self) -> bytes:
        """The frame's content, before SLIP."""
        return HEADER.pack(REPLY, self.op, len(self.body), self.value) + self.body


def parse_reply(frame: bytes) -> Reply | None:
    """The reply in a frame, or None if the frame is something else (boot text, noise)."""
    if len(frame) < HEADER.size:
        return None
    direction, op, size, value = HEADER.unpack_from(frame)
    if direction != REPLY or size != len(frame) - HEADER.size:
        return None
    return Reply(op, value, frame[HEADER.size :])


def parse_request(frame: bytes) -> Request | None:
    """The request in a frame, or None if the frame is noise or its size field is wrong."""
    if len(frame) < HEADER.size:
        return None
    direction, op, size, check = HEADER.unpack_from(frame)
    if direction != REQUEST or size != len(frame) - HEADER.size:
        return None
    return Request(op, check, frame[HEADER.size :])


def parse_command(request: Request) -> Command | None:
    """The command in a request, or None if opcode or body are unknown."""
    try:
        command = COMMANDS[request.op]
    except KeyError:
        return None
    return command.parse(request.body)
