"""Events in simulated time: the clock of everything virtual.

Theory of operation. Nothing below the transport reads a real clock. Time is a number of seconds from 0, and its owner
is the ``VirtualTransport`` (or the server's connection): it alone decides how far the clock moves. Everything below
only answers two questions: ``next_event()``, when is something due next, and ``advance(t)``, do everything that is due
up to ``t``.

*Layers.* The transport owns a ``Wire`` (bit times, latency, bytes in flight in both directions), the wire owns the
``VirtualChip``, the chip owns one ``EventQueue`` and, while a program runs in RAM, a ``ProgramRunner``. Work of the ROM
loader and of modelled programs is a generator that yields the time at which to continue it, so a reset, a
watchdog or a loss of power can end it between any two steps: the generator is dropped, and nothing of it is due any more.
Delayed actions that may be outdated when they are due (a boot, a log line, a release of EN) compare a counter with its
value at the time they were scheduled.

*Order.* Events happen in order of time; at the same time, in the order in which they were scheduled. The wire delivers
bytes to the chip only after everything in the chip that is due earlier, and collects what the chip sent after each
event, so a reply can leave in the middle of an advance. While a program runs, ``ProgramRunner.advance`` alternates
between the program and the queue, whichever is due first; if a program ends, the queue is first run up to that moment.

*Waiting.* ``VirtualTransport.read(timeout)`` takes what has arrived; if there is nothing, it gets from the wire the next
event, moves the clock there, and repeats until bytes arrive or the next event lies past the deadline; then the clock is
set to the deadline. So a timeout of seconds takes microseconds of real time. ``write`` takes no time: bytes are queued
on the wire from the current time on. ``sleep`` and ``drain`` just move the clock. All clocks are monotonic: an event for
the past is due now.

*Paced mode* (``pace=1``). Before the clock moves to ``t``, the transport sleeps until as much real time has passed, in
steps of 50 ms so that a cancellation is noticed. The order of events is the same in both modes. ``virtual serve``
couples the clock to real time in any case, since its clients live there; unpaced, it runs ahead of real time while the
loader or a stub is busy, and only a program on the CPU engine, which may run forever, is kept to real time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class EventQueue:
    """Actions with a due time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, t: float, action: Callable[[], None]) -> None:
        """Do ``action`` at ``t``, or now if that is past."""
        heapq.heappush(self._heap, (max(t, self.now), next(self._order), action))

    def next_due(self) -> float | None:
        """When the next action is due."""
        return self._heap[0][0] if self._heap else None

    def run_until(self, t: float) -> None:
        """Do everything due up to ``t``, then set the clock to ``t``."""
        while self._heap and self._heap[0][0] <= t:
            due, _, action = heapq.heappop(self._heap)
            self.now = due
            action()
        self.now = max(self.now, t)
