"""The discrete-event kernel of everything virtual: what a machine is, and an agenda of things to come. No chip here.

Times are seconds of simulated time, from 0. Nothing here or above reads a real clock; links do that.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from typing import Protocol


class Machine(Protocol):
    """Something with a serial port that lives in simulated time and does no input or output of its own."""

    @property
    def baud(self) -> int | None:
        """The rate that its UART runs at now; None while it waits to measure the host's."""

    def receive(self, t: float, data: bytes) -> None:
        """``data`` has arrived completely at ``t``."""

    def lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The host's modem lines are so from ``t`` on; True means asserted."""

    def run_until(self, t: float) -> list[tuple[float, bytes]]:
        """Do all that is due up to ``t``; what was sent, and when its first byte left."""

    def next_event(self) -> float | None:
        """When something is due next; None: nothing until bytes or lines come."""


class EventQueue:
    """Actions with a due time, done in order of time, then of asking."""

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
        """Do everything due up to ``t``, then let the clock stand at ``t``."""
        while self._heap and self._heap[0][0] <= t:
            due, _, action = heapq.heappop(self._heap)
            self.now = due
            action()
        self.now = max(self.now, t)
