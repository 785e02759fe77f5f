"""The board between the host's DTR and RTS and the chip's pins: reset circuits, the capacitor at EN, buttons.

Lines: True is asserted. Pins: True is pulled low. A circuit maps the state of the lines to the pins. :class:`Board` adds
the timing: EN must be low for a while to reset the chip, rises slowly, and the strapping pins are sampled when it has
risen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espwire.virtual.scheduler import EventQueue

RC_DELAY_S = 0.002  # from releasing EN to sampling the straps: 10 kOhm and 0.1 to 1 uF
MIN_RESET_S = 0.005  # a shorter pulse does not discharge that capacitor


@dataclass(frozen=True)
class Circuit:
    """A reset circuit. ``pull(dtr, rts, boot_low)`` returns which pins the lines pull low: EN, the boot pin.

    ``resets_at_once``: EN is not a pin with a capacitor but a request inside the chip. ``connected`` False: the board has
    only buttons.
    """

    pull: Callable[[bool, bool, bool], tuple[bool, bool]]
    resets_at_once: bool = False
    connected: bool = True


CIRCUITS: Mapping[str, Circuit] = {
    # DTR to the boot pin, RTS to EN, each by its own transistor: both asserted hold the chip in reset
    "direct": Circuit(lambda dtr, rts, boot_low: (rts, dtr)),
    # the usual two transistors: a line pulls its pin only if the other line does not, so both together do nothing
    "transistor": Circuit(lambda dtr, rts, boot_low: (rts and not dtr, dtr and not rts)),
    # how the USB-Serial/JTAG unit interprets the lines (its technical reference: CDC-ACM control lines): DTR alone makes
    # the next reset enter the loader, RTS alone resets, both together do nothing, neither clears the mark
    "usb-jtag": Circuit(
        lambda dtr, rts, boot_low: (rts and not dtr, boot_low if rts else dtr), resets_at_once=True
    ),
    "none": Circuit(lambda dtr, rts, boot_low: (False, False), connected=False),
}


class Board:
    """EN and the boot pin over time, with two buttons parallel to the circuit.

    ``hold`` is called when the chip enters reset, ``start`` when EN has risen again, ``usb_reset`` when the chip's own
    USB requests a reset. ``driven``: whether anything has pulled a pin yet.
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
        self.en_low = self._boot_pulled = False  # by the circuit
        self.driven = False
        self._queue = queue
        self._hold, self._start, self._usb_reset = hold, start, usb_reset
        self._reset_button = self._boot_button = False
        self._en_was_low = False
        self._in_reset = False
        self._changes = 0  # of EN: a delayed action is outdated if there was another change

    @property
    def boot_low(self) -> bool:
        """Whether the boot pin is pulled low."""
        return self._boot_pulled or self._boot_button

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """The host sets its modem lines."""
        requested = self.en_low
        self.en_low, self._boot_pulled = self.circuit.pull(dtr, rts, self._boot_pulled)
        self.driven = self.driven or self.circuit.connected
        if self.circuit.resets_at_once and self.en_low and not requested:
            self._usb_reset()
        self._update()

    def set_buttons(self, *, boot: bool | None = None, reset: bool | None = None) -> None:
        """Press (True) or release (False) a button; None leaves it."""
        self._boot_button = self._boot_button if boot is None else boot
        self._reset_button = self._reset_button if reset is None else reset
        self.driven = True
        self._update()

    def _update(self) -> None:
        low = self._reset_button or (self.en_low and not self.circuit.resets_at_once)
        if low is self._en_was_low:
            return
        self._en_was_low = low
        self._changes += 1
        change = self._changes
        if low:
            self._after(MIN_RESET_S, change, self._enter_reset)
        elif self._in_reset:
            self._after(self.rc, change, self._leave_reset)

    def _after(self, seconds: float, change: int, action: Callable[[], None]) -> None:
        self._queue.at(
            self._queue.now + seconds, lambda: action() if change == self._changes else None
        )

    def _enter_reset(self) -> None:
        self._in_reset = True
        self._hold()

    def _leave_reset(self) -> None:
        self._in_reset = False
        self._start()
