"""Ends a long read over a line that loses too many answers.

A ROM answers one request of 4 or 64 bytes at a time, and each lost answer costs a whole time-out. Trying each request
again repairs a good line; on a bad one the waiting would grow without bound with the size of the read. So the answers
that may be lost are limited for the whole read: some at first, then a share of the requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.errors import NoReply

if TYPE_CHECKING:
    from espwire.device.loader import Loader

FREE = 30  # lost answers that are tolerated in any case
REQUESTS_PER_LOSS = 50


class LossLimit:
    """Counts from its creation. Each read has one, which also covers its repetitions."""

    def __init__(self, loader: Loader) -> None:
        self._loader, self._lost, self._trips = loader, loader.lost, loader.trips

    def check(self) -> None:
        """Stop if too many answers were lost.

        :raises NoReply: code ``line-too-bad``
        """
        lost, trips = self._loader.lost - self._lost, self._loader.trips - self._trips
        if lost > FREE + trips // REQUESTS_PER_LOSS:
            raise NoReply(
                f"the line is too bad to read: {lost:,} of {trips:,} requests were not answered",
                hint="Lower --baud, and check cable, hub and supply.",
                code="line-too-bad",
                lost=lost,
                requests=trips,
            )
