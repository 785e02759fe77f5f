"""The server on real sockets, with an echo or a virtual chip behind it, and clients of all kinds."""

from __future__ import annotations

import errno
import socket
import time
from ipaddress import ip_network
from types import SimpleNamespace

import pytest
import serial

from espwire.cli.commands import serve_port
from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError, TransportLost
from espwire.serve import port as port_module
from espwire.serve import problem_log
from espwire.serve import server as server_module
from espwire.serve.problem_log import ProblemLog
from espwire.serve.server import is_in, parse_network
from espwire.transport import telnet
from espwire.transport.handshake import (
    NONCE_BYTES,
    VERSION,
    build_proof,
    build_refusal,
    parse_refusal,
)
from espwire.transport.url import open_transport
from serving import Echo, serving

TOKEN = b"a token of the laboratory"
HELLO = telnet.build_greeting() + telnet.build_request(telnet.HELLO, bytes((VERSION,)) + bytes(16))


@pytest.fixture
def token_file(tmp_path):
    file = tmp_path / "lab.token"
    file.write_bytes(TOKEN + b"\n")
    return file


def connect(address):
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_all(connection):
    """Everything until the server closes."""
    data = b""
    while piece := connection.recv(4096):
        data += piece
    return data


def exchange(port, data):
    """Send data to an echo and return as many bytes."""
    port.write(data, port.now() + 10)
    back, deadline = b"", port.now() + 10
    while len(back) < len(data) and port.now() < deadline:
        back += port.read(0.5)
    return back


def read_on(port):
    """Read until an error."""
    while True:
        port.read(1)


@pytest.mark.parametrize("scheme", ["rfc2217", "espwire"])
def test_every_byte_passes_both_ways_also_when_all_are_255(scheme):
    echo = Echo()
    with serving(echo) as running:
        port = open_transport(f"{scheme}://{running.address}")
        for data in (
            *(b"\xff" * 3000, bytes(range(256)) * 20, b"\xff\xf0\xff\xff" * 500),
            b"\xff\xfa\x2c\x01\xff\xf0",
        ):
            assert exchange(port, data) == data
        port.set_baud(460800)
        assert echo.baud == 460800
        port.close()


def test_other_clients_get_an_error_that_names_the_holder():
    with serving(Echo()) as running:
        holder = open_transport(f"espwire://{running.address}")
        for scheme in ("espwire", "rfc2217"):
            with pytest.raises(PortBusy) as caught:
                open_transport(f"{scheme}://{running.address}")
            assert "echo is in use by 127.0.0.1:" in str(caught.value)
            assert caught.value.code == "port-busy"
        with connect(running.address) as plain:
            assert b"espwire: echo is in use by 127.0.0.1:" in read_all(plain)
        assert exchange(holder, b"still here") == b"still here"
        holder.close()
        running.wait_for("disconnected")
        open_transport(f"rfc2217://{running.address}").close()
    assert sum("is in use" in note for note in running.notes) == 1


def test_a_long_port_name_does_not_hide_the_holder():
    name = (
        "/dev/serial/by-id/usb-Silicon_Labs_CP2102N_USB_to_UART_Bridge_Controller_0001-if00-port0"
    )
    value = build_refusal("port-busy", f"{name} is in use by 10.0.0.7:51234 since 12:00:00")
    assert "in use by 10.0.0.7:51234" in str(parse_refusal(value, "espwire://lab:2217"))


def test_without_free_files_the_oldest_client_that_greets_makes_room(monkeypatch):
    refused, accept = [1, 1], socket.socket.accept

    def accept_later(self):
        if refused:
            refused.pop()
            raise OSError(errno.EMFILE, "Too many open files")
        return accept(self)

    with serving(Echo()) as running, connect(running.address) as silent:
        silent.sendall(b"\xff")
        time.sleep(0.3)  # it is accepted
        monkeypatch.setattr(server_module.selectors, "DefaultSelector", None)
        monkeypatch.setattr(socket.socket, "accept", accept_later)
        port = open_transport(f"espwire://{running.address}")
        assert exchange(port, b"a port") == b"a port"
        assert not refused
        assert read_all(silent) == b""
        port.close()


def test_many_sequences_of_the_holder_block_neither_others_nor_the_end():
    with serving(Echo()) as running, connect(running.address) as holder:
        holder.sendall(HELLO + telnet.build_request(telnet.PLAY, b"W0.2") * 100)
        running.wait_for("reset sequence")
        began = time.monotonic()
        with connect(running.address) as other:
            assert b"is in use by" in read_all(other)
        assert time.monotonic() - began < 5
        began = time.monotonic()
    assert time.monotonic() - began < 5


def test_a_port_that_fails_every_read_is_logged_once(monkeypatch):
    class Failing(Echo):
        def read(self, timeout):
            raise TransportLost("it fails")

    monkeypatch.setattr(port_module, "REOPEN_S", 0.02)
    with serving(Failing) as running:
        running.wait_for("back after")
        time.sleep(0.6)
    assert [note.partition("; ")[2] for note in running.notes] == [
        "waiting for it to come back",
        "",
    ]


def test_the_token_of_a_port_behind_the_server_is_not_shown():
    url = "espwire://lab-pc:2217?token=0123456789abcdef"
    context = SimpleNamespace(state=None)
    assert serve_port._find_source(context, url).name == "espwire://lab-pc:2217?token=***"


def test_several_ports_have_a_client_each():
    with serving(Echo(), Echo(), Echo()) as running:
        ports = [open_transport(f"espwire://{address}") for address in running.addresses]
        for number, port in enumerate(ports):
            assert exchange(port, bytes((number,)) * 10) == bytes((number,)) * 10
        for port in ports:
            port.close()


def test_a_token_opens_the_port_and_is_never_sent(token_file, monkeypatch):
    sent = []
    send = socket.socket.send

    def record(self, data, *rest):
        sent.append(bytes(data))
        return send(self, data, *rest)

    monkeypatch.setattr(socket.socket, "send", record)
    with serving(Echo(), token=TOKEN) as running:
        port = open_transport(f"espwire://{running.address}?token-file={token_file}")
        assert "token" not in port.info.name
        assert exchange(port, b"hello") == b"hello"
        port.close()
    assert b"hello" in b"".join(sent)
    assert TOKEN not in b"".join(sent)


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("espwire://{}?token=another-token-of-that-length", "wrong-token"),
        ("espwire://{}", "token-needed"),
        ("rfc2217://{}?timeout=2", None),
    ],
)
def test_without_the_token_nothing_opens(url, code):
    with serving(Echo(), token=TOKEN) as running:
        with pytest.raises(TransportError) as caught:
            open_transport(url.format(running.address))
        if code:
            assert isinstance(caught.value, PortDenied)
            assert caught.value.code == code
        assert running.transports[0].received == b""
    assert not any("connected" in note for note in running.notes)


def test_a_client_with_a_token_refuses_a_server_without_one(token_file):
    """Whoever can take the server's address could otherwise pose as it."""
    with serving(Echo()) as running:
        with pytest.raises(PortDenied, match="requires no token") as caught:
            open_transport(f"espwire://{running.address}?token-file={token_file}")
        assert caught.value.code == "wrong-token"


def test_a_recorded_proof_is_worthless():
    """What one connection proved with does not open another, and the server's own proof does not either."""
    with serving(Echo(), token=TOKEN) as running:
        proofs = []
        for attempt in range(3):
            with connect(running.address) as client:
                client.sendall(HELLO)
                decoder, nonce = telnet.Decoder(), None
                while nonce is None:
                    decoder.feed(client.recv(4096))
                    nonce = next((v[2:] for o, v in decoder.answers if o == telnet.HELLO), None)
                assert len(nonce) == NONCE_BYTES
                right = build_proof(TOKEN, "client", nonce, bytes(16))
                proofs.append(right)
                proof = [right, proofs[0], build_proof(TOKEN, "server", nonce, bytes(16))][attempt]
                client.sendall(telnet.build_request(telnet.PROVE, proof))
                answer = b"" if attempt == 0 else read_all(client)
                assert (b"the token is wrong" in answer) is (attempt > 0)
        assert len(set(proofs)) == 3


def test_requests_before_the_proof_are_not_carried_out():
    echo = Echo()
    with serving(echo, token=TOKEN) as running, connect(running.address) as client:
        client.sendall(
            HELLO
            + telnet.build_request(telnet.SET_BAUD, (9600).to_bytes(4, "big"))
            + telnet.build_request(telnet.PLAY, b"R1|W0.1|R0")
            + b"data"
        )
        assert b"requires a token" in read_all(client)
        assert (echo.received, echo.lines) == (b"", [])
        assert echo.baud == 0


def test_the_identity_of_the_port_reaches_the_client():
    echo = Echo(kind="usb-jtag", vid=0x303A, pid=0x1001, serial="AA:BB")
    with serving(echo) as running:
        port = open_transport(f"espwire://{running.address}")
        assert (port.info.kind, port.info.vid, port.info.pid) == ("usb-jtag", 0x303A, 0x1001)
        assert port.info.serial == "AA:BB"
        assert port.info.remote
        port.play_sequence("R1|W0.01|R0", 0.01)
        assert echo.lines[-2:] == [(None, True), (None, False)]
        with pytest.raises(TransportError) as caught:
            port.play_sequence("W20", 20)
        assert caught.value.code == "sequence-refused"
        port.close()


def test_a_purge_drops_what_was_before_it_and_nothing_after_it():
    with serving(Echo()) as running:
        port = open_transport(f"espwire://{running.address}")
        for number in range(50):
            old, new = b"old%02d" % number, b"new%02d" % number
            port.write(old, port.now() + 5)
            port.discard_input()
            port.write(new, port.now() + 5)
            back = b""
            while len(back) < len(new):
                back += port.read(1)
            # the echo of the old data may come after the purge, but nothing of the new data is lost
            assert back.endswith(new)
        port.close()


def test_a_port_that_disappears_is_held_for_its_client():
    echos = [Echo()]
    with serving(lambda: echos[-1]) as running:
        port = open_transport(f"espwire://{running.address}")
        assert exchange(port, b"before") == b"before"
        echos.append(Echo())
        echos[0].gone = True
        running.wait_for("waiting for it to come back")
        assert exchange(port, b"after") == b"after"
        running.wait_for("back after")
        assert echos[1].received == b"after"
        port.close()


def test_a_client_of_a_port_that_stays_away_is_dismissed(monkeypatch):
    monkeypatch.setattr(server_module, "AWAY_S", 0.3)
    echo = Echo()

    def open_echo():
        if echo.gone:
            raise PortNotFound("no such port")
        return echo

    with serving(open_echo) as running:
        port = open_transport(f"espwire://{running.address}")
        echo.gone = True
        with pytest.raises(PortNotFound, match="did not come back within"):
            read_on(port)
        port.close()
        with pytest.raises(PortNotFound) as caught:
            open_transport(f"espwire://{running.address}")
        assert "echo is not connected" in str(caught.value)
        echo.gone = False
        running.wait_for("back after")
        open_transport(f"espwire://{running.address}").close()


def test_only_clients_of_the_networks_may_connect():
    with serving(Echo(), networks=[ip_network("10.0.0.0/8")]) as running:
        with pytest.raises(PortDenied) as caught:
            open_transport(f"espwire://{running.address}")
        assert caught.value.code == "address-not-allowed"
    with serving(Echo(), networks=[parse_network("127.0.0.1")]) as running:
        open_transport(f"espwire://{running.address}").close()


def test_addresses_and_networks():
    networks = [parse_network("192.168.1.7/24"), parse_network("fe80::/10")]
    assert is_in("192.168.1.200", networks)
    assert is_in("::ffff:192.168.1.1", networks)
    assert is_in("fe80::1%eth0", networks)
    assert not is_in("192.168.2.1", networks)


def test_an_error_is_logged_once_and_then_counted(monkeypatch):
    now, lines = [1000.0], []
    monkeypatch.setattr(problem_log.time, "monotonic", lambda: now[0])
    log = ProblemLog(lines.append)
    for _ in range(1000):
        log.log("10.0.0.1", "wrong-token", "the token is wrong")
    log.log("10.0.0.2", "wrong-token", "the token is wrong")
    assert len(lines) == 2
    now[0] += 61
    log.log("10.0.0.1", "wrong-token", "the token is wrong")
    assert lines[2] == "the token is wrong (999 more like it)"
    for number in range(10_000):
        log.log(str(number), "x", "x")
    assert len(log._seen) == problem_log.MOST_PROBLEMS


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyserial's own thread
def test_pyserials_client_sees_signals_lines_and_settings():
    echo = Echo()
    with serving(echo) as running:
        with serial.serial_for_url(f"rfc2217://{running.address}", 115200, timeout=10) as port:
            port.write(b"\xff\x00abc")
            assert port.read(5) == b"\xff\x00abc"
            assert port.dsr
            assert port.cd
            assert not port.cts
            port.baudrate = 74880
            assert echo.baud == 74880
            port.reset_input_buffer()
            port.rts, port.dtr = False, False
            time.sleep(0.5)
            assert echo.lines[-1] in [(False, False), (True, True)]
        running.wait_for("disconnected")
    assert not any("reset into" in note for note in running.notes)


def test_a_client_that_never_greets_is_dismissed(monkeypatch):
    monkeypatch.setattr("espwire.serve.client.GREETING_S", 0.2)
    with serving(Echo()) as running, connect(running.address) as client:
        assert b"no greeting within" in read_all(client)


def test_a_client_of_another_protocol_is_told():
    with serving(Echo()) as running, connect(running.address) as client:
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"this is an RFC 2217 server" in read_all(client)
    assert len(running.notes) == 1
