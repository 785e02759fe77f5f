"""A Transport to a virtual chip, in simulated time, or in real time if it is paced."""

from __future__ import annotations

import time

from espwire.errors import TransportLost
from espwire.transport.base import CancelToken, TransportInfo
from espwire.virtual.build import build_chip
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import parse_options
from espwire.virtual.line import Wire

PACE_STEP_S = 0.05
LINE_DELAY_S = 0.001  # of a driver that changes lines one by one, by a control transfer each


class VirtualTransport:
    """The host's end of the wire. ``pace``: real time passes as simulated time does.

    ``start`` is the clock's initial value in seconds, for a chip that has run before (``usb_bus.py``).
    """

    def __init__(
        self,
        chip: VirtualChip,
        *,
        name: str = "",
        cancel: CancelToken | None = None,
        start: float = 0.0,
    ) -> None:
        options = chip.options
        has_baud = options.kind == "uart"
        self.info = describe_port(chip, name)
        self.chip = chip
        self.wire = Wire(chip, latency=options.latency, has_baud=has_baud)
        self.pace = options.pace
        self._cancel = cancel or CancelToken()
        self._now = start
        self._started = time.monotonic() - start
        self._one_by_one = "one-by-one" in options.quirk
        self._line_delay = options.line_delay or (LINE_DELAY_S if self._one_by_one else 0.0)
        self._dtr = self._rts = "open-asserts" in options.quirk
        self._open = True
        if self._dtr:
            self.wire.set_lines(self._now, dtr=True, rts=True)

    def read(self, timeout: float) -> bytes:
        """At least one received byte; empty at the timeout. TransportLost, Cancelled."""
        self._check()
        wire, end = self.wire, self._now + timeout
        while not (data := wire.take(self._now)):
            due = wire.next_event()
            if due is None or due > end:
                self._advance(end)
                return wire.take(self._now)
            self._advance(due)
        return data

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``; returns while it is on the wire. TransportLost, Cancelled."""
        self._check()
        if self.wire.sent_by > max(deadline, self._now):
            self._advance(max(deadline, self._now))
            raise TransportLost(
                f"{self.info.name} accepts no more data",
                hint="Raise --baud.",
                code="write-timeout",
            )
        self.wire.send(self._now, data)

    def drain(self) -> None:
        """Wait until everything has been sent."""
        self._check()
        if self.wire.sent_by > self._now:
            self._advance(self.wire.sent_by)

    def discard_input(self) -> None:
        """Discard received bytes."""
        self.wire.advance(self._now)
        self.wire.take(self._now)

    def set_baud(self, baud: int) -> None:
        """Change the host's baud rate; no effect on native USB."""
        self.wire.set_baud(self._now, baud)

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both at once; None leaves one as it is."""
        self._check(cancel=False)  # after a cancellation the lines must still be released
        if self._one_by_one and dtr is not None and rts is not None:
            self.set_lines(dtr=dtr)
            dtr = None
        self._dtr = self._dtr if dtr is None else dtr
        self._rts = self._rts if rts is None else rts
        if self._line_delay:
            self._now += self._line_delay
            self.wire.advance(self._now)
        self.wire.set_lines(self._now, dtr=self._dtr, rts=self._rts)

    def now(self) -> float:
        """The clock, in seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass. Cancelled."""
        self._check()
        self._advance(self._now + seconds)

    def close(self) -> None:
        """Close, and write the flash contents to the file. May be called again."""
        if self._open:
            self._open = False
            self.chip.flash.close()

    def _check(self, *, cancel: bool = True) -> None:
        if cancel:
            self._cancel.check()
        if not self._open:
            raise TransportLost(f"{self.info.name} is closed", hint="Open the port again.")

    def _advance(self, t: float) -> None:
        """Advance the clock to ``t``, in real time if paced."""
        if self.pace:
            while (left := self._started + t - time.monotonic()) > 0:
                self._cancel.sleep(min(left, PACE_STEP_S))
        self._now = max(self._now, t)
        self.wire.advance(self._now)


def describe_port(chip: VirtualChip, name: str = "") -> TransportInfo:
    """The description of the port of a virtual chip.

    :param name: the port's name; empty: ``virtual:`` and the chip's id
    """
    kind, usb = chip.options.kind, chip.chip.usb
    pids = {"usb-jtag": usb.serial_jtag_product_id, "usb-otg": usb.otg_product_id}
    return TransportInfo(
        name=name or f"virtual:{chip.chip.id}",
        kind="virtual" if kind == "uart" else kind,
        vid=None if kind == "uart" else usb.vendor_id,
        pid=pids.get(kind),
        can_change_baud=kind == "uart",
        warning=chip.warning,
    )


def open_virtual(url: str, cancel: CancelToken | None = None) -> VirtualTransport:
    """Build a chip from a URL such as ``virtual:esp32c3?size=4MB`` and connect to it.

    :raises UsageError: the URL is invalid
    :raises DataError: the flash file cannot be used
    """
    return VirtualTransport(build_chip(parse_options(url)), name=url, cancel=cancel)
