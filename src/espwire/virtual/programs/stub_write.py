"""Writes of our stub's twin: streams in frames or the vendor's blocks, unpacked, erased ahead, programmed.

Mirrors ``stub/src/write.c`` and the calling side of ``inflate.c``: what is answered, in which order, and what is erased
while the wire is slower than the flash.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator
from enum import Enum

from espwire.protocol.commands import HEADER, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    NOT_IMPLEMENTED,
    NOT_OPEN,
    TOO_LITTLE,
    TOO_MUCH,
)
from espwire.protocol.stub import (
    REPORT_AGAIN,
    WRITE_ENCRYPTED,
    WRITE_NO_ERASE,
    WRITE_READ_BACK,
    Codec,
    StubOp,
    mask_bytes,
)
from espwire.sizes import SECTOR
from espwire.virtual.programs.cpu_model import CpuModel, Steps, word
from espwire.virtual.programs.cycle_costs import Pace
from espwire.virtual.programs.frame_trust import Trust
from espwire.virtual.programs.stub_flash import BURST, StubFlash
from espwire.virtual.programs.stub_inflate import SURE_BYTES, Inflate
from espwire.virtual.programs.stub_read import Begun

PAYLOAD = 2048
WINDOW = 13 * PAYLOAD
VENDOR_BLOCK, DATA_HEAD = 0x4000, 16
ENCRYPTED_UNIT = 32
STEP = 256  # unpacked bytes that are handed over at once
LAG, SURE = (
    0x7000,
    0x8000,
)  # so many of them wait for the flash at most; what is older is in flash for sure
DICTIONARY = 0x8000  # a burst does not go round the window's end
READ_BACK_STEP = 0x200
NAGS = 8  # frames that are refused between two reports
Encrypt = Callable[[int, bytes], bytes]
Answer = Generator[float, None, bool]


class Kind(Enum):
    """Whose write it is."""

    CLOSED = 0
    OURS = 1
    VENDOR = 2


class Writer:
    """The write under way, or the last one. ``trust``: how far a frame can be trusted; ``encrypt``: what the chip's
    flash encryption makes of data, or None."""

    def __init__(
        self,
        cpu: CpuModel,
        flash: StubFlash,
        pace: Pace,
        trust: Callable[[bytes], Trust],
        encrypt: Encrypt | None,
        *,
        can: bool,
    ) -> None:
        self._cpu, self._flash, self._pace, self._trust = cpu, flash, pace, trust
        self._encrypt, self._can_encrypt = encrypt, can
        self.kind = Kind.CLOSED
        self._offset = self._size = self._stream_size = self._codec = self._flags = self._id = 0
        self._received = self._reported = self._in_flash = self._erased = self._again = (
            self._status
        ) = 0
        self._op = 0
        self._interrupted = False
        self._data = b""
        self._unpacked = self._handed = self._ready = self._programmed = 0
        self._held = bytearray()  # what is unpacked and not programmed
        self._hash, self._first = Begun(hashlib.md5(usedforsecurity=False), 0), b""

    # --- requests ---

    def open(self, frame: bytes) -> Steps:
        """WRITE_OPEN, and all of the write."""
        offset, size, self._stream_size, self._codec, self._flags, self._id = struct.unpack_from(
            "<6I", frame, 8
        )
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
        elif len(frame) == HEADER.size + 4:
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

    def forget_hash(self) -> None:
        """Somebody may change the flash."""
        self._hash = self._hash._replace(size=0)

    def take_hash(self, address: int, size: int) -> Generator[float, None, Begun | None]:
        """What was read back of a range already; None: nothing, or its first sector has changed."""
        begun = self._hash
        self.forget_hash()
        if begun.size < SECTOR or address != self._offset or size < begun.size:
            return None
        yield from self._flash.wait()
        data = self._flash.hash(address, SECTOR, self._pace.md5_byte)
        return begun if hashlib.md5(data, usedforsecurity=False).digest() == self._first else None

    # --- frames in ---

    def _check_range(self, align: int) -> int:
        if (
            not self._size
            or self._offset % align
            or not self._flash.covers(self._offset, self._size)
        ):
            return BAD_BLOCK
        return NOT_IMPLEMENTED if self._codec > Codec.ZLIB else 0

    def _open_range(self, offset: int, size: int, kind: Kind, op: int) -> None:
        self._offset, self._size, self.kind, self._op = offset, size, kind, op
        self._received = self._reported = self._in_flash = self._again = self._status = 0
        self._data, self._interrupted = b"", False
        self._ready = self._programmed = 0
        self._held.clear()
        self._hash = Begun(hashlib.md5(usedforsecurity=False), 0)
        self._erased = offset + size if self._flags & WRITE_NO_ERASE else offset & -SECTOR

    def _report(self, status: int) -> Steps:
        self._reported = self._received
        data = struct.pack("<III", self._received + WINDOW & 0xFFFFFFFF, self._in_flash, self._id)
        return self._cpu.reply(StubOp.WRITE_DATA, self._received, data, status or self._status)

    def _accept(self, frame: bytes) -> Steps:
        """Take the stream's next piece; answer pokes; refuse what does not come next."""
        size = len(frame) - HEADER.size - 4
        fits = self._trust(frame) is Trust.SEALED and size >= 0
        if fits and not size:
            yield from self._report(0)
            return
        left = self._stream_size - self._received
        last = self._received + size == self._stream_size
        if (
            fits
            and word(frame, 0) & -256 == self._received
            and size <= left
            and (size == PAYLOAD or last)
        ):
            self._again = 0
            self._received += size
            self._data = mask_bytes(frame[HEADER.size + 4 :], frame[HEADER.size])
            return
        self._again += 1
        if self._again % NAGS == 1:
            yield from self._report(REPORT_AGAIN)

    def _accept_vendor(self, frame: bytes) -> Steps:
        """Answered when it has come, before it is written; a repeated one is answered only."""
        size, sequence, payload, status = (
            word(frame, 0),
            word(frame, 1),
            frame[HEADER.size + DATA_HEAD :],
            0,
        )
        if len(frame) < HEADER.size + DATA_HEAD or size != len(payload):
            status = BAD_LENGTH
        elif not self._trust(frame):
            status = BAD_CHECKSUM
        else:
            if not self._cpu.sealed:
                self._cpu.owe(size * self._pace.sum_byte)
            if not self._cpu.sealed and checksum(payload) != frame[4]:
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
        ours = self.kind is Kind.OURS
        while not self._data:
            ring.release()
            if ours and self._received == self._stream_size:
                return False
            if ours and self._received - self._reported >= WINDOW // 4:
                yield from self._report(0)
            yield from cpu.settle()
            while (frame := ring.take()) is None:  # the wire is slower: use the time
                if not self._has_work():
                    yield from cpu.listen()
                elif flash.busy:
                    yield from cpu.listen(flash.busy_until)
                else:
                    yield from self._work()
                    yield from cpu.settle()
            if len(frame) < HEADER.size:
                continue
            if frame[1] == self._op:
                cpu.owe(self._pace.command)
                yield from self._accept(frame) if ours else self._accept_vendor(frame)
            elif self._trust(frame):
                ring.unread()
                self._interrupted = True
                return False
        return True

    # --- data out ---

    def _has_work(self) -> bool:
        """Whether idle time is of use."""
        ahead = self._erased < self._offset + self._size
        return ahead or self._programmed < self._ready or self._can_read_back()

    def _can_read_back(self) -> bool:
        return (
            bool(self._flags & WRITE_READ_BACK)
            and self._programmed - self._hash.size >= READ_BACK_STEP
        )

    def _work(self) -> Steps:
        """The flash is ready, nothing comes in: program, erase ahead, read back."""
        if self._programmed < self._ready:
            yield from self._program_next()
        elif self._erased < self._offset + self._size:
            self._erased = yield from self._flash.erase_next(
                self._erased, self._offset + self._size
            )
        else:
            digest, done = self._hash
            digest.update(
                self._flash.hash(self._offset + done, READ_BACK_STEP, self._pace.md5_byte)
            )
            self._hash = Begun(digest, done + READ_BACK_STEP)
            if done + READ_BACK_STEP == SECTOR:
                self._first = digest.copy().digest()

    def _program_next(self) -> Steps:
        """The flash is ready: the next burst, or the erase that it needs."""
        at = self._programmed
        address = self._offset + at
        if self._erased <= address:
            self._erased = yield from self._flash.erase_next(
                self._erased, self._offset + self._size
            )
            return
        count = min(BURST - address % BURST, self._ready - at, DICTIONARY - at % DICTIONARY)
        data = bytes(self._held[:count])
        if self._flags & WRITE_ENCRYPTED:
            if address % ENCRYPTED_UNIT or count % ENCRYPTED_UNIT:
                self._status, self._ready = BAD_BLOCK, at
                return
            data = self._encrypt(address, data) if self._encrypt is not None else data
        del self._held[:count]
        self._programmed += count
        yield from self._flash.start_program(address, data + b"\xff" * (-count % 4))

    def _pump(self) -> Steps:
        """On the way through other work: program, if there is something and the flash is ready."""
        if self._programmed < self._ready:
            yield from self._flash.poll() if self._flash.busy else self._program_next()

    def _run(self) -> Steps:
        self._failed = 0
        yield from self._inflate() if self._codec == Codec.ZLIB else self._copy()
        cpu, ring = self._cpu, self._cpu.ring
        yield from cpu.settle()
        while self._programmed < self._ready and not self._interrupted:
            yield from cpu.settle(self._flash.busy_until)
            yield from self._program_next()
            self._interrupted = ring.aborting
        if self._interrupted:
            ring.release()
            return
        self._in_flash = self._programmed
        self._status = self._status or self._failed
        if not self._status and self._in_flash != self._size:
            self._status = TOO_LITTLE
        yield from self._flash.wait()
        self._data = b""
        ring.release()

    def _copy(self) -> Steps:
        at, cpu = 0, self._cpu
        while at < self._size and (yield from self._more()):
            data, self._data = self._data[: self._size - at], b""
            while data:
                piece, data = data[: BURST - at % BURST], data[BURST - at % BURST :]
                self._held += piece
                at += len(piece)
                cpu.owe(len(piece) * self._pace.copy_byte)
                yield from cpu.settle()
                yield from self._pump()
                if (at % STEP == 0 or at == self._size) and not (yield from self._hand_over(at)):
                    return

    def _inflate(self) -> Steps:
        inflate = Inflate()
        self._unpacked = self._handed = 0
        while inflate.status is None:
            if not self._data and not (yield from self._more()):
                if self._interrupted:
                    return
                inflate.finish()
                break
            if not (yield from self._unpack(inflate)):
                return
        self._failed = inflate.status or 0

    def _unpack(self, inflate: Inflate) -> Answer:
        """What is in ``_data``, step by step; False: stop."""
        full = True
        while inflate.status is None and (full or self._data):
            before = len(self._data)
            out, self._data = inflate.feed(self._data, STEP - self._unpacked % STEP)
            self._held += out
            self._unpacked += len(out)
            cycles = (before - len(self._data)) * self._pace.inflate_in + len(
                out
            ) * self._pace.inflate_out
            yield from self._spend(cycles, -(-len(out) // BURST))
            whole = self._unpacked if inflate.done else self._unpacked & -STEP
            full = whole > self._handed
            if full and len(self._data) < SURE_BYTES and inflate.is_behind(self._data):
                rest, self._data = self._data, b""
                if not (yield from self._more()):
                    inflate.finish()
                    self._failed = inflate.status or 0
                    return False
                self._data = rest + self._data
            while self._handed < whole:
                self._handed = min(self._handed + STEP, whole)
                if not (yield from self._hand_over(self._handed)):
                    return False
        return True

    def _spend(self, cycles: float, pieces: int) -> Steps:
        """Work during which the flash is looked after so many times."""
        for _ in range(pieces):
            self._cpu.owe(cycles / pieces)
            yield from self._cpu.settle()
            yield from self._pump()
        if not pieces:
            self._cpu.owe(cycles)

    def _hand_over(self, total: int) -> Answer:
        """So much is unpacked and may be programmed; False: stop."""
        cpu, ring = self._cpu, self._cpu.ring
        if total > self._size:
            self._status = TOO_MUCH
        else:
            self._ready = total
        while self._ready - self._programmed > LAG and not ring.aborting:
            yield from cpu.settle(self._flash.busy_until)
            yield from self._program_next()
        self._interrupted = ring.aborting
        self._in_flash = max(self._in_flash, self._ready - SURE)
        return not self._status and not self._interrupted
