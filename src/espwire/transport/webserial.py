"""A transport over the browser's Web Serial, for Python in a Web Worker (Pyodide).

The port itself stays in the page, because only the page may ask the user for one, and because a worker cannot
distinguish two boards with equal USB ids. The page (`web/serial.mjs`) opens it, reads it and sends the bytes here;
`web/worker.mjs` is the JavaScript module ``espwire_browser`` that connects both sides. ``run_sync`` waits for its
promises.

Rules that Web Serial imposes, and who keeps them:

* A change of rate closes and opens the port, which may reset the board. The page does it only if the rate differs.
* Both lines are always set in one call, since the time between two calls can be a reset (here).
* Overrun, framing, parity and break end the stream, not the port: the page takes a new reader, and what is missing here
  is sent again by the loader as after any loss. Only a disconnected device is a loss (``TransportLost``).
* Closing the transport leaves the port open in the page: to close and open it would move the lines. "Disconnect" closes it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from espwire.errors import (
    Cancelled,
    PortBusy,
    PortNotFound,
    TransportError,
    TransportLost,
    Unsupported,
    UsageError,
)
from espwire.transport.base import CancelToken, TransportInfo
from espwire.transport.serial import kind_of

PAUSE_S = 0.05  # between two looks at the page's messages
SLICE_S = 0.25  # one wait for data; after it the cancel token is checked
DRAIN_S = 0.02  # of a USB bridge's own buffer, which Web Serial cannot query
MARGIN_S = 0.05

Value = TypeVar("Value")
Wait = Callable[[Awaitable[Value]], Value]


class Browser(Protocol):
    """The module ``espwire_browser`` of web/worker.mjs. Times are milliseconds.

    ``call`` runs an operation on the port in the page and returns an object with ``ok``, ``value``, ``name``, ``message``.
    """

    def emit(self, line: str) -> None: ...
    def cancelled(self) -> bool: ...
    def typed(self) -> str: ...
    def pause(self, milliseconds: float) -> Awaitable[None]: ...
    def call(self, operation: str, *arguments: object) -> Awaitable[Any]: ...
    def receive(self, milliseconds: float) -> Awaitable[Any]: ...
    def take(self) -> Any: ...
    def lost(self) -> str: ...


def find_browser() -> Browser:
    """The browser that Python runs in.

    :raises UsageError: code ``no-browser``
    """
    try:
        import espwire_browser
    except ImportError:
        raise UsageError(
            "Web Serial ports exist only in the web page",
            hint="Run `espwire web`, or name a serial port such as /dev/ttyUSB0.",
            code="no-browser",
        ) from None
    browser: Browser = espwire_browser
    return browser


def wait_for(promise: Awaitable[Value]) -> Value:
    """The value of a promise; meanwhile the worker receives messages."""
    from pyodide.ffi import run_sync

    value: Value = run_sync(promise)
    return value


def can_wait() -> bool:
    """Whether the browser can suspend Python: it has JavaScript Promise Integration."""
    from pyodide.ffi import can_run_sync

    return bool(can_run_sync())


class BrowserCancel(CancelToken):
    """Stops a job from the page. A check lets the worker receive messages, a few times a second."""

    def __init__(self, browser: Browser, *, wait: Wait[None] | None = None) -> None:
        super().__init__()
        self._browser, self._wait = browser, wait or (wait_for if can_wait() else None)
        self._looked = time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass. Cancelled."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._look(min(left, PAUSE_S))
        self.check()

    def check(self) -> None:
        """
        :raises Cancelled: the page has cancelled the job
        """
        if time.monotonic() - self._looked > PAUSE_S:
            self._look(0)
        if self.cancelled or self._browser.cancelled():
            raise Cancelled("stopped on request")

    def _look(self, seconds: float) -> None:
        if self._wait is not None:
            self._wait(self._browser.pause(seconds * 1000))
        else:  # a browser that cannot suspend Python: the page ends the worker instead
            time.sleep(seconds)
        self._looked = time.monotonic()


def open_webserial(url: str, baud: int, cancel: CancelToken) -> WebSerialTransport:
    """Open the port that the user has chosen in the page, ``webserial:NUMBER``.

    :raises UsageError: code ``no-browser``
    :raises PortNotFound, PortBusy: it cannot be opened
    """
    return WebSerialTransport(find_browser(), url, baud, cancel)


class WebSerialTransport:
    """The port in the page. ``wait`` returns the value of a promise."""

    def __init__(
        self,
        browser: Browser,
        name: str,
        baud: int,
        cancel: CancelToken,
        *,
        wait: Wait[Any] | None = None,
    ) -> None:
        if wait is None and not can_wait():
            raise Unsupported(
                "this browser cannot wait for a serial port",
                hint="Use Chrome or Edge 137 or later.",
                code="no-promise-integration",
            )
        self._browser, self._cancel, self._wait = browser, cancel, wait or wait_for
        self._baud, self._sent_by = baud, 0.0
        self._dtr = self._rts = False
        self._closed = False
        reply = self._wait(browser.call("open", name.partition(":")[2], baud))
        if not reply.ok:
            cancel.check()
            raise _open_error(name, reply)
        vid, pid = reply.value.vid, reply.value.pid
        self.info = TransportInfo(name=name, kind=kind_of(vid, pid), vid=vid, pid=pid)

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``."""
        deadline = self.now() + timeout
        while True:
            self._check()
            data = self._take()
            left = deadline - self.now()
            if data or left <= 0:
                return data
            self._wait(self._browser.receive(min(left, SLICE_S) * 1000))

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``. The page has a copy when this returns; the line may still be busy."""
        self._check()
        left = max(deadline - self.now(), 0.0) + MARGIN_S
        reply = self._wait(self._browser.call("write", bytes(data), left * 1000))
        if not reply.ok:
            raise self._failure(reply)
        self._sent_by = max(self._sent_by, self.now()) + 10 * len(data) / self._baud

    def drain(self) -> None:
        """Wait as long as everything written takes on the line: the browser does not report it."""
        left = self._sent_by - self.now()
        if left > 0:
            self.sleep(left + DRAIN_S)

    def discard_input(self) -> None:
        """Discard received bytes that were not read."""
        self._wait(self._browser.pause(0))  # what has arrived in the worker is in its queue now
        while self._take():
            pass

    def set_baud(self, baud: int) -> None:
        """Change the rate, if it differs: the page closes the port and opens it again."""
        if baud == self._baud:
            return
        self._check()
        reply = self._wait(self._browser.call("baud", baud, self._dtr, self._rts))
        if not reply.ok:
            raise self._failure(reply)
        self._baud = baud

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set both modem lines in one call; None leaves one as it is."""
        self._dtr = self._dtr if dtr is None else dtr
        self._rts = self._rts if rts is None else rts
        reply = self._wait(self._browser.call("signals", self._dtr, self._rts))
        if not reply.ok:
            raise self._failure(reply)

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        self._cancel.sleep(seconds)

    def close(self) -> None:
        """Leave the port to the page; it stays open there."""
        self._closed = True

    def _take(self) -> bytes:
        """What has arrived in the worker."""
        data = self._browser.take()
        return data if isinstance(data, bytes) else bytes(data.to_py())

    def _check(self) -> None:
        self._cancel.check()
        if self._closed:
            raise TransportLost(f"{self.info.name} is closed", hint="Open the port again.")
        if reason := self._browser.lost():
            raise TransportLost(f"lost the connection to {self.info.name}: {reason}")

    def _failure(self, reply: Any) -> TransportLost:
        self._cancel.check()
        if reply.name == "TimeoutError":
            return TransportLost(
                f"{self.info.name} accepts no more data",
                hint="Plug the board in again.",
                code="write-timeout",
            )
        return TransportLost(f"lost the connection to {self.info.name}: {reply.message}")


def _open_error(name: str, reply: Any) -> TransportError:
    if reply.name == "NotFoundError":
        return PortNotFound(
            f"{name} is not connected", hint="Plug the board in, then choose its port in the page."
        )
    if reply.name == "InvalidStateError":
        return PortBusy(
            f"{name} is already open in this page",
            hint="Try again in a few seconds. If that does not help, reload the page.",
        )
    return PortBusy(f"{name} cannot be opened: {reply.message}", hint=reply.hint)
