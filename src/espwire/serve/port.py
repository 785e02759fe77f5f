"""A served port: the transport behind it, its modem lines, and the time after it has disappeared.

Line changes of a client are not passed on one by one: over a network their distances are arbitrary, and a state that was
meant to last microseconds would last a round trip and start the wrong program. They are collected until

* they are a complete reset sequence (``resets.py``): then the port's own sequence is played, with exact timing; or
* the client sends data, or changes nothing for ``SETTLE_S``: then the lines are set as they are by then, in one step.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from espwire.device.enter_bootloader import plan_sequences
from espwire.device.reconnect import is_native_usb
from espwire.device.reset import find_hard_reset
from espwire.device.reset_sequences import (
    Sequence,
    is_usb_jtag,
    needs_flow_control,
    parse_sequence,
    play,
)
from espwire.errors import Cancelled, TransportError, TransportLost, UsageError
from espwire.serve.problem_log import ProblemLog
from espwire.serve.resets import ResetDetector, ResetRequest
from espwire.settings import Settings
from espwire.transport import telnet
from espwire.transport.base import LineControls, Transport
from espwire.transport.rfc2217_server import ServedPort

SETTLE_S = 0.4  # longer than the waits in reset sequences except the last
REOPEN_S = 0.25  # between two attempts
WRITE_S = 10.0
SLICE_S = 0.02  # of the line's time: what is written at once, so that reading never waits long
LEAST_SLICE = 64
LONGEST_SEQUENCE_S = 10.0
USB_BYTES = 16384  # written at once where there is no baud rate
FIRST_BAUD = 115200


class TransportPort(ServedPort):
    """A port of this computer, or one that this computer can reach.

    ``lost_at``: since when it is away, None: it is open. ``due``: when pending line changes are applied.

    :param opener: opens the transport, at first and again after it disappeared
    :param note: called with a line for the log
    :param long_reset: use the long reset sequence always (``--r0``)
    """

    def __init__(
        self,
        name: str,
        opener: Callable[[int], Transport],
        *,
        settings: Settings,
        note: Callable[[str], None],
        long_reset: bool = False,
    ) -> None:
        self.name, self._opener, self._settings, self._note = name, opener, settings, note
        self._losses, self._loss_logged = ProblemLog(note), False
        self._long_reset = long_reset
        self.transport = opener(FIRST_BAUD)
        self.info = self.transport.info
        self.baud = FIRST_BAUD
        self.lost_at: float | None = None
        self.due: float | None = None
        self.pending = b""  # of the client's data
        self._detector = self._build_detector()
        self._applied: tuple[bool | None, bool | None] = (False, False)
        self._try_at = 0.0
        self._sends_break = False
        self._missing: set[str] = set()

    @property
    def away(self) -> bool:
        """Whether the port has disappeared and is not back yet."""
        return self.lost_at is not None

    def begin(self) -> None:
        """A client has taken the port: nothing of the last client is left."""
        self._detector = self._build_detector()
        self.pending, self.due = b"", None
        self.discard_input()

    def end(self) -> None:
        """The client has left: release both lines, in one step, and end a break."""
        self.due, self.pending = None, b""
        self.dtr = self.rts = False
        if self.set_break(None):
            self.set_break(False)
        if self._applied != (False, False):
            self._guard(self._apply)

    def set_baud(self, baud: int) -> None:
        """Change the rate after everything before it has been sent; an unsupported rate changes nothing."""
        if self.away:
            return
        try:
            self.transport.drain()
            self.transport.set_baud(baud)
        except TransportLost as error:
            self._lose(error)
        except TransportError as error:  # the rate is refused
            self._note(f"{self.name}: {error}")
            self._guard(lambda: self.transport.set_baud(self.baud))
        else:
            self.baud = baud

    def request_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Collect line changes; play a sequence when it is complete."""
        now = time.monotonic()
        found = self._detector.feed(now, dtr=dtr, rts=rts)
        self.dtr, self.rts = self._detector.lines
        if found is not None:
            self.due = None
            self._guard(lambda: self._reset(found))
        elif (self.dtr, self.rts) != self._applied:
            self.due = now + SETTLE_S
        else:
            self.due = None

    def settle(self, *, force: bool = False) -> None:
        """Apply line changes that are due, or all of them: data follows."""
        if self.due is not None and (force or time.monotonic() >= self.due):
            self.due = None
            self._guard(self._apply)

    def play_text(self, text: str) -> bytes:
        """Play a sequence that a client sent as a whole; returns the answer: empty, or why it was not played."""
        if self.away:
            return b"port-not-found\0the port is away"
        try:
            steps = parse_sequence(text)
        except UsageError as error:
            return b"bad-request\0" + str(error).encode("utf-8", "replace")
        if sum(step.wait for step in steps) > LONGEST_SEQUENCE_S:
            return b"bad-request\0the sequence takes longer than 10 seconds"
        self.due = None
        self._note(f"{self.name}: reset sequence {text}")
        self._guard(lambda: self._play(steps))
        for step in steps:
            self.dtr = self.dtr if step.dtr is None else step.dtr
            self.rts = self.rts if step.rts is None else step.rts
        self._detector = self._build_detector()
        self._detector.lines = self._applied = (self.dtr, self.rts)
        return b""

    def discard_input(self) -> None:
        """Discard what the device has sent."""
        self._guard(self.transport.discard_input)

    def discard_output(self) -> None:
        """Discard the client's data that has not been written."""
        self.pending = b""

    def set_format(self, option: int, value: int) -> int:
        """Set data bits, parity or stop bits, where the port can."""
        controls = self.transport
        if not isinstance(controls, LineControls):
            return super().set_format(option, value)
        return self._ask(lambda: controls.set_format(option, value), value)

    def set_flow_control(self, value: int) -> int:
        """Set the flow control, where the port can."""
        controls = self.transport
        if isinstance(controls, LineControls):
            return self._ask(lambda: controls.set_flow_control(value), value)
        if value not in (telnet.FLOW_STATE, telnet.NO_FLOW_CONTROL):
            self._note_missing("flow control")
        return telnet.NO_FLOW_CONTROL

    def set_break(self, on: bool | None) -> bool:
        """Begin or end a break; a port that cannot is noted once."""
        controls = self.transport
        if on is not None and isinstance(controls, LineControls):
            self._sends_break = bool(self._ask(lambda: controls.set_break(on=on), 0))
        if on and not self._sends_break:
            self._note_missing("break signals")
        return self._sends_break

    def read_modem_state(self) -> int:
        """The signals. A port without them reports DSR and DCD while it is there."""
        if self.away:
            return 0
        transport = self.transport
        state = transport.read_modem_state() if isinstance(transport, LineControls) else None
        return telnet.DSR | telnet.DCD if state is None else state

    def describe(self) -> str:
        """The server's signature, on request."""
        return f"espwire serve-port {self.name}"

    def read(self) -> bytes:
        """What the device has sent; never waits."""
        if self.away:
            return b""
        try:
            return self.transport.read(0.0)
        except TransportError as error:
            self._lose(error)
            return b""

    def write_some(self) -> None:
        """Write a part of ``pending``: as much as takes about 20 ms on the line."""
        if self.away or not self.pending:
            return
        size = max(LEAST_SLICE, int(self.baud / 10 * SLICE_S))
        size = size if self.info.can_change_baud else USB_BYTES
        piece, self.pending = self.pending[:size], self.pending[size:]
        self._guard(lambda: self.transport.write(piece, self.transport.now() + WRITE_S))

    def reopen(self) -> bool:
        """If the port is away, try to open it now and then; whether it has come back."""
        now = time.monotonic()
        if self.lost_at is None or now < self._try_at:
            return False
        self._try_at = now + REOPEN_S
        try:
            self.transport = self._opener(self.baud)
        except TransportError:
            return False
        if self._loss_logged:
            self._note(f"{self.name}: back after {now - self.lost_at:.1f} s")
        self.info, self.lost_at = self.transport.info, None
        self._applied = (False, False)
        self._detector.native_usb = is_usb_jtag(self.info)
        return True

    def close(self) -> None:
        """Close the transport."""
        if not self.away:
            self.transport.close()

    def _reset(self, found: ResetRequest) -> None:
        """Play this port's own sequence into the loader or the application."""
        info = self.info
        if not info.can_reset:
            self._note_missing("resets")
            return
        if found.into == "application":
            name, steps = find_hard_reset(info, self._settings.custom_hard_reset_sequence)
        else:
            sequences = plan_sequences(info, "default-reset", self._settings)
            long = found.long or self._long_reset
            chosen = sequences[min(1, len(sequences) - 1)] if long else sequences[0]
            name, steps = chosen.name, chosen.steps
        self._note(f"{self.name}: reset into the {found.into} ({name})")
        self._play(steps)
        self._applied = (needs_flow_control(info), False)

    def _play(self, steps: Sequence) -> None:
        if is_native_usb(self.info):
            try:
                play(self.transport, steps)
            except TransportLost as error:  # the chip leaves the bus with the reset
                self._lose(error)
        else:
            play(self.transport, steps)

    def _apply(self) -> None:
        self._applied = (self.dtr, self.rts)
        self.transport.set_lines(dtr=self.dtr, rts=self.rts)

    def _guard(self, act: Callable[[], object]) -> None:
        """Do something with the transport; if it is gone, the port is away from now on."""
        if self.away:
            return
        try:
            act()
        except Cancelled:
            raise
        except TransportError as error:
            self._lose(error)

    def _ask(self, ask: Callable[[], int], value: int) -> int:
        if self.away:
            return value
        try:
            return ask()
        except TransportError as error:
            self._lose(error)
            return value

    def _lose(self, error: TransportError) -> None:
        if self.away:
            return
        self.lost_at = time.monotonic()
        self._try_at = self.lost_at + REOPEN_S
        self.due, self.dtr, self.rts = None, False, False
        text = f"{self.name}: {error}; waiting for it to come back"
        self._loss_logged = self._losses.log(self.name, error.code, text)
        self.transport.close()

    def _note_missing(self, what: str) -> None:
        if what not in self._missing:
            self._missing.add(what)
            self._note(f"{self.name}: this port does not support {what}")

    def _build_detector(self) -> ResetDetector:
        return ResetDetector(native_usb=is_usb_jtag(self.info))
