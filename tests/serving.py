"""A server in a thread, and an echo in place of a device."""

from __future__ import annotations

import contextlib
import threading
import time

from espwire.errors import TransportLost
from espwire.serve.server import PortSource, ServeOptions, serve_ports
from espwire.transport.base import CancelToken, TransportInfo
from espwire.virtual.live import LiveTransport


class Echo:
    """A device that sends back what it receives. ``gone``: it has been unplugged."""

    def __init__(self, **info):
        self.info = TransportInfo(name="echo", **({"kind": "uart"} | info))
        self.received, self.waiting = bytearray(), bytearray()
        self.baud, self.lines, self.gone = 0, [], False
        self.now = time.monotonic

    def read(self, timeout):
        if self.gone:
            raise TransportLost("echo is gone")
        data = bytes(self.waiting)
        self.waiting.clear()
        return data

    def write(self, data, deadline):
        self.received += data
        self.waiting += data

    def drain(self):
        pass

    def discard_input(self):
        self.waiting.clear()

    def set_baud(self, baud):
        self.baud = baud

    def set_lines(self, *, dtr=None, rts=None):
        self.lines.append((dtr, rts))

    def sleep(self, seconds):
        time.sleep(seconds)

    def close(self):
        pass


class Running:
    """``address``: ``host:port`` of each port; ``notes``: the log."""

    def __init__(self):
        self.addresses, self.notes = [], []
        self.transports = []

    @property
    def address(self):
        return self.addresses[0]

    def wait_for(self, text, seconds=5.0):
        deadline = time.monotonic() + seconds
        while not any(text in note for note in self.notes):
            assert time.monotonic() < deadline, self.notes
            time.sleep(0.01)


@contextlib.contextmanager
def serving(*ports, **options):
    """Serve ``virtual:`` URLs and transports, until the end of the block."""
    running, token, started = Running(), CancelToken(), threading.Event()

    def announce(name, address):
        running.addresses.append(address)
        if len(running.addresses) == len(ports):
            started.set()

    def source(port):
        def opener(baud):
            if callable(port):
                return port()
            transport = LiveTransport(port, CancelToken()) if isinstance(port, str) else port
            running.transports.append(transport)
            return transport

        return PortSource(port if isinstance(port, str) else "echo", opener)

    thread = threading.Thread(
        target=serve_ports,
        args=([source(port) for port in ports], ServeOptions(first=0, **options)),
        kwargs={"announce": announce, "note": running.notes.append, "stop": token},
    )
    thread.start()
    try:
        assert started.wait(20)
        yield running
    finally:
        token.cancel()
        thread.join(20)
        assert not thread.is_alive()
