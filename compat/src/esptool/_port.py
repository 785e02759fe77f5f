"""The port as a pyserial object, and the reverse: clients use ``esp._port`` to read boot logs and to close the port."""

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
    """A transport of espwire (serial port, TCP, RFC 2217, virtual chip) with pyserial's methods.

    The chip uses the same transport: closing this port closes it.
    """

    def __init__(self, name: str, transport: Transport, baud: int) -> None:
        super().__init__(baudrate=baud)
        self.name = self.portstr = self._port = name
        self._waiting = b""
        self.take(transport, baud)

    def take(self, transport: Transport, baud: int) -> None:
        """Use another transport, which is open and runs at ``baud``."""
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
        """Close the port; closing it again has no effect."""
        self.is_open = False
        self.transport.close()

    @property
    def in_waiting(self) -> int:
        """The number of received bytes. Waits briefly for the first, so that the clock of a virtual chip advances."""
        if not self._waiting:
            self._fetch(POLL)
        return len(self._waiting)

    def read(self, size: int = 1) -> bytes:
        """Return up to ``size`` bytes, fewer after the timeout."""
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
        """Discard received bytes."""
        self._waiting = b""
        self._check().discard_input()

    def reset_output_buffer(self) -> None:
        """Does nothing: output is not buffered."""

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
        """Apply settings, for pyserial; a transport has only the baud rate."""
        if self.is_open:
            self.transport.set_baud(self._baudrate)

    def _update_dtr_state(self) -> None:
        self._check().set_lines(dtr=bool(self.dtr))

    def _update_rts_state(self) -> None:
        self._check().set_lines(rts=bool(self.rts))

    def _update_break_state(self) -> None:
        """No effect: transports cannot send a break."""


class PyserialTransport:
    """A transport on a pyserial object that the client has opened; closing the transport closes the object.

    :raises TransportLost: by any method, where pyserial fails
    """

    def __init__(self, port: Any) -> None:
        from espwire.transport.base import TransportInfo

        self._serial = port
        if port.write_timeout is None:  # without it, a stuck port would block forever
            port.write_timeout = WRITE_SECONDS
        self.info = TransportInfo(name=str(port.port), kind="uart")

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``.

        Polls, because setting ``timeout`` reconfigures a pyserial port, which is slow for a remote port.
        """
        end = time.monotonic() + timeout
        with self._guarded():
            while not (waiting := self._serial.in_waiting) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            return bytes(self._serial.read(waiting)) if waiting else b""

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""
        with self._guarded():
            self._serial.write(data)

    def drain(self) -> None:
        """Wait until everything written has been sent."""
        with self._guarded():
            self._serial.flush()

    def discard_input(self) -> None:
        """Discard received bytes that were not read."""
        with self._guarded():
            self._serial.reset_input_buffer()

    def set_baud(self, baud: int) -> None:
        """Change the baud rate."""
        with self._guarded():
            self._serial.baudrate = baud

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines."""
        with self._guarded():
            if dtr is not None:
                self._serial.dtr = dtr
            if rts is not None:
                self._serial.rts = rts
                # some Windows drivers apply RTS only with the next change of DTR
                self._serial.dtr = self._serial.dtr

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
        except OSError as error:  # includes pyserial's exceptions
            raise TransportLost(f"lost the connection to {self.info.name}: {error}") from error
