"""The clients of a served chip: a TCP socket, with RFC 2217 or plain, or a pseudo terminal.

No client can block the server: sockets are never waited for, and one that does not take what the chip sends is dropped.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import Protocol

from espwire.link import telnet

CHUNK = 0x10000
MOST_WAITING = 0x100000  # bytes that a client has not taken; then it is dropped
MAX_BAUD = 12_000_000


class Bench(Protocol):
    """What a client does with the chip; ``serve.Bench``."""

    baud: int

    def exchange(self, data: bytes) -> bytes:
        """Bytes from the client go in; what the chip has sent by now comes out."""

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """Set the modem lines."""

    def discard(self) -> None:
        """Forget what the chip has sent."""


class SocketClient:
    """A plain TCP connection: bytes, without a rate or modem lines. ``heard_at``: when it last sent something."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._out = bytearray()
        self.heard_at = time.monotonic()
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self, bench: Bench) -> None:
        """Close the connection, and release what it held of the chip's."""
        self.flush()
        self._socket.close()

    @property
    def has_spoken(self) -> bool | None:
        """Whether bytes from it wait; None: it has gone."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK)) or None
        except BlockingIOError:
            return False
        except OSError:
            return None

    def receive(self, bench: Bench) -> bool:
        """Carry what it has sent to the chip; False: it has gone."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            self.heard_at = time.monotonic()
            self.take(bench, data)
        return bool(data)

    def take(self, bench: Bench, data: bytes) -> None:
        """Bytes as they came from the socket."""
        self.deliver(bench.exchange(data))

    def deliver(self, data: bytes) -> None:
        """Bytes from the chip, for the next ``flush``."""
        self._out += data

    @property
    def has_more(self) -> bool:
        """Whether it has not taken all bytes yet."""
        return bool(self._out)

    def flush(self) -> bool:
        """Send what it takes now; False: it has gone, or takes nothing."""
        try:
            while self._out:
                del self._out[: self._socket.send(self._out[:CHUNK])]
        except BlockingIOError:
            return len(self._out) <= MOST_WAITING
        except OSError:
            return False
        return True


class Rfc2217Client(SocketClient):
    """A TCP connection that also sets the rate and the modem lines (RFC 2217). Whatever else it sets is confirmed."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client)
        self._decoder = telnet.ServerDecoder()
        self._dtr = self._rts = False
        self._greeted = False

    def close(self, bench: Bench) -> None:
        """Close the connection; both modem lines are released, as those of a port that is closed."""
        super().close(bench)
        if self._dtr or self._rts:
            bench.set_lines(dtr=False, rts=False)

    def take(self, bench: Bench, data: bytes) -> None:
        """Bytes for the chip, and requests."""
        for event in self._decoder.take(data):
            if isinstance(event, bytes):
                self.deliver(bench.exchange(event))
            else:
                self._out += telnet.build_answer(event[0], self._carry_out(bench, *event))
        self._out += self._decoder.replies
        self._decoder.replies.clear()
        if self._decoder.accepted and not self._greeted:
            self._greeted = True
            self._out += telnet.build_answer(telnet.NOTIFY_MODEM_STATE, b"\0")  # no such line is connected

    def deliver(self, data: bytes) -> None:
        """Bytes from the chip, for the next ``flush``."""
        self._out += telnet.escape(data)

    def _carry_out(self, bench: Bench, option: int, value: bytes) -> bytes:
        """Do as asked; the value of the answer."""
        if option == telnet.SET_BAUD:
            baud = int.from_bytes(value, "big")
            if 0 < baud <= MAX_BAUD:
                bench.baud = baud
            return bench.baud.to_bytes(4, "big")
        if option == telnet.SET_CONTROL and value:
            return self._control(bench, value[0])
        if option == telnet.PURGE and value and value[0] & telnet.PURGE_RECEIVED:
            bench.discard()
        return value

    def _control(self, bench: Bench, value: int) -> bytes:
        dtr = {telnet.DTR_ON: True, telnet.DTR_OFF: False}.get(value, self._dtr)
        rts = {telnet.RTS_ON: True, telnet.RTS_OFF: False}.get(value, self._rts)
        if (dtr, rts) != (self._dtr, self._rts):
            self._dtr, self._rts = dtr, rts
            bench.set_lines(dtr=dtr, rts=rts)
        if value == telnet.DTR_STATE:
            value = telnet.DTR_ON if dtr else telnet.DTR_OFF
        elif value == telnet.RTS_STATE:
            value = telnet.RTS_ON if rts else telnet.RTS_OFF
        return bytes((value,))


class TerminalClient:
    """The master side of a pseudo terminal. Clients come and go unnoticed."""

    def __init__(self, master: int) -> None:
        self._master = master

    def fileno(self) -> int:
        """For a selector."""
        return self._master

    def receive(self, bench: Bench) -> bool:
        """Carry what came to the chip; False: the terminal is gone."""
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.deliver(bench.exchange(data))
        return bool(data)

    def deliver(self, data: bytes) -> None:
        """Bytes from the chip. What does not fit is lost, as on a serial port that nobody reads."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self._master, data) :]
