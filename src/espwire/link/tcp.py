"""A loader behind a plain TCP socket: bytes only, no lines, no baud rate."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from urllib.parse import urlsplit

from espwire.errors import LinkLost, PortNotFound, UsageError
from espwire.link.base import CancelToken, LinkInfo

CONNECT_TIMEOUT = 5.0
SLICE = 0.05  # seconds between looks at the cancel token
CHUNK = 0x10000
MOST_DISCARDED = 256  # chunks: a side that never stops must not hold us here


def parse_socket_url(url: str) -> tuple[str, int]:
    """Host and port of ``socket://host:port``; IPv6 addresses in brackets.

    :raises UsageError: not of that form
    """
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if parts.scheme != "socket" or not host or not port or parts.path not in ("", "/"):
        raise UsageError(f"{url} is not socket://host:port", hint="Write for example socket://127.0.0.1:5555.")
    return host, port


def open_tcp(url: str, cancel: CancelToken) -> TcpLink:
    """Connect to ``socket://host:port``.

    :raises PortNotFound: nobody listens there
    """
    host, port = parse_socket_url(url)
    try:
        connection = socket.create_connection((host, port), timeout=CONNECT_TIMEOUT)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PortNotFound(
            f"cannot connect to {host}:{port}: {reason}",
            hint="Check host and port, and that the server runs.",
            code="cannot-connect",
        ) from None
    return TcpLink(connection, url, cancel)


class TcpLink:
    """A Link on a connected socket."""

    def __init__(self, connection: socket.socket, name: str, cancel: CancelToken) -> None:
        connection.setblocking(False)
        # a request must leave at once; the loader answers nothing before it is whole
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._cancel = connection, cancel
        self._lost = False
        self.info = LinkInfo(name=name, kind="tcp", can_reset=False, can_change_baud=False)

    def read(self, timeout: float) -> bytes:
        """What has come; empty when time is up."""
        deadline = self.now() + timeout
        while True:
            self._cancel.check()
            data = self._receive()
            if data is not None:
                return data
            left = deadline - self.now()
            if left <= 0:
                return b""
            select.select([self._socket], [], [], min(left, SLICE))

    def write(self, data: bytes, deadline: float) -> None:
        """Hand over all of ``data``."""
        rest = memoryview(data)
        while rest:
            self._cancel.check()
            try:
                rest = rest[self._socket.send(rest) :]
                continue
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                raise self._lost_error(error) from None
            if self.now() >= deadline:
                raise LinkLost(f"{self.info.name} takes no more bytes")
            select.select([], [self._socket], [], SLICE)

    def drain(self) -> None:
        """Nothing to wait for: the system sends at once."""

    def discard_input(self) -> None:
        """Forget what has come and was not read."""
        for _ in range(MOST_DISCARDED):
            if not self._receive():
                return

    def set_baud(self, baud: int) -> None:
        """Nothing: a socket has no rate."""

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Nothing: a socket has no lines."""

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        deadline = self.now() + seconds
        while (left := deadline - self.now()) > 0:
            self._cancel.check()
            time.sleep(min(left, SLICE))

    def close(self) -> None:
        """Close; a second time does nothing."""
        self._socket.close()

    def _receive(self) -> bytes | None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise self._lost_error(error) from None
        if not data:
            raise LinkLost(f"{self.info.name} was closed by the other side", hint="Start the server again.")
        return data

    def _lost_error(self, error: OSError | ValueError) -> LinkLost:
        reason = getattr(error, "strerror", None) or str(error)
        return LinkLost(f"{self.info.name} is lost: {reason}", hint="Check the network and the server.")
