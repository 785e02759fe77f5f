"""Port names, errors of the system, and the socket link on a pair of sockets."""

from __future__ import annotations

import errno
import socket
import threading
import tomllib
from importlib.resources import files

import pytest

from espwire.errors import Cancelled, PortBusy, PortDenied, PortNotFound, TransportLost, UsageError
from espwire.transport import serial, tcp
from espwire.transport.base import CancelToken
from espwire.transport.tcp import TcpTransport, parse_socket_url
from espwire.transport.url import open_transport


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    transport = TcpTransport(ours, "socket://test:1", CancelToken())
    yield transport, theirs
    transport.close()
    theirs.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "  ",
        "ftp://x",
        "sokcet://x:1",
        "socket://x",
        "socket://:5",
        "socket://x:99999",
        "socket://x:1/y",
    ],
)
def test_a_port_that_is_no_port_is_a_usage_error(url):
    with pytest.raises(UsageError) as caught:
        open_transport(url)
    assert caught.value.hint


@pytest.mark.parametrize("name", ["/dev/does-not-exist", "COM987", "com987:"])
def test_a_name_without_a_scheme_is_a_serial_port(name):
    with pytest.raises(PortNotFound):
        open_transport(name)


def test_a_token_in_a_url_that_makes_no_sense_is_not_shown():
    with pytest.raises(UsageError) as caught:
        parse_socket_url("espwire://lab:x?token=0123456789abcdef", "espwire")
    assert str(caught.value) == "espwire://lab:x?token=*** is not espwire://host:port"


def test_socket_urls():
    assert parse_socket_url("socket://127.0.0.1:5555") == ("127.0.0.1", 5555)
    assert parse_socket_url("socket://[::1]:5555/") == ("::1", 5555)


@pytest.mark.parametrize(
    "url",
    ["socket://[::1", "socket://x:y", "socket://x:99999", "socket://:1", "socket://x", "x://h:1"],
)
def test_what_is_no_socket_url_is_refused(url):
    with pytest.raises(UsageError):
        parse_socket_url(url)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOENT, "x"), PortNotFound),
        (OSError(errno.EBUSY, "x"), PortBusy),
        (OSError(errno.EAGAIN, "x"), PortBusy),
        (OSError("Could not exclusively lock port /dev/ttyUSB0: [Errno 11]"), PortBusy),
        (OSError(errno.EACCES, "x"), PortDenied),
        (OSError("could not configure port"), PortNotFound),
    ],
)
def test_what_the_system_says_when_a_port_does_not_open(error, kind):
    assert type(serial.open_error("/dev/ttyUSB0", error, posix=True)) is kind


def test_windows_says_denied_for_a_port_in_use():
    error = OSError("could not open port 'COM3': PermissionError(13, 'Access is denied.', None, 5)")
    assert type(serial.open_error("COM3", error, posix=False)) is PortBusy
    error = OSError(
        "could not open port 'COM3': FileNotFoundError(2, 'The system cannot find …', None, 2)"
    )
    assert type(serial.open_error("COM3", error, posix=False)) is PortNotFound


def test_native_usb_is_told_by_its_ids_as_in_the_data():
    data = tomllib.loads(
        files("espwire.chips").joinpath("data", "usb-ids.toml").read_text("utf-8")
    )["espressif"]
    assert data["vid"] == serial.ESPRESSIF
    assert serial.kind_of(data["vid"], data["serial_jtag"]) == "usb-jtag"
    assert serial.kind_of(data["vid"], 2) == "usb-otg"
    assert (
        serial.kind_of(0x10C4, 0xEA60)
        == serial.kind_of(None, None)
        == serial.kind_of(data["vid"], 0x1002)
        == "uart"
    )


def test_bytes_go_both_ways(pair):
    transport, theirs = pair
    transport.write(b"hello", transport.now() + 1)
    assert theirs.recv(10) == b"hello"
    theirs.send(b"there")
    assert transport.read(1.0) == b"there"
    assert transport.read(0.0) == b""


def test_input_can_be_forgotten(pair):
    transport, theirs = pair
    theirs.send(b"old")
    transport.discard_input()
    assert transport.read(0.0) == b""


def test_the_other_side_hanging_up_is_a_lost_link(pair):
    transport, theirs = pair
    theirs.close()
    with pytest.raises(TransportLost):
        transport.read(0.1)
    transport.close()
    with pytest.raises(TransportLost):
        transport.write(b"x", transport.now() + 1)


def test_a_write_that_nobody_takes_ends_at_its_deadline(pair, monkeypatch):
    transport, _ = pair
    monkeypatch.setattr(tcp, "SLICE", 0.0)
    with pytest.raises(TransportLost, match="no more"):
        transport.write(bytes(100_000_000), transport.now() - 1)


def test_a_cancelled_token_ends_reading_writing_and_sleeping():
    token = CancelToken()
    ours, theirs = socket.socketpair()
    transport = TcpTransport(ours, "x", token)
    threading.Timer(0.02, token.cancel).start()
    with pytest.raises(Cancelled):
        transport.read(10.0)
    with pytest.raises(Cancelled):
        transport.write(b"x", transport.now() + 1)
    with pytest.raises(Cancelled):
        transport.sleep(1.0)
    transport.close()
    theirs.close()
