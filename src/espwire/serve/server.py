"""Serves ports to other computers: for each port a listening socket, and a thread with one loop.

One client holds a port at a time; the others get an error that names it. A client cannot block the loop: sockets never block,
what is read from a client waits for the port and stops the reading, unsent bytes are limited, and so are the number of
clients and the time to greet. Each kind of error is logged once per address and minute, with the number of repetitions.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from espwire.errors import Cancelled, UsageError
from espwire.serve.client import Client, State
from espwire.serve.port import TransportPort
from espwire.serve.problem_log import ProblemLog
from espwire.settings import Settings
from espwire.transport import telnet
from espwire.transport.base import CancelToken, Transport
from espwire.transport.listening import listen, show_address, stop_token

Network = IPv4Network | IPv6Network
POLL_S = (
    0.02  # how soon a port without a file descriptor is read; also for line changes that are due
)
QUICK_S = 0.002  # the same while such a port is in use
IDLE_S = 0.1  # without a client
MODEM_S = 0.1  # between two looks at the signals
AWAY_S = 10.0  # a port may be away so long until its client is dismissed
MOST_CLIENTS = 64  # that greet or leave, per port
NO_ROOM = (errno.EMFILE, errno.ENFILE)  # no more files can be opened
TURN_S = 0.1  # for requests of the holder, before others are looked after


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How ports are served.

    ``host``, ``first``: the address; the next ports have the next numbers, or free ones if ``first`` is 0.
    ``networks``: clients from elsewhere are refused; empty: none are. ``token``: what clients must prove; None: nothing.
    """

    host: str = "127.0.0.1"
    first: int = 2217
    networks: Sequence[Network] = ()
    token: bytes | None = None
    long_reset: bool = False
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True)
class PortSource:
    """A port to serve. ``opener`` opens it at a baud rate, at first and whenever it has disappeared."""

    name: str
    opener: Callable[[int], Transport]


def parse_network(text: str) -> Network:
    """A network such as ``192.168.1.0/24``, or one address.

    :raises UsageError: it is neither
    """
    try:
        return ip_network(text, strict=False)
    except ValueError:
        raise UsageError(
            f"{text!r} is not a network", hint="Write for example 192.168.1.0/24 or 10.0.0.7."
        ) from None


class PortServer:
    """Serves one port. ``holder``: the client that uses it."""

    def __init__(
        self,
        source: PortSource,
        listener: socket.socket,
        options: ServeOptions,
        note: Callable[[str], None],
    ) -> None:
        self._listener, self._options, self._note = listener, options, note
        self.port = TransportPort(
            source.name,
            source.opener,
            settings=options.settings,
            note=note,
            long_reset=options.long_reset,
        )
        self.holder: Client | None = None
        self._others: list[Client] = []
        self._problems = ProblemLog(note)
        self._selector = selectors.DefaultSelector()
        self._modem_at, self._modem = 0.0, 0

    def run(self, stop: CancelToken) -> None:
        """Serve until ``stop``."""
        try:
            while not stop.cancelled:
                self.step()
        finally:
            if self.holder is not None:
                self.port.end()
            for client in (self.holder, *self._others):
                if client is not None:
                    client.close_socket()
            self.port.close()
            self._listener.close()
            self._selector.close()

    def step(self) -> None:
        """Wait for the next event and handle everything that is due."""
        ready = self._wait()
        if self._listener in ready:
            self._accept()
        for client in list(self._others):
            alive = client not in ready or client.receive()
            self._look_after(client, alive=alive)
        if self.holder is not None:
            self._serve_holder(self.holder, readable=self.holder in ready)
        elif self.port.reopen() or not self.port.away:
            self.port.read()  # there is no reader

    def _wait(self) -> set[object]:
        holder, port = self.holder, self.port
        number = -1 if port.away else getattr(port.transport, "fileno", lambda: -1)()
        seconds = IDLE_S if holder is None else POLL_S if number >= 0 else QUICK_S
        if holder is not None and (holder.events or port.pending):
            seconds = 0.0
        selector = self._selector
        selector.register(self._listener, selectors.EVENT_READ)
        for client in self._others:
            selector.register(client, selectors.EVENT_READ)
        if holder is not None:
            events = selectors.EVENT_READ * holder.may_send
            events |= selectors.EVENT_WRITE * bool(holder.unsent)
            if events:
                selector.register(holder, events)
            if number >= 0 and holder.may_receive:
                with contextlib.suppress(OSError, ValueError):
                    selector.register(number, selectors.EVENT_READ)
        found = selector.select(seconds)
        for key in list(selector.get_map().values()):
            selector.unregister(key.fileobj)
        return {key.fileobj for key, events in found if events & selectors.EVENT_READ}

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except OSError as error:
            if error.errno in NO_ROOM:
                self._drop_oldest()
            return
        name = show_address(*address[:2])
        client = Client(connection, name, self.port, self._options.token)
        self._others.append(client)
        networks = self._options.networks
        if networks and not is_in(address[0], networks):
            client.refuse("address-not-allowed", f"{address[0]} may not use this server")
        elif self.holder is not None and self._options.token is None:
            self._refuse_busy(client, self.holder)
        if len(self._others) > MOST_CLIENTS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """Close the connection of the oldest client that was refused; without one, of the oldest that greets."""
        if not self._others:
            time.sleep(POLL_S)  # another port has all files that this process may open
            return
        oldest = min(self._others, key=lambda client: client.state is not State.LEAVING)
        self._others.remove(oldest)
        oldest.close_socket()

    def _refuse_busy(self, client: Client, holder: Client) -> None:
        text = f"{self.port.name} is in use by {holder.address} since {holder.since}"
        client.refuse("port-busy", text)

    def _look_after(self, client: Client, *, alive: bool) -> None:
        """A client that greets or leaves: give it the port, refuse it, or close its connection."""
        alive = alive and client.check_time()
        if alive and client.state is State.READY:
            if self.holder is not None:
                self._refuse_busy(client, self.holder)
            elif self.port.away:
                client.refuse("port-not-found", f"{self.port.name} is not connected")
            else:
                self._others.remove(client)
                self.holder = client
                self.port.begin()
                self._modem = self.port.read_modem_state()
                client.hold()
                self._note(f"{self.port.name}: {client.address} connected")
                return
        if client.problem is not None:
            code, text = client.problem
            client.problem = None
            self._problems.log(client.host, code, f"{self.port.name}: {client.address}: {text}")
        if not (client.send_all() and alive) and client in self._others:
            self._others.remove(client)
            client.close_socket()

    def _serve_holder(self, client: Client, *, readable: bool) -> None:
        port = self.port
        alive = not readable or client.receive()
        self._carry_out(client)
        port.settle()
        port.write_some()
        port.reopen()
        if client.may_receive and (data := port.read()):
            client.session.deliver(data)
        self._watch_signals(client)
        if port.lost_at is not None and time.monotonic() - port.lost_at > AWAY_S:
            text = f"{port.name} disappeared and did not come back within {AWAY_S:.0f} seconds"
            client.refuse("port-not-found", text)
        alive = client.check_time() and alive
        if client.send_all() and alive and client.state is State.HOLDER:
            return
        self.holder = None
        port.end()
        self._note(f"{port.name}: {client.address} disconnected")
        if client.state is State.LEAVING and alive:
            self._others.append(client)
        else:
            client.close_socket()

    def _carry_out(self, client: Client) -> None:
        """Carry out what the holder sent, in order; data waits until it is written."""
        port, end = self.port, time.monotonic() + TURN_S
        while client.events and not port.pending and not port.away and time.monotonic() < end:
            event = client.events.pop(0)
            if isinstance(event, bytes):
                port.settle(force=True)
                port.pending = event
            else:
                client.carry_out(*event)

    def _watch_signals(self, client: Client) -> None:
        now = time.monotonic()
        if now < self._modem_at + MODEM_S:
            return
        self._modem_at = now
        state = self.port.read_modem_state()
        changed = (state ^ self._modem) & telnet.SIGNALS
        self._modem = state
        if changed:
            client.session.notify_modem_state(state | changed >> 4)


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address is in one of the networks; IPv4 addresses in IPv6 form count as IPv4."""
    ip = ip_address(address.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    return any((mapped or ip) in network for network in networks)


def serve_ports(
    sources: Sequence[PortSource],
    options: ServeOptions,
    *,
    announce: Callable[[str, str], None],
    note: Callable[[str], None] = lambda text: None,
    stop: CancelToken | None = None,
) -> None:
    """Serve ports until ``stop``, or SIGINT or SIGTERM if there is none.

    :param announce: called once per port with its name and its address, ``host:port``
    :param note: called with lines for the log, from several threads
    :raises TransportError: a port cannot be opened, or an address cannot be used
    """
    guard = threading.Lock()

    def note_one(text: str) -> None:
        with guard:
            note(text)

    with contextlib.ExitStack() as stack, stop_token(stop) as token:
        servers = []
        for number, source in enumerate(sources):
            listener = listen(options.host, options.first and options.first + number)
            stack.callback(listener.close)
            server = PortServer(source, listener, options, note_one)
            stack.callback(server.port.close)
            servers.append(server)
            announce(source.name, show_address(options.host, listener.getsockname()[1]))
        _run_all(servers, token)


def _run_all(servers: Sequence[PortServer], token: CancelToken) -> None:
    """Run each server in a thread; a failure of one ends all."""

    def run(server: PortServer) -> None:
        try:
            with contextlib.suppress(Cancelled):
                server.run(token)
        finally:
            token.cancel()

    with ThreadPoolExecutor(len(servers)) as pool:
        runs = [pool.submit(run, server) for server in servers]
        while wait(runs, IDLE_S).not_done:
            pass  # signals arrive in between
    for each in runs:
        each.result()
