"""Serving a virtual chip: the bench that couples it to real time, and what carries its bytes."""

import errno
import os
import socket
import sys
import threading

import pytest

from espwire.errors import LinkError, PortBusy, PortDenied, PortNotFound, UsageError
from espwire.link.base import CancelToken
from espwire.virtual import serve as serving
from espwire.virtual.options import build_chip, parse_options
from espwire.wire import slip
from espwire.wire.commands import FlashBegin, ReadReg, SpiAttach, SpiSetParams, Sync, parse_reply

SYNC = slip.encode(Sync().packet())


def build_bench(url: str = "virtual:esp32c3") -> serving.Bench:
    return serving.Bench(build_chip(parse_options(url)))


def parse(data: bytes) -> list[int]:
    return [reply.op for frame in slip.Decoder().feed(data) if (reply := parse_reply(frame)) is not None]


def test_an_unpaced_chip_answers_at_once_however_long_it_works():
    bench = build_bench("virtual:esp32c3?profile=slow")
    assert parse(bench.exchange(SYNC)) == [8] * 8
    requests = [SpiAttach(0, 0), SpiSetParams(0, 0x400000), FlashBegin(0x100000, 1024, 1024, 0, 0)]
    answer = bench.exchange(b"".join(slip.encode(request.packet()) for request in requests))
    assert parse(answer) == [0x0D, 0x0B, 0x02]
    assert bench.chip.now > 16 * 0.25


def test_a_paced_chip_takes_its_time():
    bench = build_bench("virtual:esp32c3?pace=1&profile=slow")
    bench.exchange(SYNC)
    assert bench.exchange(b"") == b""
    assert bench.chip.now < 1
    assert 0 <= bench.pause() <= serving.POLL_S


def test_the_chip_lives_on_between_clients():
    bench = build_bench()
    for number in range(2):
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(SYNC if number == 0 else slip.encode(ReadReg(0x60008844).packet()))
            theirs.shutdown(socket.SHUT_WR)
            serving._talk(bench, serving._SocketClient(ours), CancelToken())
            answer = theirs.recv(4096)
        assert parse(answer) == ([8] * 8 if number == 0 else [0x0A])


def test_a_token_ends_it():
    ours, theirs = socket.socketpair()
    token = CancelToken()
    token.cancel()
    with ours, theirs:
        serving._talk(build_bench(), serving._SocketClient(ours), token)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_a_pseudo_terminal_answers_and_says_where_it_is(tmp_path):
    flash = tmp_path / "flash.bin"
    token, said, heard = CancelToken(), [], []

    def use(name: str) -> None:
        terminal = os.open(name, os.O_RDWR | os.O_NOCTTY)
        try:
            os.write(terminal, SYNC)
            data = b""
            while len(data) < 8 * 14:
                data += os.read(terminal, 4096)
            heard.append(data)
        finally:
            os.close(terminal)
            token.cancel()

    client: list[threading.Thread] = []

    def announce(line: str) -> None:
        said.append(line)
        client.append(threading.Thread(target=use, args=(line.removeprefix("listening on "),)))
        client[0].start()

    options = parse_options(f"virtual:esp32c3?flash={flash}&size=1MB")
    serving.serve(options, announce=announce, stop=token)
    client[0].join()
    assert len(said) == 1
    assert said[0].startswith("listening on /dev/")
    assert parse(heard[0]) == [8] * 8
    assert flash.stat().st_size == 0x100000


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.EADDRINUSE, "x"), PortBusy),
        (OSError(errno.EACCES, "x"), PortDenied),
        (OSError(errno.EADDRNOTAVAIL, "x"), PortNotFound),
        (OSError(errno.EIO, "x"), LinkError),
        (OverflowError(), PortNotFound),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_a_link_error(monkeypatch, error, kind):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(serving.socket, "create_server", refuse)
    with pytest.raises(kind) as caught:
        serving._listen("127.0.0.1", 1)
    assert type(caught.value) is kind


def test_options_that_make_no_sense_open_nothing():
    with pytest.raises(UsageError):
        serving.serve(parse_options("virtual:esp32?kind=usb-jtag"), announce=lambda _: None)
