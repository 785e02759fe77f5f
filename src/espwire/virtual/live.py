"""A transport to a virtual chip whose time follows the real clock, for a server whose clients are other programs."""

from __future__ import annotations

import time

from espwire.errors import TransportLost
from espwire.transport.base import CancelToken
from espwire.virtual.build import build_chip
from espwire.virtual.config import parse_options
from espwire.virtual.server import Bench, load_models
from espwire.virtual.transport import describe_port

STEP_S = 0.001
ROOM_S = 0.01  # until the line has room again


class LiveTransport:
    """A virtual chip in real time. ``changes``: each change of both lines with its time on ``now``'s clock."""

    def __init__(self, url: str, cancel: CancelToken) -> None:
        options = parse_options(url)
        load_models()
        chip = build_chip(options)
        self.bench = Bench(chip, has_baud=True)
        self.changes: list[tuple[float, bool, bool]] = []
        self._cancel, self._inbox, self._open = cancel, bytearray(), True
        self._dtr = self._rts = False
        self.info = describe_port(chip, url)

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``."""
        deadline = self.now() + timeout
        while True:
            self._check()
            self._inbox += self.bench.exchange(b"")
            left = deadline - self.now()
            if self._inbox or left <= 0:
                data = bytes(self._inbox)
                self._inbox.clear()
                return data
            time.sleep(min(left, STEP_S))

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``; waits while the line has no room."""
        self._check()
        while not self.bench.has_room:
            if self.now() >= deadline:
                raise TransportLost(f"{self.info.name} accepts no more data", code="write-timeout")
            self.sleep(ROOM_S)
        self._inbox += self.bench.exchange(data)

    def drain(self) -> None:
        """Wait until everything has been sent."""
        while self.bench.wire.sent_by > self.bench.read_clock():
            self.sleep(ROOM_S)

    def discard_input(self) -> None:
        """Discard what the chip has sent."""
        self._inbox.clear()
        self.bench.discard()

    def set_baud(self, baud: int) -> None:
        """Change the host's baud rate; no effect on native USB."""
        self.bench.baud = baud

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both at once."""
        self._dtr = self._dtr if dtr is None else dtr
        self._rts = self._rts if rts is None else rts
        self._inbox += self.bench.exchange(b"")
        self.changes.append((self.now(), self._dtr, self._rts))
        self.bench.wire.set_lines(self.bench.read_clock(), dtr=self._dtr, rts=self._rts)

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass; the chip runs meanwhile."""
        deadline = self.now() + seconds
        while (left := deadline - self.now()) > 0:
            self._check()
            self._inbox += self.bench.exchange(b"")
            time.sleep(min(left, STEP_S))

    def close(self) -> None:
        """Close, and write the flash contents to the file; closing it again has no effect."""
        if self._open:
            self._open = False
            self.bench.chip.flash.close()

    def _check(self) -> None:
        self._cancel.check()
        if not self._open:
            raise TransportLost(f"{self.info.name} is closed", hint="Open the port again.")
