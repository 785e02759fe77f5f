"""Selects what runs a program in a virtual chip's RAM, and runs it on the chip's clock, from its start to its end.

The ``stub`` option of the chip selects. ``twin``: our stub by its Python model, the vendor's stub by its imitation,
everything else on the CPU engine. ``engine``: everything instruction by instruction. ``vendor``: as ``twin``, but any
program that is not ours is taken for the vendor's stub. ``off``: nothing runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from espwire.virtual.faults import FIFO_BYTES
from espwire.virtual.programs.program import Ending, Program, Services
from espwire.virtual.registers import find_soc
from espwire.virtual.scheduler import EventQueue
from espwire.virtual.soc.mask_rom import LoadedRom


class ProgramRunner:
    """``program`` is what runs now, if anything; ``ended`` is why the last program ended."""

    def __init__(
        self, services: Services, queue: EventQueue, on_end: Callable[[Ending], None]
    ) -> None:
        self.services = replace(services, send=self._send)
        self._transmit, self._queue, self._on_end = services.send, queue, on_end
        self.program: Program | None = None
        self.ended: Ending | None = None
        self._rates: list[tuple[float, int]] = []  # from which time on programs sent at which rate

    def start(
        self,
        entry: int,
        *,
        uploads: tuple[tuple[int, int], ...],
        baud: int,
        sent_until: float,
        received: bytes,
    ) -> bool:
        """Start the program at ``entry``; False if nothing can run it."""
        services = replace(
            self.services,
            t=self._queue.now,
            baud=baud,
            sent_until=sent_until,
            received=received[:FIFO_BYTES],
            uploads=uploads,
        )
        self.program = find_program(services, entry)
        return self.program is not None

    def start_rom(self, rom: LoadedRom, *, reason: int, baud: int) -> None:
        """Start the chip's own ROM after a reset whose reason has the number ``reason``."""
        from espwire.virtual.soc.rom_program import RomProgram  # takes a noticeable time to load

        services = replace(self.services, t=self._queue.now, baud=baud, received=b"", uploads=())
        self.program = RomProgram(services, rom, reason=reason)

    def clear(self) -> None:
        """Stop the program."""
        if self.program is not None:
            self._rates.append((self._queue.now, 0))
        self.program = None

    def advance(self, t: float) -> None:
        """Let the clock reach ``t``: run the program, if any, and all events that are due, in order of time."""
        queue = self._queue
        while (program := self.program) is not None:
            due = queue.next_due()
            until = t if due is None else min(due, t)
            program.run_until(until)
            if program.ended is not None:
                queue.run_until(min(program.ended.t, until))
                self._end(program.ended)
            elif until >= t:
                break
            else:
                queue.run_until(until)
        queue.run_until(t)

    def _end(self, ended: Ending) -> None:
        if ended.services is not None:
            if self.program is None:
                return  # the chip was reset at the same time
            successor = find_program(ended.services, ended.address)
            if successor is not None:
                self.program = successor
                return
            ended = Ending(ended.t, "refused", address=ended.address)
        self.ended = ended
        self._on_end(ended)

    def next_event(self) -> float | None:
        """When the program or the queue has something to do next."""
        times = [self._queue.next_due(), self.program.next_event() if self.program else None]
        return min((t for t in times if t is not None), default=None)

    def rate_at(self, t: float) -> int:
        """The baud rate at which a program sent at ``t``; 0: no program did."""
        return next((rate for start, rate in reversed(self._rates) if start <= t), 0)

    def _send(self, t: float, data: bytes, baud: int) -> None:
        if not self._rates or self._rates[-1][1] != baud:
            self._rates.append((t, baud))
        self._transmit(t, data, baud)


def find_program(services: Services, entry: int) -> Program | None:
    """Start the program at ``entry``; None if nothing here can run it."""
    # these take a noticeable time to load
    from espwire.virtual.programs import stub_model, vendor_stub
    from espwire.virtual.soc.program import EngineProgram

    if services.mode == "off":
        return None
    if services.mode != "engine":
        model = stub_model.start_program(services, entry)
        program = model or vendor_stub.start_program(services, entry)
        if program is not None:
            return program
    if find_soc(services.chip) is None:
        return None
    return EngineProgram(services, entry)
