"""A serial port of the web page as a ``Port``: the device itself, which may come back as another port of the browser."""

from __future__ import annotations

import time

from espwire.transport.base import CancelToken, Transport
from espwire.transport.ports import BAUD, PortIdentity, not_back
from espwire.transport.webserial import find_browser, open_webserial, wait_for

FIND_S = 0.2  # between two searches for a port that has gone
CLICK_S = 60.0  # for the user to choose it


class WebSerialPort:
    """A port of the page. It is back when the page finds the same device, or the user has chosen its new port."""

    def __init__(self, name: str) -> None:
        self.identity = PortIdentity(path=name)

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open the port.

        :raises PortNotFound, PortBusy: it cannot be opened
        """
        return open_webserial(self.identity.path, baud, cancel or CancelToken())

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> WebSerialPort:
        """Wait until the page has the port; longer than ``seconds`` if the user has to choose it.

        :raises PortNotFound: code ``port-not-back``
        """
        browser, cancel = find_browser(), cancel or CancelToken()
        seconds = max(seconds, CLICK_S)
        end = time.monotonic() + seconds
        while not wait_for(browser.call("find", self.identity.path.partition(":")[2])).ok:
            if time.monotonic() >= end:
                raise not_back(self.identity, seconds)
            cancel.sleep(FIND_S)
        return self
