"""The USB-Serial-JTAG controller's endpoints: 64 bytes each way, no rate, and a host that waits when they are full.

A host's driver hands over what came when a packet is shorter than 64 bytes, or its buffer is full: a program that ends
with a whole packet must send an empty one behind it (WR_DONE once more), or its last bytes stay with the driver.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.uart import NEVER

PACKET = 64
HOST_BUFFER = 2 * PACKET  # of Linux's driver, cdc_acm
USB_BAUD = 8_000_000  # what the wire takes for its throughput
POLL_S = 50e-6  # until the host has fetched a packet
WRITE_DONE, CAN_WRITE, CAN_READ = 1, 2, 4


class UsbSerialJtag:
    """EP1 at ``base``, EP1_CONF behind it."""

    def __init__(
        self, base: int, clock: Clock, activity: Activity, send: Callable[[float, bytes, int], None]
    ) -> None:
        self.base, self._clock, self._activity, self._send = base, clock, activity, send
        self._out = bytearray()
        self._held = bytearray()  # at the host's driver
        self._free = 0.0  # when the host has taken the last packet
        self._in: deque[int] = deque()
        self._pieces: deque[tuple[float, bytes]] = deque()  # when they are there, packets
        self._saw_full = self._saw_empty = False

    def receive(self, t: float, data: bytes) -> None:
        """The host sends ``data`` from ``t`` on."""
        for at in range(0, len(data), PACKET):
            packet = data[at : at + PACKET]
            t += len(packet) * 10 / USB_BAUD
            self._pieces.append((t, packet))

    def next_event(self) -> float:
        """When what the program last saw will have changed."""
        arrives = self._pieces[0][0] if self._pieces and self._saw_empty else NEVER
        return min(arrives, self._free) if self._saw_full else arrives

    def read_state(self) -> int:
        """EP1_CONF."""
        now = self._clock.now
        if not self._in and self._pieces and self._pieces[0][0] <= now:
            self._in.extend(self._pieces.popleft()[1])
        empty, full = not self._in, now < self._free
        if (self._saw_empty and not empty) or (self._saw_full and not full):
            self._activity.changed()  # also for a program that looks at the other bit here: it is not idle
        self._saw_empty, self._saw_full = empty, full
        self._activity.asked(self.base + 4)
        return (0 if self._saw_full else CAN_WRITE) | (CAN_READ if self._in else 0)

    def read_byte(self) -> int:
        """The oldest byte; 0 where none is."""
        self._activity.changed()
        return self._in.popleft() if self._in else 0

    def write_byte(self, value: int) -> None:
        """A byte for the host; the 64th sends the packet."""
        self._activity.changed()
        if self._clock.now >= self._free:
            self._out.append(value & 0xFF)
            if len(self._out) == PACKET:
                self._flush()

    def write_state(self, value: int) -> None:
        """WR_DONE sends what was written, be it nothing."""
        self._activity.changed()
        if value & WRITE_DONE and self._clock.now >= self._free and (self._out or self._held):
            self._flush()

    def _flush(self) -> None:
        now = self._clock.now
        self._held += self._out
        if len(self._out) < PACKET or len(self._held) >= HOST_BUFFER:
            self._send(now, bytes(self._held), USB_BAUD)
            self._held.clear()
        self._free = now + len(self._out) * 10 / USB_BAUD + POLL_S
        self._out.clear()
