"""The flash controller as a program sees it: ``virtual/spi.py`` with bit times.

The answer appears in the data words, or in that of the status, when the transaction is over, not before; a start during a transaction is ignored.
A program that does not wait gets old data, as it would on the chip.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from espwire.chips.model import Chip
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.registers import Registers
from espwire.virtual.soc.clock import NEVER, Clock, find_next
from espwire.virtual.soc.idle import Activity
from espwire.virtual.spi import COMMANDS, START, SpiController

STATUS_READS = (0x05, 0x35, 0x15)
OLD_LAYOUT_CLOCK, NEW_LAYOUT_CLOCK = 0x18, 0x14
DATA_BYTES = 64


class FlashPort:
    """The registers of the controller, each with a function that reads and one that writes it."""

    def __init__(
        self,
        chip: Chip,
        spi: SpiController,
        flash: NorFlash,
        registers: Registers,
        clock: Clock,
        activity: Activity,
    ) -> None:
        self.base = chip.spi.base
        self._spi, self._flash, self._registers = spi, flash, registers
        self._clock, self._activity = clock, activity
        self.command = chip.spi.base + chip.spi.command_offset
        self._clock_offset = OLD_LAYOUT_CLOCK if spi.has_old_layout else NEW_LAYOUT_CLOCK
        self._answer = chip.spi.data_offset
        data = range(chip.spi.data_offset, chip.spi.data_offset + DATA_BYTES, 4)
        self._answers = (*data, chip.spi.status_offset)  # words that a transaction changes
        self._late: list[tuple[int, int]] = []  # words of an answer that is not complete yet
        self._status: tuple[int, int] | None = None
        self._saw_start = self._saw_busy = False

    @property
    def hz(self) -> float:
        """Clock of the SPI bus."""
        return self._clock.flash_hz / self._spi.find_divider(
            self._spi.read(0.0, self.base + self._clock_offset)
        )

    def next_event(self, since: float) -> float:
        """When the program's last status read becomes outdated, if that is after ``since``."""
        running = self._spi.done_at if self._saw_start else NEVER
        return find_next(since, running, self._flash.busy_until if self._saw_busy else NEVER)

    def read_command(self) -> int:
        """The start bit is set while a transaction is running."""
        self._saw_start = self._clock.now < self._spi.done_at
        if not self._saw_start:
            self._store_answer()
        self._activity.polled(self.command)
        return START if self._saw_start else 0

    def write_command(self, value: int) -> None:
        """Start a transaction, if the flash is attached and none is running."""
        if value & COMMANDS and self._registers.attached and self._clock.now >= self._spi.done_at:
            self._start(value)

    def port(self, offset: int) -> Callable[[], int]:
        """The function that reads the register at ``offset``."""
        words = self._spi.words
        if offset not in self._answers:
            return cast("Callable[[], int]", partial(words.get, offset, 0))

        def read() -> int:
            if self._late and self._clock.now >= self._spi.done_at:
                self._store_answer()
            return words.get(offset, 0)

        return read

    def sink(self, offset: int) -> Callable[[int], None]:
        """The function that writes the register at ``offset``."""
        words, activity, status = self._spi.words, self._activity, self._spi.spi.status_offset

        def write(value: int) -> None:
            if self._late and self._clock.now >= self._spi.done_at:
                self._store_answer()
            if words.get(offset, 0) != value:
                if offset != status:  # cleared before each read of the status: no progress
                    activity.changed()
                words[offset] = value

        return write

    def _start(self, value: int) -> None:
        self._store_answer()
        spi, words = self._spi, self._spi.words
        before = [words.get(at, 0) for at in self._answers]
        spi.bit_time = 1 / self.hz
        spi.write(self._clock.now, self.command, value)
        spi.bit_time = 0.0
        opcode = spi.opcode
        answer = words.get(self._answer, 0) if value & START else spi.status
        self._late = [
            (at, words[at])
            for at, old in zip(self._answers, before, strict=True)
            if words.get(at, 0) != old
        ]
        words.update(zip(self._answers, before, strict=True))
        if opcode in STATUS_READS:
            ends = self._flash.busy_until > spi.done_at  # a part in power-down reports busy forever
            self._saw_busy = opcode == STATUS_READS[0] and bool(answer & 1) and ends
            if self._status == (opcode, answer):
                return
            self._status = (opcode, answer)
        else:
            self._status = None
        self._activity.changed()

    def _store_answer(self) -> None:
        """Store the answer of the transaction that is over."""
        if self._late:
            self._spi.words.update(self._late)
            self._late = []
