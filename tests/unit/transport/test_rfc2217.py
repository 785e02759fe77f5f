"""The bytes of RFC 2217, and its client against a server that answers as told, on a pair of sockets."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.errors import Cancelled, TransportError, TransportLost, UsageError
from espwire.transport import rfc2217, telnet
from espwire.transport.base import CancelToken
from espwire.transport.rfc2217 import Rfc2217Transport
from espwire.transport.tcp import TcpTransport
from espwire.transport.telnet import Decoder, build_request, escape
from espwire.transport.url import open_transport

DO_COM_PORT = bytes((telnet.IAC, telnet.DO, telnet.COM_PORT))


def answer(option, value):
    return build_request(option + telnet.ANSWER, value)


@given(st.binary(), st.lists(st.integers(1, 7)))
def test_data_comes_through_however_it_is_cut(data, cuts):
    decoder, wire, found, at = Decoder(), escape(data), b"", 0
    for cut in [*cuts, len(wire)]:
        found += decoder.feed(wire[at : at + cut])
        at += cut
    assert found == data
    assert not decoder.replies


@given(
    st.lists(
        st.one_of(st.binary(max_size=5), st.tuples(st.integers(1, 13), st.binary(max_size=6)))
    ),
    st.integers(1, 9),
)
def test_answers_between_the_data_are_found(parts, step):
    wire, data, answers = b"", b"", []
    for part in parts:
        if isinstance(part, bytes):
            wire, data = wire + escape(part), data + part
        elif part[0] not in (
            telnet.SUSPEND - telnet.ANSWER,
            telnet.RESUME - telnet.ANSWER,
            telnet.NOTIFY_MODEM_STATE,
        ):
            wire += answer(*part)
            answers.append(part)
    decoder = Decoder()
    assert b"".join(decoder.feed(wire[at : at + step]) for at in range(0, len(wire), step)) == data
    assert decoder.answers == answers


@given(st.binary(max_size=3000))
def test_any_bytes_at_all_are_survived(noise):
    decoder = Decoder()
    decoder.feed(noise)
    decoder.feed(bytes((telnet.IAC, telnet.SE)) * 2)


def test_an_endless_request_does_not_swallow_everything():
    decoder = Decoder()
    decoder.feed(bytes((telnet.IAC, telnet.SB)) + bytes(5000))
    assert decoder.feed(b"hello") == b"hello"


def test_a_server_ignores_the_options_of_answers():
    decoder = telnet.ServerDecoder()
    sent = b"".join(telnet.build_request(option, b"\1") for option in (99, 100, 101, 156, 255))
    events = decoder.take(sent + telnet.build_request(telnet.SET_CONTROL, b"\x08"))
    assert [event[0] for event in events] == [99, telnet.SET_CONTROL]
    assert all(telnet.build_answer(event[0], b"") for event in events)


def test_options_are_agreed_once_and_others_refused():
    decoder = Decoder()
    decoder.feed(bytes((telnet.IAC, telnet.WILL, telnet.BINARY)) + DO_COM_PORT)
    assert (decoder.replies, decoder.accepted) == (b"", True)  # the greeting has said it
    decoder.feed(bytes((telnet.IAC, telnet.WILL, 1, telnet.IAC, telnet.DO, 24)) * 2)
    assert decoder.replies == bytes((telnet.IAC, telnet.DONT, 1, telnet.IAC, telnet.WONT, 24))
    decoder.feed(bytes((telnet.IAC, telnet.DONT, telnet.COM_PORT)))
    assert decoder.accepted is False


@pytest.mark.parametrize(
    "url",
    [
        "rfc2217://",
        "rfc2217://host",
        "rfc2217://host:1/x",
        "rfc2217://h:1?speed=3",
        "rfc2217://h:1?timeout=x",
        "rfc2217://h:1?timeout=nan",
    ],
)
def test_urls_that_make_no_sense(url):
    with pytest.raises(UsageError) as caught:
        open_transport(url)
    assert caught.value.code in ("usage", "bad-port")


class Clocked(TcpTransport):
    """Time passes only where it is waited; the other side is scripted, so nothing waits in earnest."""

    def __init__(self, connection, cancel):
        super().__init__(connection, "rfc2217://test:1", cancel)
        self.time = 0.0

    def now(self):
        return self.time

    def read(self, timeout):
        self._cancel.check()
        data = self._receive()
        if data is None:
            self.time += timeout
            return b""
        return data


@pytest.fixture
def pair():
    """A link before its greeting, the server's socket, the token."""
    ours, theirs = socket.socketpair()
    token = CancelToken()
    transport = Rfc2217Transport(Clocked(ours, token))
    yield transport, theirs, token
    transport.close()
    theirs.close()


def test_a_server_of_another_kind_is_told(pair):
    transport, theirs, _ = pair
    theirs.send(b"220 mail.example.com ready\r\n")
    with pytest.raises(TransportError) as caught:
        transport.greet(115200)
    assert caught.value.code == "no-rfc2217"
    assert transport.now() <= rfc2217.GREETING_S + 0.1


def test_a_server_that_floods_instead_of_answering_is_refused(pair, monkeypatch):
    monkeypatch.setattr(rfc2217, "MOST_UNREAD", 4000)
    transport, theirs, _ = pair
    theirs.send(bytes(5000))
    with pytest.raises(TransportLost) as caught:
        transport.greet(115200)
    assert caught.value.code == "bad-server"


def test_a_rate_of_a_thousand_bytes_is_refused_in_a_short_message(pair):
    transport, theirs, _ = pair
    theirs.send(answer(telnet.SET_BAUD, b"\xee" * 1000))
    with pytest.raises(TransportError, match=f"stays at {0xEEEEEEEE}$"):
        transport.set_baud(115200)


def test_lines_go_out_in_one_message_and_a_silent_server_is_waited_for_once(pair):
    transport, theirs, _ = pair
    transport.set_lines(dtr=True, rts=False)
    assert transport.now() == pytest.approx(rfc2217.ANSWER_S)
    wanted = build_request(telnet.SET_CONTROL, b"\x08") + build_request(telnet.SET_CONTROL, b"\x0c")
    assert theirs.recv(100) == wanted
    transport.set_lines(rts=True)
    assert transport.now() == pytest.approx(rfc2217.ANSWER_S)
    assert theirs.recv(100) == build_request(telnet.SET_CONTROL, b"\x0b")
    transport.set_lines()
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)


def test_a_rate_that_the_server_does_not_do_is_refused(pair):
    transport, theirs, _ = pair
    for said, fine in ((921600, True), (115200, False), (0, True)):
        theirs.send(answer(telnet.SET_BAUD, said.to_bytes(4, "big")))
        if fine:
            transport.set_baud(921600)
        else:
            with pytest.raises(TransportError) as caught:
                transport.set_baud(921600)
            assert caught.value.code == "baud-refused"


def test_old_input_is_forgotten_up_to_the_server_s_answer(pair):
    transport, theirs, _ = pair
    theirs.send(b"old" + answer(telnet.PURGE, b"\x01") + b"new")
    transport.discard_input()
    assert transport.read(0.0) in (b"", b"new")
    theirs.send(b"later")
    assert transport.read(1.0) == b"later"


def test_the_server_can_ask_for_a_break(pair):
    transport, theirs, _ = pair
    theirs.send(build_request(telnet.SUSPEND, b""))
    assert transport.read(0.0) == b""
    with pytest.raises(TransportLost) as caught:
        transport.write(b"x", transport.now() + 0.2)
    assert caught.value.code == "write-timeout"
    theirs.send(build_request(telnet.RESUME, b""))
    transport.write(b"\xff", transport.now() + 0.2)
    assert theirs.recv(10) == b"\xff\xff"


def test_a_cancelled_link_stops_but_still_releases_the_lines(pair):
    transport, theirs, token = pair
    token.cancel()
    for act in (
        lambda: transport.read(9),
        lambda: transport.write(b"x", 9.0),
        lambda: transport.sleep(9),
        lambda: transport.set_baud(1),
    ):
        with pytest.raises(Cancelled):
            act()
    transport.set_lines(dtr=False, rts=False)
    assert len(theirs.recv(100)) == 14
    assert transport.now() == 0.0


def test_a_server_gets_bytes_and_requests_in_their_order_however_they_are_cut():
    stream = (
        telnet.build_greeting()
        + b"ab"
        + telnet.escape(b"\xff")
        + telnet.build_request(telnet.SET_BAUD, (255).to_bytes(4, "big"))
        + b"c"
        + telnet.build_request(telnet.SET_CONTROL, bytes((telnet.DTR_ON,)))
    )
    for step in (1, 3, len(stream)):
        decoder = telnet.ServerDecoder()
        events = [
            e for at in range(0, len(stream), step) for e in decoder.take(stream[at : at + step])
        ]
        data = [b"".join(e for e in events if isinstance(e, bytes))]
        requests = [e for e in events if not isinstance(e, bytes)]
        assert data == [b"ab\xffc"]
        assert requests == [(telnet.SET_BAUD, b"\0\0\0\xff"), (telnet.SET_CONTROL, b"\x08")]
        assert events.index(b"c") == events.index(requests[0]) + 1
        assert decoder.accepted
        assert bytes((telnet.IAC, telnet.DO, telnet.COM_PORT)) in decoder.replies


def test_a_server_that_does_not_answer_is_reported_once(pair):
    transport, theirs, _ = pair
    theirs.send(DO_COM_PORT + answer(telnet.SET_BAUD, (115200).to_bytes(4, "big")))
    transport.greet(115200)
    assert transport.info.warning == (
        "the server does not answer line changes and PURGE; continuing without"
    )
    waited = transport.now()
    transport.set_lines(dtr=True, rts=True)
    transport.discard_input()
    assert transport.now() == waited


def test_an_unreachable_local_address_mentions_containers():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TransportError) as caught:
        open_transport(f"rfc2217://127.0.0.1:{port}")
    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "host.docker.internal" in caught.value.hint
