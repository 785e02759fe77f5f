"""Logs errors that clients or ports may repeat thousands of times."""

from __future__ import annotations

import time
from collections.abc import Callable

REPEAT_S = 60.0  # between two log lines about the same error of the same address
MOST_PROBLEMS = 256  # that are remembered


class ProblemLog:
    """Logs each kind of error once per address and ``REPEAT_S``, and counts the others. Remembers a limited number."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def log(self, host: str, code: str, text: str) -> bool:
        """Log an error of a client or port, unless it was logged recently; whether it was logged."""
        now, key = time.monotonic(), (host, code)
        at, count = self._seen.pop(key, (float("-inf"), 0))
        is_due = now - at >= REPEAT_S
        if is_due:
            more = f" ({count:,} more like it)" if count else ""
            self._note(f"{text}{more}")
            at, count = now, 0
        else:
            count += 1
        self._seen[key] = (at, count)
        if len(self._seen) > MOST_PROBLEMS:
            del self._seen[next(iter(self._seen))]
        return is_due
