"""Registers and RAM as imitated stubs reach them, and the three RAM commands. Mirrors ``stub/src/commands.c``."""

from __future__ import annotations

from collections.abc import Callable, Generator

from espwire.virtual.resident import Resident, Steps, word
from espwire.wire.commands import ALL_BITS, HEADER, Op, checksum
from espwire.wire.status import BAD_BLOCK, BAD_CHECKSUM, BAD_LENGTH, TOO_LITTLE, TOO_MUCH

DATA_HEAD, LARGEST_BLOCK = 16, 0x4000


class RamCommands:
    """MEM_BEGIN, MEM_DATA, MEM_END and words. ``byte_cycles``: what a byte of data costs; ``flash_wait``: until the
    flash has done what it does."""

    def __init__(self, cpu: Resident, byte_cycles: float, flash_wait: Callable[[], Steps]) -> None:
        self._cpu, self._byte_cycles, self._flash_wait = cpu, byte_cycles, flash_wait
        self._address = self._left = 0

    def begin(self, frame: bytes) -> Steps:
        """Where data will go."""
        self._left, self._address = word(frame, 0), word(frame, 3)
        self._cpu.uploads.append((self._address, self._left))
        bad = self._address % 4 or word(frame, 2) > LARGEST_BLOCK
        yield from self._cpu.reply(Op.MEM_BEGIN, status=BAD_BLOCK if bad else 0)

    def data(self, frame: bytes) -> Steps:
        """A block of it, word by word."""
        size, payload, status = word(frame, 0), frame[HEADER.size + DATA_HEAD :], 0
        if len(frame) < HEADER.size + DATA_HEAD or size != len(payload):
            status = BAD_LENGTH
        elif not self._cpu.sealed and checksum(payload) != frame[4]:
            status = BAD_CHECKSUM
        elif size > (self._left + 3) & ~3:
            status = TOO_MUCH
        elif self._address % 4:
            status = BAD_BLOCK
        else:
            self._cpu.owe(size * self._byte_cycles)
            for at in range(0, size, 4):
                yield from self.write_word(self._address + at, int.from_bytes(payload[at : at + 4], "little"))
            self._address += size
            self._left = max(0, self._left - size)
        yield from self._cpu.reply(Op.MEM_DATA, status=status)

    def end(self, frame: bytes) -> Steps:
        """Run it, or stay."""
        stay, entry, status = word(frame, 0), word(frame, 1), TOO_LITTLE if self._left else 0
        yield from self._cpu.reply(Op.MEM_END, status=status)
        if not status and not stay:
            yield from self._flash_wait()
            yield from self._cpu.drain()
            yield from self._cpu.jump(entry)

    def read_word(self, address: int) -> Generator[float, None, int]:
        """A word of the address space."""
        value = self._cpu.services.registers.read(self._cpu.now, address)
        if value is None:
            yield from self._cpu.crash("Load access fault", address)
        return value or 0

    def write_word(self, address: int, value: int) -> Steps:
        """Change one; the bus takes none for ROM."""
        registers = self._cpu.services.registers
        if registers.is_read_only(address) or not registers.write(self._cpu.now, address, value):
            yield from self._cpu.crash("Store/AMO access fault", address)

    def write_registers(self, words: tuple[int, ...]) -> Generator[float, None, int]:
        """WRITE_REG's groups of address, value, mask and delay; the status."""
        for at in range(0, len(words), 4):
            address, value, mask, delay_us = words[at : at + 4]
            yield from self._cpu.settle(self._cpu.now + delay_us / 1e6 if delay_us else 0.0)
            if address % 4:
                return BAD_BLOCK
            if mask != ALL_BITS:
                value = (yield from self.read_word(address)) & ~mask | value & mask
            yield from self.write_word(address, value)
        return 0
