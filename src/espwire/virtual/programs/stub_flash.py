"""The flash as our stub's twin drives it: bursts of 64 bytes, erase policy, waits. Mirrors ``stub/src/flash.c``.

Every transaction is done by the virtual part at its time; the CPU's share is owed to the twin's clock. A flash that
nobody has attached hears nothing, and what is read of it is zeros.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from espwire.protocol.spi_flash import (
    ERASE_BLOCK,
    ERASE_CHIP,
    ERASE_SECTOR,
    PAGE_PROGRAM,
    WITH_LONG_ADDRESS,
    WRITE_ENABLE,
)
from espwire.sizes import BLOCK, SECTOR
from espwire.virtual.programs.cpu_model import CpuModel, Steps
from espwire.virtual.programs.cycle_costs import Pace

if TYPE_CHECKING:
    from espwire.virtual.nor_flash import NorFlash

BURST = 64
MOST = 1 << 28  # where nobody told the size
FEW = 3  # dirty sectors that are erased one by one
LONG_FROM = 1 << 24
BLANK_BURST = b"\xff" * BURST
HEAD_BITS, PLAIN_BITS = 32, 8  # opcode and address; opcode
READ_BITS = HEAD_BITS + 8  # and the dummy byte of a fast read


class StubFlash:
    """``size`` is what SPI_SET_PARAMS told, 0: not known."""

    def __init__(self, cpu: CpuModel, flash: NorFlash, pace: Pace, spi_hz: float) -> None:
        self.size = 0
        self._cpu, self._flash, self._pace, self._bit_s = cpu, flash, pace, 1 / spi_hz
        self._registers = cpu.services.registers

    def covers(self, address: int, size: int) -> bool:
        """Whether a range lies in the flash, as far as known, and does not wrap."""
        return address + size <= (self.size or MOST)

    @property
    def busy(self) -> bool:
        """Whether the part works on something."""
        return self._cpu.now < self._flash.busy_until

    @property
    def busy_until(self) -> float:
        """When it is done."""
        return self._flash.busy_until

    def wait(self) -> Steps:
        """Until the part is ready; one that sleeps says neither yes nor no, and is not waited for."""
        self._cpu.owe(self._pace.transaction)
        return self._cpu.settle(self._flash.busy_until)

    @property
    def _wide(self) -> bool:
        """Whether the part was told to take four address bytes with every command: the stub gives it three."""
        return self._flash.shape(PAGE_PROGRAM)[0] > 3

    def look(self, address: int, size: int) -> bytes:
        """What stands there, at once."""
        if not self._registers.attached:
            return bytes(size)
        if self._wide and address < LONG_FROM:  # the dummy byte is taken for the address's last
            bursts = range(0, size, BURST)
            array, t = self._flash.read_array, self._cpu.now
            return b"".join(
                b"\xff" + array(t, address + at << 8, min(BURST, size - at) - 1) for at in bursts
            )
        near = size
        if (
            self._flash.part.size <= LONG_FROM < address + size
        ):  # what begins beyond, the part does not know
            near = min(size, max(0, -(-(LONG_FROM - address) // BURST) * BURST))
        return self._flash.read_array(self._cpu.now, address, near).ljust(size, b"\xff")

    def _change(self, t: float, opcode: int, address: int = 0, data: bytes = b"") -> None:
        flash = self._flash
        if not self._registers.attached:
            return
        flash.execute(t, WRITE_ENABLE)
        if opcode in WITH_LONG_ADDRESS and self._wide:
            if not data:
                return  # chip select goes up before the address is whole
            address, data = address << 8 | data[0], data[1:]
        flash.execute(t, opcode, address=address, data=data)

    def read(self, address: int, size: int) -> bytes:
        """Read it burst by burst; the time is owed."""
        self._cpu.owe(-(-size // BURST) * self._pace.read_burst + self._bus_cycles(size))
        return self.look(address, size)

    def _bus_cycles(self, size: int) -> float:
        bits = READ_BITS * -(-size // BURST) + size * 8
        return bits * self._bit_s * self._cpu.hz

    def hash(self, address: int, size: int, byte_cycles: float) -> bytes:
        """Read it with the next burst on its way while the last is worked on; the time is owed."""
        self._owe_scan(size, byte_cycles)
        return self.look(address, size)

    def _owe_scan(self, size: int, byte_cycles: float) -> None:
        self._cpu.owe(
            -(-size // BURST) * self._pace.read_burst
            + max(self._bus_cycles(size), size * byte_cycles)
        )

    def blank(self, address: int, size: int) -> Generator[float, None, bool]:
        """Whether it is all 0xFF; stops at the first burst that is not."""
        yield from self.wait()
        return (yield from self.blank_now(address, size))

    def blank_now(self, address: int, size: int) -> Generator[float, None, bool]:
        """The same of a part that is ready."""
        data = self.look(address, size)
        dirty = data.lstrip(b"\xff")
        seen = size if not dirty else (size - len(dirty)) // BURST * BURST + BURST
        self._owe_scan(min(seen, size), self._pace.look_byte)
        yield from self._cpu.settle()
        return not dirty

    def start_program(self, address: int, data: bytes) -> Steps:
        """Program a burst that stays within its 64 bytes, unless it is 0xFF; the part is ready, and goes on."""
        cpu = self._cpu
        if data.count(0xFF) == len(data):
            cpu.owe(self._pace.skip_burst)
            return
        cpu.owe(self._pace.program_burst)
        yield from cpu.settle()
        begin = cpu.now + (PLAIN_BITS + HEAD_BITS + len(data) * 8) * self._bit_s
        self._change(begin, _opcode(PAGE_PROGRAM, address), address, data)

    def poll(self) -> Steps:
        """Ask the part whether it is ready, in vain."""
        self._cpu.owe(self._pace.transaction)
        return self._cpu.settle()

    def start_erase(self, address: int, size: int) -> Steps:
        """One sector or one 64 KiB block; goes on while the part erases."""
        yield from self.wait()
        self._cpu.owe(2 * self._pace.transaction)
        yield from self._cpu.settle()
        opcode = ERASE_BLOCK if size == BLOCK else ERASE_SECTOR
        self._change(self._cpu.now, _opcode(opcode, address), address)

    def erase_next(self, address: int, end: int) -> Generator[float, None, int]:
        """Start what the unit at ``address`` needs; where the next one is. Blank sectors are left alone."""
        if address % BLOCK or end - address < BLOCK:
            if not (yield from self.blank(address, SECTOR)):
                yield from self.start_erase(address, SECTOR)
            return address + SECTOR
        dirty: list[int] = []
        for sector in range(address, address + BLOCK, SECTOR):
            if len(dirty) > FEW:
                break
            if not (yield from self.blank(sector, SECTOR)):
                dirty.append(sector)
        if len(dirty) > FEW:
            yield from self.start_erase(address, BLOCK)
        else:
            for sector in dirty:
                yield from self.start_erase(sector, SECTOR)
        return address + BLOCK

    def erase(self, address: int, size: int) -> Steps:
        """All units of a range."""
        at, end = address & -SECTOR, address + size
        while at < end and not self._cpu.ring.aborting:
            at = yield from self.erase_next(at, end)
        yield from self.wait()

    def erase_all(self) -> Steps:
        """The whole part."""
        yield from self.wait()
        self._change(self._cpu.now, ERASE_CHIP)
        yield from self.wait()


def _opcode(opcode: int, address: int) -> int:
    return WITH_LONG_ADDRESS[opcode] if address >= LONG_FROM else opcode
