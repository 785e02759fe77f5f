"""`serve-port` in front of virtual chips, used by espwire and by pyserial, with 0 and 50 ms of network between them.

esptool is the third client: tests/peers/test_serve_port_peer.py.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from pathlib import Path

import pytest
import serial

sys.path.insert(0, str(Path(__file__).parents[1]))
import espwire
from espwire.blob import Blob
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.commands import (
    FlashBegin,
    FlashData,
    SpiAttach,
    SpiSetParams,
    Sync,
    parse_reply,
)
from espwire.transport.base import CancelToken
from espwire.virtual.config import parse_options
from espwire.virtual.server import serve
from serving import serving
from slow_network import slow_network

CHIP = "virtual:esp32c3?profile=instant&size=1MB"
DATA = bytes(range(256)) * 40 + b"\xff" * 2000 + b"the end"
DELAYS = [0.0, 0.05]
BLOCK = 0x400


@contextlib.contextmanager
def chip_behind(kind, flash):
    """A port to serve: a chip on a pseudo-terminal or TCP, which only carry bytes, or behind RFC 2217."""
    if sys.platform == "win32" and kind == "pty":
        pytest.skip("no pseudo terminals")
    url, token, lines = f"{CHIP}&flash={flash.as_posix()}", CancelToken(), []
    said = threading.Event()

    def announce(line):
        lines.append(line.removeprefix("listening on "))
        said.set()

    thread = threading.Thread(
        target=serve,
        args=(parse_options(url),),
        kwargs={
            "tcp": None if kind == "pty" else ("127.0.0.1", 0),
            "rfc2217": kind == "rfc2217",
            "announce": announce,
            "stop": token,
        },
    )
    thread.start()
    assert said.wait(20)
    try:
        yield lines[0]
    finally:
        token.cancel()
        thread.join(20)


def open_upstream(name):
    from espwire.transport.url import open_transport

    return lambda: open_transport(name)


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("scheme", ["rfc2217", "espwire"])
@pytest.mark.parametrize("kind", ["pty", "tcp", "rfc2217"])
def test_espwire_flashes_through_a_served_port(kind, scheme, delay, tmp_path):
    flash = tmp_path / "flash.bin"
    with (
        chip_behind(kind, flash) as name,
        serving(open_upstream(name)) as running,
        slow_network(running.address, delay) as address,
    ):
        before = "default-reset" if kind == "rfc2217" else "no-reset"
        with espwire.connect(f"{scheme}://{address}", before=before, stub=False) as device:
            write_flash(device, [Blob(0x10000, DATA)])
            assert device.loader.transport.info.round_trip >= delay
    assert flash.read_bytes()[0x10000 : 0x10000 + len(DATA)] == DATA


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize("kind", ["pty", "tcp"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pyserial's own thread
def test_pyserials_client_flashes_through_a_served_port(kind, delay, tmp_path):
    flash = tmp_path / "flash.bin"
    with (
        chip_behind(kind, flash) as name,
        serving(open_upstream(name)) as running,
        slow_network(running.address, delay) as address,
        serial.serial_for_url(f"rfc2217://{address}", 115200, timeout=10) as port,
    ):
        port.dtr = port.rts = False
        ask(port, Sync())
        ask(port, SpiAttach(0, 0))
        ask(port, SpiSetParams(0, 0x100000))
        blocks = -(-len(DATA) // BLOCK)
        ask(port, FlashBegin(len(DATA), blocks, BLOCK, 0x10000, 0))
        for number in range(blocks):
            piece = DATA[number * BLOCK : (number + 1) * BLOCK].ljust(BLOCK, b"\xff")
            ask(port, FlashData(number, piece))
    assert flash.read_bytes()[0x10000 : 0x10000 + len(DATA)] == DATA


def ask(port, command):
    """Send a request and wait for its reply."""
    port.write(slip.encode(command.packet()))
    decoder, deadline = slip.Decoder(), time.monotonic() + 10
    while time.monotonic() < deadline:
        for frame in decoder.feed(port.read(max(1, port.in_waiting))):
            reply = parse_reply(frame)
            if reply is not None and reply.op == command.op:
                assert reply.body[:1] == b"\0", command
                return
    raise AssertionError(f"no reply to {command}")


def read_changes(transport):
    """The line changes at the chip: seconds since the one before, DTR, RTS; without those that change nothing."""
    kept = [(0.0, False, False)]
    for at, dtr, rts in transport.changes:
        if (dtr, rts) != kept[-1][1:]:
            kept.append((at, dtr, rts))
    return [
        (round(at - before, 3), dtr, rts)
        for (before, *_), (at, dtr, rts) in itertools.pairwise(kept[1:])
    ]


LOADER = [(False, True), (True, False), (False, False)]


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_timing_of_a_reset_into_the_loader_does_not_depend_on_the_network(delay):
    with serving(CHIP) as running, slow_network(running.address, delay) as address:
        chip = running.transports[0]
        with serial.serial_for_url(f"rfc2217://{address}", 115200, timeout=5) as port:
            assert chip.changes == []  # opened with both lines on
            time.sleep(0.6)
            chip.changes.clear()
            port.dtr, port.rts = False, True
            time.sleep(0.1)
            port.dtr, port.rts = True, False
            time.sleep(0.05)
            port.dtr = False
            assert b"waiting for download" in port.read_until(b"download\r\n")
            measured = [change for change in read_changes(chip) if change[1:] in LOADER]
            assert [change[1:] for change in measured[-3:]] == LOADER
            assert measured[-2][0] == pytest.approx(0.02, abs=0.015)
            assert measured[-1][0] == pytest.approx(0.05, abs=0.03)
            chip.changes.clear()
            port.rts = True
            time.sleep(0.1)
            port.rts = False
            assert b"SPI_FAST_FLASH_BOOT" in port.read_until(b"BOOT)")
            assert [change[1:] for change in chip.changes] == [
                *((False, True), (False, False)),
            ]
    assert [note.partition(": ")[2] for note in running.notes if "reset" in note] == [
        "reset into the loader (tight)",
        "reset into the application (hard)",
    ]


@pytest.mark.parametrize("delay", DELAYS)
@pytest.mark.parametrize(
    ("options", "name"),
    [("", "U0,0|U1,1|U0,1|W0.05|U1,0|W0.05"), ("&kind=usb-jtag", "R0|D0|W0.1|")],
)
def test_espwire_has_the_right_sequence_played_also_for_native_usb(options, name, delay):
    with (
        serving(f"{CHIP}&boot=app{options}") as running,
        slow_network(running.address, delay) as address,
        espwire.connect(f"espwire://{address}", stub=False) as device,
    ):
        assert device.chip.id == "esp32c3"
        assert device.loader.transport.info.kind == (options[6:] or "uart")
    assert any(f"reset sequence {name}" in note for note in running.notes)
