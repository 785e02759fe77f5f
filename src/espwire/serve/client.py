"""A client of a served port, from its first byte: it proves itself, then it holds the port, or it is refused."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from enum import Enum

from espwire.serve.port import TransportPort
from espwire.transport import telnet
from espwire.transport.handshake import (
    NONCE_BYTES,
    VERSION,
    build_identity,
    build_proof,
    build_refusal,
    is_proof,
)
from espwire.transport.listening import ClientSocket
from espwire.transport.rfc2217_server import Event, Rfc2217Session

GREETING_S = 8.0  # for a client to greet and prove itself
GOODBYE_S = 2.0  # for a refused client to read why
MOST_OUT = 0x10000  # unsent bytes; with more, nothing is read from the port
STUCK_S = 60.0  # without taking anything, after which a client is dropped
READ = 0x4000
KEEP_IDLE_S, KEEP_COUNT = 10, 3  # a client that has vanished from the network is noticed after 40 s


class State(Enum):
    """What a client may do."""

    GREETING = "it has not offered RFC 2217 or not proved the token"
    READY = "it may hold the port"
    HOLDER = "it holds the port"
    LEAVING = "it was refused, and may read why"


class Client(ClientSocket):
    """A connection. ``problem``: why it was refused: a code of ``handshake.parse_refusal`` and a text for the log.

    :param token: None: no proof is required
    """

    def __init__(
        self, connection: socket.socket, address: str, port: TransportPort, token: bytes | None
    ) -> None:
        super().__init__(connection)
        self.address, self.host = address, address.rpartition(":")[0]
        self.state = State.GREETING
        self.problem: tuple[str, str] | None = None
        self.session = Rfc2217Session(port)
        self.since = time.strftime("%H:%M:%S")
        self.events: list[Event] = []  # received, and not carried out yet
        self._port, self._token = port, token
        self._deadline = time.monotonic() + GREETING_S
        self._taken_at = time.monotonic()
        self._nonces: tuple[bytes, bytes] | None = None
        self._proved = token is None
        _keep_alive(connection)

    @property
    def may_send(self) -> bool:
        """Whether more is read from it: not while earlier requests wait, or while it does not read the answers."""
        return not self.events and not self._port.pending and self.unsent < MOST_OUT

    @property
    def may_receive(self) -> bool:
        """Whether data of the device may be queued for it."""
        return not self.session.paused and self.unsent < MOST_OUT

    def receive(self) -> bool:
        """Take what it sent; False: it has disconnected, or exceeds its time."""
        data = self.read(READ)
        if data is None:
            return False
        if self.state is State.LEAVING:
            return time.monotonic() < self._deadline
        self.events += self.session.take(data)
        if self.session.oversized:
            self.refuse("bad-request", "a Telnet request is too long")
        elif self.state is State.GREETING:
            self._greet()
        return True

    def check_time(self) -> bool:
        """Whether it is still within its time: to greet, to leave, or to take what is sent."""
        now = time.monotonic()
        if self.state is State.GREETING and now > self._deadline:
            text = "no greeting" if self._proved else "no proof of the token"
            self.refuse("bad-request", f"{text} within {GREETING_S:.0f} seconds")
        if self.state is State.LEAVING:
            return now < self._deadline
        if not self.unsent:
            self._taken_at = now
        return now - self._taken_at < STUCK_S

    def send_all(self) -> bool:
        """Queue the session's answers and send what it takes; False: it has disconnected or takes nothing."""
        if self.session.out:
            self.send(self.session.out)
            self.session.out.clear()
        before = self.unsent
        alive = self.flush()
        if self.unsent < before:
            self._taken_at = time.monotonic()
        return alive

    def hold(self) -> None:
        """Give it the port."""
        self.state = State.HOLDER
        if self._nonces is not None:
            self.session.notify(telnet.IDENTITY, build_identity(self._port.info))
        self.session.notify(telnet.NOTIFY_MODEM_STATE, bytes((self._port.read_modem_state(),)))

    def refuse(self, code: str, text: str) -> None:
        """End the conversation: a line for people and programs that show what they receive, a request for espwire."""
        if self.state is State.LEAVING:
            return
        self.problem = (code, text)
        self.state, self._deadline = State.LEAVING, time.monotonic() + GOODBYE_S
        self.events.clear()
        self.session.out += f"espwire: {text}\r\n".encode("utf-8", "replace")
        self.session.notify(telnet.REFUSE, build_refusal(code, text))
        self.send_all()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def carry_out(self, option: int, value: bytes) -> None:
        """Carry out a request of the holder."""
        match option:
            case telnet.HELLO:
                self._answer_hello(value)
                self.session.notify(telnet.IDENTITY, build_identity(self._port.info))
            case telnet.PLAY if self._nonces is not None:
                answer = self._port.play_text(value.decode("utf-8", "replace"))
                self.session.notify(telnet.PLAY, answer)
            case _:
                self.session.carry_out(option, value)

    def _greet(self) -> None:
        """Handle the first requests of the client."""
        while self.events and self.state is State.GREETING:
            event = self.events[0]
            if self._proved and self.session.accepted:
                break
            del self.events[0]
            if isinstance(event, bytes):
                self.refuse("bad-request", "this is an RFC 2217 server, and the client is not")
            elif event[0] == telnet.HELLO:
                self._answer_hello(event[1])
            elif event[0] == telnet.PROVE and self._nonces is not None and not self._proved:
                self._check_proof(event[1])
            elif not self._proved:
                self.refuse(
                    "token-needed", "this server requires a token: use espwire://HOST:PORT?token…"
                )
        if self.state is State.GREETING and self._proved and self.session.accepted:
            self.state = State.READY

    def _answer_hello(self, value: bytes) -> None:
        if len(value) != 1 + NONCE_BYTES:
            self.refuse("bad-request", "the client's version of espwire is not supported")
            return
        self._nonces = (secrets.token_bytes(NONCE_BYTES), value[1:])
        head = bytes((VERSION, self._token is not None and not self._proved))
        self.session.notify(telnet.HELLO, head + self._nonces[0])

    def _check_proof(self, proof: bytes) -> None:
        assert self._token is not None
        assert self._nonces is not None
        if not is_proof(proof, build_proof(self._token, "client", *self._nonces)):
            self.refuse("wrong-token", "the token is wrong")
            return
        self._proved = True
        self.session.notify(telnet.PROVE, build_proof(self._token, "server", *self._nonces))


def _keep_alive(connection: socket.socket) -> None:
    """Have the system notice a client that has vanished; where it cannot, it takes the system's two hours."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", KEEP_IDLE_S),
            ("TCP_KEEPINTVL", KEEP_IDLE_S),
            ("TCP_KEEPCNT", KEEP_COUNT),
        ):
            if (number := getattr(socket, name, None)) is not None:
                connection.setsockopt(socket.IPPROTO_TCP, number, value)
