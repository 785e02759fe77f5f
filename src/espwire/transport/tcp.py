"""A transport on a plain TCP socket: bytes only, no modem lines, no baud rate."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from espwire.errors import PortNotFound, TransportLost, UsageError
from espwire.streams import wait_ready
from espwire.text import hide_token, shorten
from espwire.transport.base import CancelToken, TransportInfo

CONNECT_TIMEOUT = 5.0
SLICE = 0.05  # seconds between checks of the cancel token
CHUNK = 0x10000
IN_PROGRESS = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EALREADY)
MAX_HOST, MAX_LABEL = 253, 63
LOCAL = ("localhost", "127.0.0.1", "::1")
CONTAINER_HINT = (
    "Check that the server is running. In a container, this address is the container itself: "
    "use host.docker.internal or the name of the other computer."
)
MOST_DISCARDED = 256  # chunks: a server that never stops sending must not block discard_input


def parse_socket_url(url: str, scheme: str = "socket") -> tuple[str, int]:
    """Host and port of ``socket://host:port``; IPv6 addresses in brackets.

    :raises UsageError: not of this form
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        valid = parts.scheme == scheme and parts.path in ("", "/")
    except ValueError:  # an unclosed bracket, a port that is not a number
        host, port, valid = None, None, False
    hint = f"Write for example {scheme}://127.0.0.1:5555."
    if not valid or not host or not port:
        raise UsageError(f"{shorten(hide_token(url))} is not {scheme}://host:port", hint=hint)
    if (reason := find_host_error(host)) is not None:
        raise UsageError(
            f"{shorten(host)!r} is not a host name: {reason}", hint=hint, code="bad-host"
        )
    return host, port


def find_host_error(host: str) -> str | None:
    """Why ``host`` cannot be a host name; None: it can."""
    if not host.isprintable() or any(sign.isspace() for sign in host):
        return "it contains a space or a control character"
    if len(host) > MAX_HOST:
        return f"it has {len(host):,} characters, more than {MAX_HOST}"
    if ":" in host:  # an IPv6 address
        return None
    labels = host.removesuffix(".").split(".")
    if not all(labels):
        return "one of its labels is empty"
    if longest := max((label for label in labels if len(label) > MAX_LABEL), key=len, default=""):
        return f"one of its labels has {len(longest)} characters, more than {MAX_LABEL}"
    try:
        host.encode("idna")
    except UnicodeError:
        return "it contains characters that are not allowed in host names"
    return None


def open_tcp(url: str, cancel: CancelToken) -> TcpTransport:
    """Connect to ``socket://host:port``.

    :raises PortNotFound: code ``cannot-connect``
    """
    host, port = parse_socket_url(url)
    return TcpTransport(connect_socket(host, port, cancel), url, cancel)


def connect_socket(host: str, port: int, cancel: CancelToken) -> socket.socket:
    """A non-blocking connection; ``cancel`` also ends connecting.

    :raises PortNotFound: code ``cannot-connect``
    """
    reason = "no address"
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:  # ValueError: a name that cannot be encoded
        addresses, reason = [], getattr(error, "strerror", None) or str(error)
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.setblocking(False)
            number = _connect(connection, address, cancel)
        except OSError as error:
            number = error.errno or errno.EIO
        except BaseException:
            connection.close()
            raise
        if not number:
            return connection
        connection.close()
        reason = os.strerror(number)
    raise PortNotFound(
        f"cannot connect to {host}:{port}: {reason}",
        hint=CONTAINER_HINT
        if host in LOCAL
        else "Check host and port, and that the server is running.",
        code="cannot-connect",
    )


def _connect(connection: socket.socket, address: Any, cancel: CancelToken) -> int:
    """Connect; return 0 or the system's error number."""
    number = connection.connect_ex(address)
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while number in IN_PROGRESS:
        cancel.check()
        if wait_ready(connection.fileno(), SLICE, write=True):
            return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if time.monotonic() >= deadline:
            return errno.ETIMEDOUT
    return number


class TcpTransport:
    """A connected socket."""

    def __init__(self, connection: socket.socket, name: str, cancel: CancelToken) -> None:
        connection.setblocking(False)
        # without delay: the loader answers only complete requests
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._cancel = connection, cancel
        self._lost = False
        self.info = TransportInfo(
            name=name, kind="tcp", can_reset=False, can_change_baud=False, remote=True
        )

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``."""
        deadline = self.now() + timeout
        while True:
            self._cancel.check()
            data = self._receive()
            if data is not None:
                return data
            left = deadline - self.now()
            if left <= 0:
                return b""
            wait_ready(self._socket.fileno(), min(left, SLICE))

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``."""
        self.send(data, deadline)

    @property
    def cancelled(self) -> bool:
        """Whether the token was cancelled."""
        return self._cancel.cancelled

    def send(self, data: bytes, deadline: float, *, cancellable: bool = True) -> None:
        """As ``write``. If not ``cancellable``, send even after the token was cancelled."""
        rest = memoryview(data)
        while rest:
            if cancellable:
                self._cancel.check()
            try:
                rest = rest[self._socket.send(rest) :]
                continue
            except BlockingIOError:
                pass
            except (OSError, ValueError) as error:
                raise self._lost_error(error) from None
            if self.now() >= deadline:
                raise TransportLost(
                    f"{self.info.name} accepts no more data",
                    hint="Check the network and the server.",
                    code="write-timeout",
                )
            wait_ready(self._socket.fileno(), SLICE, write=True)

    def drain(self) -> None:
        """No effect: the system sends immediately."""

    def discard_input(self) -> None:
        """Discard received bytes that were not read."""
        for _ in range(MOST_DISCARDED):
            if not self._receive():
                return

    def set_baud(self, baud: int) -> None:
        """No effect: a socket has no baud rate."""

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """No effect: a socket has no modem lines."""

    def now(self) -> float:
        """The monotonic clock."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        self._cancel.sleep(seconds)

    def close(self) -> None:
        """Close the socket; closing it again has no effect."""
        self._socket.close()

    def _receive(self) -> bytes | None:
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            raise self._lost_error(error) from None
        if not data:
            raise TransportLost(
                f"{self.info.name} was closed by the server",
                hint="Look at the server's log. A server of serve-port needs rfc2217:// or espwire://.",
            )
        return data

    def _lost_error(self, error: OSError | ValueError) -> TransportLost:
        reason = getattr(error, "strerror", None) or str(error)
        return TransportLost(
            f"lost the connection to {self.info.name}: {reason}",
            hint="Check the network and the server.",
        )
