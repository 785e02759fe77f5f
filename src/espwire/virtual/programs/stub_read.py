"""Reads of the stub model: packets of flash content, packed or not. Mirrors ``stub/src/read.c``.

A read sends packets ahead of their acknowledgements, as far as the window allows, and goes back when the host requests
it. Packets may refer to those before, back to the last blank packet or to where the host has requested to go back.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator

from espwire.protocol import stub
from espwire.protocol.commands import HEADER
from espwire.protocol.packed import CODES
from espwire.protocol.replies import BAD_BLOCK, BAD_LENGTH
from espwire.protocol.stub import DIGEST_BYTES, ReadAck, StubOp
from espwire.virtual.programs.cpu_model import CpuModel, Steps, word
from espwire.virtual.programs.read_packer import HISTORY, Packer
from espwire.virtual.programs.stub_flash import BLANK_BYTE, HASH_BYTE, StubFlash

PACKET = 4096
READ_WINDOW = 0x10000
VENDOR_WINDOW = 64
OPEN_BYTES, CODE_BYTES, WORD = 20, 2, 4
ALL_FLAGS = stub.READ_SHORT_BLANKS | stub.READ_CHECKED | stub.READ_PACKED
VENDOR = 8  # instead of the flags of READ_OPEN
QUEUE, QUEUE_BYTE = 2048, 44  # of sending while the CPU works; CPU cycles for each of its bytes
# CPU cycles (see stub_model.py): of a literal or match, of a position entered into the table, of a byte
PACK_TOKEN, PACK_POSITION, PACK_BYTE = 267, 148, 12
CLEAR = 35_000  # CPU cycles: the table, at the start


class Reader:
    """READ_OPEN and READ_FLASH. ``check`` is whether a received frame is a valid request."""

    def __init__(self, cpu: CpuModel, flash: StubFlash, check: Callable[[bytes], int]) -> None:
        self._cpu, self._flash, self._check = cpu, flash, check

    def open(self, frame: bytes, op: int) -> Steps:
        """READ_OPEN, until the end of the read."""
        cpu, codes = self._cpu, frame[HEADER.size + OPEN_BYTES :]
        offset, size, packet, window, flags = (word(frame, index) for index in range(5))
        expected = CODES * CODE_BYTES if flags & stub.READ_PACKED else 0
        if len(frame) != HEADER.size + OPEN_BYTES + expected:
            yield from cpu.reply(op, status=BAD_LENGTH)
            return
        bad = not size or not packet or packet > PACKET or packet % 4 or window < packet
        bad = bad or not self._flash.covers(offset, size)
        if not bad and expected:
            cpu.add_work(CLEAR)
        yield from cpu.reply(op, 0 if bad else size, status=BAD_BLOCK if bad else 0)
        if not bad:
            transfer = _Transfer(cpu, self._flash, offset, size, flags & ALL_FLAGS, codes)
            yield from self._run(transfer, packet, window)
            yield from cpu.empty_queue()

    def read(self, frame: bytes, op: int) -> Steps:
        """The vendor's READ_FLASH."""
        offset, size, packet, window = struct.unpack_from("<4I", frame, HEADER.size)
        bad = not 0 < packet <= PACKET or not 0 < window <= VENDOR_WINDOW
        bad = bad or not self._flash.covers(offset, size)
        yield from self._cpu.reply(op, status=BAD_BLOCK if bad else 0)
        if not bad:
            transfer = _Transfer(self._cpu, self._flash, offset, size, VENDOR)
            if (yield from self._run(transfer, packet, window * packet)):
                yield from transfer.send_digest()
            yield from self._cpu.empty_queue()

    def _run(self, transfer: _Transfer, packet: int, window: int) -> Generator[float, None, bool]:
        """Until the host has everything; False: another request has arrived."""
        cpu, ring, size, end = self._cpu, self._cpu.ring, transfer.size, transfer.end
        yield from self._flash.wait()
        ring.release()
        cpu.transmit_queue, cpu.queue_cycles = QUEUE, QUEUE_BYTE
        done = sent = 0
        while done < end:
            count = min(packet, size - sent)
            if sent < size and sent + count - done <= window:
                yield from transfer.send_flash(sent, count)
                sent += count
            elif sent == size < end:
                yield from transfer.send_digest()
                sent = end
            else:
                yield from cpu.wait_for_frame()
            yield from cpu.finish_work()
            while done < end and (frame := ring.take()) is not None:
                valid = bool(self._check(frame))
                if valid and frame[1] != StubOp.READ_ACK:
                    ring.put_back()
                    return False
                ack = transfer.parse_ack(frame, valid=valid)
                if ack is not None and ack.received <= sent:
                    if ack.flags & stub.ACK_AGAIN:
                        done = sent = ack.received
                        transfer.go_back()
                    else:
                        done = max(done, ack.received)
                ring.release()
        return True


class _Transfer:
    """One read: what its packets contain, and what acknowledges them.

    ``end`` is where the host has everything, the MD5 of a checked read included.
    """

    def __init__(
        self,
        cpu: CpuModel,
        flash: StubFlash,
        offset: int,
        size: int,
        flags: int,
        codes: bytes = b"",
    ) -> None:
        self._cpu, self._flash, self._offset, self.size = cpu, flash, offset, size
        self._vendor = flags == VENDOR
        self._blanks = bool(flags & stub.READ_SHORT_BLANKS)
        self._checked = bool(flags & stub.READ_CHECKED)
        self._codes = struct.unpack(f"<{len(codes) // CODE_BYTES}H", codes)
        self.end = size + DIGEST_BYTES * self._checked
        self._packer = Packer()
        self._at, self._known = 0, b""
        self._digest, self._hashed = hashlib.md5(usedforsecurity=False), 0

    def parse_ack(self, frame: bytes, *, valid: bool) -> ReadAck | None:
        """The acknowledgement in a frame: of a vendor's tool, it is a lone word."""
        if self._vendor:
            whole = len(frame) == WORD
            ack = ReadAck(int.from_bytes(frame, "little")) if whole else None
        else:
            whole = valid and len(frame) == HEADER.size + 2 * WORD
            ack = ReadAck(word(frame, 0), word(frame, 1)) if whole else None
        possible = ack is not None and (ack.received <= self.size or ack.received == self.end)
        return ack if possible else None

    def go_back(self) -> None:
        """The host has lost packets: refer to none of them."""
        self._known = b""

    def send_flash(self, position: int, size: int) -> Steps:
        """The packet at ``position``."""
        if self._at % HISTORY + size > HISTORY:
            self._at, self._known = 0, b""
        hashed = (self._checked or self._vendor) and position == self._hashed
        cycles = BLANK_BYTE + HASH_BYTE * hashed
        data = self._flash.scan(self._offset + position, size, cycles)
        if hashed:
            self._digest.update(data)
            self._hashed += size
        if self._blanks and data.count(0xFF) == size:
            self._known = b""
            content = b""
        else:
            known = self._known[-(HISTORY - size) :]
            content = (self._pack(known, data) if self._codes else None) or data
            self._known = known + data
        self._at += (size + 3) & -4
        yield from self._send_packet(position, size, content)

    def _pack(self, known: bytes, data: bytes) -> bytes | None:
        packer = self._packer
        packer.tokens = packer.entered = 0
        packed = packer.pack(self._at, known, data, self._codes)
        cycles = packer.tokens * PACK_TOKEN + packer.entered * PACK_POSITION
        self._cpu.add_work(cycles + len(data) * PACK_BYTE)
        return packed

    def send_digest(self) -> Steps:
        """The MD5 of everything, as the last packet."""
        rest = self._flash.scan(self._offset + self._hashed, self.size - self._hashed, HASH_BYTE)
        self._digest.update(rest)
        self._hashed = self.size
        yield from self._send_packet(self.size, DIGEST_BYTES, self._digest.digest())

    def _send_packet(self, position: int, size: int, content: bytes) -> Steps:
        if self._vendor:
            yield from self._cpu.send_frame(content)
            return
        head = size.to_bytes(2, "little") if self._checked else b""
        yield from self._cpu.reply(StubOp.READ_OPEN, position, head + content)
