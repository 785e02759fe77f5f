"""Recognizes reset sequences in the line changes of a client, which arrive one by one and with the network's delays.

A sequence is recognized when it is complete, and not before: opening and closing a port, and single lines, are not resets.

=========================================================== ============ =================================================
DTR and RTS, as the client sets them one after the other    is           examples
=========================================================== ============ =================================================
RTS on with DTR off; [both;] DTR on with RTS off; both off  loader       esptool's and espwire's sequences into the loader
RTS on with DTR off; both off                               application  a hard reset, the key of a serial monitor
DTR on with RTS off; [both;] RTS on with DTR off; both off  loader       native USB only: its own sequence into the loader
anything else                                               nothing      opening with both lines on, closing, a REPL
=========================================================== ============ =================================================

"RTS on" must be requested while DTR is off, or be repeated then, as all these programs do: a client that turned both on
and then releases them one by one has not requested a reset.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Target = Literal["loader", "application"]
FORGET_S = 3.0  # without a request, a sequence has ended; the longest wait in one is 0.6 s, and the network adds to it
LONG_HOLD_S = 0.3  # holding the boot pin so long is meant for boards with a large capacitor
IDLE, RESET, BOOT, BOTH = (False, False), (False, True), (True, False), (True, True)  # DTR, RTS


@dataclass(frozen=True)
class ResetRequest:
    """A complete sequence. ``long``: the client held the boot pin longer than usual."""

    into: Target
    long: bool = False


@dataclass
class _Visit:
    """A state of both lines, and since when. ``pulled``: RTS was requested on in it while DTR was off."""

    state: tuple[bool, bool]
    since: float
    pulled: bool = False


class ResetDetector:
    """One client's line requests. ``lines``: DTR and RTS as requested last."""

    def __init__(self, *, native_usb: bool = False) -> None:
        self.native_usb = native_usb
        self.lines = IDLE
        self._visits: list[_Visit] = []
        self._last = float("-inf")

    def feed(
        self, now: float, *, dtr: bool | None = None, rts: bool | None = None
    ) -> ResetRequest | None:
        """Note one request; returns the sequence that it completes.

        :param now: seconds on any clock
        """
        if now > self._last + FORGET_S or not self._visits:
            self._visits = [_Visit(self.lines, now)]
        self._last = now
        self.lines = (
            self.lines[0] if dtr is None else dtr,
            self.lines[1] if rts is None else rts,
        )
        if self._visits[-1].state != self.lines:
            self._visits.append(_Visit(self.lines, now))
            del self._visits[:-4]
        if self.lines == RESET and rts:
            self._visits[-1].pulled = True
        found = self._find(now) if self.lines == IDLE else None
        if found is not None:
            self._visits = []
        return found

    def _find(self, now: float) -> ResetRequest | None:
        visits = self._visits[:-1]
        before = visits[-2:-1]
        if before and before[0].state == BOTH:
            before = visits[-3:-2]
        earlier = before[0] if before else _Visit(BOTH, now)
        last = visits[-1] if visits else earlier
        if last.state == BOOT and earlier.state == RESET and earlier.pulled:
            return ResetRequest("loader", long=now - last.since >= LONG_HOLD_S)
        if last.state == RESET and last.pulled:
            usb = self.native_usb and earlier.state == BOOT
            return ResetRequest("loader" if usb else "application")
        return None
