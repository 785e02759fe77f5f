"""Reopens the port of a device that a reset takes away, and gives the loader the new transport."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from espwire.device.loader import Attempts, Loader
from espwire.device.reset_sequences import is_usb_jtag
from espwire.errors import PortNotFound, TransportError, TransportLost
from espwire.events import Note, Report, Warned
from espwire.transport.base import CancelToken, Transport, TransportInfo

if TYPE_CHECKING:
    from espwire.transport.ports import Port

OPEN_PAUSE_S = 0.1
BACK_S = 5.0  # for a device to come back in its bootloader; Windows takes a few seconds
BACK_AFTER_S = 3.0  # for a device to come back in its application, which may have no USB at all
GONE_S = 0.1  # for the system to notice that a device has left


def is_native_usb(info: TransportInfo) -> bool:
    """Whether the chip itself is the USB device, which goes away when it resets."""
    return info.kind == "usb-otg" or is_usb_jtag(info)


def open_port(
    port: Port, baud: int, limit: int = 1, cancel: CancelToken | None = None
) -> tuple[Port, Transport]:
    """Open a port; between attempts, look where the device is by now.

    :param limit: attempts; 0: without limit
    :raises TransportError: the error of the last attempt
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
    """The port of one device during a session. ``port`` None: the caller passed an open transport, which cannot be reopened.

    The user of the loader closes the transport. ``reset_low``: seconds of low level at the enable pin that are known to
    have reset this board; None: not known.
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
        self.output = b""  # of the application, received while a reset was observed
        self._cancel, self._report = cancel, report

    def reopen(
        self, loader: Loader, error: TransportLost | None = None, seconds: float = BACK_S
    ) -> None:
        """Give ``loader`` a new transport to the same device.

        :param error: the reason; raised again if the port cannot be reopened
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
                    text=f"the port disappeared with the reset and came back as {transport.info.name}"
                )
            )

    def settle(self, loader: Loader, error: TransportLost | None = None) -> None:
        """After a reset into the application: if the port is gone, wait for it and report its new name.

        The work is done, so a port that stays away is only a warning.
        """
        if error is None:
            try:
                self.output += loader.transport.read(GONE_S)
                return
            except TransportLost as lost:
                error = lost
        try:
            self.reopen(loader, error, BACK_AFTER_S)
        except TransportError as lost:
            who = loader.transport.info.name
            text = f"{who} disappeared with the reset and did not come back: the application may not use USB ({lost})"
            self._report(Warned(code="port-not-back", text=text))
