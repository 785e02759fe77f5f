"""Reads and hashes of our stub's twin: packets in flight, acknowledgements, going back. Mirrors read.c and hash.c."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator
from typing import NamedTuple

from espwire.protocol import stub
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import BAD_BLOCK
from espwire.protocol.stub import HashKind, StubOp
from espwire.sizes import SECTOR
from espwire.virtual.programs.cpu_model import CpuModel, Steps, word
from espwire.virtual.programs.cycle_costs import Pace
from espwire.virtual.programs.frame_trust import Trust
from espwire.virtual.programs.stub_flash import StubFlash

PACKET = 4096
READ_WINDOW = 0x10000
VENDOR_WINDOW = 64
Digest = Generator[float, None, "bytes | None"]


class Begun(NamedTuple):
    """An MD5 of the first ``size`` bytes of something."""

    digest: hashlib._Hash
    size: int


class Reader:
    """READ_OPEN, READ_FLASH, HASH and SPI_FLASH_MD5. ``trust``: how far a frame can be trusted."""

    def __init__(
        self, cpu: CpuModel, flash: StubFlash, pace: Pace, trust: Callable[[bytes], Trust]
    ) -> None:
        self._cpu, self._flash, self._pace, self._trust = cpu, flash, pace, trust

    def open(self, frame: bytes) -> Steps:
        """READ_OPEN, and all of the read."""
        offset, size, packet, most, flags = struct.unpack_from("<5I", frame, HEADER.size)
        bad = not size or not packet or packet > PACKET or packet % 4 or most < packet
        bad = bad or not self._flash.covers(offset, size)
        yield from self._cpu.reply(
            StubOp.READ_OPEN, 0 if bad else size, status=BAD_BLOCK if bad else 0
        )
        if bad:
            return
        yield from self._flash.wait()
        ring, done, following = self._cpu.ring, 0, 0
        ring.release()
        while done < size:
            count = min(packet, size - following)
            if count and following + count - done <= most:
                yield from self._send_packet(offset + following, following, count, flags)
                following += count
            else:
                yield from self._cpu.listen()
            yield from self._cpu.settle()
            while done < size and (ack := ring.take()) is not None:
                whole, received = self._trust(ack), word(ack, 0)
                if whole and ack[1] != StubOp.READ_ACK:
                    ring.unread()
                    return
                if whole and len(ack) == HEADER.size + 8 and received <= following:
                    if word(ack, 1) & stub.ACK_AGAIN:
                        done = following = received
                    else:
                        done = max(done, received)
                ring.release()

    def _send_packet(self, address: int, position: int, size: int, flags: int) -> Steps:
        blank = False
        if flags & stub.READ_SHORT_BLANKS:
            blank = yield from self._flash.blank_now(address, size)
        data = b"" if blank else self._flash.read(address, size)
        yield from self._cpu.reply(StubOp.READ_OPEN, position, data)

    def read(self, frame: bytes) -> Steps:
        """The vendor's READ_FLASH."""
        offset, size, packet, most = struct.unpack_from("<4I", frame, HEADER.size)
        bad = (
            not packet
            or packet > PACKET
            or not most
            or most > VENDOR_WINDOW
            or not self._flash.covers(offset, size)
        )
        yield from self._cpu.reply(Op.READ_FLASH, status=BAD_BLOCK if bad else 0)
        if bad:
            return
        yield from self._flash.wait()
        ring, digest, sent, done = self._cpu.ring, hashlib.md5(usedforsecurity=False), 0, 0
        ring.release()
        while done < size:
            if sent < size and sent - done & 0xFFFFFFFF < most * packet:
                data = self._flash.read(offset + sent, min(packet, size - sent))
                digest.update(data)
                self._cpu.owe(len(data) * self._pace.md5_byte)
                yield from self._cpu.send_frame(data)
                sent += len(data)
            else:
                yield from self._cpu.listen()
            yield from self._cpu.settle()
            while (ack := ring.take()) is not None:
                if len(ack) == 4:
                    done = int.from_bytes(ack, "little")
                elif self._trust(ack):
                    ring.unread()
                    return
                ring.release()
        yield from self._cpu.send_frame(digest.digest())

    def hash(self, frame: bytes) -> Steps:
        """HASH, piece by piece, unless another request comes."""
        address, size, piece, kind = struct.unpack_from("<4I", frame, HEADER.size)
        if kind > HashKind.BLANK or not size or not self._flash.covers(address, size):
            yield from self._cpu.reply(StubOp.HASH, status=BAD_BLOCK)
            return
        results, index, sent = bytearray(), 0, 0
        while size:
            count = min(size, piece or size)
            found = yield from self.piece(address, count, kind, to_the_end=False)
            if found is None:
                return
            address, size, index = address + count, size - count, index + 1
            results += found
            if len(results) == stub.HASH_RESULT_BYTES or not size:
                yield from self._cpu.reply(StubOp.HASH, sent, bytes(results))
                sent = index
                results.clear()

    def piece(
        self, address: int, size: int, kind: int, *, to_the_end: bool, begun: Begun | None = None
    ) -> Digest:
        """One result; None: somebody else wants attention. ``begun``: what is hashed already."""
        digest, blank = hashlib.md5(usedforsecurity=False), True
        if begun is not None:
            digest, address, size = begun.digest, address + begun.size, size - begun.size
        byte_cycles = self._pace.md5_byte if kind == HashKind.MD5 else self._pace.look_byte
        yield from self._flash.wait()
        while size:
            count = min(size, SECTOR - address % SECTOR)
            data = self._flash.hash(address, count, byte_cycles)
            if kind == HashKind.MD5:
                digest.update(data)
            else:
                blank = blank and data.count(0xFF) == count
            address, size = address + count, size - count
            yield from self._cpu.settle()
            if not to_the_end and address % SECTOR == 0 and self._request_waits():
                return None
        return digest.digest() if kind == HashKind.MD5 else bytes((blank,))

    def _request_waits(self) -> bool:
        ring = self._cpu.ring
        while (frame := ring.take()) is not None:
            if self._trust(frame):
                ring.unread()
                return True
            ring.release()
        return False
