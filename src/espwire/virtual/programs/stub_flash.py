"""Flash access of the stub model: bursts, erase policy, hashes. Mirrors ``stub/src/{flash,hash}.c``.

Each transaction is executed by the virtual flash part at its time; the CPU's share is added to the model's work. A
flash that is not attached ignores everything and reads as zeros. A hash stops when another request arrives.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Generator
from math import ceil
from typing import NamedTuple

from espwire.protocol import stub
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import (
    ERASE_BLOCK,
    ERASE_CHIP,
    ERASE_SECTOR,
    PAGE_PROGRAM,
    WITH_LONG_ADDRESS,
    WRITE_ENABLE,
)
from espwire.protocol.replies import BAD_BLOCK
from espwire.protocol.stub import HashKind
from espwire.sizes import BLOCK, SECTOR
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.programs.cpu_model import CpuModel, Steps

BURST = 64
LARGEST_FLASH = 1 << 28  # as long as SPI_SET_PARAMS has not set the size
FEW = 3  # dirty sectors of a block that are erased one by one
LONG_FROM = 1 << 24
HEAD_BITS, PLAIN_BITS, STATUS_BITS = 32, 8, 16  # opcode and address; opcode only; with its answer
READ_BITS = HEAD_BITS + 8  # with the dummy byte of a fast read
# CPU cycles (see stub_model.py): of a burst read, loaded, programmed, skipped because it is blank; of a transaction without
# data, of a look at the status; of a byte hashed or compared with 0xFF
READ_BURST, LOAD_BURST, PROGRAM_BURST, SKIP_BURST, TRANSACTION, POLL = 650, 500, 260, 160, 300, 130
HASH_BYTE, BLANK_BYTE = 28.65, 2.3


class StubFlash:
    """``size`` is what SPI_SET_PARAMS has set, 0 before. ``bit_s``: of the flash's clock."""

    def __init__(self, cpu: CpuModel, flash: NorFlash, spi_hz: float) -> None:
        self.size = 0
        self._cpu, self._flash, self.bit_s = cpu, flash, 1 / spi_hz
        self._loaded: int | None = None  # the address whose data the controller holds
        self._registers = cpu.services.registers

    def covers(self, address: int, size: int) -> bool:
        """Whether a range lies in the flash."""
        return address + size <= (self.size or LARGEST_FLASH)

    @property
    def busy(self) -> bool:
        """Whether the part is programming or erasing."""
        return self._cpu.now < self._flash.busy_until

    def wait(self) -> Steps:
        """Wait until the part is ready. A part in power-down reports neither ready nor busy and is not waited for."""
        self._cpu.add_work(TRANSACTION)
        return self._cpu.finish_work(self._flash.busy_until)

    @property
    def _wide(self) -> bool:
        """Whether the part expects four address bytes with every command, while the stub sends three."""
        return self._flash.shape(PAGE_PROGRAM)[0] > 3

    def read_now(self, address: int, size: int) -> bytes:
        """The contents, without taking time."""
        if not self._registers.attached:
            return bytes(size)
        array, t = self._flash.read_array, self._cpu.now
        if self._wide and address < LONG_FROM:  # the dummy byte becomes the address's last byte
            return b"".join(
                b"\xff" + array(t, address + at << 8, min(BURST, size - at) - 1)
                for at in range(0, size, BURST)
            )
        known = size
        if self._flash.part.size <= LONG_FROM < address + size:
            # a small part does not know the read command with four address bytes
            known = min(size, max(0, -(-(LONG_FROM - address) // BURST) * BURST))
        return array(t, address, known).ljust(size, b"\xff")

    def _change(self, t: float, opcode: int, address: int = 0, data: bytes = b"") -> None:
        flash = self._flash
        if not self._registers.attached:
            return
        flash.execute(t, WRITE_ENABLE)
        if opcode in WITH_LONG_ADDRESS and self._wide:
            if not data:
                return  # chip select rises before the address is complete
            address, data = address << 8 | data[0], data[1:]
        flash.execute(t, opcode, address=address, data=data)

    def scan(self, address: int, size: int, byte_cycles: float) -> bytes:
        """Read each burst while the CPU works on the one before."""
        self._add_scan(size, byte_cycles)
        return self.read_now(address, size)

    def _bus_cycles(self, size: int) -> float:
        return (READ_BITS * -(-size // BURST) + size * 8) * self.bit_s * self._cpu.hz

    def _add_scan(self, size: int, byte_cycles: float) -> None:
        self._loaded = None
        longer = max(self._bus_cycles(size), size * byte_cycles)
        self._cpu.add_work(-(-size // BURST) * READ_BURST + longer)

    def is_blank(self, address: int, size: int) -> Generator[float, None, bool]:
        """Whether a range is all 0xFF; stops at the first burst that is not. The part is ready."""
        data = self.read_now(address, size)
        dirty = data.lstrip(b"\xff")
        seen = size if not dirty else (size - len(dirty)) // BURST * BURST + BURST
        self._add_scan(min(seen, size), BLANK_BYTE)
        yield from self._cpu.finish_work()
        return not dirty

    def load(self, address: int) -> None:
        """Load the controller with the data for ``start_program``, unless that was done."""
        if self._loaded != address:
            self._cpu.add_work(LOAD_BURST)
            self._loaded = address

    def start_program(self, address: int, data: bytes) -> Steps:
        """Start programming a burst within 64 bytes, unless it is all 0xFF. The part is ready."""
        cpu = self._cpu
        self.load(address)
        self._loaded = None
        if data.count(0xFF) == len(data):
            cpu.add_work(SKIP_BURST)
            return
        bits = PLAIN_BITS + HEAD_BITS + len(data) * 8
        cpu.add_work(PROGRAM_BURST + bits * self.bit_s * cpu.hz)
        yield from cpu.finish_work()
        self._change(cpu.now, _opcode(PAGE_PROGRAM, address), address, data)

    def poll_after(self, cycles: float, turns: int) -> Generator[float, None, int]:
        """Work of ``cycles`` each turn, with a look at the status after it: until the part is ready, at most ``turns``
        times. Returns how many there were."""
        cpu = self._cpu
        left = max(self._flash.busy_until - cpu.now, 0.0) * cpu.hz
        turn = cycles + POLL + STATUS_BITS * self.bit_s * cpu.hz
        count = min(turns, max(1, ceil(left / turn)))
        cpu.add_work(count * turn)
        yield from cpu.finish_work()
        return count

    def start_erase(self, address: int, size: int) -> Steps:
        """Start erasing a sector or a 64 KiB block."""
        yield from self.wait()
        self._cpu.add_work(2 * TRANSACTION)
        yield from self._cpu.finish_work()
        opcode = ERASE_BLOCK if size == BLOCK else ERASE_SECTOR
        self._change(self._cpu.now, _opcode(opcode, address), address)

    def erase_next(self, address: int, end: int) -> Generator[float, None, int]:
        """Erase what is not blank of the unit at ``address``; returns where the next unit begins."""
        whole = address % BLOCK == 0 and end - address >= BLOCK
        size = BLOCK if whole else SECTOR
        dirty: list[int] = []
        for sector in range(address, address + size, SECTOR):
            if len(dirty) > FEW:
                break
            yield from self.wait()
            if not (yield from self.is_blank(sector, SECTOR)):
                dirty.append(sector)
        if len(dirty) > FEW:
            yield from self.start_erase(address, BLOCK)
        else:
            for sector in dirty:
                yield from self.start_erase(sector, SECTOR)
        return address + size

    def erase(self, address: int, size: int) -> Steps:
        """Erase a range."""
        at, end = address & -SECTOR, address + size
        while at < end and not self._cpu.ring.aborting:
            at = yield from self.erase_next(at, end)
        yield from self.wait()

    def erase_all(self) -> Steps:
        """Erase the whole part."""
        yield from self.wait()
        self._change(self._cpu.now, ERASE_CHIP)
        yield from self.wait()


def _opcode(opcode: int, address: int) -> int:
    return WITH_LONG_ADDRESS[opcode] if address >= LONG_FROM else opcode


class PartialHash(NamedTuple):
    """MD5 of the first ``size`` bytes of a range."""

    digest: hashlib._Hash
    size: int


class Hasher:
    """HASH and SPI_FLASH_MD5. ``check`` is whether a received frame is a valid request."""

    def __init__(self, cpu: CpuModel, flash: StubFlash, check: Callable[[bytes], int]) -> None:
        self._cpu, self._flash, self._check = cpu, flash, check

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
