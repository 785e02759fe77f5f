"""Runs the program in a virtual chip's RAM on the chip's clock, from its start to its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from espwire.virtual.faults import FIFO_BYTES
from espwire.virtual.programs.program import Ending, Program, Services
from espwire.virtual.scheduler import EventQueue


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
        self.program = _find_program(services, entry)
        return self.program is not None

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
            successor = _find_program(ended.services, ended.address)
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


def _find_program(services: Services, entry: int) -> Program | None:
    from espwire.virtual.programs.registry import find_program  # imports the models and the engine

    return find_program(services, entry)
