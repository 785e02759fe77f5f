"""Random Telnet strings against the server's and the client's side of RFC 2217: ``python telnet_fuzz.py COUNT SEED``.

Each string is made of valid pieces, damaged pieces and noise, and arrives in pieces of random sizes. What must hold:

* ``session``: data and requests are those that a decoder reads which is written differently, byte by byte; memory is
  bounded; the answers are not longer than the requests by more than a factor;
* ``stranger``: a client without the token never gets the port, and nothing reaches it;
* ``holder``: whatever a client that holds the port sends, the server goes on, and data passes unchanged;
* ``server``: whatever a server sends, the client's side fails with an error of ours or goes on, in bounded memory.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections import Counter

from espwire.errors import ToolError
from espwire.serve.client import Client, State
from espwire.serve.port import TransportPort
from espwire.settings import Settings
from espwire.transport import telnet
from espwire.transport.base import CancelToken, TransportInfo
from espwire.transport.handshake import PROOF_BYTES, build_identity
from espwire.transport.remote import RemoteTransport
from espwire.transport.rfc2217_server import Rfc2217Session, ServedPort
from espwire.transport.tcp import TcpTransport

TOKEN = b"a token that nobody guesses"
KINDS = ("session", "stranger", "holder", "server")
MOST_CHUNK = 700
MOST_REQUEST, MOST_BAUD, MOST_ANSWERS = 1024, 12_000_000, 1024  # what the code promises
INTERESTING = bytes(
    (telnet.IAC, telnet.SB, telnet.SE, telnet.COM_PORT, telnet.WILL, telnet.DO, telnet.DONT, 0)
)
OPTIONS = (*range(14), *range(90, 95), 99, 100, 105, 112, 190, 193, 194, 255)


class FakeSocket:
    """Gives the pieces of a string, and takes everything."""

    def __init__(self, pieces):
        self.pieces, self.sent = list(pieces), bytearray()

    def recv(self, size):
        if not self.pieces:
            raise BlockingIOError
        piece = self.pieces.pop(0)
        if len(piece) > size:
            self.pieces.insert(0, piece[size:])
        return piece[:size]

    def send(self, data):
        self.sent += data
        return len(data)

    def setblocking(self, _):
        pass

    def setsockopt(self, *_):
        pass

    def getsockopt(self, *_):
        return 0

    def shutdown(self, _):
        pass

    def close(self):
        pass

    def fileno(self):
        return -1


class FakeTransport:
    """A port that notes what reaches it; waits cost nothing."""

    def __init__(self):
        self.info = TransportInfo(name="fake", kind="uart")
        self.written, self.calls = bytearray(), 0

    def write(self, data, deadline):
        self.written += data
        self.calls += 1

    def set_lines(self, *, dtr=None, rts=None):
        self.calls += 1

    def set_baud(self, baud):
        assert 0 < baud <= MOST_BAUD
        self.calls += 1

    def read(self, timeout):
        return b""

    def discard_input(self):
        self.calls += 1

    def drain(self):
        pass

    def sleep(self, seconds):
        assert seconds <= 10

    def now(self):
        return 0.0

    def close(self):
        pass


def build_string(rng: random.Random) -> bytes:
    """A string of valid and damaged pieces."""
    out = b""
    for _ in range(rng.randrange(1, 9)):
        match rng.randrange(10):
            case 0:
                piece = rng.randbytes(rng.randrange(40))
            case 1:
                piece = telnet.escape(rng.randbytes(rng.randrange(40)))
            case 2:
                piece = bytes(rng.choices(INTERESTING, k=rng.randrange(30)))
            case 3:
                piece = telnet.build_greeting()
            case 4:
                verb = rng.choice((telnet.DO, telnet.DONT, telnet.WILL, telnet.WONT))
                piece = bytes((telnet.IAC, verb, rng.choice((0, 3, 44, rng.randrange(256)))))
            case 5:
                size = rng.choice((0, 1, 2, 4, 16, 17, PROOF_BYTES, 60, 1100, 3000))
                piece = telnet.build_request(rng.choice(OPTIONS), rng.randbytes(size))
            case 6:
                text = "|".join(rng.choices(("D0", "D1", "R1", "R0", "U1,0", "W0.1", "W9"), k=5))
                piece = telnet.build_request(telnet.PLAY, text.encode())
            case 7:
                piece = telnet.build_request(rng.choice(OPTIONS), bytes((rng.randrange(20),)))
            case 8:
                piece = telnet.build_request(telnet.SET_BAUD, rng.randbytes(4))
            case _:
                piece = telnet.build_request(telnet.HELLO, b"\1" + rng.randbytes(16))
        if piece and rng.random() < 0.2:  # damage
            at = rng.randrange(len(piece))
            piece = rng.choice((piece[:at], piece[at:], piece[:at] + b"\xff" + piece[at:]))
        out += piece
    return out


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """The string in pieces."""
    most = rng.choice((1, 3, 20, MOST_CHUNK))
    pieces, at = [], 0
    while at < len(data):
        size = rng.randrange(1, most + 1)
        pieces.append(data[at : at + size])
        at += size
    return pieces


def decode(data: bytes) -> tuple[list[bytes | tuple[int, bytes]], int, int]:
    """Data and requests, byte by byte; the longest request as sent, and decoded."""
    events: list[bytes | tuple[int, bytes]] = []
    text, state, value, raw, longest, decoded = bytearray(), "data", bytearray(), 0, 0, 0

    def end_text():
        if text:
            events.append(bytes(text))
            text.clear()

    for byte in data:
        raw += state in ("sub", "sub-iac")
        match state:
            case "data":
                if byte == 255:
                    state = "iac"
                else:
                    text.append(byte)
            case "iac":
                state = "verb" if 251 <= byte <= 254 else "sub" if byte == 250 else "data"
                if byte == 255:
                    text.append(255)
                raw = 0
                value.clear()
            case "verb":
                state = "data"
            case "sub":
                if byte == 255:
                    state = "sub-iac"
                else:
                    value.append(byte)
            case _:
                state = "sub" if byte == 255 else "data"
                if byte == 255:
                    value.append(255)
                else:
                    decoded = max(decoded, len(value))
                    if len(value) >= 2 and value[0] == 44 and value[1] < 100:
                        end_text()
                        events.append((value[1], bytes(value[2:])))
        longest = max(longest, raw)
    end_text()
    return events, longest, decoded


def join(events):
    """Events with neighbouring data joined."""
    joined: list[bytes | tuple[int, bytes]] = []
    for event in events:
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    return joined


def check_session(rng, data, seen):
    session, events = Rfc2217Session(ServedPort()), []
    for piece in cut(rng, data):
        taken = session.take(piece)
        assert len(session._decoder._rest) <= MOST_REQUEST + 8, "unbounded memory"
        if session.oversized:
            break  # the client is refused, and nothing of this piece is carried out
        events += taken
    expected, longest, decoded = decode(data)
    if session.oversized:
        seen["oversized"] += 1
        assert longest > MOST_REQUEST
        joined = join(events)
        text = joined.pop() if joined and isinstance(joined[-1], bytes) else b""
        assert joined == expected[: len(joined)]
        assert not text or expected[len(joined)].startswith(text)
        return
    assert decoded <= MOST_REQUEST, "an oversized request was not noticed"
    assert join(events) == expected
    for event in events:
        if isinstance(event, tuple):
            seen["requests"] += 1
            session.carry_out(*event)
    assert len(session.out) <= 20 * len(data) + 100
    assert 0 < session.port.baud <= MOST_BAUD


def open_client(pieces, token):
    transport = FakeTransport()
    port = TransportPort(
        "fake", lambda baud: transport, settings=Settings(), note=lambda text: None
    )
    transport.calls = 0
    return transport, port, Client(FakeSocket(pieces), "10.0.0.7:5", port, token)


def check_stranger(rng, data, seen):
    if rng.random() < 0.5:  # knows the protocol, but not the token
        hello = telnet.build_request(telnet.HELLO, b"\1" + rng.randbytes(16))
        data = telnet.build_greeting() + hello + rng.choice((b"", data))
        data += telnet.build_request(telnet.PROVE, rng.randbytes(rng.choice((0, 31, 32, 32, 33))))
    transport, _, client = open_client(cut(rng, data), TOKEN)
    while client._socket.pieces:
        client.receive()
        assert client.state is not State.READY, "a stranger got the port"
        if client.state is State.LEAVING:
            break
    seen[f"stranger {client.problem[0] if client.problem else 'waits'}"] += 1
    assert transport.calls == 0
    assert TOKEN not in client._socket.sent


def check_holder(rng, data, seen):
    transport, port, client = open_client(cut(rng, data), None)
    client.state = State.HOLDER
    sent = bytearray()
    while client._socket.pieces and client.state is State.HOLDER:
        client.receive()
        for event in client.events:
            if isinstance(event, bytes):
                sent += event
                port.settle(force=True)
                port.pending = event
                while port.pending:
                    port.write_some()
            else:
                client.carry_out(*event)
        client.events.clear()
        client.send_all()
    seen[f"holder {client.state.name}"] += 1
    assert transport.written == sent
    assert len(client._socket.sent) <= 40 * len(data) + 2000


def check_server(rng, data, seen):
    token: bytes | None = TOKEN
    if rng.random() < 0.5:  # behaves at first
        token = None
        hello = telnet.build_answer(telnet.HELLO, b"\1\0" + rng.randbytes(16))
        identity = build_identity(TransportInfo(name="fake", kind="uart"))
        data = hello + telnet.build_answer(telnet.IDENTITY, identity) + data
    pieces = cut(rng, data)
    tcp = TcpTransport(FakeSocket(pieces), "espwire://fake:1", CancelToken())
    left = iter(pieces)
    tcp.read = lambda timeout: next(left, b"")
    clock = itertools.count()
    tcp.now = lambda: next(clock) / 10
    remote = RemoteTransport(tcp)
    try:
        remote.log_in(token, wait=2)
        seen["server accepted"] += 1
    except ToolError as error:
        seen[f"server {error.code}"] += 1
    for _ in range(len(pieces)):
        try:
            remote.read(0.1)
            remote.discard_input()
        except ToolError:
            break
    assert len(remote._decoder.answers) <= MOST_ANSWERS
    assert len(remote._decoder._rest) <= MOST_REQUEST + 8


CHECKS = dict(zip(KINDS, (check_session, check_stranger, check_holder, check_server), strict=True))


def run(count: int, seed: int) -> Counter[str]:
    """Check so many strings; what happened, by kind. Fails at the first string that breaks a rule, and names it."""
    seen: Counter[str] = Counter()
    for number in range(count):
        rng = random.Random(f"{seed}:{number}")
        data, kind = build_string(rng), KINDS[number % len(KINDS)]
        try:
            CHECKS[kind](rng, data, seen)
        except Exception as error:
            raise AssertionError(f"{kind}, seed {seed}, number {number}: {error!r}") from error
        seen[kind] += 1
    return seen


if __name__ == "__main__":
    began = time.monotonic()
    found = run(int(sys.argv[1]), int(sys.argv[2]))
    print(f"{sys.argv[1]} strings, seed {sys.argv[2]}: {time.monotonic() - began:.0f} s")
    for what, times in sorted(found.items()):
        print(f"  {what}: {times:,}")
