"""The line between a host and a virtual chip: bit times, latency of the bridge, different baud rates, faults.

A byte takes ten bit times at the sender's rate; the bridge's latency is added in both directions. If the two baud rates
differ by more than 3 %, the receiver samples the sender's bits at the wrong times, and the bytes become the same garbage
as with a real UART. USB connections have no baud rate, only a throughput. A carrier without a baud rate, such as a TCP
socket, can stand for a serial line whose host always uses the chip's rate.
"""

from __future__ import annotations

import math
from collections import deque

from espwire.protocol.slip import END
from espwire.virtual.adapter import Adapter
from espwire.virtual.chip import SYNC_MARK, VirtualChip

TOLERANCE = 0.03
USB_BAUD = 8_000_000  # full-speed USB carries about 0.8 MB/s: the same in bit times
BIT_TIMES = 10
FRAME_BORDER = END * 2


class Wire:
    """Both directions between host and chip. ``inbox`` holds what the host can read, and from which time on.

    ``latency`` of the bridge, in seconds each way. ``has_baud`` False: no baud rate (USB), unless ``follows``: the host
    uses the chip's rate.
    """

    def __init__(
        self,
        chip: VirtualChip,
        *,
        latency: float = 0.001,
        has_baud: bool = True,
        follows: bool = False,
    ) -> None:
        self.chip, self.latency, self.has_baud, self.follows = chip, latency, has_baud, follows
        options = chip.options
        self.adapter = Adapter(options.adapter, options.errors, options.burst, options.seed)
        self.host_baud = chip.chip.uart.rom_baud
        self.inbox: deque[tuple[float, bytes]] = deque()
        self.sent_by = 0.0
        self._up_free = 0.0
        self._down: deque[tuple[float, float, bytes, int]] = (
            deque()
        )  # first bit, last bit, bytes, rate

    def send(self, t: float, data: bytes) -> None:
        """The host sends ``data`` at ``t``; each frame arrives with its last bit."""
        start = 0
        while start < len(data):
            border = data.find(FRAME_BORDER, start)
            end = border + 1 if border >= 0 else len(data)
            piece = data[start:end] if end - start < len(data) else data
            wait, spoiled = self.chip.faults.piece(t, piece, to_chip=True)
            rate = self._host_rate()
            begin = max(t + self.latency, self.sent_by) + wait
            self.sent_by = begin + len(piece) * BIT_TIMES / rate
            spoiled = self.adapter.carry(begin, self.sent_by, spoiled, rate, to_chip=True)
            self._down.append((begin, self.sent_by, spoiled, rate))
            start = end

    def set_baud(self, t: float, baud: int) -> None:
        """The host sets its rate at ``t``; the adapter may set another one."""
        self.advance(t)
        self.host_baud = self.adapter.find_rate(baud, self.host_baud)

    def set_lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The host sets its modem lines at ``t``."""
        self.advance(t)
        self.chip.set_lines(t, dtr=dtr, rts=rts)

    @property
    def pending(self) -> bool:
        """Whether bytes are in flight in either direction."""
        return bool(self._down or self.inbox)

    def next_event(self) -> float | None:
        """When something arrives at either end, or is due in the chip."""
        due = self.chip.next_event()
        arrives = self._arrives()
        if arrives is not None and (due is None or arrives < due):
            due = arrives
        if self.inbox and (due is None or self.inbox[0][0] < due):
            due = self.inbox[0][0]
        return due

    def advance(self, t: float) -> None:
        """Do everything that is due up to ``t``, in order of time."""
        down, chip = self._down, self.chip
        while True:
            due = chip.next_event()
            arrives = self._arrives()
            if arrives is not None and arrives <= t and (due is None or arrives < due):
                self._deliver(*down.popleft())
            elif due is not None and due <= t:
                self._collect(chip.run_until(due))
            else:
                break
        self._collect(chip.run_until(t))

    def take(self, t: float) -> bytes:
        """Remove and return what the host can read at ``t``."""
        inbox = self.inbox
        if not inbox or inbox[0][0] > t:
            return b""
        data = inbox.popleft()[1]
        while inbox and inbox[0][0] <= t:
            data += inbox.popleft()[1]
        return data

    def _arrives(self) -> float | None:
        """When the next piece reaches the chip; a program receives it byte by byte, from its first bit on."""
        if not self._down:
            return None
        begin, end, _, _ = self._down[0]
        return end if self.chip.program is None else max(begin, self.chip.now)

    def _deliver(self, begin: float, end: float, data: bytes, rate: int) -> None:
        runs = self.chip.program is not None
        chip_rate = self.chip.baud
        if chip_rate is None:
            if SYNC_MARK in data:
                self.chip.autobaud(rate if self.has_baud else self.chip.chip.uart.rom_baud)
        elif self.has_baud and not _agree(rate, chip_rate):
            data = resample(data, rate, chip_rate)
        if data and runs:
            self.chip.receive(begin, data, rate)
        elif data:
            self.chip.receive(end, data)

    def _collect(self, sent: list[tuple[float, bytes]]) -> None:
        chip = self.chip
        for t, data in sent:
            rate = self._rate_at(t)
            if not self.has_baud and not self.follows:
                rate = USB_BAUD
            elif rate == 0:
                continue
            begin = max(t, self._up_free)
            wait, spoiled = chip.faults.piece(t, data, to_chip=False)
            self._up_free = begin + wait + len(data) * BIT_TIMES / rate
            spoiled = self.adapter.carry(begin, self._up_free, spoiled, rate, to_chip=False)
            if self.has_baud and not _agree(rate, self.host_baud):
                spoiled = resample(spoiled, rate, self.host_baud)
            if spoiled:
                self.inbox.append((self._up_free + self.latency, spoiled))

    def _host_rate(self) -> int:
        if self.has_baud:
            return self.host_baud
        return (self.chip.baud or self.chip.text_baud) if self.follows else USB_BAUD

    def _rate_at(self, t: float) -> int:
        """The chip's baud rate at ``t``."""
        chip = self.chip
        return chip.runner.rate_at(t) or (chip.baud if chip.baud is not None else chip.text_baud)


def resample(data: bytes, sender: int, receiver: int) -> bytes:
    """What a UART at one baud rate receives of bytes sent back to back at another rate, with 8 bits and no parity.

    It waits for a falling edge, then samples the middle of the start bit and of each bit. If the stop bit is low, it
    delivers the byte anyway, as drivers do, and waits for the line to rise.
    """
    if sender <= 0 or receiver <= 0:
        return b""
    line = "".join("0" + f"{byte:08b}"[::-1] + "1" for byte in data)
    end, out, step = (
        len(line),
        bytearray(),
        sender / receiver,
    )  # the receiver's bit time, in the sender's bits
    edge = 0  # a byte begins with a low start bit, so the first edge is here
    while 0 <= edge < end:
        samples = [_level(line, edge + (bit + 0.5) * step) for bit in range(BIT_TIMES)]
        after = edge + (BIT_TIMES - 0.5) * step
        if samples[0]:
            after = edge + 0.5 * step  # a spike, not a start bit
        else:
            out.append(sum(level << bit for bit, level in enumerate(samples[1:9])))
        at = min(math.ceil(after), end)
        if int(after) < end and line[int(after)] == "0":  # the line must be high before it can fall
            at = line.find("1", at)
            if at < 0:
                break
        edge = line.find("0", at)
    return bytes(out)


def _level(line: str, at: float) -> int:
    """The level of the line at a time in bits; idle is high."""
    return 1 if at >= len(line) else int(line[int(at)])


def _agree(one: int, other: int) -> bool:
    """Whether a UART at one rate can receive from a sender at the other."""
    return abs(one - other) <= TOLERANCE * max(one, other) and one > 0
