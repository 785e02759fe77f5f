"""UART 0 as a program sees it: FIFOs of 128 bytes, bit times, overflow, the clock's divider. No interrupts.

A byte that finds the receive FIFO full is lost and counted. What was written to the transmit FIFO leaves at the rate of
that moment; a reset does not take it back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from espwire.chips.model import Chip
from espwire.sizes import extract
from espwire.virtual.memory_map import require_soc
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.idle import Activity

FIFO_BYTES = 128
BIT_TIMES = 10
STATUS_OFFSET = 0x1C
FRACTION_SHIFT = 20
PIECE = 62  # bytes that a bridge hands to the host at once
END = 0xC0  # at the end of a frame it does not wait for more
NEVER = float("inf")


class Uart:
    """``overruns`` counts lost bytes; ``longest_gap`` is in cycles, between two looks at the receive FIFO."""

    def __init__(
        self,
        chip: Chip,
        clock: Clock,
        activity: Activity,
        send: Callable[[float, bytes, int], None],
        lost: Callable[[int], None],
    ) -> None:
        own = chip.stub.own
        self.base = chip.uart.clock_divider_address - 0x14
        self.transmit = (
            own.uart_transmit if own is not None and own.uart_transmit is not None else self.base
        )
        self._fraction = own is not None and own.uart_fraction
        self._mask = (1 << FRACTION_SHIFT) - 1 & chip.uart.clock_divider_mask
        self._clock, self._activity, self._send, self._lost = clock, activity, send, lost
        self._multiple = chip.crystal.clock_multiple
        self.choice = require_soc(chip).uart_clock
        self.clock_word = self.choice.start if self.choice is not None else 0
        self.divider = 0
        self.rate = 115200.0
        self._fifo: deque[int] = deque()
        self._pieces: deque[tuple[float, float, bytes]] = deque()  # begin, time of a byte, bytes
        self._taken = 0  # of the first piece
        self._next_at = NEVER  # when the next byte is whole
        self._free = 0.0  # when the transmitter has sent all
        self._waiting = 0  # what the last look at the transmit FIFO showed
        self._out = bytearray()
        self._out_at = 0.0
        self.overruns = self.received = self.dropped_out = 0
        self._looked_at = 1 << 62  # never yet: the first look ends no gap
        self.longest_gap = 0
        self.fullest = 0

    def start(self, baud: int, divider: int, sent_until: float, waiting: bytes) -> None:
        """As the ROM left it."""
        fraction = 0
        if self._fraction and divider and baud:
            sixteenths = round(self.source_hz * 16 / baud)
            fraction = sixteenths & 15 if sixteenths >> 4 == divider else 0
        self.divider = fraction << FRACTION_SHIFT | divider
        self._free = sent_until
        self._fifo.extend(waiting[:FIFO_BYTES])
        self.update_rate()

    @property
    def source_hz(self) -> float:
        """The clock that is divided."""
        choice, clock = self.choice, self._clock
        if choice is None:
            return clock.bus_hz
        source = extract(self.clock_word, choice.source.shift, choice.source.bits)
        divided = extract(self.clock_word, choice.divider.shift, choice.divider.bits) + 1
        known = {choice.bus_value: clock.bus_hz, choice.crystal_value: clock.crystal_hz}
        return known.get(source, 17.5e6) / divided

    def update_rate(self) -> None:
        """Clock or divider have changed."""
        sixteenths = (self.divider & self._mask) * 16
        if self._fraction:
            sixteenths += self.divider >> FRACTION_SHIFT & 15
        self.rate = self.source_hz * 16 / sixteenths if sixteenths else 0.0

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """Bytes arrive back to back, the first bit at ``t``."""
        step = BIT_TIMES / rate
        self._pieces.append((t, step, data))
        if len(self._pieces) == 1:
            self._taken, self._next_at = 0, t + step

    def next_event(self) -> float:
        """When what the program last saw will have changed."""
        sends = self._waiting and self.rate > 0
        return min(
            self._next_at, self._free - self._waiting * BIT_TIMES / self.rate if sends else NEVER
        )

    # --- registers ---

    def read_status(self) -> int:
        """How many bytes wait in either FIFO."""
        now, cycle = self._clock.now, self._clock.cycle
        if self._next_at <= now:
            self._take_in(now)
        if self._free <= now:
            if self._waiting:
                self._activity.changed()  # also for a program that looks at the other count here: it is not idle
            self._waiting = 0
        else:
            self._waiting = max(0, math.ceil((self._free - now) * self.rate / BIT_TIMES - 1e-6) - 1)
        received = len(self._fifo)
        self.longest_gap = max(self.longest_gap, cycle - self._looked_at)
        self._looked_at = cycle
        self._activity.asked(self.base + STATUS_OFFSET)
        return received | self._waiting << 16

    def read_fifo(self) -> int:
        """The oldest byte; 0 where none is."""
        if self._next_at <= self._clock.now:
            self._take_in(self._clock.now)
        self._activity.changed()
        return self._fifo.popleft() if self._fifo else 0

    def write_fifo(self, value: int) -> None:
        """A byte to send; lost where the FIFO is full."""
        self._activity.changed()
        now = self._clock.now
        if self.rate <= 0:
            return
        step = BIT_TIMES / self.rate
        begin = max(now, self._free)
        if begin - now > FIFO_BYTES * step:
            self.dropped_out += 1
            return
        if self._out and begin > self._out_at + len(self._out) * step + 1e-9:
            self.flush()
        if not self._out:
            self._out_at = begin
        self._out.append(value & 0xFF)
        self._free = begin + step
        if (value & 0xFF == END and len(self._out) > 1) or len(self._out) >= PIECE:
            self.flush()

    def write_when_free(self, value: int) -> None:
        """As the ROM does it: wait until the byte has room."""
        if self.rate > 0:
            self._clock.wait_until(self._free - (FIFO_BYTES - 1) * BIT_TIMES / self.rate)
        self.write_fifo(value)

    def wait_until_sent(self) -> None:
        """As the ROM does it: wait until the line is idle."""
        self.flush()
        self._clock.wait_until(self._free)

    def write_divider(self, value: int) -> None:
        """Another rate."""
        self._activity.changed()
        self.flush()
        self.divider = value
        self.update_rate()

    def write_clock(self, value: int) -> None:
        """Another clock."""
        self._activity.changed()
        self.flush()
        self.clock_word = value
        self.update_rate()

    def flush(self) -> None:
        """Hand what was written to the wire."""
        if self._out:
            self._send(self._out_at, bytes(self._out), round(self.rate))
            self._out.clear()

    def shift(self, cycles: int) -> None:
        """The program slept so long: no gap between two looks."""
        self._looked_at += cycles

    def _take_in(self, now: float) -> None:
        """The bytes that have arrived by now."""
        while self._pieces:
            begin, step, data = self._pieces[0]
            whole = min(len(data), int((now - begin) / step + 1e-9))
            fresh = data[self._taken : whole]
            room = FIFO_BYTES - len(self._fifo)
            self._fifo.extend(fresh[:room])
            if fresh:
                self._activity.changed()
            self.received += len(fresh)
            if len(fresh) > room:
                self.overruns += len(fresh) - room
                self._lost(len(fresh) - room)
            self.fullest = max(self.fullest, len(self._fifo))
            self._taken = max(whole, self._taken)
            if self._taken < len(data):
                self._next_at = begin + (self._taken + 1) * step
                return
            self._pieces.popleft()
            self._taken = 0
            if self._pieces:
                begin, step, _ = self._pieces[0]
                self._next_at = begin + step
                if self._next_at > now:
                    return
        self._next_at = NEVER
