"""What a loader needs from a port. A link owns its time, so tests can own time too. No port is opened here."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Literal, Protocol

from espwire.errors import Cancelled

TransportKind = Literal["uart", "usb-jtag", "usb-otg", "tcp", "virtual"]


@dataclass(frozen=True, kw_only=True)
class TransportInfo:
    """Who the port is, as far as the operating system tells. ``remote``: behind a server, which tells nothing of it."""

    name: str
    kind: TransportKind
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    can_reset: bool = True
    can_change_baud: bool = True
    remote: bool = False


class CancelToken:
    """Set it from any thread; links raise ``Cancelled`` at their next read, write or sleep."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def cancel(self) -> None:
        """Ask every operation that holds this token to stop."""
        self._event.set()

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked."""
        return self._event.is_set()

    def sleep(self, seconds: float) -> None:
        """Let real time pass; raise ``Cancelled`` as soon as somebody asks."""
        self._event.wait(seconds)
        self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` if somebody asked."""
        if self._event.is_set():
            raise Cancelled("stopped on request")


class Transport(Protocol):
    """Seven methods and a clock. Baud as int, times in seconds."""

    info: TransportInfo

    def read(self, timeout: float) -> bytes:
        """What has come, at least one byte; empty when ``timeout`` passes first. TransportLost, Cancelled."""

    def write(self, data: bytes, deadline: float) -> None:
        """Hand over all of ``data`` by ``deadline`` on this link's clock. TransportLost, Cancelled."""

    def drain(self) -> None:
        """Wait until everything written has left."""

    def discard_input(self) -> None:
        """Forget what has come and was not read."""

    def set_baud(self, baud: int) -> None:
        """Change the host's rate; nothing happens where the link has none."""

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both at once where the system can; None leaves one as it is."""

    def now(self) -> float:
        """Seconds on this link's clock."""

    def sleep(self, seconds: float) -> None:
        """Let time pass on this link's clock. Cancelled."""

    def close(self) -> None:
        """Close; a second time does nothing."""
