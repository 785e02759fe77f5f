"""Lets any flashing tool talk to a virtual chip, over TCP, RFC 2217 or a pseudo terminal. Prints nothing.

One client at a time; the chip lives on between them. A plain TCP socket and a pseudo terminal carry no baud rate and
no DTR and RTS; RFC 2217 carries all of them. Unpaced, simulated time jumps to the end of whatever the loader or a stub
does, so a client waits for nothing. Paced, an erase takes as long as on the desk, and bytes as long as on a serial
line.

A client cannot lock out the next one: the next one takes over as soon as it sends something, or once the present one
has been silent for ten seconds. A connection that is opened and closed again, as by a port scanner, disturbs nobody.

The clients of a served chip: a TCP socket, with RFC 2217 or plain, or a pseudo terminal.

No client can block the server: sockets are never waited for, and one that does not take what the chip sends is dropped.
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
STEP_S = (
    0.2  # of simulated time at once; a program that runs slower than the real clock gets no more
)
BUDGET_S = 0.25  # of real time at once, for what takes long to compute
LINE_ROOM_S = 0.1  # what may wait for the line before no more is taken from the client
HOLD_S = 0.3  # before both lines are asserted at once
SILENT_S = 10.0  # after which a client yields to one that waits
MOST_CLIENTS = 8  # that wait


class Bench:
    """A chip on a wire whose simulated time follows the real clock, and runs ahead of it unless paced.

    ``has_baud``: the client sets a rate of its own.
    """

    def __init__(self, chip: VirtualChip, *, has_baud: bool = False) -> None:
        self.chip, self.paced = chip, chip.options.pace
        uart = chip.options.kind == "uart"
        latency = chip.options.latency if self.paced else 0.0
        self.wire = Wire(
            chip, latency=latency, has_baud=has_baud and uart, follows=self.paced and uart
        )
        self._ahead = self._last = 0.0
        self._both_at: float | None = (
            None  # when both lines become asserted, unless they change before
        )
        self._started = time.monotonic()

    @property
    def baud(self) -> int:
        """The client's rate."""
        return self.wire.host_baud

    @baud.setter
    def baud(self, baud: int) -> None:
        self.wire.advance(self._now())
        self.wire.host_baud = baud

    def set_lines(self, *, dtr: bool, rts: bool) -> None:
        """Set the client's modem lines.

        A client of RFC 2217 changes one line at a time and may wait 50 ms in between. A reset sequence then passes
        through both lines asserted for so long that the usual reset circuit starts the application. So this state
        waits for the next change; on its own it comes later.
        """
        self._both_at = None
        if dtr and rts and self.wire.has_baud:
            self._both_at = time.monotonic() + HOLD_S
        else:
            self.wire.set_lines(self._now(), dtr=dtr, rts=rts)

    def discard(self) -> None:
        """Forget what the chip has sent by now."""
        now = self._now()
        self.wire.advance(now)
        self.wire.take(now)

    def exchange(self, data: bytes) -> bytes:
        """Bytes from the client go in; what the chip has to say by now comes out."""
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
        """How long nothing will happen, in real seconds, at most the poll time."""
        due = self.wire.next_event()
        if due is None:
            return POLL_S
        return 0.0 if self._runs_ahead else min(POLL_S, max(0.0, due - self._now()))

    @property
    def takes_more(self) -> bool:
        """Whether the line has room for more from the client: a serial port takes no more than it can send."""
        return self.wire.sent_by < self._now() + LINE_ROOM_S

    @property
    def _runs_ahead(self) -> bool:
        """Whether time jumps on: not because of a program that goes on for ever."""
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
    """Serve one chip until ``stop``, or SIGINT or SIGTERM where there is none; then the flash file is whole.

    :param tcp: host and port to listen on, port 0 for a free one; None: a pseudo terminal
    :param rfc2217: speak RFC 2217 there: the client sets the rate and the modem lines
    :param announce: called once, with the line that tells where: ``listening on socket://127.0.0.1:3333``
    :param note: called with what a client may miss, such as that a program cannot run
    :returns: the chip, its flash file closed
    :raises UsageError: the options do not suit the chip
    :raises TransportError: the address cannot be listened on
    :raises Unsupported: there are no pseudo terminals here
    """
    chip = build_chip(options)
    chip.note = note
    try:
        # load the models and the engine now: esptool waits only 0.2 s for an answer when it starts a stub
        import espwire.virtual.programs.registry  # noqa: F401

        with _stop_token(stop) as token:
            if tcp is not None:
                _serve_tcp(Bench(chip, has_baud=rfc2217), tcp, announce, token, rfc2217=rfc2217)
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
        _Counter(bench, Rfc2217Client if rfc2217 else SocketClient) as counter,
    ):
        server.setblocking(False)
        shown = f"[{host}]" if ":" in host else host
        announce(
            f"listening on {'rfc2217' if rfc2217 else 'socket'}://{shown}:{server.getsockname()[1]}"
        )
        while not token.cancelled:
            counter.serve(server)


class _Counter:
    """Who is served, and who waits."""

    def __init__(self, bench: Bench, kind: type[SocketClient]) -> None:
        self._bench, self._kind = bench, kind
        self.client: SocketClient | None = None
        self.waiting: deque[SocketClient] = deque()

    def __enter__(self) -> _Counter:
        return self

    def __exit__(self, *_: object) -> None:
        for client in (self.client, *self.waiting):
            if client is not None:
                client.close(self._bench)

    def serve(self, server: socket.socket) -> None:
        """Wait until something happens, and let it."""
        bench, client = self._bench, self.client
        with selectors.DefaultSelector() as selector:
            selector.register(server, selectors.EVENT_READ)
            for other in self.waiting:
                selector.register(other, selectors.EVENT_READ)
            if client is not None:
                events = (
                    selectors.EVENT_READ * bench.takes_more
                    | selectors.EVENT_WRITE * client.has_more
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
            bench.exchange(b"")  # nobody receives what the chip sends now
        self._choose(stays=stays)

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self.waiting.append(self._kind(server.accept()[0]))
        while len(self.waiting) > MOST_CLIENTS:
            self.waiting.popleft().close(self._bench)

    def _choose(self, *, stays: bool) -> None:
        """Find out who is served next."""
        for other in [other for other in self.waiting if other.has_spoken is None]:
            self.waiting.remove(other)
            other.close(self._bench)
        following = next((other for other in self.waiting if other.has_spoken), None)
        silent = self.client is None or time.monotonic() - self.client.heard_at > SILENT_S
        if following is None and self.waiting and (silent or not stays):
            following = self.waiting[0]
        if self.client is not None and (following is not None or not stays):
            self.client.close(self._bench)
            self.client = None
            self._bench.chip.flash.flush()
        if following is not None:
            self.waiting.remove(following)
            self.client = following
            following.heard_at = time.monotonic()


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
        raise TransportError(
            f"cannot listen on {where}: {error.strerror or error}", hint=hint
        ) from None
    except OverflowError:
        raise PortNotFound(
            f"there is no port {port}", hint="Ports go up to 65535; 0 takes a free one."
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
    """Carry bytes both ways until the token is set."""
    with selectors.DefaultSelector() as selector:
        while not token.cancelled:
            if bench.takes_more:
                selector.register(client, selectors.EVENT_READ)
                came = bool(selector.select(bench.pause()))
                selector.unregister(client)
                if came and not client.receive(bench):
                    return
            else:
                time.sleep(min(POLL_S, LINE_ROOM_S))
            client.deliver(bench.exchange(b""))


CHUNK = 0x10000
MOST_WAITING = 0x100000  # bytes that a client has not taken; then it is dropped
MAX_BAUD = 12_000_000


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
            self._out += telnet.build_answer(
                telnet.NOTIFY_MODEM_STATE, b"\0"
            )  # no such line is connected

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
