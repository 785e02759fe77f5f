"""Links on real pseudo terminals, sockets and clocks: rates, locks, deadlines, and a token that ends every wait."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.errors import Cancelled, PortBusy, TransportError, TransportLost
from espwire.transport import serial
from espwire.transport.base import CancelToken
from espwire.transport.rfc2217 import Rfc2217Transport
from espwire.transport.tcp import TcpTransport
from espwire.transport.url import open_transport

if sys.platform == "win32":
    pytest.skip("pseudo terminals are of POSIX", allow_module_level=True)

from rfc2217_server import serve

SOON = 0.1  # the longest between a cancelled token and the end of a wait
SLACK = 0.1  # a busy machine's
LINUX = sys.platform.startswith("linux")


@pytest.fixture
def terminal():
    """A pseudo terminal: the master's descriptor, and the slave's path."""
    import tty

    master, slave = os.openpty()
    tty.setraw(slave)
    name = os.ttyname(slave)
    os.close(slave)
    os.set_blocking(master, False)
    yield master, name
    os.close(master)


def make(kind, terminal, token):
    """An open link of that kind, and what holds its other end."""
    if kind == "serial":
        return open_transport(terminal[1], cancel=token), terminal
    if kind == "virtual":
        return open_transport("virtual:esp32c3?pace=1", cancel=token), None
    ours, theirs = socket.socketpair()
    tcp = TcpTransport(ours, f"{kind}://test:1", token)
    return (tcp if kind == "tcp" else Rfc2217Transport(tcp)), theirs


@pytest.mark.parametrize("act", ["read", "sleep", "write"])
@pytest.mark.parametrize("kind", ["serial", "tcp", "rfc2217", "virtual"])
def test_a_token_set_in_another_thread_ends_every_wait_within_100_ms(kind, act, terminal):
    if (kind, act) == ("virtual", "write"):
        return  # its writes never wait
    token = CancelToken()
    transport, other = make(kind, terminal, token)
    cancelled = []

    def cancel():
        cancelled.append(time.monotonic())
        token.cancel()

    timer = threading.Timer(0.12, cancel)
    timer.start()
    acts = {
        "read": lambda: transport.read(20.0),
        "sleep": lambda: transport.sleep(20.0),
        "write": lambda: transport.write(
            bytes(20_000_000), transport.now() + 20.0
        ),  # nobody takes them
    }
    with pytest.raises(Cancelled):
        acts[act]()
    took = time.monotonic() - cancelled[0]
    before = time.monotonic()
    transport.close()
    assert took < SOON + SLACK
    assert time.monotonic() - before < 1.0
    timer.join()
    if isinstance(other, socket.socket):
        other.close()


@pytest.mark.parametrize("kind", ["serial", "tcp", "rfc2217"])
def test_a_write_that_nobody_takes_ends_at_its_deadline(kind, terminal):
    transport, other = make(kind, terminal, CancelToken())
    began = time.monotonic()
    with pytest.raises(TransportLost) as caught:
        transport.write(bytes(20_000_000), transport.now() + 0.2)
    assert caught.value.code == "write-timeout"
    assert 0.15 < time.monotonic() - began < 1.5
    transport.close()
    assert time.monotonic() - began < 2.5
    if isinstance(other, socket.socket):
        other.close()


def test_drain_and_discard_on_a_terminal(terminal):
    master, name = terminal
    transport = open_transport(name)
    transport.write(b"out", transport.now() + 1)
    transport.drain()
    assert os.read(master, 10) == b"out"
    os.write(master, b"old")
    time.sleep(0.02)
    transport.discard_input()
    assert transport.read(0.05) == b""
    os.write(master, b"new")
    assert transport.read(1.0) == b"new"
    transport.close()


@pytest.mark.skipif(not LINUX, reason="any rate is a thing of Linux")
@pytest.mark.parametrize("baud", [74880, 250000, 1500000, 460800, 115200, 123457])
def test_odd_rates_reach_the_driver(baud, terminal):
    transport = open_transport(terminal[1])
    transport.set_baud(baud)
    assert serial._read_baud(transport._fd) == baud
    transport.close()
    transport = open_transport(terminal[1], baud=baud)
    assert serial._read_baud(transport._fd) == baud
    transport.close()


def test_a_rate_that_cannot_be_is_refused(terminal, monkeypatch):
    with pytest.raises(TransportError) as caught:
        open_transport(terminal[1], baud=2**33)
    assert caught.value.code == "baud-refused"
    transport = open_transport(terminal[1])
    with pytest.raises(TransportError) as caught:
        transport.set_baud(2**33)
    assert caught.value.code == "baud-refused"
    monkeypatch.setattr(
        serial, "_read_baud", lambda fd: 9600
    )  # a driver that takes the nearest it can
    with pytest.raises(TransportError, match="it uses 9600 instead") as caught:
        transport.set_baud(921600)
    assert caught.value.code == "baud-refused"
    transport.close()


def test_one_port_one_user(terminal):
    transport = open_transport(terminal[1])
    with pytest.raises(PortBusy):
        open_transport(terminal[1])
    program = "import sys\nfrom espwire.cli.main import main\nsys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "--no-state", "-p", terminal[1], "read-mac"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3, done.stderr
    assert "[port-busy]" in done.stderr
    transport.close()
    open_transport(terminal[1]).close()


def test_a_cancelled_token_ends_connecting_to_a_host_that_does_not_answer():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        crowd = []
        for _ in range(8):  # fills the queue: the next one waits
            crowd.append(socket.socket())
            crowd[-1].setblocking(False)
            crowd[-1].connect_ex(address)
        token = CancelToken()
        threading.Timer(0.2, token.cancel).start()
        began = time.monotonic()
        with pytest.raises((Cancelled, TransportError)):
            open_transport(f"rfc2217://127.0.0.1:{address[1]}", cancel=token)
        assert time.monotonic() - began < 1.0
        for one in crowd:
            one.close()


# through pyserial's server to a virtual chip


def test_rfc2217_connects_resets_changes_the_rate_and_flashes(tmp_path):
    payload = bytes(range(256)) * 20
    file = tmp_path / "payload.bin"
    file.write_bytes(payload)
    with serve("virtual:esp32?boot=app&circuit=transistor&size=2MB&profile=instant") as (url, port):
        assert (
            main(["--no-state", "-p", url, "-b", "460800", "write-flash", "0x10000", str(file)])
            == 0
        )
        assert port.baudrate == 460800
        assert (False, True) in port.changes
        assert port.changes[-1] == (False, False)
        assert (
            port.transport.chip.flash.read_array(port.transport.now(), 0x10000, len(payload))
            == payload
        )


@pytest.mark.parametrize("option", ["?ign_set_control", "?timeout=2"])
def test_options_of_pyserial_s_urls_are_understood(option):
    with serve("virtual:esp32c3?boot=app") as (url, _), connect(url + option, stub=False) as device:
        assert device.chip.id == "esp32c3"


def test_the_command_line_takes_rfc2217(capsys):
    with serve("virtual:esp32c6?boot=app") as (url, _):
        assert main(["--no-state", "-p", url, "read-mac"]) == 0
    assert "esp32-c6" in capsys.readouterr().out.lower()


@pytest.fixture
def many_files():
    """All descriptors below 1100 are taken, so the next ones are above what ``select`` can take."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("no 2000 files can be opened here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    taken = []
    try:
        while not taken or taken[-1] < 1100:
            taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_descriptors_above_1023_work_on_every_kind_of_port(many_files):
    import tty

    from espwire.monitor.terminal import _TerminalKeyboard

    master, slave = os.openpty()
    assert min(master, slave) > 1023
    tty.setraw(slave)
    transport = open_transport(os.ttyname(slave))
    transport.write(b"out", transport.now() + 5)
    assert os.read(master, 10) == b"out"
    os.write(master, b"in")
    assert transport.read(5) == b"in"
    assert transport.read(0.01) == b""
    transport.close()
    keyboard = _TerminalKeyboard(slave)
    assert keyboard.read() == b""
    os.write(master, b"k")
    assert keyboard.read() == b"k"
    os.close(master)
    os.close(slave)
    with socket.create_server(("127.0.0.1", 0)) as server:
        transport = open_transport(f"socket://127.0.0.1:{server.getsockname()[1]}")
        peer, _ = server.accept()
        with peer:
            assert peer.fileno() > 1023
            transport.write(b"out", transport.now() + 5)
            assert peer.recv(10) == b"out"
            peer.sendall(b"in")
            assert transport.read(5) == b"in"
            assert transport.read(0.01) == b""
        transport.close()


def test_a_whole_command_works_with_descriptors_above_1023(many_files, capsys, tmp_path):
    out = tmp_path / "out.bin"
    assert main(["-p", "virtual:esp32c3?size=1MB", "read-flash", "0", "16", str(out)]) == 0
    assert out.read_bytes() == b"\xff" * 16
    capsys.readouterr()


def test_a_connection_that_is_refused_is_noticed_above_1023(many_files):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(TransportError, match="cannot connect"):
        open_transport(f"socket://127.0.0.1:{port}")
