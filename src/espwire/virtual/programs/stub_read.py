"""Reads and hashes of the stub model. Mirrors ``stub/src/read.c`` and ``hash.c``.

A read sends packets ahead of their acknowledgements, as far as the window allows, and goes back when the host requests
it. A hash stops when another request arrives.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator
from typing import NamedTuple

from espwire.protocol import stub
from espwire.protocol.commands import HEADER
from espwire.protocol.replies import BAD_BLOCK
from espwire.protocol.stub import HashKind, StubOp
from espwire.sizes import SECTOR
from espwire.virtual.programs.cpu_model import CpuModel, Steps, word
from espwire.virtual.programs.stub_flash import BLANK_BYTE, HASH_BYTE, StubFlash

PACKET = 4096
READ_WINDOW = 0x10000
VENDOR_WINDOW = 64


class PartialHash(NamedTuple):
    """MD5 of the first ``size`` bytes of a range."""

    digest: hashlib._Hash
    size: int


class Reader:
    """READ_OPEN, READ_FLASH, HASH and SPI_FLASH_MD5. ``check`` is whether a received frame is a valid request."""

    def __init__(self, cpu: CpuModel, flash: StubFlash, check: Callable[[bytes], int]) -> None:
        self._cpu, self._flash, self._check = cpu, flash, check

    def open(self, frame: bytes, op: int) -> Steps:
        """READ_OPEN, until the end of the read."""
        offset, size, packet, window, flags = struct.unpack_from("<5I", frame, HEADER.size)
        bad = not size or not packet or packet > PACKET or packet % 4 or window < packet
        bad = bad or not self._flash.covers(offset, size)
        yield from self._cpu.reply(op, 0 if bad else size, status=BAD_BLOCK if bad else 0)
        if bad:
            return
        yield from self._flash.wait()
        ring, done, sent = self._cpu.ring, 0, 0
        ring.release()
        while done < size:
            count = min(packet, size - sent)
            if count and sent + count - done <= window:
                yield from self._send_packet(offset + sent, sent, count, flags)
                sent += count
            else:
                yield from self._cpu.wait_for_frame()
            yield from self._cpu.finish_work()
            while done < size and (ack := ring.take()) is not None:
                valid, received = self._check(ack), word(ack, 0)
                if valid and ack[1] != StubOp.READ_ACK:
                    ring.put_back()
                    return
                if valid and len(ack) == HEADER.size + 8 and received <= sent:
                    if word(ack, 1) & stub.ACK_AGAIN:
                        done = sent = received
                    else:
                        done = max(done, received)
                ring.release()

    def _send_packet(self, address: int, position: int, size: int, flags: int) -> Steps:
        blank = False
        if flags & stub.READ_SHORT_BLANKS:
            blank = yield from self._flash.is_blank(address, size)
        data = b"" if blank else self._flash.read(address, size)
        yield from self._cpu.reply(StubOp.READ_OPEN, position, data)

    def read(self, frame: bytes, op: int) -> Steps:
        """The vendor's READ_FLASH."""
        offset, size, packet, window = struct.unpack_from("<4I", frame, HEADER.size)
        bad = not 0 < packet <= PACKET or not 0 < window <= VENDOR_WINDOW
        bad = bad or not self._flash.covers(offset, size)
        yield from self._cpu.reply(op, status=BAD_BLOCK if bad else 0)
        if bad:
            return
        yield from self._flash.wait()
        ring, digest, sent, done = self._cpu.ring, hashlib.md5(usedforsecurity=False), 0, 0
        ring.release()
        while done < size:
            if sent < size and sent - done & 0xFFFFFFFF < window * packet:
                data = self._flash.read(offset + sent, min(packet, size - sent))
                digest.update(data)
                self._cpu.add_work(len(data) * HASH_BYTE)
                yield from self._cpu.send_frame(data)
                sent += len(data)
            else:
                yield from self._cpu.wait_for_frame()
            yield from self._cpu.finish_work()
            while (ack := ring.take()) is not None:
                if len(ack) == 4:
                    done = int.from_bytes(ack, "little")
                elif self._check(ack):
                    ring.put_back()
                    return
                ring.release()
        yield from self._cpu.send_frame(digest.digest())

    def hash(self, frame: bytes, op: int) -> Steps:
        """HASH, piece by piece, unless another request arrives."""
        address, size, piece, kind = struct.unpack_from("<4I", frame, HEADER.size)
        if kind > HashKind.BLANK or not size or not self._flash.covers(address, size):
            yield from self._cpu.reply(op, status=BAD_BLOCK)
            return
        results, index, sent = bytearray(), 0, 0
        while size:
            count = min(size, piece or size)
            result = yield from self.hash_piece(address, count, kind, interruptible=True)
            if result is None:
                return
            address, size, index = address + count, size - count, index + 1
            results += result
            if len(results) == stub.HASH_RESULT_BYTES or not size:
                yield from self._cpu.reply(op, sent, bytes(results))
                sent = index
                results.clear()

    def hash_piece(
        self,
        address: int,
        size: int,
        kind: int,
        *,
        interruptible: bool = False,
        begun: PartialHash | None = None,
    ) -> Generator[float, None, bytes | None]:
        """One result; None: another request has arrived. ``begun``: what has been hashed before."""
        digest, blank = hashlib.md5(usedforsecurity=False), True
        if begun is not None:
            digest, address, size = begun.digest, address + begun.size, size - begun.size
        byte_cycles = HASH_BYTE if kind == HashKind.MD5 else BLANK_BYTE
        yield from self._flash.wait()
        while size:
            count = min(size, SECTOR - address % SECTOR)
            data = self._flash.scan(address, count, byte_cycles)
            if kind == HashKind.MD5:
                digest.update(data)
            else:
                blank = blank and data.count(0xFF) == count
            address, size = address + count, size - count
            yield from self._cpu.finish_work()
            if interruptible and address % SECTOR == 0 and self._is_request_waiting():
                return None
        return digest.digest() if kind == HashKind.MD5 else bytes((blank,))

    def _is_request_waiting(self) -> bool:
        ring = self._cpu.ring
        while (frame := ring.take()) is not None:
            if self._check(frame):
                ring.put_back()
                return True
            ring.release()
        return False
