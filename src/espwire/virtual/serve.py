"""Lets any flashing tool talk to a virtual chip, over TCP or a pseudo terminal. Prints nothing; ``announce`` is told.

One client at a time; the chip lives on between them. There is no baud rate here, and no DTR and RTS: neither a plain
TCP socket nor a pseudo terminal carries them. Unpaced, simulated time jumps to the end of whatever the chip does, so
a client waits for nothing; paced, an erase takes as long as on the desk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from espwire.errors import LinkError, PortBusy, PortDenied, PortNotFound, Unsupported
from espwire.link.base import CancelToken
from espwire.virtual.chip import VirtualChip
from espwire.virtual.options import VirtualOptions, build_chip
from espwire.virtual.wire import Wire

POLL_S = 0.1  # how soon a stop is noticed
CLIENT_TIMEOUT_S = 10.0  # a client that takes no bytes for so long is dropped
CHUNK = 0x10000


class Bench:
    """A chip on a wire whose simulated time follows the real clock, and runs ahead of it unless paced."""

    def __init__(self, chip: VirtualChip) -> None:
        self.chip, self.paced = chip, chip.options.pace
        self.wire = Wire(chip, latency=0.0, has_baud=False)
        self._ahead = 0.0
        self._started = time.monotonic()

    def exchange(self, data: bytes) -> bytes:
        """Bytes from the client go in; what the chip has to say by now comes out."""
        now = self._now()
        self.wire.advance(now)
        if data:
            self.wire.send(now, data)
        self.wire.advance(now)
        answer = self.wire.take(now)
        while not self.paced and (self.wire.pending or self.chip.busy) and (due := self.wire.next_event()) is not None:
            self._ahead += max(0.0, due - now)
            now = max(now, due)
            self.wire.advance(now)
            answer += self.wire.take(now)
        return answer

    def pause(self) -> float:
        """How long nothing will happen, in real seconds, at most the poll time."""
        due = self.wire.next_event()
        return POLL_S if due is None else min(POLL_S, max(0.0, due - self._now()))

    def _now(self) -> float:
        return time.monotonic() - self._started + self._ahead


class _Client(Protocol):
    """Something to read from and write to; either end of it may go away."""

    def fileno(self) -> int: ...
    def read(self) -> bytes: ...
    def write(self, data: bytes) -> None: ...


class _SocketClient:
    def __init__(self, client: socket.socket) -> None:
        self._socket = client
        client.settimeout(CLIENT_TIMEOUT_S)
        with contextlib.suppress(OSError):
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bytes:
        return self._socket.recv(CHUNK)

    def write(self, data: bytes) -> None:
        self._socket.sendall(data)


class _TerminalClient:
    """The master side. Clients come and go unnoticed: the slave side is kept open, or reading would fail."""

    def __init__(self, master: int) -> None:
        self._master = master

    def fileno(self) -> int:
        return self._master

    def read(self) -> bytes:
        return os.read(self._master, CHUNK)

    def write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                return  # nobody reads and the terminal is full: a serial port loses such bytes too


def serve(
    options: VirtualOptions,
    *,
    tcp: tuple[str, int] | None = None,
    announce: Callable[[str], None],
    stop: CancelToken | None = None,
) -> VirtualChip:
    """Serve one chip until ``stop``, or SIGINT or SIGTERM where there is none; then the flash file is whole.

    :param tcp: host and port to listen on, port 0 for a free one; None: a pseudo terminal
    :param announce: called once, with the line that tells where: ``listening on socket://127.0.0.1:3333``
    :returns: the chip, its flash file closed
    :raises UsageError: the options do not suit the chip
    :raises LinkError: the address cannot be listened on
    :raises Unsupported: there are no pseudo terminals here
    """
    chip = build_chip(options)
    try:
        with _stop_token(stop) as token:
            if tcp is not None:
                _serve_tcp(Bench(chip), tcp, announce, token)
            else:
                _serve_pty(Bench(chip), announce, token)
    finally:
        chip.flash.close()
    return chip


@contextlib.contextmanager
def _stop_token(stop: CancelToken | None) -> Iterator[CancelToken]:
    """The caller's token, or one that the two signals set."""
    if stop is not None or threading.current_thread() is not threading.main_thread():
        yield stop or CancelToken()
        return
    token = CancelToken()
    before = {number: signal.signal(number, lambda *_: token.cancel()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield token
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _serve_tcp(bench: Bench, address: tuple[str, int], announce: Callable[[str], None], token: CancelToken) -> None:
    host, port = address
    with _listen(host, port) as server, selectors.DefaultSelector() as selector:
        server.setblocking(False)
        selector.register(server, selectors.EVENT_READ)
        shown = f"[{host}]" if ":" in host else host
        announce(f"listening on socket://{shown}:{server.getsockname()[1]}")
        while not token.cancelled:
            bench.exchange(b"")  # what the chip says now, nobody hears
            if not selector.select(bench.pause()):
                continue
            with contextlib.suppress(OSError):
                client, _ = server.accept()
                with client:
                    _talk(bench, _SocketClient(client), token)
            bench.chip.flash.flush()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        where, hint = f"{host}:{port}", "Choose another address, or port 0 for a free port."
        if error.errno == errno.EADDRINUSE:
            raise PortBusy(f"something else listens on {where}", hint=hint) from None
        if error.errno == errno.EACCES:
            raise PortDenied(f"listening on {where} is not allowed", hint=hint) from None
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            raise PortNotFound(f"{host} is no address of this machine", hint=hint) from None
        raise LinkError(f"cannot listen on {where}: {error.strerror or error}", hint=hint) from None
    except OverflowError:
        raise PortNotFound(f"there is no port {port}", hint="Ports go up to 65535; 0 takes a free one.") from None


def _serve_pty(bench: Bench, announce: Callable[[str], None], token: CancelToken) -> None:
    if sys.platform != "win32":
        import pty
        import tty

        master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            os.set_blocking(master, False)
            announce(f"listening on {os.ttyname(slave)}")
            _talk(bench, _TerminalClient(master), token)
        finally:
            os.close(master)
            os.close(slave)
    else:
        raise Unsupported("this system has no pseudo terminals", hint="Serve with --tcp 127.0.0.1:0 instead.")


def _talk(bench: Bench, client: _Client, token: CancelToken) -> None:
    """Carry bytes both ways until the client goes away or the token is set."""
    with selectors.DefaultSelector() as selector:
        selector.register(client.fileno(), selectors.EVENT_READ)
        while not token.cancelled:
            data = b""
            if selector.select(bench.pause()):
                try:
                    data = client.read()
                except BlockingIOError:
                    continue
                except OSError:
                    return
                if not data:
                    return
            answer = bench.exchange(data)
            if answer:
                try:
                    client.write(answer)
                except OSError:
                    return
