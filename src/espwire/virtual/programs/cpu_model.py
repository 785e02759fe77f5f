"""A program in RAM that is imitated: its receive ring, transmitter and one CPU in simulated time. No command here.

What the program does is a generator of the times at which it goes on. Work is owed (``owe``) and paid (``settle``)
before anything that can be seen from outside; bytes that come in cost CPU time too, unless it was idle meanwhile.

Registers and RAM as imitated stubs reach them, and the three RAM commands. Mirrors ``stub/src/commands.c``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING

from espwire.protocol import slip
from espwire.protocol.commands import ALL_BITS, HEADER, REPLY, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import BAD_BLOCK, BAD_CHECKSUM, BAD_LENGTH, TOO_LITTLE, TOO_MUCH
from espwire.protocol.slip import END, ESC, ESC_END, ESC_ESC
from espwire.protocol.stub import HELLO, SEAL_BYTES, seal_frame
from espwire.virtual.programs.registry import Ending, Program, Services, find_program
from espwire.virtual.soc.usb import PACKET, POLL_S, USB_BAUD

if TYPE_CHECKING:
    from espwire.virtual.nor_flash import NorFlash


Steps = Generator[float, None, None]
BIT_TIMES = 10
TRANSMIT_FIFO = 126
LAST_BYTE_S = 0.0015  # what the program waits for the last byte to leave
LONGEST_RUN = 0x20000
SYNC_REPLIES = 8
BAUD_LIMITS = (300, 10_000_000)  # of our own programs


class Ring:
    """Where received frames wait: ``capacity`` bytes for ``frames`` frames; what does not fit is dropped whole.

    A frame that is ``urgent`` throws out those before it; ``aborting`` until the next one is taken.
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
        """A frame has come in whole; False: there was no room."""
        if len(self._waiting) >= self._most or self._end - self._free + len(frame) > self._capacity:
            return False
        if self.urgent(frame):
            self._waiting.clear()
            self.aborting = True
        self._waiting.append((self._end, frame))
        self._end += len(frame)
        return True

    def take(self) -> bytes | None:
        """The oldest frame; it keeps its room until ``release``."""
        if not self._waiting:
            return None
        self._last = self._waiting.popleft()
        self.aborting = False
        return self._last[1]

    def unread(self) -> None:
        """The frame just taken is for somebody else."""
        self._waiting.appendleft(self._last)

    def release(self) -> None:
        """What was taken is done with."""
        self._free = self._waiting[0][0] if self._waiting else self._end

    @property
    def waiting(self) -> bool:
        """Whether a frame is there."""
        return bool(self._waiting)


class CpuModel:
    """The part of a ``programs.Program`` that imitations share. ``hz``: of the CPU; ``receive_cycles``: for one byte
    that comes in, ``send_cycles`` for one that goes out. ``sealed``: every frame that it sends ends in a CRC-32, which
    costs ``seal_cycles`` a byte."""

    sealed = False
    seal_cycles = 0

    def __init__(
        self, services: Services, *, hz: int, receive_cycles: int, send_cycles: int, ring: Ring
    ) -> None:
        self.services, self.hz, self.ring = services, hz, ring
        self.uploads: list[tuple[int, int]] = []  # through this program: address and size
        self.flash: NorFlash = services.flash
        self.now = services.t
        self.rate = services.baud
        self.ended: Ending | None = None
        self._receive_s, self._send_s = receive_cycles / hz, send_cycles / hz
        self.last_byte_s = LAST_BYTE_S
        self._owed = 0.0
        self._idle_from = inf
        self._line_free = services.sent_until
        self._listening = False
        self._incoming: deque[tuple[float, float, bytes]] = (
            deque()
        )  # from, until, a run as it stands on the wire
        self._run = bytearray()
        self._run_from = services.t
        self._successor: Program | None = None
        self._steps: Steps = self.main()
        self._due = self.now
        if services.received:
            self.receive(self.now, services.received, self.rate)

    # --- what a Program is ---

    @property
    def runs_freely(self) -> bool:
        """Whether it may send without being asked."""
        return self._successor is not None and self._successor.runs_freely

    @property
    def busy(self) -> bool:
        """Whether it works on a request, or waits for the flash."""
        if self._successor is not None:
            return self._successor.busy
        return self.ended is None and not self._listening and self._due < inf

    @property
    def baud(self) -> int:
        """The rate that the UART runs at now."""
        return self._successor.baud if self._successor is not None else self.rate

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte comes every ten bit times of ``rate``."""
        if self._successor is not None:
            self._successor.receive(t, data, rate)
            return
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
        """When it should be asked to run again; None: not before bytes come."""
        if self._successor is not None:
            return self._successor.next_event()
        due = self._due
        if self._listening and self._incoming:
            due = min(due, max(self.now, self._incoming[0][1]))
        return due if due < inf and self.ended is None else None

    def run_until(self, t: float) -> None:
        """Do all that is due up to ``t``, or set ``ended``."""
        while self.ended is None and self._successor is None:
            due, incoming = self._due, self._incoming
            if incoming and incoming[0][1] <= due:
                if incoming[0][1] > t:
                    break
                start, until, run = incoming.popleft()
                self._arrive(start, until, run)
                if self._listening and self.ring.waiting:
                    self._due = max(self.now, until)
            elif due <= t:
                self.now = due
                self._listening = False
                self._due = next(self._steps, inf)
            else:
                break
        if self._successor is not None:
            self._successor.run_until(t)
            self.ended = self._successor.ended

    # --- for the program ---

    def main(self) -> Steps:
        """What the program does, from its first instruction on."""
        raise NotImplementedError

    def owe(self, cycles: float) -> None:
        """So much work, to be paid before the next thing that shows."""
        self._owed += cycles / self.hz

    def settle(self, until: float = 0.0) -> Steps:
        """Do the work that is owed, and idle up to a time."""
        while self._owed > 0 or until > self.now:
            free = self.now + self._owed
            self._owed = 0.0
            self._idle_from = free
            yield max(free, until)
        self._idle_from = inf

    def listen(self, until: float = inf) -> Steps:
        """Until a frame waits, or some time has come."""
        yield from self.settle()
        if self.ring.waiting or until <= self.now:
            return
        self._listening, self._idle_from = True, self.now
        yield until
        self._idle_from = inf

    def serve(
        self, command_cycles: float, handle: Callable[[bytes], Steps], greet: Iterable[float] = ()
    ) -> Steps:
        """Say hello and what else there is to say, then hand over every request for ever."""
        yield from self.settle()
        yield from self.send_frame(HELLO)
        yield from greet
        while True:
            frame = yield from self.take()
            if len(frame) >= HEADER.size:
                self.owe(command_cycles)
                yield from handle(frame)
                yield from self.settle()
            self.ring.release()

    def answer_sync(self, frame: bytes, op: int) -> Steps:
        """SYNC, as every stub answers it."""
        for _ in range(SYNC_REPLIES):
            yield from self.reply(op)

    def change_baud(self, frame: bytes, op: int) -> Steps:
        """CHANGE_BAUDRATE, as our own programs do it."""
        wanted, now = word(frame, 0), word(frame, 1)
        low, high = BAUD_LIMITS
        well = low <= wanted <= high and low <= now <= high
        yield from self.reply(op, status=0 if well else BAD_BLOCK)
        if well:
            yield from self.drain()
            self.rate = round(self.rate * wanted / now)

    def take(self) -> Generator[float, None, bytes]:
        """The next frame, whenever it comes."""
        while (frame := self.ring.take()) is None:
            yield from self.listen()
        return frame

    @property
    def byte_s(self) -> float:
        """How long a byte takes on the wire."""
        return (
            BIT_TIMES / USB_BAUD + POLL_S / PACKET if self.services.usb else BIT_TIMES / self.rate
        )

    def send_frame(self, payload: bytes) -> Steps:
        """One frame out; done when the transmitter's FIFO has taken the last byte."""
        if self.sealed:
            self.owe(len(payload) * self.seal_cycles)
            payload = seal_frame(payload)
        data = slip.encode(payload)
        wire_s, work_s = len(data) * self.byte_s, len(data) * self._send_s + self._owed
        self._owed = 0.0
        if (
            self.services.usb
        ):  # a packet is filled when the one before it has gone: nothing overlaps
            done = self.now + work_s + wire_s
            start = done - len(data) * BIT_TIMES / USB_BAUD
        else:
            start = max(self.now + max(0.0, work_s - wire_s), self._line_free)
            done = max(self.now + work_s, start + wire_s - TRANSMIT_FIFO * self.byte_s)
        if start > self.now:
            self._idle_from = self.now + work_s
            yield start
        self.services.send(self.now, data, self.rate)
        self._line_free = done if self.services.usb else start + wire_s
        yield from self.settle(done)

    def reply(self, op: int, value: int = 0, data: bytes = b"", status: int = 0) -> Steps:
        """A reply with its two status bytes."""
        body = data + status.to_bytes(2, "big")
        size = len(body) + SEAL_BYTES * self.sealed
        return self.send_frame(HEADER.pack(REPLY, op, size & 0xFFFF, value & 0xFFFFFFFF) + body)

    def drain(self) -> Steps:
        """Until the last bit has left."""
        yield from self.settle(self._line_free + self.last_byte_s)

    def reset(self) -> Steps:
        """Reset the chip."""
        yield from self.settle()
        self.ended = Ending(self.now, "reset")
        yield inf

    def crash(self, fault: str, address: int) -> Steps:
        """An access that the bus refuses: the program is gone."""
        yield from self.settle()
        self.ended = Ending(self.now, "crash", fault, address)
        yield inf

    def jump(self, entry: int) -> Steps:
        """Give the chip to what lies at an address."""
        yield from self.settle()
        here = replace(
            self.services,
            t=self.now,
            baud=self.rate,
            sent_until=self._line_free,
            received=bytes(self._run),
            uploads=tuple(self.uploads),
        )
        self._successor = find_program(here, entry)
        if self._successor is None:
            self.ended = Ending(self.now, "refused", address=entry)
        yield inf

    # --- inside ---

    def _arrive(self, start: float, until: float, run: bytes) -> None:
        """A run of bytes is in; it has cost time where the CPU was not idle."""
        idle = max(0.0, until - max(self._idle_from, start))
        self._owed += max(0.0, len(run) * self._receive_s - idle)
        frame = unescape(run)
        if frame is not None and not self.ring.put(frame):
            self.services.lost(len(run))


def lies_in_ram(services: Services, segments: Iterable[tuple[int, bytes]]) -> bool:
    """Whether the chip's RAM holds ``segments``, each at its address."""
    ram = services.registers.ram
    return all(ram.read(address, len(data)) == data for address, data in segments)


def unescape(run: bytes) -> bytes | None:
    """The frame between two ENDs, or None where it has a bad escape."""
    escapes = run.count(ESC)
    if not escapes:
        return run
    if escapes != run.count(ESC_END) + run.count(ESC_ESC):
        return None
    return run.replace(ESC_END, END).replace(ESC_ESC, ESC)


def word(frame: bytes, index: int) -> int:
    """A word of a request's body; what lies behind the frame reads as 0."""
    at = HEADER.size + 4 * index
    return int.from_bytes(frame[at : at + 4], "little")


DATA_HEAD, LARGEST_BLOCK = 16, 0x4000


class RamCommands:
    """MEM_BEGIN, MEM_DATA, MEM_END and words. ``byte_cycles``: what a byte of data costs; ``flash_wait``: until the
    flash has done what it does."""

    def __init__(self, cpu: CpuModel, byte_cycles: float, flash_wait: Callable[[], Steps]) -> None:
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
                yield from self.write_word(
                    self._address + at, int.from_bytes(payload[at : at + 4], "little")
                )
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
