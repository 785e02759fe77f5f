"""Applies the numbers of ``settings.RetryPolicy``: counts failed attempts and ends with the last error."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from espwire.errors import NoReply, ToolError
from espwire.settings import Settings


class Attempts:
    """Counts the failed attempts of one job.

    The pattern is ``while True: try: return job() except NoReply as error: attempts.failed(error)``.

    :param limit: attempts at one place without progress; 0: without limit
    :param total: attempts at all places together; 0: without limit
    """

    def __init__(self, limit: int, total: int = 0) -> None:
        self.limit, self.total = limit, total
        self._failures: Counter[int] = Counter()

    def failed(self, error: ToolError, place: int = 0) -> None:
        """Count a failure; raise ``error`` if that was the last attempt.

        :param place: how far the job came, for jobs that go on where they failed
        """
        self._failures[place] += 1
        if self._failures[place] == self.limit or self._failures.total() == self.total:
            raise error


class RequestCounts(Protocol):
    """The part of ``Loader`` that ``LossLimit`` needs."""

    settings: Settings
    trips: int
    lost: int


class LossLimit:
    """Ends a long read over a line that loses too many replies.

    A ROM answers one request of 4 or 64 bytes at a time, and each lost reply costs a whole timeout. Retrying repairs a
    good line; on a bad one the waiting would grow with the size of the read. So the number of lost replies is limited
    for the whole read: ``lost_replies`` at first, then a share of the requests. Counts from its creation; each read has
    one, which also covers its repetitions.
    """

    def __init__(self, loader: RequestCounts) -> None:
        self._loader, self._lost, self._trips = loader, loader.lost, loader.trips

    def check(self) -> None:
        """Stop if too many replies were lost.

        :raises NoReply: code ``line-too-bad``
        """
        policy = self._loader.settings.retry
        lost, trips = self._loader.lost - self._lost, self._loader.trips - self._trips
        if lost > policy.lost_replies + trips // policy.requests_per_lost_reply:
            raise NoReply(
                f"the connection is too unreliable: {lost:,} of {trips:,} requests were not answered",
                hint="Lower --baud, and check cable, hub and supply.",
                code="line-too-bad",
                lost=lost,
                requests=trips,
            )
