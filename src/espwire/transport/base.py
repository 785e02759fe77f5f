"""The ``Transport`` protocol: what a loader needs from a port, with the clock that all its timeouts use."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from espwire.errors import Cancelled

TransportKind = Literal["uart", "usb-jtag", "usb-otg", "tcp", "virtual"]


@dataclass(frozen=True, kw_only=True)
class TransportInfo:
    """What is known about the port. ``remote``: it belongs to a server, so the adapter behind it is unknown.

    ``round_trip``: seconds until an answer comes over the network, on top of what a local port takes.
    ``warning``: what the user should know before the port is used.
    """

    name: str
    kind: TransportKind
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    can_reset: bool = True
    can_change_baud: bool = True
    remote: bool = False
    round_trip: float = 0.0
    warning: str = ""


class CancelToken:
    """Stops a running operation from any thread: its transport raises ``Cancelled`` at the next read, write or sleep."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Stop every operation that uses this token."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether ``cancel`` was called."""
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        """Let real time pass.

        :raises Cancelled: as soon as ``cancel`` is called
        """
        self._event.wait(seconds)
        self.check()

    def check(self) -> None:
        """
        :raises Cancelled: ``cancel`` was called
        """
        if self._event.is_set():
            raise Cancelled("stopped on request")


class Transport(Protocol):
    """A byte stream to a chip, with modem lines, baud rate and clock. Times are seconds; virtual chips simulate them.

    All methods that can wait raise ``TransportLost`` and ``Cancelled``.
    """

    info: TransportInfo

    def read(self, timeout: float) -> bytes:
        """Return received bytes, at least one; empty if nothing arrives within ``timeout``."""

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``; fail at ``deadline`` on this transport's clock."""

    def drain(self) -> None:
        """Wait until everything written has been sent."""

    def discard_input(self) -> None:
        """Discard received bytes that were not read."""

    def set_baud(self, baud: int) -> None:
        """Change the baud rate of the host's side, if there is one."""

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both at once where the system can; None leaves a line unchanged."""

    def now(self) -> float:
        """Seconds on this transport's clock."""

    def sleep(self, seconds: float) -> None:
        """Let time pass on this transport's clock."""

    def close(self) -> None:
        """Close the port; closing it again has no effect."""


@runtime_checkable
class SequencePlayer(Protocol):
    """A transport whose other end plays a whole reset sequence, so that the network does not change its timing."""

    def play_sequence(self, text: str, seconds: float) -> None:
        """Play a sequence and wait until it ends.

        :param text: as for ``device.reset_sequences.parse_sequence``
        :param seconds: how long it takes
        """


@runtime_checkable
class LineControls(Protocol):
    """What some ports can do besides the methods of ``Transport``; the values are those of RFC 2217 (``telnet.py``)."""

    def set_format(self, option: int, value: int) -> int:
        """Set data bits, parity or stop bits; 0 changes nothing. Returns what is in use."""

    def set_flow_control(self, value: int) -> int:
        """Set the flow control; 0 changes nothing. Returns what is in use."""

    def set_break(self, *, on: bool) -> bool:
        """Begin or end a break. Returns whether one is being sent."""

    def read_modem_state(self) -> int | None:
        """The signals CTS, DSR, RI and DCD as bits; None: the port has none."""
