"""The serial ports as a program sees them: UART 0 and the USB-Serial/JTAG controller. Interrupts are not modelled.

UART: FIFOs of 128 bytes, bit times, overflow, the clock's divider. A byte that arrives while the receive FIFO is full is
lost and counted. A byte in the transmit FIFO leaves at the rate at which it was written; a reset does not stop it.
On later chips, a new divider takes effect only when the update register is written.

USB: 64 bytes each way, no baud rate, and a host that waits when they are full. The host's driver passes on what it
received when a packet is shorter than 64 bytes or its buffer is full. A program whose data ends with a full packet must
send an empty packet after it (WR_DONE once more), or its last bytes stay with the driver.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

from espwire.chips.model import Chip
from espwire.sizes import extract
from espwire.virtual.registers import require_soc
from espwire.virtual.soc.clock import NEVER, Clock, find_next
from espwire.virtual.soc.idle import Activity

FIFO_BYTES = 128
BIT_TIMES = 10
STATUS_OFFSET = 0x1C
FRACTION_SHIFT = 20
PIECE = 62  # bytes that a USB bridge passes to the host at once
END = 0xC0  # at the end of a frame it does not wait for more
OTHER_CLOCK_HZ = 17.5e6  # the internal oscillator
USB_PACKET = 64
HOST_BUFFER = 2 * USB_PACKET  # of Linux's driver, cdc_acm
USB_BAUD = 8_000_000  # throughput, as a baud rate
USB_POLL_S = 50e-6  # until the host has fetched a packet
WRITE_DONE, CAN_WRITE, CAN_READ = 1, 2, 4


class Uart:
    """UART 0. ``overruns`` counts lost bytes; ``longest_gap``: cycles between two reads of the receive FIFO's status."""

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
        self.choice = require_soc(chip).uart_clock
        self.clock_word = self.choice.start if self.choice is not None else 0
        self.update_address = chip.uart.update_address
        self.divider = self.new_divider = 0
        self.rate = 115200.0
        self._fifo: deque[int] = deque()
        self._pieces: deque[tuple[float, float, bytes]] = deque()  # start, seconds per byte, bytes
        self._taken = 0  # of the first piece
        self._next_at = NEVER  # when the next byte is complete
        self._free = 0.0  # when the transmitter has sent all
        self._waiting = 0  # bytes in the transmit FIFO at the last status read
        self._out = bytearray()
        self._out_at = 0.0
        self.overruns = self.dropped_out = 0
        self._status_read_at = 1 << 62  # the first read does not end a gap
        self.longest_gap = 0

    def start(self, baud: int, divider: int, sent_until: float, waiting: bytes) -> None:
        """Take over from the ROM."""
        fraction = 0
        if self._fraction and divider and baud:
            sixteenths = round(self.source_hz * 16 / baud)
            fraction = sixteenths & 15 if sixteenths >> 4 == divider else 0
        self.divider = self.new_divider = fraction << FRACTION_SHIFT | divider
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
        return known.get(source, OTHER_CLOCK_HZ) / divided

    def update_rate(self) -> None:
        """Clock or divider has changed."""
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

    def next_event(self, since: float) -> float:
        """When the program's last status read becomes outdated, if that is after ``since``."""
        sends = self._waiting and self.rate > 0
        sent = self._free - self._waiting * BIT_TIMES / self.rate if sends else NEVER
        return find_next(since, self._next_at, sent)

    # --- registers ---

    def read_status(self) -> int:
        """Number of bytes in each FIFO."""
        now, cycle = self._clock.now, self._clock.cycle
        if self._next_at <= now:
            self._fill_fifo(now)
        if self._free <= now:
            if self._waiting:
                self._activity.changed()  # even if the program waits for the other count: it is not idle
            self._waiting = 0
        else:
            self._waiting = max(0, math.ceil((self._free - now) * self.rate / BIT_TIMES - 1e-6) - 1)
        received = len(self._fifo)
        self.longest_gap = max(self.longest_gap, cycle - self._status_read_at)
        self._status_read_at = cycle
        self._activity.polled(self.base + STATUS_OFFSET)
        return received | self._waiting << 16

    def read_fifo(self) -> int:
        """The oldest byte; 0 if the FIFO is empty."""
        if self._next_at <= self._clock.now:
            self._fill_fifo(self._clock.now)
        self._activity.changed()
        return self._fifo.popleft() if self._fifo else 0

    def write_fifo(self, value: int) -> None:
        """Send a byte; lost if the FIFO is full."""
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
        """The ROM's function: waits until the byte has room."""
        if self.rate > 0:
            self._clock.wait_until(self._free - (FIFO_BYTES - 1) * BIT_TIMES / self.rate)
        self.write_fifo(value)

    def wait_until_sent(self) -> None:
        """The ROM's function: waits until the line is idle."""
        self.flush()
        self._clock.wait_until(self._free)

    def write_divider(self, value: int) -> None:
        """The baud rate changes, at once or with the next update."""
        self._activity.changed()
        self.new_divider = value
        if self.update_address is None:
            self.write_update(1)

    def write_update(self, value: int) -> None:
        """The divider that was written takes effect."""
        self._activity.changed()
        if value & 1:
            self.flush()
            self.divider = self.new_divider
            self.update_rate()

    def write_clock(self, value: int) -> None:
        """The clock source changes."""
        self._activity.changed()
        self.flush()
        self.clock_word = value
        self.update_rate()

    def flush(self) -> None:
        """Put the written bytes on the wire."""
        if self._out:
            self._send(self._out_at, bytes(self._out), round(self.rate))
            self._out.clear()

    def shift(self, cycles: int) -> None:
        """The program was idle for so many cycles, which are not a gap."""
        self._status_read_at += cycles

    def _fill_fifo(self, now: float) -> None:
        """Put the bytes that have arrived into the FIFO."""
        while self._pieces:
            begin, step, data = self._pieces[0]
            whole = min(len(data), int((now - begin) / step + 1e-9))
            fresh = data[self._taken : whole]
            room = FIFO_BYTES - len(self._fifo)
            self._fifo.extend(fresh[:room])
            if fresh:
                self._activity.changed()
            if len(fresh) > room:
                self.overruns += len(fresh) - room
                self._lost(len(fresh) - room)
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


class UsbSerialJtag:
    """The USB-Serial/JTAG controller: EP1 at ``base``, EP1_CONF after it."""

    def __init__(
        self, base: int, clock: Clock, activity: Activity, send: Callable[[float, bytes, int], None]
    ) -> None:
        self.base, self._clock, self._activity, self._send = base, clock, activity, send
        self._out = bytearray()
        self._held = bytearray()  # in the host's driver
        self._free = 0.0  # when the host has fetched the last packet
        self._in: deque[int] = deque()
        self._pieces: deque[tuple[float, bytes]] = deque()  # arrival time, packet
        self._saw_full = self._saw_empty = False

    def receive(self, t: float, data: bytes) -> None:
        """The host sends ``data``, starting at ``t``."""
        for at in range(0, len(data), USB_PACKET):
            packet = data[at : at + USB_PACKET]
            t += len(packet) * 10 / USB_BAUD
            self._pieces.append((t, packet))

    def next_event(self, since: float) -> float:
        """When the program's last status read becomes outdated, if that is after ``since``."""
        arrives = self._pieces[0][0] if self._pieces and self._saw_empty else NEVER
        return find_next(since, arrives, self._free if self._saw_full else NEVER)

    def read_state(self) -> int:
        """EP1_CONF."""
        now = self._clock.now
        if not self._in and self._pieces and self._pieces[0][0] <= now:
            self._in.extend(self._pieces.popleft()[1])
        empty, full = not self._in, now < self._free
        if (self._saw_empty and not empty) or (self._saw_full and not full):
            self._activity.changed()  # even if the program waits for the other bit: it is not idle
        self._saw_empty, self._saw_full = empty, full
        self._activity.polled(self.base + 4)
        return (0 if self._saw_full else CAN_WRITE) | (CAN_READ if self._in else 0)

    def read_byte(self) -> int:
        """The oldest byte; 0 if there is none."""
        self._activity.changed()
        return self._in.popleft() if self._in else 0

    def write_byte(self, value: int) -> None:
        """Write a byte; the 64th sends the packet."""
        self._activity.changed()
        if self._clock.now >= self._free:
            self._out.append(value & 0xFF)
            if len(self._out) == USB_PACKET:
                self._flush()

    def write_state(self, value: int) -> None:
        """WR_DONE sends what was written, even an empty packet."""
        self._activity.changed()
        if value & WRITE_DONE and self._clock.now >= self._free and (self._out or self._held):
            self._flush()

    def _flush(self) -> None:
        now = self._clock.now
        self._held += self._out
        if len(self._out) < USB_PACKET or len(self._held) >= HOST_BUFFER:
            self._send(now, bytes(self._held), USB_BAUD)
            self._held.clear()
        self._free = now + len(self._out) * 10 / USB_BAUD + USB_POLL_S
        self._out.clear()
