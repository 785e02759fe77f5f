"""A loader behind a plain TCP socket: bytes only, no lines, no baud rate."""

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
from espwire.text import shorten
from espwire.transport.base import CancelToken, TransportInfo

CONNECT_TIMEOUT = 5.0
SLICE = 0.05  # seconds between looks at the cancel token
CHUNK = 0x10000
UNDER_WAY = (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN, errno.EALREADY)
MAX_HOST, MAX_LABEL = 253, 63
MOST_DISCARDED = 256  # chunks: a side that never stops must not hold us here


def parse_socket_url(url: str, scheme: str = "socket") -> tuple[str, int]:
    """Host and port of ``socket://host:port``; IPv6 addresses in brackets.

    :raises UsageError: not of that form
    """
    try:
        parts = urlsplit(url)
        host, port, fits = (
            parts.hostname,
            parts.port,
            parts.scheme == scheme and parts.path in ("", "/"),
        )
    except ValueError:  # a bracket that is not closed, a port that is no number
        host, port, fits = None, None, False
    hint = f"Write for example {scheme}://127.0.0.1:5555."
    if not fits or not host or not port:
        raise UsageError(f"{shorten(url)} is not {scheme}://host:port", hint=hint)
    if (fault := find_host_fault(host)) is not None:
        raise UsageError(
            f"{shorten(host)!r} is not a host name: {fault}", hint=hint, code="bad-host"
        )
    return host, port


def find_host_fault(host: str) -> str | None:
    """Why the system could not even look up ``host``; None: it can."""
    if not host.isprintable() or any(sign.isspace() for sign in host):
        return "it contains a space or a control character"
    if len(host) > MAX_HOST:
        return f"it has {len(host):,} characters, more than {MAX_HOST}"
    if ":" in host:  # an IPv6 address
        return None
    labels = host.removesuffix(".").split(".")
    if not all(labels):
        return "one of the parts between its dots is empty"
    if longest := max((label for label in labels if len(label) > MAX_LABEL), key=len, default=""):
        return f"a part of it has {len(longest)} characters, more than {MAX_LABEL}"
    try:
        host.encode("idna")
    except UnicodeError:
        return "it contains characters that host names cannot have"
    return None


def open_tcp(url: str, cancel: CancelToken) -> TcpTransport:
    """Connect to ``socket://host:port``.

    :raises PortNotFound: nobody listens there
    """
    host, port = parse_socket_url(url)
    return TcpTransport(connect_socket(host, port, cancel), url, cancel)


def connect_socket(host: str, port: int, cancel: CancelToken) -> socket.socket:
    """A connection, not blocking; the token is looked at while it is made.

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
        hint="Check host and port, and that the server runs.",
        code="cannot-connect",
    )


def _connect(connection: socket.socket, address: Any, cancel: CancelToken) -> int:
    """The system's number for what went wrong, 0 for nothing."""
    number = connection.connect_ex(address)
    deadline = time.monotonic() + CONNECT_TIMEOUT
    while number in UNDER_WAY:
        cancel.check()
        if wait_ready(connection.fileno(), SLICE, write=True):
            return connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if time.monotonic() >= deadline:
            return errno.ETIMEDOUT
    return number


class TcpTransport:
    """A Link on a connected socket."""

    def __init__(self, connection: socket.socket, name: str, cancel: CancelToken) -> None:
        connection.setblocking(False)
        # a request must leave at once; the loader answers nothing before it is whole
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket, self._cancel = connection, cancel
        self._lost = False
        self.info = TransportInfo(
            name=name, kind="tcp", can_reset=False, can_change_baud=False, remote=True
        )

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
            wait_ready(self._socket.fileno(), min(left, SLICE))

    def write(self, data: bytes, deadline: float) -> None:
        """Hand over all of ``data``."""
        self.send(data, deadline)

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked to stop."""
        return self._cancel.cancelled

    def send(self, data: bytes, deadline: float, *, cancellable: bool = True) -> None:
        """As ``write``; if not ``cancellable``, what must be said even then is said."""
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
                    f"{self.info.name} takes no more bytes",
                    hint="Check the network and the server.",
                    code="write-timeout",
                )
            wait_ready(self._socket.fileno(), SLICE, write=True)

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
        self._cancel.sleep(seconds)

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
            raise TransportLost(
                f"{self.info.name} was closed by the other side", hint="Start the server again."
            )
        return data

    def _lost_error(self, error: OSError | ValueError) -> TransportLost:
        reason = getattr(error, "strerror", None) or str(error)
        return TransportLost(
            f"{self.info.name} is lost: {reason}", hint="Check the network and the server."
        )
