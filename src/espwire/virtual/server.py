"""Serves a virtual chip to any flashing tool, over TCP, RFC 2217 or a pseudo terminal.

One client at a time; the chip keeps running between clients. A plain TCP socket and a pseudo terminal carry neither
baud rate nor DTR and RTS; RFC 2217 carries all of them. Unpaced, simulated time jumps to the end of whatever the loader
or a stub is doing, so a client never waits. Paced, an erase and each byte take as long as on a real board.

A client cannot lock out the next client, which takes over as soon as it sends something, or once the present client has
been silent for ten seconds. A connection that is opened and closed again, as by a port scanner, has no effect. No client
can block the server: sockets are never waited for, and a client that does not read what the chip sends is dropped.
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
from collections import deque
from collections.abc import Callable, Iterator

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError, Unsupported
from espwire.transport import telnet
from espwire.transport.base import CancelToken
from espwire.virtual.build import build_chip
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import VirtualOptions
from espwire.virtual.line import Wire

POLL_S = 0.1  # how soon a stop is noticed
STEP_S = 0.2  # simulated time per step, at most, for a program that runs slower than the real clock
BUDGET_S = 0.25  # real time per step, at most, for long computations
LINE_ROOM_S = 0.1  # of data on the line; with more, no further data is read from the client
HOLD_S = 0.3  # delay before both lines are asserted at once
SILENT_S = 10.0  # after which a client is replaced by a waiting client
MOST_CLIENTS = 8  # waiting


class Bench:
    """A chip on a wire whose simulated time follows the real clock, and runs ahead of it unless paced.

    ``has_baud``: the client sets its own baud rate.
    """

    def __init__(self, chip: VirtualChip, *, has_baud: bool = False) -> None:
        self.chip, self.paced = chip, chip.options.pace
        uart = chip.options.kind == "uart"
        latency = chip.options.latency if self.paced else 0.0
        # a real ROM takes bytes no faster than its UART
        follows = uart and (self.paced or chip.mask_rom is not None)
        self.wire = Wire(chip, latency=latency, has_baud=has_baud and uart, follows=follows)
        self._ahead = self._last = 0.0
        # when both lines become asserted, unless they change before
        self._both_at: float | None = None
        self._started = time.monotonic()

    @property
    def baud(self) -> int:
        """The client's baud rate."""
        return self.wire.host_baud

    @baud.setter
    def baud(self, baud: int) -> None:
        self.wire.set_baud(self._now(), baud)

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """Set the client's modem lines.

        An RFC 2217 client changes one line at a time and may wait 50 ms in between. A reset sequence then has both lines
        asserted for so long that the usual reset circuit starts the application. So this state is delayed until the
        next change, or for ``HOLD_S``.
        """
        self._both_at = None
        if dtr and rts and self.wire.has_baud:
            self._both_at = time.monotonic() + HOLD_S
        else:
            self.wire.set_lines(self._now(), dtr=dtr, rts=rts)

    def discard(self) -> None:
        """Discard what the chip has sent."""
        now = self._now()
        self.wire.advance(now)
        self.wire.take(now)

    def exchange(self, data: bytes) -> bytes:
        """Send the client's bytes to the chip; returns what the chip has sent."""
        now = self._now()
        if self._both_at is not None and time.monotonic() >= self._both_at:
            self._both_at = None
            self.wire.set_lines(now, dtr=True, rts=True)
        self.wire.advance(now)
        if data:
            self.wire.send(now, data)
        self.wire.advance(now)
        answer = self.wire.take(now)
        stop = time.monotonic() + BUDGET_S
        while (
            self._runs_ahead
            and (due := self.wire.next_event()) is not None
            and time.monotonic() < stop
        ):
            self._ahead += max(0.0, due - now)
            now = self._last = max(now, due)
            self.wire.advance(now)
            answer += self.wire.take(now)
        return answer

    def pause(self) -> float:
        """Real seconds until something happens, at most the poll time."""
        due = self.wire.next_event()
        if due is None:
            return POLL_S
        return 0.0 if self._runs_ahead else min(POLL_S, max(0.0, due - self._now()))

    @property
    def has_room(self) -> bool:
        """Whether the line has room for more data: a serial port accepts no more than it can send."""
        return self.wire.sent_by < self._now() + LINE_ROOM_S

    @property
    def _runs_ahead(self) -> bool:
        """Whether time jumps ahead. A program that runs forever does not count."""
        return not self.paced and (
            self.chip.busy or (self.wire.pending and not self.chip.runs_freely)
        )

    def _now(self) -> float:
        now = time.monotonic() - self._started + self._ahead
        if now > self._last + STEP_S:
            self._ahead -= now - self._last - STEP_S
            now = self._last + STEP_S
        self._last = max(self._last, now)
        return now


def serve(
    options: VirtualOptions,
    *,
    tcp: tuple[str, int] | None = None,
    rfc2217: bool = False,
    announce: Callable[[str], None],
    note: Callable[[str], None] = lambda text: None,
    stop: CancelToken | None = None,
) -> VirtualChip:
    """Serve one chip until ``stop``, or SIGINT or SIGTERM if there is none; then the flash file is complete.

    :param tcp: host and port to listen on, port 0 for a free one; None: a pseudo terminal
    :param rfc2217: use RFC 2217 on it: the client sets the baud rate and the modem lines
    :param announce: called once, with a line such as ``listening on socket://127.0.0.1:3333``
    :param note: called with messages for the user, such as that a program cannot be run
    :returns: the chip, its flash file closed
    :raises UsageError: the options do not suit the chip
    :raises TransportError: the address cannot be used
    :raises Unsupported: this system has no pseudo terminals
    """
    chip = build_chip(options)
    chip.note = note

    def listening(line: str) -> None:
        announce(line)  # first, because programs read the first line
        if chip.warning:
            note(chip.warning)

    try:
        # load the models and the engine now: esptool waits only 0.2 s for an answer when it starts a stub
        from espwire.virtual.programs import stub_model, vendor_stub  # noqa: F401
        from espwire.virtual.soc import program  # noqa: F401

        with _stop_token(stop) as token:
            if tcp is not None:
                _serve_tcp(Bench(chip, has_baud=rfc2217), tcp, listening, token, rfc2217=rfc2217)
            else:
                _serve_pty(Bench(chip), listening, token)
    finally:
        chip.flash.close()
    return chip


@contextlib.contextmanager
def _stop_token(stop: CancelToken | None) -> Iterator[CancelToken]:
    """The caller's token, or a token that the two signals cancel."""
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


def _serve_tcp(
    bench: Bench,
    address: tuple[str, int],
    announce: Callable[[str], None],
    token: CancelToken,
    *,
    rfc2217: bool,
) -> None:
    host, port = address
    with (
        _listen(host, port) as server,
        contextlib.closing(
            _ClientQueue(bench, Rfc2217Client if rfc2217 else SocketClient)
        ) as queue,
    ):
        server.setblocking(False)
        shown = f"[{host}]" if ":" in host else host
        announce(
            f"listening on {'rfc2217' if rfc2217 else 'socket'}://{shown}:{server.getsockname()[1]}"
        )
        while not token.cancelled:
            queue.serve(server)


class _ClientQueue:
    """The client that is served, and those that wait."""

    def __init__(self, bench: Bench, kind: type[SocketClient]) -> None:
        self._bench, self._kind = bench, kind
        self.client: SocketClient | None = None
        self.waiting: deque[SocketClient] = deque()

    def close(self) -> None:
        """Disconnect all."""
        for client in (self.client, *self.waiting):
            if client is not None:
                client.close(self._bench)

    def serve(self, server: socket.socket) -> None:
        """Wait for the next event and handle it."""
        bench, client = self._bench, self.client
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            for other in self.waiting:
                selector.register(other, selectors.EVENT_READ)
            if client is not None:
                events = (
                    selectors.EVENT_READ * bench.has_room | selectors.EVENT_WRITE * client.has_more
                )
                if events:
                    selector.register(client, events)
            ready = {key.fileobj: events for key, events in selector.select(bench.pause())}
        if server in ready:
            self._accept(server)
        stays = True
        if client is not None:
            if ready.get(client, 0) & selectors.EVENT_READ:
                stays = client.receive(bench)
            else:
                client.deliver(bench.exchange(b""))
            stays = client.flush() and stays
        else:
            bench.exchange(b"")  # discard what the chip sends
        self._choose(stays=stays)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.waiting.append(self._kind(server.accept()[0]))
        while len(self.waiting) > MOST_CLIENTS:
            self.waiting.popleft().close(self._bench)

    def _choose(self, *, stays: bool) -> None:
        """Choose the client that is served next."""
        for other in [other for other in self.waiting if other.has_sent is None]:
            self.waiting.remove(other)
            other.close(self._bench)
        following = next((other for other in self.waiting if other.has_sent), None)
        silent = self.client is None or time.monotonic() - self.client.last_receive > SILENT_S
        if following is None and self.waiting and (silent or not stays):
            following = self.waiting[0]
        if self.client is not None and (following is not None or not stays):
            self.client.close(self._bench)
            self.client = None
            self._bench.chip.flash.flush()
        if following is not None:
            self.waiting.remove(following)
            self.client = following
            following.last_receive = time.monotonic()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
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


def _serve_pty(bench: Bench, announce: Callable[[str], None], token: CancelToken) -> None:
    if sys.platform != "win32":
        import pty
        import tty

        master, slave = pty.openpty()
        try:
            tty.setraw(slave)
            os.set_blocking(master, False)
            announce(f"listening on {os.ttyname(slave)}")
            _serve_terminal(bench, TerminalClient(master), token)
        finally:
            os.close(master)
            os.close(slave)
    else:
        raise Unsupported(
            "this system has no pseudo terminals", hint="Serve with --tcp 127.0.0.1:0 instead."
        )


def _serve_terminal(bench: Bench, client: TerminalClient, token: CancelToken) -> None:
    """Pass bytes in both directions until the token is cancelled."""
    with selectors.DefaultSelector() as selector:
        while not token.cancelled:
            if bench.has_room:
                selector.register(client, selectors.EVENT_READ)
                readable = bool(selector.select(bench.pause()))
                selector.unregister(client)
                if readable and not client.receive(bench):
                    return
            else:
                time.sleep(min(POLL_S, LINE_ROOM_S))
            client.deliver(bench.exchange(b""))


CHUNK = 0x10000
MOST_WAITING = 0x100000  # unsent bytes for a client; with more, the client is dropped
MAX_BAUD = 12_000_000


class SocketClient:
    """A plain TCP connection: bytes only. ``last_receive``: when the client last sent something."""

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

    def close(self, bench: Bench) -> None:
        """Close the connection."""
        self.flush()
        self._socket.close()

    @property
    def has_sent(self) -> bool | None:
        """Whether the client has sent bytes; None: it has disconnected."""
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK)) or None
        except BlockingIOError:
            return False
        except OSError:
            return None

    def receive(self, bench: Bench) -> bool:
        """Pass the client's bytes to the chip; False: it has disconnected."""
        try:
            data = self._socket.recv(CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if data:
            self.last_receive = time.monotonic()
            self.process(bench, data)
        return bool(data)

    def process(self, bench: Bench, data: bytes) -> None:
        """Process bytes from the socket."""
        self.deliver(bench.exchange(data))

    def deliver(self, data: bytes) -> None:
        """Queue bytes from the chip for ``flush``."""
        self._out += data

    @property
    def has_more(self) -> bool:
        """Whether there are unsent bytes."""
        return bool(self._out)

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


class Rfc2217Client(SocketClient):
    """A TCP connection that also sets baud rate and modem lines (RFC 2217). Other settings are confirmed and ignored."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client)
        self._decoder = telnet.ServerDecoder()
        self._dtr = self._rts = False
        self._greeted = False

    def close(self, bench: Bench) -> None:
        """Close the connection and release both modem lines, as closing a port does."""
        super().close(bench)
        if self._dtr or self._rts:
            bench.set_lines(dtr=False, rts=False)

    def process(self, bench: Bench, data: bytes) -> None:
        """Process data and RFC 2217 requests."""
        for event in self._decoder.take(data):
            if isinstance(event, bytes):
                self.deliver(bench.exchange(event))
            else:
                self._out += telnet.build_answer(event[0], self._carry_out(bench, *event))
        self._out += self._decoder.replies
        self._decoder.replies.clear()
        if self._decoder.accepted and not self._greeted:
            self._greeted = True
            # none of these lines is connected
            self._out += telnet.build_answer(telnet.NOTIFY_MODEM_STATE, b"\0")

    def deliver(self, data: bytes) -> None:
        """Queue bytes from the chip for ``flush``."""
        self._out += telnet.escape(data)

    def _carry_out(self, bench: Bench, option: int, value: bytes) -> bytes:
        """Execute a request; returns the value of the answer."""
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
    """The master side of a pseudo terminal, which cannot detect clients."""

    def __init__(self, master: int) -> None:
        self._master = master

    def fileno(self) -> int:
        """For a selector."""
        return self._master

    def receive(self, bench: Bench) -> bool:
        """Pass received bytes to the chip; False: the terminal is gone."""
        try:
            data = os.read(self._master, CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.deliver(bench.exchange(data))
        return bool(data)

    def deliver(self, data: bytes) -> None:
        """Pass bytes from the chip; those that do not fit are lost, as on a serial port that is not read."""
        with contextlib.suppress(BlockingIOError):
            while data:
                data = data[os.write(self._master, data) :]
