"""Follows a device whose port goes away with a reset: waits, opens it again, swaps the loader's link."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from espwire.device.loader import Loader
from espwire.device.reset_sequences import is_usb_jtag
from espwire.device.retry import Attempts
from espwire.errors import PortNotFound, TransportError, TransportLost
from espwire.events import Note, Report, Warned
from espwire.transport.base import CancelToken, Transport, TransportInfo

if TYPE_CHECKING:
    from espwire.transport.ports import Port

OPEN_PAUSE_S = 0.1
BACK_S = (
    5.0  # how long a device may stay away on its way into the loader; Windows takes a few seconds
)
BACK_AFTER_S = 3.0  # and on its way into the application, which may have no USB at all
GONE_S = 0.1  # after this long the system has noticed that a device left


def is_native_usb(info: TransportInfo) -> bool:
    """Whether the chip itself is the USB device, which goes away when it resets."""
    return info.kind == "usb-otg" or is_usb_jtag(info)


def open_port(
    port: Port, baud: int, limit: int = 1, cancel: CancelToken | None = None
) -> tuple[Port, Transport]:
    """Open a port; between attempts, look where the device is by now.

    :param limit: attempts; 0: without limit
    :raises TransportError: what the last attempt said
    """
    attempts = Attempts(limit)
    while True:
        try:
            return port, port.open(baud=baud, cancel=cancel)
        except TransportError as error:
            attempts.failed(error)
        with contextlib.suppress(PortNotFound):
            port = port.wait_back(OPEN_PAUSE_S, cancel=cancel)


class PortTracker:
    """The port of one device, for as long as somebody talks to it. ``port`` None: a bare link, which nobody can reopen.

    A link that was opened here is closed by whoever uses the loader. ``reset_low``: seconds of the enable pin pulled
    low after which the chip was heard to start, this session; None: it was not.
    """

    def __init__(
        self,
        port: Port | None = None,
        *,
        baud: int = 115200,
        cancel: CancelToken | None = None,
        report: Report,
    ) -> None:
        self.port, self.baud = port, baud
        self.reset_low: float | None = None
        self._cancel, self._report = cancel, report

    def reopen(
        self, loader: Loader, error: TransportLost | None = None, seconds: float = BACK_S
    ) -> None:
        """Put a new link to the same device under ``loader``.

        :param error: why; raised again where nothing can be reopened
        :raises PortNotFound: code ``port-not-back``
        :raises TransportError: it is back and cannot be opened
        """
        port = self.port
        if port is None or (error is not None and error.code == "write-timeout"):
            raise error or TransportLost(f"{loader.transport.info.name} cannot be opened again")
        name = loader.transport.info.name
        loader.transport.close()
        attempts = Attempts(loader.settings.retry.reopen_attempts)
        while True:
            port = port.wait_back(seconds, cancel=self._cancel)
            try:
                transport = port.open(baud=self.baud, cancel=self._cancel)
                break
            except TransportError as failure:  # its permissions may come a moment later
                attempts.failed(failure)
        self.port, loader.transport = port, transport
        loader.forget_input()
        if transport.info.name != name:
            self._report(
                Note(
                    text=f"the port went away with the reset and came back as {transport.info.name}"
                )
            )

    def settle(self, loader: Loader, error: TransportLost | None = None) -> None:
        """After a reset into the application: if the port is gone, wait for it and say what it is called now.

        What the chip had to do is done, so a port that stays away is a warning.
        """
        if error is None:
            try:
                loader.transport.read(GONE_S)
                return
            except TransportLost as lost:
                error = lost
        try:
            self.reopen(loader, error, BACK_AFTER_S)
        except TransportError as lost:
            who = loader.transport.info.name
            text = f"{who} went away with the reset, and is not back: the application may use no USB ({lost})"
            self._report(Warned(code="port-not-back", text=text))
