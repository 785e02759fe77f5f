"""The port under a chip, as a pyserial object: what clients read boot logs from, and close, as ``esp._port``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import serial

from espwire.errors import ToolError, TransportError, TransportLost

if TYPE_CHECKING:
    from espwire.transport.base import Transport

POLL_SECONDS = 0.0005
WRITE_SECONDS = 10.0
SLICE = 0.05
POLL = 0.001


class TransportPort(serial.SerialBase):
    """Any link of espwire (a serial port, TCP, RFC 2217, a virtual chip) with pyserial's methods.

    The link is the one that the chip is reached by: closing this closes that.
    """

    def __init__(self, name: str, transport: Transport, baud: int) -> None:
        super().__init__(baudrate=baud)
        self.name = self.portstr = self._port = name
        self._waiting = b""
        self.take(transport, baud)

    def take(self, transport: Transport, baud: int) -> None:
        """Use ``link``, which is open and runs at ``baud``, from now on."""
        self.transport = transport
        self._baudrate = baud
        self.is_open = True

    def open(self) -> None:
        """Open the port again after ``close``."""
        from espwire.transport.url import open_transport

        try:
            self.take(open_transport(self._port, baud=self._baudrate), self._baudrate)
        except ToolError as error:
            raise serial.SerialException(str(error)) from error

    def close(self) -> None:
        """Close the port; a second time does nothing."""
        self.is_open = False
        self.transport.close()

    @property
    def in_waiting(self) -> int:
        """How many bytes can be read at once. Waits a moment for the first: the clock of a virtual chip needs that."""
        if not self._waiting:
            self._fetch(POLL)
        return len(self._waiting)

    def read(self, size: int = 1) -> bytes:
        """At most ``size`` bytes, fewer when the time-out passes first."""
        transport, timeout = self._check(), self.timeout
        deadline = transport.now() + (timeout or 0.0)
        self._fetch(0.0)
        while len(self._waiting) < size and (timeout is None or transport.now() < deadline):
            self._fetch(SLICE if timeout is None else min(SLICE, deadline - transport.now()))
        data, self._waiting = self._waiting[:size], self._waiting[size:]
        return data

    def write(self, data: Any) -> int:
        """Send all of ``data``."""
        transport = self._check()
        raw = bytes(data)
        try:
            transport.write(raw, transport.now() + (self.write_timeout or WRITE_SECONDS))
        except TransportError as error:
            raise serial.SerialException(str(error)) from error
        return len(raw)

    def flush(self) -> None:
        """Wait until everything is sent."""
        self._check().drain()

    def reset_input_buffer(self) -> None:
        """Forget what has come."""
        self._waiting = b""
        self._check().discard_input()

    def reset_output_buffer(self) -> None:
        """Nothing waits here to be sent."""

    def fileno(self) -> int:
        """The file descriptor, where the port has one."""
        import io

        number = getattr(self.transport, "_fd", -1)
        if number < 0:
            raise io.UnsupportedOperation("fileno")
        return int(number)

    def _fetch(self, timeout: float) -> None:
        try:
            self._waiting += self._check().read(timeout)
        except TransportError as error:
            raise serial.SerialException(str(error)) from error

    def _check(self) -> Transport:
        if not self.is_open:
            raise serial.PortNotOpenError
        return self.transport

    def _reconfigure_port(self, *_: Any, **__: Any) -> None:
        """pyserial calls this after any setting has changed; only the rate means something to a link."""
        if self.is_open:
            self.transport.set_baud(self._baudrate)

    def _update_dtr_state(self) -> None:
        self._check().set_lines(dtr=bool(self.dtr))

    def _update_rts_state(self) -> None:
        self._check().set_lines(rts=bool(self.rts))

    def _update_break_state(self) -> None:
        """No link sends a break."""


class PyserialTransport:
    """A link on a pyserial object that the client has opened; its rate is changed, and it is closed with the link.

    :raises TransportLost: by any method, where pyserial fails
    """

    def __init__(self, port: Any) -> None:
        from espwire.transport.base import TransportInfo

        self._serial = port
        if (
            port.write_timeout is None
        ):  # else a port that takes nothing would hold the program for ever
            port.write_timeout = WRITE_SECONDS
        self.info = TransportInfo(name=str(port.port), kind="uart")

    def read(self, timeout: float) -> bytes:
        """What has come; empty when time is up.

        It polls: setting ``timeout`` configures a pyserial port again, which is slow for a remote one.
        """
        end = time.monotonic() + timeout
        with self._guarded():
            while not (waiting := self._serial.in_waiting) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            return bytes(self._serial.read(waiting)) if waiting else b""

    def write(self, data: bytes, deadline: float) -> None:
        """Hand over all of ``data``."""
        with self._guarded():
            self._serial.write(data)

    def drain(self) -> None:
        """Wait until everything written has left."""
        with self._guarded():
            self._serial.flush()

    def discard_input(self) -> None:
        """Forget what has come and was not read."""
        with self._guarded():
            self._serial.reset_input_buffer()

    def set_baud(self, baud: int) -> None:
        """Change the host's rate."""
        with self._guarded():
            self._serial.baudrate = baud

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines."""
        with self._guarded():
            if dtr is not None:
                self._serial.dtr = dtr
            if rts is not None:
                self._serial.rts = rts
                self._serial.dtr = (
                    self._serial.dtr
                )  # some Windows drivers pass RTS on only with the next DTR

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        time.sleep(seconds)

    def close(self) -> None:
        """Close the client's port."""
        self._serial.close()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:  # pyserial's own exception is one
            raise TransportLost(f"{self.info.name} is lost: {error}") from error
