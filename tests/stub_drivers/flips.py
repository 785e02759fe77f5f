"""Single flipped bits on the wire between host and chip, and requests of every kind to flip them in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from espwire.protocol import stub as s
from espwire.protocol.commands import (
    ChangeBaudrate,
    EraseFlash,
    EraseRegion,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    FlashDeflEnd,
    FlashEnd,
    GetSecurityInfo,
    MemBegin,
    MemData,
    MemEnd,
    ReadFlash,
    ReadReg,
    RegWrite,
    RunUserCode,
    SpiAttach,
    SpiFlashMd5,
    SpiSetParams,
    Sync,
    WriteReg,
)
from espwire.transport.base import Transport

ESCAPED = b"\xc0\xdb\xc0\xdc\xdb\xdd"
PAYLOAD = ESCAPED + random.Random(3).randbytes(40)
REQUESTS = [
    Sync(),
    FlashBegin(0x1000, 1, 0x4000, 0x10000, 0),
    FlashData(0, PAYLOAD),
    FlashEnd(0),
    FlashDeflBegin(0x1000, 1, 0x4000, 0x10000, 0),
    FlashDeflData(0, PAYLOAD),
    FlashDeflEnd(0),
    MemBegin(0x100, 1, 0x100, 0x40080000),
    MemData(0, PAYLOAD),
    MemEnd(0, 0x40080000),
    WriteReg((RegWrite(0x3FF42000, 1, 3, 4), RegWrite(0xDBC0DBC0, 1))),
    ReadReg(0x40001000),
    SpiSetParams(0, 0x400000),
    SpiAttach(),
    ChangeBaudrate(921600, 115200),
    SpiFlashMd5(0x10000, 0x1000),
    GetSecurityInfo(),
    EraseFlash(),
    EraseRegion(0x10000, 0x1000),
    ReadFlash(0x10000, 0x1000, 0x1000, 64),
    RunUserCode(),
    s.AskCapabilities(),
    s.WriteOpen(0x10000, 100, 90, s.Codec.ZLIB, s.WRITE_READ_BACK, 7),
    s.WriteData(0x800, PAYLOAD, 0x33),
    s.WriteData(0x800),
    s.ReadOpen(0, 0x2000, 0x400, 0x4000, 1),
    s.ReadAck(0x400, s.ACK_AGAIN),
    s.Hash(0x10000, 0x3000, 0x1000, s.HashKind.BLANK),
    s.SpiTransaction(0x5A, 0x10, 24, 8, b"\x01", 4, s.SPI_WAIT),
    s.Batch((ReadReg(0x40001000).request(), s.SpiTransaction(0x9F, read=3).request())),
    s.Abort(0x11223344),
    s.StubReset(),
]


def flip(data: bytes, bit: int) -> bytes:
    """Flip a bit, counted from the lowest bit of the first byte."""
    return data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]


def flips(data: bytes) -> Iterator[bytes]:
    """Flip each bit in turn."""
    return (flip(data, bit) for bit in range(8 * len(data)))


class FlippingLink:
    """A transport that flips a single bit to or from the chip, and counts bits since ``arm``."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.arm(None, 0)

    def arm(self, direction: str | None, bit: int) -> None:
        """Flip this bit of the data sent (``"out"``) or received (``"in"``) from now on; None: only count."""
        self.passed = {"out": 0, "in": 0}
        self._direction, self._bit = direction, bit

    def _pass(self, direction: str, data: bytes) -> bytes:
        at = self._bit - 8 * self.passed[direction]
        self.passed[direction] += len(data)
        return flip(data, at) if direction == self._direction and 0 <= at < 8 * len(data) else data

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def read(self, timeout: float) -> bytes:
        """Receive."""
        return self._pass("in", self.transport.read(timeout))

    def write(self, data: bytes, deadline: float) -> None:
        """Send."""
        self.transport.write(self._pass("out", data), deadline)
