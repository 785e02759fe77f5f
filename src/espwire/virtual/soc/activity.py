"""What the peripherals tell of the program that uses them: whether it gets on, or asks the same again and again."""

from __future__ import annotations

from collections.abc import Callable

PATIENCE = 4  # the same questions, before it is worth a closer look


class Activity:
    """``progress`` counts what changes something; between two of those, ``same`` questions got no news.

    ``look`` is called when the program may be idle: always at the same register, so that a loop is seen as one.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.progress = 0
        self.same = 0
        self.eager = False  # the last closer look was worth it
        self._look = look
        self._anchor = 0

    def changed(self) -> None:
        """Something happened that makes the next moment unlike the last."""
        self.progress += 1
        self.same = 0

    def asked(self, address: int) -> None:
        """A register was read that tells when to go on."""
        self.same += 1
        if self.same == PATIENCE:
            self._anchor = address
        elif address != self._anchor or (self.same < PATIENCE and not self.eager):
            return
        self._look()
