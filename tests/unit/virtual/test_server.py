"""Serving a virtual chip: coupling to real time, and the connections that carry its bytes."""

import contextlib
import errno
import os
import queue
import socket
import sys
import threading
import time

import pytest
import serial

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError, UsageError
from espwire.protocol import slip
from espwire.protocol.commands import (
    ChangeBaudrate,
    FlashBegin,
    ReadReg,
    SpiAttach,
    SpiSetParams,
    Sync,
    parse_reply,
)
from espwire.transport import listening
from espwire.transport.base import CancelToken
from espwire.virtual import server
from espwire.virtual import server as serving
from espwire.virtual.build import build_chip
from espwire.virtual.config import parse_options

SYNC = slip.encode(Sync().packet())


def build_bench(url: str = "virtual:esp32c3") -> serving.Bench:
    return serving.Bench(build_chip(parse_options(url)))


def parse(data: bytes) -> list[int]:
    return [
        reply.op for frame in slip.Decoder().feed(data) if (reply := parse_reply(frame)) is not None
    ]


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


@contextlib.contextmanager
def serving_tcp(url: str, **options):
    """The address of a served chip, in a thread."""
    token, said = CancelToken(), queue.Queue()
    arguments = {"tcp": ("127.0.0.1", 0), "announce": said.put, "stop": token, **options}
    thread = threading.Thread(target=serving.serve, args=(parse_options(url),), kwargs=arguments)
    thread.start()
    try:
        yield said.get(timeout=30).rpartition(" ")[2]
    finally:
        token.cancel()
        thread.join(30)
        assert not thread.is_alive()


def connect(address: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=20)


def receive(client: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := client.recv(4096)):
        data += more
    return data


def ask(client: socket.socket, data: bytes = SYNC, replies: int = 8) -> list[int]:
    client.sendall(data)
    return parse(receive(client, replies * 14))


def test_the_chip_lives_on_between_clients():
    with serving_tcp("virtual:esp32c3") as address:
        with connect(address) as client:
            assert ask(client) == [8] * 8
        with connect(address) as client:
            assert ask(client, slip.encode(ReadReg(0x60008844).packet()), 1) == [0x0A]


def test_a_silent_client_does_not_lock_out_the_next_one():
    with (
        serving_tcp("virtual:esp32c3") as address,
        connect(address) as silent,
        connect(address) as second,
    ):
        assert ask(second) == [8] * 8
        assert silent.recv(1) == b""
        with connect(address) as third:
            assert ask(third) == [8] * 8


def test_a_flooding_client_does_not_lock_out_the_next_one():
    def flood(client: socket.socket, stop: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                client.sendall(b"\xc0\0\x08\x24\0" * 4000)

    for pace in ("0", "1"):
        with serving_tcp(f"virtual:esp32c3?pace={pace}") as address, connect(address) as flooding:
            stop = threading.Event()
            thread = threading.Thread(target=flood, args=(flooding, stop))
            thread.start()
            try:
                with connect(address) as second:
                    second.settimeout(1)
                    data, end = b"", time.monotonic() + 20
                    while data.count(b"\xc0\x01\x08") < 8 and time.monotonic() < end:
                        second.sendall(b"\xc0" + SYNC)  # the flood ended in the middle of a frame
                        with contextlib.suppress(TimeoutError):
                            data += second.recv(4096)
                    assert data.count(b"\xc0\x01\x08") >= 8
            finally:
                stop.set()
                flooding.close()
                thread.join(30)


def test_a_port_scan_does_not_disturb_the_client():
    with serving_tcp("virtual:esp32c3") as address, connect(address) as client:
        assert ask(client) == [8] * 8
        for _ in range(serving.MOST_CLIENTS + 2):
            connect(address).close()
        assert ask(client, slip.encode(ReadReg(0x60008844).packet()), 1) == [0x0A]


def test_a_client_that_does_not_read_is_dropped():
    ours, theirs = socket.socketpair()
    client = server.SocketClient(ours)
    with ours, theirs:
        client.deliver(bytes(listening.MOST_WAITING // 2))
        assert client.flush()
        client.deliver(bytes(2 * listening.MOST_WAITING))
        assert not client.flush()


@pytest.mark.parametrize(
    ("query", "bytes_a_second"), [("pace=1", 11520), ("pace=1&kind=usb-jtag", 800_000)]
)
def test_a_paced_chip_limits_the_line_rate(query, bytes_a_second):
    bench = build_bench(f"virtual:esp32c3?{query}&profile=instant")
    bench.read_clock = lambda: now[0]  # time stands still
    now = [0.0]
    bench.exchange(SYNC)
    took = (len(SYNC) + len(SYNC)) / bytes_a_second
    bench.wire.advance(0.5)
    start = bench.wire.sent_by
    bench.exchange(b"\0" * 5000)
    assert bench.wire.sent_by - start == pytest.approx(5000 / bytes_a_second, abs=took)
    assert bench.has_room is (bytes_a_second > 50_000)


def test_a_paced_line_follows_the_chips_baud_rate():
    bench = build_bench("virtual:esp32c3?pace=1")
    now = [0.0]
    bench.read_clock = lambda: now[0]
    answer = b""
    for request in (Sync(), ChangeBaudrate(921600, 0)):
        bench.exchange(slip.encode(request.packet()))
        now[0] += 1.0
        answer += bench.exchange(b"")
    assert parse(answer) == [8] * 8 + [0x0F]
    start = max(now[0], bench.wire.sent_by)
    bench.exchange(bytes(1000))
    assert bench.wire.sent_by - start == pytest.approx(1000 * 10 / 921600, abs=0.0015)


def test_a_program_that_prints_for_ever_does_not_make_time_run_ahead():
    bench = build_bench()
    # 1: lui a0, 0x3fc90; lui t0, 0x40000; jalr ra, 0x40(t0); j 1b       ets_printf("x")
    bench.chip.registers.ram.write(0x3FC90000, b"x\0")
    bench.chip.registers.ram.write(0x40384000, bytes.fromhex("3705c93f b7020040 e7800204 d5bf"))
    bench.exchange(SYNC)
    bench.chip.run(0x40384000)
    before = bench.read_clock()
    for _ in range(5):
        answer = bench.exchange(b"")
    assert bench.read_clock() - before < 5
    assert set(answer) <= set(b"x")


def test_a_token_ends_it():
    token = CancelToken()
    token.cancel()
    chip = serving.serve(
        parse_options("virtual:esp32c3"), tcp=("127.0.0.1", 0), announce=lambda _: None, stop=token
    )
    assert chip.boots == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyserial's own thread
def test_rfc2217_resets_and_sets_the_rate():
    """With pyserial's client."""
    with serving_tcp("virtual:esp32c3", rfc2217=True) as address:
        assert address.startswith("rfc2217://")
        port = serial.serial_for_url(address, do_not_open=True)
        port.baudrate, port.timeout = 115200, 20
        port.dtr = port.rts = False
        port.open()
        with port:
            port.write(SYNC)
            assert parse(port.read(8 * 14)) == [8] * 8
            port.write(slip.encode(ChangeBaudrate(460800, 0).packet()))
            assert parse(port.read(14)) == [0x0F]
            port.baudrate = 230400  # not the chip's: the answer is noise, or nothing
            port.reset_input_buffer()
            port.timeout = 0.5
            port.write(slip.encode(ReadReg(0x60008844).packet()))
            assert parse(port.read(14)) == []
            port.baudrate, port.timeout = 460800, 20
            port.reset_input_buffer()
            port.write(b"\xc0" + slip.encode(ReadReg(0x60008844).packet()))
            assert 0x0A in parse(port.read(14))
            port.baudrate = 115200
            enter(port)
            assert b"waiting for download" in port.read_until(b"download\r\n")
            assert not port.cts
            port.rts = True
            port.rts = False
            assert b"SPI_FAST_FLASH_BOOT" in port.read_until(b"BOOT)")


def enter(port):
    """The classic reset into the loader."""
    port.dtr, port.rts = False, True
    time.sleep(0.1)
    port.dtr, port.rts = True, False
    time.sleep(0.05)
    port.dtr = False


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo terminals")
def test_a_pseudo_terminal_answers_and_its_path_is_printed(tmp_path):
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
        (OSError(errno.EIO, "x"), TransportError),
        (OverflowError(), PortNotFound),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_a_link_error(monkeypatch, error, kind):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr(listening.socket, "create_server", refuse)
    with pytest.raises(kind) as caught:
        listening.listen("127.0.0.1", 1)
    assert type(caught.value) is kind


def test_options_that_make_no_sense_open_nothing():
    with pytest.raises(UsageError):
        serving.serve(parse_options("virtual:esp32?kind=usb-jtag"), announce=lambda _: None)


def test_the_address_is_announced_before_the_warning_about_an_unknown_rom(tmp_path):
    image = tmp_path / "rom.bin"
    image.write_bytes(bytes(0x60000))
    token, lines = CancelToken(), []

    def announce(line):
        lines.append(line)
        token.cancel()

    serving.serve(
        parse_options(f"virtual:esp32c3?rom={image}"),
        tcp=("127.0.0.1", 0),
        announce=announce,
        note=lines.append,
        stop=token,
    )
    assert lines[0].startswith("listening on socket://")
    assert "is unknown" in lines[1]
