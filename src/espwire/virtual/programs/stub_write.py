"""Writes of the stub model: streams in frames or the vendor's blocks, unpacked, erased ahead, programmed.

Mirrors ``stub/src/write.c``: what is answered, in which order, and what is erased while the wire is slower than the
flash. zlib and liblzma unpack, so a damaged stream ends with the stub's status, but what was unpacked right before the
damage may not reach the flash, and liblzma may notice damage a few bytes earlier or later. Damaged streams are tested on the CPU engine and on the host build, which run the real code.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator
from enum import Enum

from espwire.compress import LzmaForm
from espwire.protocol.commands import HEADER, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    INFLATE_FAILED,
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
from espwire.virtual.programs.cpu_model import DATA_HEAD, CpuModel, Steps, word
from espwire.virtual.programs.program import Encrypt
from espwire.virtual.programs.stub_flash import BURST, HASH_BYTE, PartialHash, StubFlash
from espwire.virtual.programs.unpack import (
    DamagedStream,
    LzmaUnpacker,
    Unpacker,
    ZlibUnpacker,
    restore_branches,
)

PAYLOAD = 2048
WINDOW = 13 * PAYLOAD
VENDOR_BLOCK = 0x4000
ENCRYPTED_UNIT = 32
STEP = 256  # unpacked bytes that are handed over at once
TURN, COPY_TURN = 4, 16  # bytes between two looks at the flash: unpacked, copied
CRC_CHUNK = 64  # ditto of a frame whose CRC is computed
LAG = 0x7000  # unpacked bytes that wait for the flash at most
SURE = 0x8000  # what was unpacked so many bytes ago is certainly in flash
DICTIONARY = 0x8000  # a burst does not wrap around the window's end
READ_BACK_STEP = 0x200
REFUSALS_PER_REPORT = 8
SEALED = 2  # what ``check`` returns for a frame with a CRC-32
# CPU cycles (see stub_model.py): of a request, of a byte copied, checked, unpacked (of the stream, of the result)
COMMAND = 2723
COPY_BYTE, CHECKSUM_BYTE, INFLATE_IN, INFLATE_OUT = 22, 36, 170, 56
LZMA_IN, LZMA_OUT, BRANCH_BYTE = 600, 70, 20
OPEN_END = 0xFFFFFFFF
Answer = Generator[float, None, bool]


class Kind(Enum):
    """Which protocol the write uses."""

    CLOSED = 0
    OURS = 1
    VENDOR = 2


class Writer:
    """The write in progress, or the last one. ``check`` returns how far a frame can be trusted, in no time."""

    def __init__(
        self,
        cpu: CpuModel,
        flash: StubFlash,
        check: Callable[[bytes], int],
        encrypt: Encrypt | None,
        *,
        can_encrypt: bool,
        lzma: LzmaForm | None,
    ) -> None:
        self._cpu, self._flash, self._check = cpu, flash, check
        self._encrypt, self._can_encrypt = encrypt, can_encrypt
        self._lzma = lzma
        self._codec = self._flags = self._id = self._stream_size = 0
        self._start(0, 0, Kind.CLOSED, 0)

    def _start(self, offset: int, size: int, kind: Kind, op: int) -> None:
        self._offset, self._size, self.kind, self._op = offset, size, kind, op
        self._received = self._reported = self._in_flash = 0
        self._refused = 0  # frames; of the vendor's protocol, the next sequence number
        self._status = 0
        self._data, self._interrupted = b"", False
        self._ready = self._programmed = 0  # unpacked bytes: handed over, given to the flash
        self._held = bytearray()  # unpacked, not yet programmed
        self._restored = b""  # the first of it, branches restored
        self._hash, self._first_sector = PartialHash(hashlib.md5(usedforsecurity=False), 0), b""
        self._erased = offset + size if self._flags & WRITE_NO_ERASE else offset & -SECTOR

    # --- requests ---

    def open(self, frame: bytes, op: int) -> Steps:
        """WRITE_OPEN, until the end of the write."""
        fields = struct.unpack_from("<6I", frame, HEADER.size)
        offset, size, self._stream_size, self._codec, self._flags, self._id = fields
        self._start(offset, size, Kind.OURS, StubOp.WRITE_DATA)
        status = self._check_range(4 if self._flags & WRITE_NO_ERASE else SECTOR)
        if not status and self._flags & WRITE_ENCRYPTED and not self._can_encrypt:
            status = NOT_IMPLEMENTED
        if self._is_lzma:
            self._stream_size = self._stream_size or OPEN_END
        raw = self._codec == Codec.RAW
        if not status and (not self._stream_size or (raw and self._stream_size != size)):
            status = BAD_LENGTH
        yield from self._cpu.reply(op, WINDOW, status=status)
        if status:
            self.kind = Kind.CLOSED
            return
        yield from self._run()
        if not self._interrupted:
            yield from self._report(0)

    def begin(self, frame: bytes, op: int) -> Steps:
        """FLASH_BEGIN and FLASH_DEFL_BEGIN, until the end of the data."""
        size, block, offset = word(frame, 0), word(frame, 2), word(frame, 3)
        self._codec = Codec.ZLIB if op == Op.FLASH_DEFL_BEGIN else Codec.RAW
        self._flags = WRITE_ENCRYPTED if word(frame, 4) else 0
        self._start(offset, size, Kind.VENDOR, op + 1)
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

    def late_data(self, frame: bytes, op: int) -> Steps:
        """A data frame while no write is running: an empty frame gets the last report, other data no answer."""
        if op != StubOp.WRITE_DATA:
            yield from self._cpu.reply(op, status=self._status or NOT_OPEN)
        elif len(frame) == HEADER.size + 4:
            complete = self.kind is Kind.OURS and not self._interrupted
            yield from self._report(0 if complete else NOT_OPEN)

    def end(self) -> int:
        """FLASH_END and FLASH_DEFL_END; returns the status."""
        status = self._status or (0 if self._in_flash == self._size else TOO_LITTLE)
        if self.kind is not Kind.VENDOR:
            status = NOT_OPEN
        self.kind = Kind.CLOSED
        return status

    def discard_hash(self) -> None:
        """Another request may change the flash."""
        self._hash = self._hash._replace(size=0)

    def take_hash(self, address: int, size: int) -> Generator[float, None, PartialHash | None]:
        """The hash of what was read back of a range; None if there is none, or its first sector has changed."""
        begun = self._hash
        self.discard_hash()
        if begun.size < SECTOR or address != self._offset or size < begun.size:
            return None
        yield from self._flash.wait()
        data = self._flash.scan(address, SECTOR, HASH_BYTE)
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        return begun if digest == self._first_sector else None

    # --- frames in ---

    def _check_range(self, align: int) -> int:
        covered = self._flash.covers(self._offset, self._size)
        if not self._size or self._offset % align or not covered:
            return BAD_BLOCK
        if self._is_lzma:
            return BAD_BLOCK if self._has_branches and self._offset % BURST else 0
        return NOT_IMPLEMENTED if self._codec > Codec.ZLIB else 0

    @property
    def _is_lzma(self) -> bool:
        return self._lzma is not None and self._codec == self._lzma.codec

    @property
    def _has_branches(self) -> bool:
        return self._lzma is not None and self._is_lzma and self._lzma.branches

    def _report(self, status: int) -> Steps:
        self._reported = self._received
        data = struct.pack("<III", self._received + WINDOW & 0xFFFFFFFF, self._in_flash, self._id)
        return self._cpu.reply(StubOp.WRITE_DATA, self._received, data, status or self._status)

    def _accept(self, frame: bytes) -> Steps:
        """Take the next piece of the stream; answer empty frames; refuse any other frame."""
        size = len(frame) - HEADER.size - 4
        valid = self._check(frame) == SEALED and size >= 0
        if valid and not size:
            yield from self._report(0)
            return
        position = word(frame, 0) & -256
        last = self._stream_size in (OPEN_END, self._received + size)
        expected = position == self._received and self._received + size <= self._stream_size
        if valid and expected and (size == PAYLOAD or last):
            self._refused = 0
            self._received += size
            if size != PAYLOAD:
                self._stream_size = self._received
            self._data = mask_bytes(frame[HEADER.size + 4 :], frame[HEADER.size])
            return
        self._refused += 1
        if self._refused % REFUSALS_PER_REPORT == 1:
            yield from self._report(REPORT_AGAIN)

    def _accept_vendor(self, frame: bytes) -> Steps:
        """Answer a block before it is written; a repeated block is answered only."""
        size, sequence = word(frame, 0), word(frame, 1)
        payload, status = frame[HEADER.size + DATA_HEAD :], 0
        if len(frame) < HEADER.size + DATA_HEAD or size != len(payload):
            status = BAD_LENGTH
        elif not self._check(frame):
            status = BAD_CHECKSUM
        else:
            if not self._cpu.sealed:
                self._cpu.add_work(size * CHECKSUM_BYTE)
            if not self._cpu.sealed and checksum(payload) != frame[4]:
                status = BAD_CHECKSUM
            elif sequence == self._refused:
                self._refused += 1
                self._data = payload
            elif sequence + 1 & 0xFFFFFFFF != self._refused:
                status = BAD_BLOCK
        yield from self._cpu.reply(self._op, status=status)

    def _receive_piece(self) -> Answer:
        """The next piece of the stream into ``_data``; False if there is none. Idle time is used for the flash."""
        cpu, flash, ring = self._cpu, self._flash, self._cpu.ring
        ours = self.kind is Kind.OURS
        while not self._data:
            ring.release()
            if ours and self._received == self._stream_size:
                return False
            if ours and self._received - self._reported >= WINDOW // 4:
                yield from self._report(0)
            yield from cpu.finish_work()
            while (frame := ring.take()) is None:
                if not self._has_work():
                    yield from cpu.wait_for_frame()
                elif flash.busy:
                    yield from cpu.wait_for_frame(cpu.flash.busy_until)
                else:
                    yield from self._use_idle_time()
                    yield from cpu.finish_work()
            if len(frame) < HEADER.size:
                continue
            chunks = 1 if frame[1] != self._op else -(-len(frame) // CRC_CHUNK)
            yield from self._work_in_turns(len(frame) * cpu.seal_cycles, chunks)
            if frame[1] == self._op:
                cpu.add_work(COMMAND)
                yield from self._accept(frame) if ours else self._accept_vendor(frame)
            elif self._check(frame):
                ring.put_back()
                self._interrupted = True
                return False
        return True

    # --- data out ---

    def _has_work(self) -> bool:
        """Whether idle time is of use."""
        erase = self._erased < self._offset + self._size
        return erase or self._programmed < self._ready or self._can_read_back()

    def _can_read_back(self) -> bool:
        behind = self._programmed - self._hash.size
        return bool(self._flags & WRITE_READ_BACK) and behind >= READ_BACK_STEP

    def _use_idle_time(self) -> Steps:
        """Program, erase ahead or read back. The flash is ready."""
        if self._programmed < self._ready:
            yield from self._program_next()
        elif self._erased < self._offset + self._size:
            yield from self._erase_next()
        else:
            digest, done = self._hash
            digest.update(self._flash.scan(self._offset + done, READ_BACK_STEP, HASH_BYTE))
            self._hash = PartialHash(digest, done + READ_BACK_STEP)
            if self._hash.size == SECTOR:
                self._first_sector = digest.copy().digest()

    def _erase_next(self) -> Steps:
        end = self._offset + self._size
        self._erased = yield from self._flash.erase_next(self._erased, end)

    def _program_next(self) -> Steps:
        """Program the next burst, or erase where it goes. The flash is ready."""
        at = self._programmed
        address = self._offset + at
        if self._erased <= address:
            yield from self._erase_next()
            return
        count = min(BURST - address % BURST, self._ready - at, DICTIONARY - at % DICTIONARY)
        data = bytes(self._held[:count])
        if self._has_branches:
            if at % STEP == 0:
                self._restored = restore_branches(bytes(self._held[:STEP]), at)
            data = self._restored[at % STEP :][:count]
        if self._flags & WRITE_ENCRYPTED:
            if address % ENCRYPTED_UNIT or count % ENCRYPTED_UNIT:
                self._status, self._ready = BAD_BLOCK, at
                return
            data = self._encrypt(data, address) if self._encrypt is not None else data
        del self._held[:count]
        self._programmed += count
        yield from self._flash.start_program(address, data + b"\xff" * (-count % 4))
        # while this burst is programmed
        if self._has_branches and self._programmed % STEP == 0:
            self._cpu.add_work(STEP * BRANCH_BYTE)
        if self._programmed < self._ready:
            self._flash.load(self._offset + self._programmed)

    def _run(self) -> Steps:
        status = yield from self._copy() if self._codec == Codec.RAW else self._unpack()
        cpu, ring = self._cpu, self._cpu.ring
        yield from cpu.finish_work()
        while self._programmed < self._ready and not self._interrupted:
            yield from cpu.finish_work(cpu.flash.busy_until)
            yield from self._program_next()
            self._interrupted = ring.aborting
        if self._interrupted:
            ring.release()
            return
        self._in_flash = self._programmed
        self._status = self._status or status
        if not self._status and self._in_flash != self._size:
            self._status = TOO_LITTLE
        yield from self._flash.wait()
        self._data = b""
        ring.release()

    def _copy(self) -> Generator[float, None, int]:
        """Raw data: fill bytes behind the vendor's last block are dropped."""
        at = 0
        while at < self._size and (yield from self._receive_piece()):
            data, self._data = self._data[: self._size - at], b""
            while data:
                piece, data = data[: BURST - at % BURST], data[BURST - at % BURST :]
                self._held += piece
                at += len(piece)
                yield from self._work_in_turns(len(piece) * COPY_BYTE, BURST // COPY_TURN)
                if (at % STEP == 0 or at == self._size) and not (yield from self._hand_over(at)):
                    return 0
        return 0

    def _unpack(self) -> Generator[float, None, int]:
        """Unpack the stream; returns the status, 0 also if the write was stopped for another reason."""
        total, stream, in_cost, out_cost = 0, self._open_stream(), INFLATE_IN, INFLATE_OUT
        if self._is_lzma:
            in_cost, out_cost = LZMA_IN, LZMA_OUT
        while not stream.eof:
            try:
                out, used = stream.unpack(self._data, STEP - total % STEP)
            except DamagedStream:
                return INFLATE_FAILED
            self._data = self._data[used:]
            self._held += out
            total += len(out)
            cycles = used * in_cost + len(out) * out_cost
            bursts = -(-len(out) // BURST)
            for _ in range(bursts):
                yield from self._work_in_turns(cycles / bursts, BURST // TURN)
            if not bursts:
                self._cpu.add_work(cycles)
            if out and total % STEP == 0:
                if not (yield from self._hand_over(total)):
                    return 0
            elif (
                not stream.eof
                and not self._data
                and not out
                and not (yield from self._receive_piece())
            ):
                return 0 if self._interrupted else TOO_LITTLE
        yield from self._hand_over(total)
        return 0

    def _open_stream(self) -> Unpacker:
        return LzmaUnpacker(self._lzma) if self._lzma and self._is_lzma else ZlibUnpacker()

    def _work_in_turns(self, cycles: float, turns: int) -> Steps:
        """CPU work in turns, after each of which the flash gets its next burst if it is ready."""
        left = turns
        while left and self._programmed < self._ready:
            left -= yield from self._flash.poll_after(cycles / turns, left)
            if not self._flash.busy:
                yield from self._program_next()
        self._cpu.add_work(left * cycles / turns)
        yield from self._cpu.finish_work()

    def _hand_over(self, total: int) -> Answer:
        """``total`` bytes are unpacked and may be programmed; False if the write is to stop."""
        cpu, ring = self._cpu, self._cpu.ring
        if total > self._size:
            self._status = TOO_MUCH
        else:
            self._ready = total
        while self._ready - self._programmed > LAG and not ring.aborting:
            yield from cpu.finish_work(cpu.flash.busy_until)
            yield from self._program_next()
        self._interrupted = ring.aborting
        self._in_flash = max(self._in_flash, self._ready - SURE)
        return not self._status and not self._interrupted
