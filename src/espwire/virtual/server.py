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
import os
import selectors
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from espwire.errors import Unsupported
from espwire.transport import telnet
from espwire.transport.base import CancelToken
from espwire.transport.listening import CHUNK, ClientSocket, listen, show_address, stop_token
from espwire.transport.rfc2217_server import Rfc2217Session, ServedPort
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
        self.wire.set_baud(self.read_clock(), baud)

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
            self.wire.set_lines(self.read_clock(), dtr=dtr, rts=rts)

    def discard(self) -> None:
        """Discard what the chip has sent."""
        now = self.read_clock()
        self.wire.advance(now)
        self.wire.take(now)

    def exchange(self, data: bytes) -> bytes:
        """Send the client's bytes to the chip; returns what the chip has sent."""
        now = self.read_clock()
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
        return 0.0 if self._runs_ahead else min(POLL_S, max(0.0, due - self.read_clock()))

    @property
    def has_room(self) -> bool:
        """Whether the line has room for more data: a serial port accepts no more than it can send."""
        return self.wire.sent_by < self.read_clock() + LINE_ROOM_S

    @property
    def _runs_ahead(self) -> bool:
        """Whether time jumps ahead. A program that runs forever does not count."""
        return not self.paced and (
            self.chip.busy or (self.wire.pending and not self.chip.runs_freely)
        )

    def read_clock(self) -> float:
        """The simulated time, which follows the real clock."""
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
        load_models()
        with stop_token(stop) as token:
            if tcp is not None:
                _serve_tcp(Bench(chip, has_baud=rfc2217), tcp, listening, token, rfc2217=rfc2217)
            else:
                _serve_pty(Bench(chip), listening, token)
    finally:
        chip.flash.close()
    return chip


def load_models() -> None:
    """Load the models and the engine now: esptool waits only 0.2 s for an answer when it starts a stub."""
    from espwire.virtual.programs import stub_model, vendor_stub  # noqa: F401
    from espwire.virtual.soc import program  # noqa: F401


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
        listen(host, port) as server,
        contextlib.closing(
            _ClientQueue(bench, Rfc2217Client if rfc2217 else SocketClient)
        ) as queue,
    ):
        shown = show_address(host, server.getsockname()[1])
        announce(f"listening on {'rfc2217' if rfc2217 else 'socket'}://{shown}")
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
                events = selectors.EVENT_READ * bench.has_room | selectors.EVENT_WRITE * bool(
                    client.unsent
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


class SocketClient(ClientSocket):
    """A plain TCP connection: bytes only."""

    def close(self, bench: Bench) -> None:
        """Close the connection."""
        self.close_socket()

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
        data = self.read()
        if data:
            self.process(bench, data)
        return data is not None

    def process(self, bench: Bench, data: bytes) -> None:
        """Process bytes from the socket."""
        self.deliver(bench.exchange(data))

    def deliver(self, data: bytes) -> None:
        """Queue bytes from the chip for ``flush``."""
        self.send(data)


class BenchPort(ServedPort):
    """The chip's port for one client: baud rate and modem lines. Other settings are confirmed and have no effect."""

    def __init__(self, bench: Bench) -> None:
        self._bench, self.baud = bench, bench.baud

    def set_baud(self, baud: int) -> None:
        """Change the client's baud rate."""
        self._bench.baud = baud
        self.baud = self._bench.baud

    def request_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set a line, if it changes."""
        before = self.dtr, self.rts
        self.dtr = self.dtr if dtr is None else dtr
        self.rts = self.rts if rts is None else rts
        if (self.dtr, self.rts) != before:
            self._bench.set_lines(dtr=self.dtr, rts=self.rts)

    def discard_input(self) -> None:
        """Discard what the chip has sent."""
        self._bench.discard()

    def set_format(self, option: int, value: int) -> int:
        """Confirm the value; the chip has 8N1."""
        return value or super().set_format(option, value)


class Rfc2217Client(SocketClient):
    """A TCP connection that also sets baud rate and modem lines (RFC 2217)."""

    def __init__(self, client: socket.socket) -> None:
        super().__init__(client)
        self._session: Rfc2217Session | None = None
        self._greeted = False

    def close(self, bench: Bench) -> None:
        """Close the connection and release both modem lines, as closing a port does."""
        super().close(bench)
        if self._session is not None:
            self._session.port.request_lines(dtr=False, rts=False)

    def process(self, bench: Bench, data: bytes) -> None:
        """Process data and RFC 2217 requests."""
        session = self._session = self._session or Rfc2217Session(BenchPort(bench))
        for event in session.take(data):
            if isinstance(event, bytes):
                session.deliver(bench.exchange(event))
            else:
                session.carry_out(*event)
        if session.accepted and not self._greeted:
            self._greeted = True
            # none of these lines is connected
            session.notify(telnet.NOTIFY_MODEM_STATE, b"\0")
        self.send(session.out)
        session.out.clear()

    def deliver(self, data: bytes) -> None:
        """Queue bytes from the chip for ``flush``."""
        self.send(telnet.escape(data))


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
