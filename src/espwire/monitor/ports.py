"""A port by its name alone, for what has no identity of its own: URLs, pseudo-terminals. Comes back by that name."""

from __future__ import annotations

import os
import time

from espwire.errors import PortNotFound
from espwire.link.base import CancelToken, Link
from espwire.link.url import open_link

LOOK_S = 0.05


class NamedPort:
    """Opens ``name``; after a loss, waits until something has that name again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_path = os.name == "posix" and "://" not in name and not name.lower().startswith("virtual:")

    def open(self, *, baud: int = 115200, cancel: CancelToken | None = None) -> Link:
        """Open it.

        :raises LinkError: it cannot be opened
        """
        return open_link(self.name, baud=baud, cancel=cancel)

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> NamedPort:
        """Wait until there is something to open; for what cannot be looked at, at once.

        :raises PortNotFound: there is nothing after ``seconds``
        """
        end = time.monotonic() + seconds
        while self._is_path and not os.path.exists(self.name):
            if cancel is not None:
                cancel.check()
            if time.monotonic() >= end:
                raise PortNotFound(f"there is no port {self.name}")
            time.sleep(LOOK_S)
        return self
