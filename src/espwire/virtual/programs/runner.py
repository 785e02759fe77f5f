"""The program in a virtual chip's RAM, from its start to its end: beside the chip's loader, on the same clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from espwire.virtual.faults import FIFO_BYTES
from espwire.virtual.programs.registry import Ending, Program, Services, find_program

if TYPE_CHECKING:
    from espwire.virtual.chip import VirtualChip
    from espwire.virtual.scheduler import EventQueue

Encrypt = Callable[[int, bytes], bytes]


class ProgramRunner:
    """``program`` is what runs now, if anything; ``ended`` why the last one did not go on.

    ``rates``: from when on programs sent at which rate; before, and where it is 0, the chip's ``baud`` tells.
    ``encrypt`` is the chip's flash encryption as its ROM's functions use it; None without a key.
    """

    def __init__(self, chip: VirtualChip, queue: EventQueue, end: Callable[[Ending], None]) -> None:
        self._chip, self._agenda, self._end = chip, queue, end
        self.program: Program | None = None
        self.ended: Ending | None = None
        self.rates: list[tuple[float, int]] = []
        self.encrypt: Encrypt | None = None

    def start(
        self,
        entry: int,
        uploads: tuple[tuple[int, int], ...],
        baud: int,
        sent_until: float,
        received: bytes,
    ) -> bool:
        """Start the program at ``entry``; False: nothing can run it."""
        chip = self._chip
        services = Services(
            t=chip.now,
            chip=chip.chip,
            config=chip.config,
            flash=chip.flash,
            spi=chip.spi,
            registers=chip.registers,
            baud=baud,
            sent_until=sent_until,
            received=received[:FIFO_BYTES],
            usb=chip.options.kind != "uart",
            encrypt=self.encrypt,
            uploads=uploads,
            mode=chip.options.stub,
            send=self._send,
            lost=self._lose,
        )
        self.program = find_program(services, entry)
        return self.program is not None

    def clear(self) -> None:
        """No program runs any more."""
        if self.program is not None:
            self.rates.append((self._chip.now, 0))
        self.program = None

    def advance(self, t: float) -> None:
        """Let the clock reach ``t``: the program, if one runs, and all that is due besides."""
        queue = self._agenda
        while (program := self.program) is not None:
            due = queue.next_due()
            until = t if due is None else min(due, t)
            program.run_until(until)
            if program.ended is not None:
                queue.run_until(min(program.ended.t, until))
                self.ended = program.ended
                self._end(program.ended)
            elif until >= t:
                break
            else:
                queue.run_until(until)
        queue.run_until(t)

    def next_event(self) -> float | None:
        """When something is due next, in the program or besides."""
        due = self._agenda.next_due()
        goes_on = self.program.next_event() if self.program is not None else None
        return goes_on if due is None else due if goes_on is None else min(due, goes_on)

    def rate_at(self, t: float) -> int:
        """What a program sent at, at ``t``; 0: none did."""
        return next((rate for start, rate in reversed(self.rates) if start <= t), 0)

    def _send(self, t: float, data: bytes, baud: int) -> None:
        if not self.rates or self.rates[-1][1] != baud:
            self.rates.append((t, baud))
        self._chip.send(data, t)

    def _lose(self, count: int) -> None:
        self._chip.overruns += count
