"""UART 0 as a ROM uses it: with interrupts, and with the measurement of the baud rate, besides FIFOs and divider."""

from __future__ import annotations

from collections.abc import Callable

from espwire.chips.model import Chip
from espwire.virtual.cpu.memory import Memory
from espwire.virtual.soc.clock import NEVER, Clock, find_next
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.mask_rom import RomUart
from espwire.virtual.soc.serial_ports import BIT_TIMES, STATUS_OFFSET, Uart

RAW, STATE, ENABLE, CLEAR, CONF0, CONF1 = 0x04, 0x08, 0x0C, 0x10, 0x20, 0x24
FULL, SENT, TIMEOUT, DONE = 1 << 0, 1 << 1, 1 << 8, 1 << 14
TIMEOUT_BYTES = 2  # byte times without a byte, after which the timeout interrupt comes
START_THRESHOLD = 0x60
MOST_EDGES = 0x3FF
SPAN = 0x100


class InterruptUart(Uart):
    """``level`` is called with the level of the interrupt line whenever it may have changed."""

    def __init__(
        self,
        chip: Chip,
        facts: RomUart,
        clock: Clock,
        activity: Activity,
        send: Callable[[float, bytes, int], None],
        lost: Callable[[int], None],
        level: Callable[[bool], None],
    ) -> None:
        super().__init__(chip, clock, activity, send, lost)
        self._facts, self._level = facts, level
        self._fraction = True
        self._words = {CONF1: START_THRESHOLD}
        self._enabled = 0
        self._last_at = NEVER  # when the last byte arrived
        self._edges = 0
        self._rate_seen = 0  # of the sender, while it is measured
        self._autobaud = False
        self._done_at = NEVER  # the end of the last transmission whose DONE was cleared

    @property
    def measures(self) -> bool:
        """Whether the ROM measures the sender's baud rate."""
        return self._autobaud

    def connect(self, memory: Memory) -> None:
        """Map the registers to their addresses."""
        facts = self._facts
        ports = {
            0: self.read_fifo,
            RAW: self._find_raw,
            STATE: lambda: self._find_raw() & self._enabled,
            ENABLE: lambda: self._enabled,
            0x14: lambda: self.new_divider,
            STATUS_OFFSET: self.read_status,
            facts.pulse: self._find_pulse,
            facts.pulse + 4: self._find_pulse,
            facts.edges: self._count_edges,
        }
        sinks = {
            0: self.write_fifo,
            ENABLE: self._enable,
            CLEAR: self._clear,
            0x14: self.write_divider,
            STATUS_OFFSET: lambda value: None,
        }
        if self.update_address is not None:
            at = self.update_address - self.base
            ports[at], sinks[at] = lambda: 0, self.write_update
        for base in (self.base, *facts.others):
            for offset in range(0, SPAN, 4):
                memory.ports[base + offset] = ports.get(offset, self._port(offset))
                memory.sinks[base + offset] = sinks.get(offset, self._sink(offset))

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """Bytes arrive back to back, the first bit at ``t``."""
        self._rate_seen = rate
        super().receive(t, data, rate)

    def next_event(self, since: float) -> float:
        """As for ``Uart``; also when the interrupt's reasons change, which a program may read."""
        silent = self._find_timeout() if self._fifo else NEVER
        return find_next(since, super().next_event(since), self._free, silent)

    def next_interrupt(self) -> float:
        """When the level of the interrupt line may change next without the program's doing."""
        waiting = len(self._fifo)
        silent = self._find_timeout() if waiting else NEVER
        sent = self._free if self._enabled & (SENT | DONE) else NEVER
        due = find_next(self._clock.now, silent, sent)
        if not self._pieces:
            return due
        begin, step, data = self._pieces[0]
        count = len(data) if self._autobaud else max(1, self._threshold - waiting)
        return min(due, begin + min(len(data), self._taken + count) * step)

    def look(self) -> None:
        """Take the bytes that have arrived, and set the interrupt line."""
        now = self._clock.now
        if self._next_at <= now:
            self._fill_fifo(now)
        self._level(bool(self._find_raw() & self._enabled))

    def read_fifo(self) -> int:
        """The oldest byte; 0 if the FIFO is empty."""
        value = super().read_fifo()
        self.look()
        return value

    @property
    def _threshold(self) -> int:
        return max(1, self._words[CONF1] & (1 << self._facts.threshold_bits) - 1)

    def _fill_fifo(self, now: float) -> None:
        waiting = len(self._fifo)
        super()._fill_fifo(now)
        fresh = list(self._fifo)[waiting:]
        if fresh:
            self._last_at = now
            if self._autobaud:
                self._edges += sum(count_edges(byte) for byte in fresh)

    def _find_raw(self) -> int:
        now, waiting = self._clock.now, len(self._fifo)
        full = FULL if waiting >= self._threshold else 0
        late = TIMEOUT if waiting and now >= self._find_timeout() else 0
        sent = SENT | (DONE if self._free != self._done_at else 0) if self._free <= now else 0
        return full | late | sent

    def _find_timeout(self) -> float:
        """When the timeout interrupt comes for the bytes that are waiting."""
        return self._last_at + TIMEOUT_BYTES * BIT_TIMES / (self.rate or 1)

    def _enable(self, value: int) -> None:
        self._activity.wrote(self.base + ENABLE, value)
        self._enabled = value
        self.look()

    def _clear(self, value: int) -> None:
        """DONE is an event; all others stay as long as their reasons."""
        if value & DONE and self._done_at != self._free <= self._clock.now:
            self._activity.changed()
            self._done_at = self._free
        self.look()

    def _find_pulse(self) -> int:
        """Length of one bit, in cycles of the UART's clock, minus one and what the ROM corrects."""
        if not self._rate_seen:
            return 0xFFFFF
        return max(0, round(self.source_hz / self._rate_seen) - 1 - self._facts.correction)

    def _count_edges(self) -> int:
        self.look()
        self._activity.polled(self.base + self._facts.edges)
        return min(self._edges, MOST_EDGES)

    def _port(self, offset: int) -> Callable[[], int]:
        return lambda: self._words.get(offset, 0)

    def _sink(self, offset: int) -> Callable[[int], None]:
        def write(value: int) -> None:
            self._activity.changed()
            self._words[offset] = value
            at = self._facts.autobaud
            if offset == at.address:
                self._autobaud = bool(value >> at.bit & 1)
                if not self._autobaud:
                    self._edges = 0
            if offset == CONF0 and value >> self._facts.fifo_reset & 1:
                self._fifo.clear()
            self.look()

        return write


def count_edges(byte: int) -> int:
    """Edges of a byte on the line, with start and stop bit.

    >>> count_edges(0x55), count_edges(0x00)
    (10, 2)
    """
    line = 1 << 9 | byte << 1  # from the start bit to the stop bit; before it the line is high
    return (((line << 1 | 1) ^ line) & 0x3FF).bit_count()
