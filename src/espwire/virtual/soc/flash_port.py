"""The flash controller as a program sees it: ``virtual/spi.py`` with the time that its bits take."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from espwire.chips.model import Chip
from espwire.virtual.flash import NorFlash
from espwire.virtual.registers import SPI_START, Registers
from espwire.virtual.soc.activity import Activity
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.uart import NEVER
from espwire.virtual.spi import SpiController

STATUS_READS = (0x05, 0x35, 0x15)
OLD_LAYOUT_CLOCK, NEW_LAYOUT_CLOCK = 0x18, 0x14


class FlashPort:
    """``transactions`` counts."""

    def __init__(
        self, chip: Chip, spi: SpiController, flash: NorFlash, registers: Registers, clock: Clock, activity: Activity
    ) -> None:
        self.base = chip.spi.base
        self._spi, self._flash, self._registers = spi, flash, registers
        self._clock, self._activity = clock, activity
        self.command = chip.spi.base + chip.spi.command_offset
        self._clock_offset = OLD_LAYOUT_CLOCK if spi.has_old_layout else NEW_LAYOUT_CLOCK
        self._answer = self.base + chip.spi.data_offset
        self._status: tuple[int, int] | None = None
        self._saw_start = self._saw_busy = False
        self.transactions = 0

    @property
    def hz(self) -> float:
        """The clock on the flash's wire."""
        return self._clock.bus_hz / self._spi.find_divider(self._spi.read(0.0, self.base + self._clock_offset))

    def next_event(self) -> float:
        """When what the program last saw will have changed."""
        running = self._spi.done_at if self._saw_start else NEVER
        return min(running, self._flash.busy_until) if self._saw_busy else running

    def read_command(self) -> int:
        """The start bit stands while a transaction runs."""
        self._saw_start = self._clock.now < self._spi.done_at
        self._activity.asked(self.command)
        return SPI_START if self._saw_start else 0

    def write_command(self, value: int) -> None:
        """A start runs the transaction, if the flash is attached."""
        if value & SPI_START and self._registers.attached:
            self._start(value)

    def port(self, offset: int) -> Callable[[], int]:
        """What reads the register at ``offset``."""
        return cast("Callable[[], int]", partial(self._spi.words.get, offset, 0))

    def sink(self, offset: int) -> Callable[[int], None]:
        """What writes the register at ``offset``."""
        words, activity = self._spi.words, self._activity

        def write(value: int) -> None:
            if words.get(offset, 0) != value:
                activity.changed()
                words[offset] = value

        return write

    def _start(self, value: int) -> None:
        self.transactions += 1
        self._spi.bit_time = 1 / self.hz
        self._spi.write(max(self._clock.now, self._spi.done_at), self.command, value)
        self._spi.bit_time = 0.0
        opcode = self._spi.opcode
        answer = self._spi.read(0.0, self._answer)
        if opcode in STATUS_READS:
            self._saw_busy = opcode == STATUS_READS[0] and bool(answer & 1)
            if self._status == (opcode, answer):
                return
            self._status = (opcode, answer)
        else:
            self._status = None
        self._activity.changed()
