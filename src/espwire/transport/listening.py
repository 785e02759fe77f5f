"""What servers on TCP sockets share: addresses, listening, unsent bytes of a client, and stopping at a signal."""

from __future__ import annotations

import contextlib
import errno
import signal
import socket
import threading
import time
from collections.abc import Iterator

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError, UsageError
from espwire.sizes import parse_number
from espwire.transport.base import CancelToken

LOOPBACK = "127.0.0.1"
CHUNK = 0x10000
MOST_WAITING = 0x100000  # unsent bytes for a client; with more, the client is dropped


def parse_endpoint(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``, which is on loopback.

    :param default_port: for ``HOST``, ``IPV6`` and ``[IPV6]``; None: the port must be given
    :raises UsageError: it is none of these
    """
    host, colon, port = text.rpartition(":")
    has_port = colon and not text.endswith("]") and (":" not in host or text.startswith("["))
    if default_port is not None and not has_port:
        return text.strip("[]") or LOOPBACK, default_port
    if not colon:
        raise UsageError(
            f"{text!r} is not HOST:PORT", hint="Write 127.0.0.1:4000, or port 0 for a free one."
        )
    return host.strip("[]") or LOOPBACK, parse_number(port, "port", limit=0xFFFF)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket that does not block; port 0 chooses a free port.

    :raises PortBusy, PortDenied, PortNotFound, TransportError: the address cannot be used
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        server = socket.create_server((host, port), family=family)
    except OSError as error:
        where, hint = f"{host}:{port}", "Choose another address, or port 0 for a free port."
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(f"{where} is in use by another program", hint=hint) from None
        if error.errno == errno.EACCES:
            raise PortDenied(f"listening on {where} is not allowed", hint=hint) from None
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise PortNotFound(f"{host} is not an address of this machine", hint=hint) from None
        raise TransportError(
            f"cannot listen on {where}: {error.strerror or error}", hint=hint
        ) from None
    except OverflowError:
        raise PortNotFound(
            f"{port} is not a valid port", hint="Ports go up to 65535; 0 selects a free port."
        ) from None
    server.setblocking(False)
    return server


def show_address(host: str, port: int) -> str:
    """``host:port``, with brackets for IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@contextlib.contextmanager
def stop_token(stop: CancelToken | None) -> Iterator[CancelToken]:
    """The caller's token, or a token that SIGINT and SIGTERM cancel."""
    if stop is not None or threading.current_thread() is not threading.main_thread():
        yield stop or CancelToken()
        return
    token = CancelToken()
    before = {
        number: signal.signal(number, lambda *_: token.cancel())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield token
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ClientSocket:
    """A client's connection, which never blocks, and the bytes that it has not taken yet.

    ``last_receive``: when the client last sent something, on the monotonic clock.
    """

    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        self._out = bytearray()
        self.last_receive = time.monotonic()
        client.setblocking(False)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close_socket(self) -> None:
        """Send what the client accepts, and close."""
        self.flush()
        self._socket.close()

    def read(self, size: int = CHUNK) -> bytes | None:
        """Received bytes; empty if there are none, None if the client has disconnected."""
        try:
            data = self._socket.recv(size)
        except BlockingIOError:
            return b""
        except OSError:
            return None
        if data:
            self.last_receive = time.monotonic()
        return data or None

    def send(self, data: bytes | bytearray) -> None:
        """Queue bytes for ``flush``."""
        self._out += data

    @property
    def unsent(self) -> int:
        """The number of queued bytes."""
        return len(self._out)

    def flush(self) -> bool:
        """Send what the client accepts; False: it has disconnected, or accepts nothing."""
        try:
            while self._out:
                del self._out[: self._socket.send(self._out[:CHUNK])]
        except BlockingIOError:
            return len(self._out) <= MOST_WAITING
        except OSError:
            return False
        return True
