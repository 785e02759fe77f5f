"""Writes of our stub's twin: streams in frames or the vendor's blocks, unpacked, erased ahead, programmed.

Mirrors ``stub/src/write.c`` and the calling side of ``inflate.c``: what is answered, in which order, and what is erased
while the wire is slower than the flash.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Generator
from enum import Enum

from espwire.virtual.paces import Pace
from espwire.virtual.resident import Resident, Steps, is_whole, word
from espwire.virtual.twin_flash import SECTOR, TwinFlash
from espwire.virtual.twin_inflate import SURE_BYTES, Inflate
from espwire.wire.commands import HEADER, Op, checksum
from espwire.wire.status import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    NOT_IMPLEMENTED,
    NOT_OPEN,
    TOO_LITTLE,
    TOO_MUCH,
)
from espwire.wire.stub import REPORT_AGAIN, WRITE_ENCRYPTED, WRITE_NO_ERASE, Codec, StubOp

PAYLOAD = 2048
WINDOW = 13 * PAYLOAD
VENDOR_BLOCK, DATA_HEAD = 0x4000, 16
ENCRYPTED_UNIT = 32
NAGS = 8  # frames that are refused between two reports
Encrypt = Callable[[int, bytes], bytes]
Answer = Generator[float, None, bool]


class Kind(Enum):
    """Whose write it is."""

    CLOSED = 0
    OURS = 1
    VENDOR = 2


class Writer:
    """The write under way, or the last one. ``encrypt``: what the chip's flash encryption makes of data, or None."""

    def __init__(self, cpu: Resident, flash: TwinFlash, pace: Pace, encrypt: Encrypt | None, *, can: bool) -> None:
        self._cpu, self._flash, self._pace = cpu, flash, pace
        self._encrypt, self._can_encrypt = encrypt, can
        self.kind = Kind.CLOSED
        self._offset = self._size = self._stream_size = self._codec = self._flags = self._id = 0
        self._received = self._reported = self._in_flash = self._erased = self._again = self._status = 0
        self._op = 0
        self._interrupted = False
        self._data = b""

    # --- requests ---

    def open(self, frame: bytes) -> Steps:
        """WRITE_OPEN, and all of the write."""
        offset, size, self._stream_size, self._codec, self._flags, self._id = struct.unpack_from("<6I", frame, 8)
        self._open_range(offset, size, Kind.OURS, StubOp.WRITE_DATA)
        status = self._check_range(4 if self._flags & WRITE_NO_ERASE else SECTOR)
        if not status and self._flags & WRITE_ENCRYPTED and not self._can_encrypt:
            status = NOT_IMPLEMENTED
        raw = self._codec == Codec.RAW
        if not status and (not self._stream_size or (raw and self._stream_size != size)):
            status = BAD_LENGTH
        yield from self._cpu.reply(StubOp.WRITE_OPEN, WINDOW, status=status)
        if status:
            self.kind = Kind.CLOSED
            return
        yield from self._run()
        if not self._interrupted:
            yield from self._report(0)

    def begin(self, frame: bytes, op: int) -> Steps:
        """FLASH_BEGIN and FLASH_DEFL_BEGIN, and the data that follows."""
        size, block, offset = word(frame, 0), word(frame, 2), word(frame, 3)
        self._codec = Codec.ZLIB if op == Op.FLASH_DEFL_BEGIN else Codec.RAW
        self._flags = WRITE_ENCRYPTED if word(frame, 4) else 0
        self._open_range(offset, size, Kind.VENDOR, op + 1)
        status = self._check_range(4) if size else 0
        if block > VENDOR_BLOCK:
            status = BAD_BLOCK
        if not status and self._flags and not self._can_encrypt:
            status = NOT_IMPLEMENTED
        yield from self._cpu.reply(op, status=status)
        if status:
            self.kind = Kind.CLOSED
        elif size:
            yield from self._run()

    def late(self, frame: bytes, op: int) -> Steps:
        """A data frame when no write runs: a poke gets the last report, other data silence."""
        if op != StubOp.WRITE_DATA:
            yield from self._cpu.reply(op, status=self._status or NOT_OPEN)
        elif len(frame) == HEADER.size + 4 and self._is_intact(frame):
            well = self.kind is Kind.OURS and not self._interrupted
            yield from self._report(0 if well else NOT_OPEN)

    def end(self) -> int:
        """FLASH_END and FLASH_DEFL_END: the status."""
        status = self._status or (0 if self._in_flash == self._size else TOO_LITTLE)
        if self.kind is not Kind.VENDOR:
            status = NOT_OPEN
        self.kind = Kind.CLOSED
        return status

    def forget(self) -> None:
        """ABORT."""
        self.kind = Kind.CLOSED

    # --- frames in ---

    def _check_range(self, align: int) -> int:
        if not self._size or self._offset % align or not self._flash.covers(self._offset, self._size):
            return BAD_BLOCK
        return NOT_IMPLEMENTED if self._codec > Codec.ZLIB else 0

    def _open_range(self, offset: int, size: int, kind: Kind, op: int) -> None:
        self._offset, self._size, self.kind, self._op = offset, size, kind, op
        self._received = self._reported = self._in_flash = self._again = self._status = 0
        self._data, self._interrupted = b"", False
        self._erased = offset + size if self._flags & WRITE_NO_ERASE else offset & -SECTOR

    def _report(self, status: int) -> Steps:
        self._reported = self._received
        data = struct.pack("<III", self._received + WINDOW & 0xFFFFFFFF, self._in_flash, self._id)
        return self._cpu.reply(StubOp.WRITE_DATA, self._received, data, status or self._status)

    def _is_intact(self, frame: bytes) -> bool:
        self._cpu.owe((len(frame) - HEADER.size) * self._pace.crc_byte)
        return zlib.crc32(frame[HEADER.size :]) == int.from_bytes(frame[4:8], "little")

    def _accept(self, frame: bytes) -> Steps:
        """Take the stream's next piece; answer pokes; refuse what does not come next."""
        size = len(frame) - HEADER.size - 4
        fits = size >= 0 and self._is_intact(frame)
        if fits and not size:
            yield from self._report(0)
            return
        left = self._stream_size - self._received
        last = self._received + size == self._stream_size
        if fits and word(frame, 0) == self._received and size <= left and (size == PAYLOAD or last):
            self._again = 0
            self._received += size
            self._data = frame[HEADER.size + 4 :]
            return
        self._again += 1
        if self._again % NAGS == 1:
            yield from self._report(REPORT_AGAIN)

    def _accept_vendor(self, frame: bytes) -> Steps:
        """Answered when it has come, before it is written; a repeated one is answered only."""
        size, sequence, payload, status = word(frame, 0), word(frame, 1), frame[HEADER.size + DATA_HEAD :], 0
        if len(frame) < HEADER.size + DATA_HEAD or size != len(payload):
            status = BAD_LENGTH
        else:
            self._cpu.owe(size * self._pace.sum_byte)
            if checksum(payload) != frame[4]:
                status = BAD_CHECKSUM
            elif sequence == self._again:
                self._again += 1
                self._data = payload
            elif sequence + 1 & 0xFFFFFFFF != self._again:
                status = BAD_BLOCK
        yield from self._cpu.reply(self._op, status=status)

    def _more(self) -> Answer:
        """The next piece of the stream into ``_data``; False: there is none."""
        cpu, flash, ring = self._cpu, self._flash, self._cpu.ring
        ours, end = self.kind is Kind.OURS, self._offset + self._size
        while not self._data:
            ring.release()
            if ours and self._received == self._stream_size:
                return False
            if ours and self._received - self._reported >= WINDOW // 4:
                yield from self._report(0)
            yield from cpu.settle()
            while (frame := ring.take()) is None:  # the wire is slower: use the time
                if self._erased >= end:
                    yield from cpu.listen()
                elif flash.busy:
                    yield from cpu.listen(flash.busy_until)
                else:
                    self._erased = yield from flash.erase_next(self._erased, end)
            if len(frame) < HEADER.size or frame[0]:
                continue
            if frame[1] == self._op:
                cpu.owe(self._pace.command)
                yield from self._accept(frame) if ours else self._accept_vendor(frame)
            elif is_whole(frame):
                ring.unread()
                self._interrupted = True
                return False
        return True

    # --- data out ---

    def _run(self) -> Steps:
        self._failed = 0
        yield from self._inflate() if self._codec == Codec.ZLIB else self._copy()
        if self._interrupted:
            self._cpu.ring.release()
            return
        self._status = self._status or self._failed
        if not self._status and self._in_flash != self._size:
            self._status = TOO_LITTLE
        yield from self._flash.wait()
        self._data = b""
        self._cpu.ring.release()

    def _copy(self) -> Steps:
        held = bytearray()
        while self._in_flash + len(held) < self._size and (yield from self._more()):
            data = self._data[: self._size - self._in_flash - len(held)]
            self._data = b""
            for at in range(0, len(data), SECTOR):
                held += data[at : at + SECTOR]
                self._cpu.owe(len(data[at : at + SECTOR]) * self._pace.copy_byte)
                while len(held) >= SECTOR:
                    if not (yield from self._out(bytes(held[:SECTOR]))):
                        return
                    del held[:SECTOR]
        if held and not self._interrupted:
            yield from self._out(bytes(held))

    def _inflate(self) -> Steps:
        inflate, held = Inflate(), bytearray()
        while inflate.status is None:
            if not self._data and not (yield from self._more()):
                if self._interrupted:
                    return
                inflate.finish()
                break
            if not (yield from self._unpack(inflate, held)):
                return
        self._failed = inflate.status or 0

    def _unpack(self, inflate: Inflate, held: bytearray) -> Answer:
        """What is in ``_data``, sector by sector; False: stop."""
        pace, cpu, full = self._pace, self._cpu, True
        while inflate.status is None and (full or self._data):
            before = len(self._data)
            out, self._data = inflate.feed(self._data, SECTOR - len(held))
            held += out
            cpu.owe((before - len(self._data)) * pace.inflate_in + len(out) * pace.inflate_out)
            full = len(held) == SECTOR
            if full and len(self._data) < SURE_BYTES and inflate.is_behind(self._data):
                rest, self._data = self._data, b""
                if not (yield from self._more()):
                    inflate.finish()
                    self._failed = inflate.status or 0
                    return False
                self._data = rest + self._data
            while len(held) >= SECTOR or (inflate.done and held):
                if not (yield from self._out(bytes(held[:SECTOR]))):
                    return False
                del held[:SECTOR]
        return True

    def _out(self, data: bytes) -> Answer:
        """Unpacked data for flash, at most a sector; False: stop."""
        address, end = self._offset + self._in_flash, self._offset + self._size
        if len(data) > self._size - self._in_flash:
            self._status = TOO_MUCH
            return False
        ring = self._cpu.ring
        yield from self._cpu.settle()
        while self._erased < end and self._erased < address + len(data) and not ring.aborting:
            self._erased = yield from self._flash.erase_next(self._erased, end)
        if ring.aborting:
            self._interrupted = True
            return False
        if self._flags & WRITE_ENCRYPTED:
            if address % ENCRYPTED_UNIT or len(data) % ENCRYPTED_UNIT:
                self._status = BAD_BLOCK
                return False
            data = self._encrypt(address, data) if self._encrypt is not None else data
        yield from self._flash.program(address, data + b"\xff" * (-len(data) % 4))
        self._in_flash += len(data)
        return True
