"""Common part of the programs that are modelled in Python: receive ring, transmitter and one CPU in simulated time.

A program is a generator that yields the times at which to continue it. The CPU time of its work is collected by
``add_work`` and elapses in ``finish_work``, which is called before anything that can be seen from outside. Received
bytes cost CPU time too, unless the CPU was idle while they arrived.

The three RAM commands and the register commands are here as well. They mirror ``stub/src/commands.c``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from math import inf

from espwire.protocol import slip
from espwire.protocol.commands import ALL_BITS, HEADER, REPLY, checksum
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    TOO_LITTLE,
    TOO_MUCH,
    UNKNOWN_COMMAND,
)
from espwire.protocol.slip import END, ESC, ESC_END, ESC_ESC
from espwire.protocol.stub import HELLO, LONGEST_TRIAL_MS, SEAL_BYTES, seal_frame
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.programs.program import Ending, Services
from espwire.virtual.soc.serial_ports import BIT_TIMES, USB_BAUD, USB_PACKET, USB_POLL_S

Steps = Generator[float, None, None]
Handlers = Mapping[int, Callable[[bytes, int], Steps]]  # opcode → what handles a frame with it
TRANSMIT_FIFO = 126
USB_FILL_BYTE = 80  # CPU cycles: from the queue into the packet
LAST_BYTE_S = 0.0015  # how long the program waits for the last byte to leave
LONGEST_RUN = 0x20000
SYNC_REPLIES = 8
BAUD_LIMITS = (300, 10_000_000)  # of our own programs
DATA_HEAD, LARGEST_BLOCK = 16, 0x4000


class Ring:
    """Received frames: ``capacity`` bytes for ``frames`` frames; a frame that does not fit is dropped.

    A frame that is ``urgent`` replaces those before it; ``aborting`` is then true until the next frame is taken.
    """

    def __init__(
        self, capacity: int, frames: int, urgent: Callable[[bytes], bool] = lambda frame: False
    ) -> None:
        self._capacity, self._most, self.urgent = capacity, frames, urgent
        self.aborting = False
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._end = self._free = 0
        self._last: tuple[int, bytes] = (0, b"")

    def put(self, frame: bytes) -> bool:
        """Add a complete frame; False if there is no room."""
        if len(self._waiting) >= self._most or self._end - self._free + len(frame) > self._capacity:
            return False
        if self.urgent(frame):
            self._waiting.clear()
            self.aborting = True
        self._waiting.append((self._end, frame))
        self._end += len(frame)
        return True

    def take(self) -> bytes | None:
        """The oldest frame; it occupies its room until ``release``."""
        if not self._waiting:
            return None
        self._last = self._waiting.popleft()
        self.aborting = False
        return self._last[1]

    def put_back(self) -> None:
        """Undo the last ``take``."""
        self._waiting.appendleft(self._last)

    def release(self) -> None:
        """Free the room of all frames that were taken."""
        self._free = self._waiting[0][0] if self._waiting else self._end

    @property
    def waiting(self) -> bool:
        """Whether there is a frame to take."""
        return bool(self._waiting)


class CpuModel:
    """A ``Program`` that is modelled in Python; ``main`` is the program itself.

    ``hz``: the CPU's clock; ``receive_cycles``, ``send_cycles``: cost of a byte. While ``sealed``, each frame sent
    ends with a CRC-32, which costs ``seal_cycles`` a byte. ``transmit_queue``: bytes that may wait for the transmit
    FIFO while the CPU works, at ``queue_cycles`` more per byte.
    """

    sealed = False
    seal_cycles = transmit_queue = queue_cycles = 0

    def __init__(
        self, services: Services, *, hz: float, receive_cycles: int, send_cycles: int, ring: Ring
    ) -> None:
        self.services, self.hz, self.ring = services, hz, ring
        self.uploads: list[tuple[int, int]] = []  # by this program: address and size
        self.flash: NorFlash = services.flash
        self.now = services.t
        self.baud = services.baud
        self.ended: Ending | None = None
        self._receive_s, self._send_s = receive_cycles / hz, send_cycles / hz
        self.last_byte_s = LAST_BYTE_S
        self._work_s = 0.0
        self._idle_from = inf
        self._idle_times: deque[tuple[float, float]] = deque(maxlen=4096)
        self._line_free = services.sent_until
        self._waits_for_frame = False
        # a trial of a baud rate, in seconds without a sealed request; 0: none
        self._trial_s = self._trial_left_s = 0.0
        self._confirmed_baud = self.baud
        # received runs of bytes between two ENDs: start, end, bytes
        self._incoming: deque[tuple[float, float, bytes]] = deque()
        self._run = bytearray()
        self._run_from = services.t
        self._steps: Steps = self.main()
        self._due = self.now
        if services.received:
            self.receive(self.now, services.received, self.baud)

    # --- the Program interface ---

    runs_freely = False  # it sends only when requested

    @property
    def busy(self) -> bool:
        """Whether it is working on a request, or waiting for the flash."""
        return self.ended is None and not self._waits_for_frame and self._due < inf

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte follows every ten bit times of ``rate``."""
        byte_s, at = BIT_TIMES / rate, 0
        if not self._run:
            self._run_from = t
        *closed, rest = data.split(END)
        for run in closed:
            at += len(run) + 1
            until = t + at * byte_s
            whole = bytes(self._run) + run
            if whole:
                self._incoming.append((self._run_from, until, whole))
            self._run.clear()
            self._run_from = until
        if len(self._run) + len(rest) <= LONGEST_RUN:
            self._run += rest

    def next_event(self) -> float | None:
        """When ``run_until`` is due next; None: not before more bytes arrive."""
        due = self._due
        if self._waits_for_frame and self._incoming:
            due = min(due, max(self.now, self._incoming[0][1]))
        return due if due < inf and self.ended is None else None

    def run_until(self, t: float) -> None:
        """Do everything that is due up to ``t``, or set ``ended``."""
        while self.ended is None:
            due, incoming = self._due, self._incoming
            if incoming and incoming[0][1] <= due:
                if incoming[0][1] > t:
                    break
                start, until, run = incoming.popleft()
                self._accept_run(start, until, run)
                if self._waits_for_frame and self.ring.waiting:
                    self._due = max(self.now, until)
            elif due <= t:
                self.now = due
                self._waits_for_frame = False
                self._due = next(self._steps, inf)
            else:
                break

    # --- for the program ---

    def main(self) -> Steps:
        """The program, from its first instruction."""
        raise NotImplementedError

    def add_work(self, cycles: float) -> None:
        """Add CPU time, which elapses in the next ``finish_work``."""
        self._work_s += cycles / self.hz

    def finish_work(self, until: float = 0.0) -> Steps:
        """Let the CPU time elapse that has been added, then idle until a time."""
        while self._work_s > 0 or until > self.now:
            free = self.now + self._work_s
            self._work_s = 0.0
            self._idle_from = free
            yield max(free, until)
            self._note_idle()
        self._idle_from = inf

    def wait_for_frame(self, until: float = inf) -> Steps:
        """Idle until there is a frame, or until a time."""
        yield from self.finish_work()
        wait = self._wait_in_trial if self._trial_s else self._wait_for_frame
        yield from wait(until)

    def _wait_for_frame(self, until: float) -> Steps:
        if self.ring.waiting or until <= self.now:
            return
        self._waits_for_frame, self._idle_from = True, self.now
        yield until
        self._note_idle()
        self._idle_from = inf

    def serve(
        self,
        command_cycles: float,
        handle: Callable[[bytes], Steps],
        greeting: Iterable[float] = (),
    ) -> Steps:
        """Send the hello and the ``greeting``, then pass every request to ``handle``."""
        yield from self.finish_work()
        yield from self.send_frame(HELLO)
        yield from greeting
        while True:
            frame = yield from self.next_frame()
            if len(frame) >= HEADER.size:
                self.add_work(command_cycles)
                yield from handle(frame)
                yield from self.finish_work()
            self.ring.release()

    def dispatch(
        self, frame: bytes, handlers: Handlers, lengths: Mapping[int, tuple[int, ...]]
    ) -> Steps:
        """Pass a request to its handler, as plain stubs do it; ``lengths``: those allowed, by opcode."""
        op, size = frame[1], len(frame) - HEADER.size
        if frame[0]:
            return  # not a request
        if size != int.from_bytes(frame[2:4], "little") or size not in lengths.get(op, (size,)):
            yield from self.reply(op, status=BAD_LENGTH)
        elif op in handlers:
            yield from handlers[op](frame, op)
        else:
            yield from self.reply(op, status=UNKNOWN_COMMAND)

    def sync(self, frame: bytes, op: int) -> Steps:
        """SYNC, as every stub answers it."""
        for _ in range(SYNC_REPLIES):
            yield from self.reply(op)

    def change_baud(self, frame: bytes, op: int) -> Steps:
        """CHANGE_BAUDRATE, as our own programs do it; with a third word, it starts a trial of the rate."""
        new, old, trial_ms = word(frame, 0), word(frame, 1), word(frame, 2)
        low, high = BAUD_LIMITS
        valid = low <= new <= high and low <= old <= high and trial_ms <= LONGEST_TRIAL_MS
        yield from self.reply(op, status=0 if valid else BAD_BLOCK)
        if valid:
            yield from self.drain()
            if not self._trial_s:
                self._confirmed_baud = self.baud
            self._trial_s = self._trial_left_s = trial_ms / 1000
            self.baud = round(self.baud * new / old)

    def extend_trial(self) -> None:
        """A sealed request has arrived: the trial of a rate starts again."""
        self._trial_left_s = self._trial_s

    def _wait_in_trial(self, until: float) -> Steps:
        """As ``wait_for_frame``; at the end of the trial, the rate changes back."""
        end = self.now + self._trial_left_s
        yield from self._wait_for_frame(min(until, end))
        self._trial_left_s = end - self.now
        if self.now >= end and not self.ring.waiting:
            self._trial_s = 0.0
            yield from self.drain()
            self.baud = self._confirmed_baud

    def next_frame(self) -> Generator[float, None, bytes]:
        """Take the next frame, waiting for it if necessary."""
        while (frame := self.ring.take()) is None:
            yield from self.wait_for_frame()
        return frame

    @property
    def byte_s(self) -> float:
        """Seconds that a sent byte takes on the wire."""
        if self.services.usb:
            return BIT_TIMES / USB_BAUD + USB_POLL_S / USB_PACKET
        return BIT_TIMES / self.baud

    def send_frame(self, payload: bytes) -> Steps:
        """Send one frame; returns when the transmit FIFO has accepted the last byte."""
        if self.sealed:
            self.add_work(len(payload) * self.seal_cycles)
            payload = seal_frame(payload)
        data = slip.encode(payload)
        if self.transmit_queue:
            yield from self._send_queued(data)
            return
        wire_s, work_s = len(data) * self.byte_s, len(data) * self._send_s + self._work_s
        self._work_s = 0.0
        if self.services.usb:
            # a packet is filled after the one before it has left: CPU and wire do not overlap
            done = self.now + work_s + wire_s
            start = done - len(data) * BIT_TIMES / USB_BAUD
        else:
            start = max(self.now + max(0.0, work_s - wire_s), self._line_free)
            done = max(self.now + work_s, start + wire_s - TRANSMIT_FIFO * self.byte_s)
        if start > self.now:
            self._idle_from = self.now + work_s
            yield start
        self.services.send(self.now, data, self.baud)
        self._line_free = done if self.services.usb else start + wire_s
        yield from self.finish_work(done)

    def _send_queued(self, data: bytes) -> Steps:
        """Send while the CPU goes on; returns when the last byte fits the queue."""
        yield from self.finish_work()
        wire_s = line_s = len(data) * self.byte_s
        if self.services.usb:  # a packet is filled after the one before it has left
            wire_s += len(data) * USB_FILL_BYTE / self.hz
            line_s = len(data) * BIT_TIMES / USB_BAUD
        self.add_work(len(data) * (self._send_s * self.hz + self.queue_cycles))
        self._line_free = max(self.now, self._line_free) + wire_s
        self.services.send(self._line_free - line_s, data, self.baud)
        waiting_s = (TRANSMIT_FIFO + self.transmit_queue) * self.byte_s
        yield from self.finish_work(self._line_free - waiting_s)

    def empty_queue(self) -> Steps:
        """Wait until all that waits is in the transmit FIFO; then frames are sent at once again."""
        if self.transmit_queue:
            self.transmit_queue = 0
            yield from self.finish_work(self._line_free - TRANSMIT_FIFO * self.byte_s)

    def reply(self, op: int, value: int = 0, data: bytes = b"", status: int = 0) -> Steps:
        """Send a reply with its two status bytes."""
        body = data + status.to_bytes(2, "big")
        size = len(body) + SEAL_BYTES * self.sealed
        return self.send_frame(HEADER.pack(REPLY, op, size & 0xFFFF, value & 0xFFFFFFFF) + body)

    def drain(self) -> Steps:
        """Wait until the last bit has left."""
        yield from self.finish_work(self._line_free + self.last_byte_s)

    def reset(self) -> Steps:
        """Reset the chip."""
        yield from self.finish_work()
        self.ended = Ending(self.now, "reset")
        yield inf

    def crash(self, fault: str, address: int) -> Steps:
        """End the program by a bus fault."""
        yield from self.finish_work()
        self.ended = Ending(self.now, "crash", fault, address)
        yield inf

    def jump(self, entry: int) -> Steps:
        """Start the program at ``entry`` in place of this one."""
        yield from self.finish_work()
        services = replace(
            self.services,
            t=self.now,
            baud=self.baud,
            sent_until=self._line_free,
            received=bytes(self._run),
            uploads=tuple(self.uploads),
        )
        self.ended = Ending(self.now, "jump", address=entry, services=services)
        yield inf

    # --- inside ---

    def _note_idle(self) -> None:
        """The CPU has been idle until now."""
        if self.now > self._idle_from:
            self._idle_times.append((self._idle_from, self.now))

    def _accept_run(self, start: float, until: float, run: bytes) -> None:
        """A run of bytes has arrived; it has cost CPU time as far as the CPU was not idle."""
        idle = max(0.0, until - max(self._idle_from, start))
        while self._idle_times and self._idle_times[0][1] <= start:
            self._idle_times.popleft()
        idle += sum(end - max(begin, start) for begin, end in self._idle_times)
        self._work_s += max(0.0, len(run) * self._receive_s - idle)
        frame = unescape(run)
        if frame is not None and not self.ring.put(frame):
            self.services.lost(len(run))


def is_in_ram(services: Services, segments: Iterable[tuple[int, bytes]]) -> bool:
    """Whether the chip's RAM holds all ``segments`` at their addresses."""
    ram = services.registers.ram
    return all(ram.read(address, len(data)) == data for address, data in segments)


def unescape(run: bytes) -> bytes | None:
    """The frame between two ENDs; None if it contains an invalid escape."""
    escapes = run.count(ESC)
    if not escapes:
        return run
    if escapes != run.count(ESC_END) + run.count(ESC_ESC):
        return None
    return run.replace(ESC_END, END).replace(ESC_ESC, ESC)


def word(frame: bytes, index: int) -> int:
    """A 32-bit word of a request's body; past the end of the frame it reads as 0."""
    at = HEADER.size + 4 * index
    return int.from_bytes(frame[at : at + 4], "little")


class RamCommands:
    """MEM_BEGIN, MEM_DATA, MEM_END and register access.

    ``byte_cycles``: cost of a byte of data; ``flash_wait`` waits until the flash is ready.
    """

    def __init__(
        self, cpu: CpuModel, byte_cycles: float, flash_wait: Callable[[], Steps] | None = None
    ) -> None:
        self._cpu, self._byte_cycles = cpu, byte_cycles
        self._flash_wait = flash_wait or cpu.finish_work
        self._address = self._left = 0

    def begin(self, frame: bytes, op: int) -> Steps:
        """MEM_BEGIN."""
        self._left, self._address = word(frame, 0), word(frame, 3)
        self._cpu.uploads.append((self._address, self._left))
        bad = self._address % 4 or word(frame, 2) > LARGEST_BLOCK
        if bad:
            self._left = 0
        yield from self._cpu.reply(op, status=BAD_BLOCK if bad else 0)

    def data(self, frame: bytes, op: int) -> Steps:
        """MEM_DATA: stores word by word."""
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
            self._cpu.add_work(size * self._byte_cycles)
            for at in range(0, size, 4):
                value = int.from_bytes(payload[at : at + 4], "little")
                yield from self.write_word(self._address + at, value)
            self._address += size
            self._left = max(0, self._left - size)
        yield from self._cpu.reply(op, status=status)

    def end(self, frame: bytes, op: int) -> Steps:
        """MEM_END: starts the program, or stays."""
        stay, entry, status = word(frame, 0), word(frame, 1), TOO_LITTLE if self._left else 0
        yield from self._cpu.reply(op, status=status)
        if not status and not stay:
            yield from self._flash_wait()
            yield from self._cpu.drain()
            yield from self._cpu.jump(entry)

    def read_word(self, address: int) -> Generator[float, None, int]:
        """Read a 32-bit word of the address space."""
        value = self._cpu.services.registers.read(self._cpu.now, address)
        if value is None:
            yield from self._cpu.crash("Load access fault", address)
        return value or 0

    def write_word(self, address: int, value: int) -> Steps:
        """Write a 32-bit word; the bus refuses writes to ROM."""
        registers = self._cpu.services.registers
        if registers.is_read_only(address) or not registers.write(self._cpu.now, address, value):
            yield from self._cpu.crash("Store/AMO access fault", address)

    def write_registers(self, words: tuple[int, ...]) -> Generator[float, None, int]:
        """WRITE_REG's groups of address, value, mask and delay; returns the status."""
        for at in range(0, len(words), 4):
            address, value, mask, delay_us = words[at : at + 4]
            yield from self._cpu.finish_work(self._cpu.now + delay_us / 1e6 if delay_us else 0.0)
            if address % 4:
                return BAD_BLOCK
            if mask != ALL_BITS:
                value = (yield from self.read_word(address)) & ~mask | value & mask
            yield from self.write_word(address, value)
        return 0
