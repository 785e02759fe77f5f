"""A Link to a virtual chip, in simulated time: reading waits on the chip's clock, not on ours, unless it is paced."""

from __future__ import annotations

import time

from espwire.errors import TransportLost
from espwire.transport.base import CancelToken, TransportInfo
from espwire.virtual.build import build_chip
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import VirtualOptions, parse_options
from espwire.virtual.line import Wire

PACE_STEP_S = 0.05
LINE_DELAY_S = 0.001  # of a driver that changes the lines one by one: a control transfer each


class VirtualTransport:
    """The host's end of the wire. ``chip`` is the chip; ``pace`` True lets real time pass as simulated time does.

    ``start`` is what the clock shows at first, in seconds: for a chip that has lived before (``bus.py``).
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
        usb = chip.chip.usb
        pids = {"usb-jtag": usb.serial_jtag_product_id, "usb-otg": usb.otg_product_id}
        self.info = TransportInfo(
            name=name or f"virtual:{chip.chip.id}",
            kind="virtual" if options.kind == "uart" else options.kind,
            vid=None if has_baud else usb.vendor_id,
            pid=pids.get(options.kind),
            can_change_baud=has_baud,
        )
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
        """What has come, at least one byte; empty when ``timeout`` passes first. TransportLost, Cancelled."""
        self._check()
        wire, end = self.wire, self._now + timeout
        while not (data := wire.take(self._now)):
            due = wire.next_event()
            if due is None or due > end:
                self._pass(end)
                return wire.take(self._now)
            self._pass(due)
        return data

    def write(self, data: bytes, deadline: float) -> None:
        """Hand over all of ``data``; it is on its way when this returns. TransportLost, Cancelled."""
        self._check()
        if self.wire.sent_by > max(deadline, self._now):
            self._pass(max(deadline, self._now))
            raise TransportLost(
                f"{self.info.name} takes no more data", hint="The wire is slower than what is sent."
            )
        self.wire.send(self._now, data)

    def drain(self) -> None:
        """Wait until everything written has left."""
        self._check()
        if self.wire.sent_by > self._now:
            self._pass(self.wire.sent_by)

    def discard_input(self) -> None:
        """Forget what has come and was not read."""
        self.wire.advance(self._now)
        self.wire.take(self._now)

    def set_baud(self, baud: int) -> None:
        """Change the host's rate; nothing happens where the link has none."""
        self.wire.advance(self._now)
        self.wire.host_baud = baud

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
        """Seconds on this link's clock."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass on this link's clock. Cancelled."""
        self._check()
        self._pass(self._now + seconds)

    def close(self) -> None:
        """Close, and give the flash's contents to its file; a second time does nothing."""
        if self._open:
            self._open = False
            self.chip.flash.close()

    def _check(self, *, cancel: bool = True) -> None:
        if cancel:
            self._cancel.check()
        if not self._open:
            raise TransportLost(f"{self.info.name} is closed", hint="Open the port again.")

    def _pass(self, t: float) -> None:
        """Let the clock reach ``t``."""
        if self.pace:
            while (left := self._started + t - time.monotonic()) > 0:
                time.sleep(min(left, PACE_STEP_S))
                self._cancel.check()
        self._now = max(self._now, t)
        self.wire.advance(self._now)


def open_transport(options: VirtualOptions, cancel: CancelToken | None = None) -> VirtualTransport:
    """A new chip and the link to it.

    :raises UsageError: the options do not suit the chip
    :raises DataError: the flash file cannot be used
    """
    return VirtualTransport(build_chip(options), cancel=cancel)


def open_virtual(url: str, cancel: CancelToken | None = None) -> VirtualTransport:
    """A new chip and the link to it, from a URL such as ``virtual:esp32c3?size=4MB``.

    :raises UsageError: the URL makes no sense
    :raises DataError: the flash file cannot be used
    """
    return VirtualTransport(build_chip(parse_options(url)), name=url, cancel=cancel)
