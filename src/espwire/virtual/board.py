"""What stands between the host's DTR and RTS and a chip's pins: circuits, the capacitor at EN, buttons. No boot texts.

Lines: True is asserted. Pins: True is pulled low. Two parts: a circuit says which pins a state of the lines pulls; a
:class:`Front` gives that its time: EN must be low for a while to reset, and rises slowly, and the straps are read when
it has risen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from espwire.virtual.scheduler import EventQueue

RC_DELAY_S = (
    0.002  # from EN released to straps sampled, with the usual capacitor: 10 kOhm and 0.1 to 1 uF
)
MIN_RESET_S = 0.005  # a shorter pulse does not empty that capacitor


class Circuit(Protocol):
    """One way of wiring. ``resets_at_once``: EN is no pin with a capacitor, but a request inside the chip."""

    resets_at_once: bool
    en_low: bool
    boot_low: bool

    def set(self, *, dtr: bool, rts: bool) -> None:
        """The lines are now so."""


class Direct:
    """DTR to the boot pin, RTS to EN, each by its own transistor: both asserted hold the chip in reset."""

    resets_at_once = False

    def __init__(self) -> None:
        self.en_low = self.boot_low = False

    def set(self, *, dtr: bool, rts: bool) -> None:
        """Each line pulls its pin."""
        self.en_low, self.boot_low = rts, dtr


class Transistor(Direct):
    """The usual two transistors: each line pulls its pin only if the other does not, so both together do nothing."""

    def set(self, *, dtr: bool, rts: bool) -> None:
        """One line alone pulls its pin."""
        self.en_low, self.boot_low = rts and not dtr, dtr and not rts


class UsbJtag(Direct):
    """The lines as the USB-Serial/JTAG unit takes them (its technical reference: CDC-ACM control lines).

    DTR alone marks the next reset as one into the loader, RTS alone resets, both together do nothing, none clears the
    mark. ``boot_low`` is the mark.
    """

    resets_at_once = True

    def set(self, *, dtr: bool, rts: bool) -> None:
        """A request to reset, a mark, or neither."""
        self.en_low = rts and not dtr
        if not rts:
            self.boot_low = dtr


class Unwired(Direct):
    """No line reaches the chip; there are only buttons."""

    def set(self, *, dtr: bool, rts: bool) -> None:
        """Nothing."""


CIRCUITS: Mapping[str, Callable[[], Circuit]] = {
    "direct": Direct,
    "transistor": Transistor,
    "usb-jtag": UsbJtag,
    "none": Unwired,
}


class Front:
    """EN and the boot pin over time, with two buttons beside the circuit.

    ``hold`` is called when the chip goes into reset, ``start`` when EN has risen again, ``usb_reset`` when the chip's
    own USB asks for a reset. ``driven``: whether anything has pulled a pin yet.
    """

    def __init__(
        self,
        circuit: Circuit,
        queue: EventQueue,
        *,
        rc: float,
        hold: Callable[[], None],
        start: Callable[[], None],
        usb_reset: Callable[[], None],
    ) -> None:
        self.circuit, self.rc = circuit, rc
        self.driven = False
        self._agenda = queue
        self._hold, self._start, self._usb_reset = hold, start, usb_reset
        self._reset_button = self._boot_button = False
        self._en_was_low = False
        self._in_reset = False
        self._changes = 0  # counts changes of EN, so that a delayed one can see that it is outdated

    @property
    def boot_low(self) -> bool:
        """Whether the boot pin is pulled low now."""
        return self.circuit.boot_low or self._boot_button

    def lines(self, *, dtr: bool, rts: bool) -> None:
        """The host's lines are now so."""
        requested = self.circuit.en_low
        self.circuit.set(dtr=dtr, rts=rts)
        self.driven = self.driven or not isinstance(self.circuit, Unwired)
        if self.circuit.resets_at_once and self.circuit.en_low and not requested:
            self._usb_reset()
        self._look()

    def buttons(self, *, boot: bool | None = None, reset: bool | None = None) -> None:
        """Press (True) or let go (False) of a button; None leaves it."""
        self._boot_button = self._boot_button if boot is None else boot
        self._reset_button = self._reset_button if reset is None else reset
        self.driven = True
        self._look()

    def _look(self) -> None:
        low = self._reset_button or (self.circuit.en_low and not self.circuit.resets_at_once)
        if low is self._en_was_low:
            return
        self._en_was_low = low
        self._changes += 1
        change = self._changes
        if low:
            self._after(MIN_RESET_S, change, self._down)
        elif self._in_reset:
            self._after(self.rc, change, self._up)

    def _after(self, seconds: float, change: int, action: Callable[[], None]) -> None:
        self._agenda.at(
            self._agenda.now + seconds, lambda: action() if change == self._changes else None
        )

    def _down(self) -> None:
        self._in_reset = True
        self._hold()

    def _up(self) -> None:
        self._in_reset = False
        self._start()
