"""The shortest time that line and flash allow for a job, and its terms.

Floor: measured time before the data, and of the reset after it, plus the longer of two: the bytes on the line, and the
flash's own time (erase and program times of its profile) with the bits on its bus.

Of a write, the bits on the bus for reading everything back once, which proves it, are another term. The floor
leaves it out; the floor with proof counts it as part of the flash's time.
"""

from __future__ import annotations

from dataclasses import dataclass

from espwire.protocol.slip import END
from espwire.protocol.stub import StubOp
from espwire.virtual.programs.stub_flash import BURST, HEAD_BITS, PLAIN_BITS, READ_BITS
from espwire.virtual.programs.stub_model import StubModel
from espwire.virtual.soc.program import EngineProgram
from espwire.virtual.soc.serial_ports import BIT_TIMES, USB_BAUD
from espwire.virtual.transport import VirtualTransport


@dataclass(frozen=True)
class Floor:
    """Seconds. ``fixed``: before the data; ``reset``: after everything was verified; ``proof``: see above."""

    fixed: float
    wire: float
    busy: float
    bits: float
    reset: float
    proof: float

    @property
    def total(self) -> float:
        return self.fixed + max(self.wire, self.busy + self.bits) + self.reset

    @property
    def proven(self) -> float:
        """With the proof."""
        return self.fixed + max(self.wire, self.busy + self.bits + self.proof) + self.reset

    def describe(self, took: float) -> str:
        """The terms, and how far ``took`` is above their sum."""
        terms = (
            f"fixed {self.fixed:.2f}, wire {self.wire:.2f}, flash {self.busy:.2f} + {self.bits:.2f}"
        )
        above = 100 * (took / self.total - 1)
        text = f"floor {self.total:6.2f} ({terms}, reset {self.reset:.2f})   {above:+5.1f} %"
        if not self.proof:
            return text
        above = 100 * (took / self.proven - 1)
        return f"{text}, with {self.proof:.2f} of proof {above:+5.1f} %"


class Meter:
    """Watches a transport of a virtual chip, from its start on. ``first``: the request that begins the job."""

    def __init__(self, transport: VirtualTransport, first: int) -> None:
        self._transport, self._first = transport, first
        self.began: float | None = None
        self.sent = self.received = 0
        self._busy_s, self._bits, self._programmed = 0.0, 0, 0
        self._write, self._read = transport.write, transport.read
        flash = transport.chip.flash
        self._execute, self._read_array = flash.execute, flash.read_array
        vars(transport).update(write=self._watch_write, read=self._watch_read)
        vars(flash).update(execute=self._watch_execute, read_array=self._watch_array)

    def build_floor(self, finished: float) -> Floor:
        """After the whole job; ``finished``: when everything was verified."""
        transport = self._transport
        assert self.began is not None
        baud = transport.wire.host_baud if transport.wire.has_baud else USB_BAUD
        wire = max(self.sent, self.received) * BIT_TIMES / baud
        return Floor(
            self.began,
            wire,
            self._busy_s,
            self._bits * self.bit_s,
            transport.now() - finished,
            (READ_BITS / BURST + 8) * self._programmed * self.bit_s,
        )

    def note_bus(self) -> None:
        """The stub is running: note the rate of the flash's bus."""
        program = self._transport.chip.runner.program
        if isinstance(program, EngineProgram):
            self.bit_s = 1 / program.flash.hz
        else:
            assert isinstance(program, StubModel)
            self.bit_s = program.memory.bit_s

    def _watch_write(self, data: bytes, deadline: float) -> None:
        if self.began is None and END + bytes((0, self._first)) in data:
            self.began, self.sent, self.received = self._transport.now(), 0, 0
            self._busy_s, self._bits, self._programmed = 0.0, 0, 0
        self.sent += len(data)
        self._write(data, deadline)

    def _watch_read(self, timeout: float) -> bytes:
        data = self._read(timeout)
        self.received += len(data)
        return data

    def _watch_execute(
        self, t: float, opcode: int, *, address: int = 0, data: bytes = b"", read: int = 0
    ) -> bytes:
        flash = self._transport.chip.flash
        before = flash.busy_until
        answer = self._execute(t, opcode, address=address, data=data, read=read)
        if flash.busy_until > before:
            self._busy_s += flash.busy_until - max(t, before)
            self._bits += PLAIN_BITS + HEAD_BITS + 8 * len(data)  # with the write enable
            self._programmed += len(data)
        return answer

    def _watch_array(self, t: float, address: int, size: int) -> bytes:
        if self._first != StubOp.WRITE_DATA:  # of a write, reading is not part of the floor
            self._bits += READ_BITS * -(-size // BURST) + 8 * size
        return self._read_array(t, address, size)
