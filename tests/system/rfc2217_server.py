"""An RFC 2217 server on pyserial's own PortManager, with a virtual chip behind it that lives in real time."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from serial.rfc2217 import PortManager

from espwire.virtual.transport import open_virtual


class ChipPort:
    """What PortManager takes for a serial port: the virtual chip's link, with pyserial's names."""

    bytesize, parity, stopbits, xonxoff, rtscts = 8, "N", 1, False, False
    cts = dsr = ri = cd = False

    def __init__(self, url):
        self.transport = open_virtual(url)
        self.changes = []  # both lines after each request
        self._baud, self._dtr, self._rts = 115200, False, False
        self._began = time.monotonic()

    def live(self):
        """Let the chip's time reach ours."""
        behind = time.monotonic() - self._began - self.transport.now()
        if behind > 0:
            self.transport.sleep(behind)

    @property
    def baudrate(self):
        return self._baud

    @baudrate.setter
    def baudrate(self, baud):
        self._baud = baud
        self.transport.set_baud(baud)

    @property
    def dtr(self):
        return self._dtr

    @dtr.setter
    def dtr(self, on):
        self._dtr = on
        self._set_lines()

    @property
    def rts(self):
        return self._rts

    @rts.setter
    def rts(self, on):
        self._rts = on
        self._set_lines()

    def _set_lines(self):
        self.live()
        self.changes.append((self._dtr, self._rts))
        self.transport.set_lines(dtr=self._dtr, rts=self._rts)

    def reset_input_buffer(self):
        self.live()
        self.transport.discard_input()

    def reset_output_buffer(self):
        pass


class Connection:
    """What PortManager writes to."""

    def __init__(self, client):
        self.client = client

    def write(self, data):
        self.client.sendall(data)


@contextlib.contextmanager
def serve(url):
    """The server's URL and its port, for one client."""
    port = ChipPort(url)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        thread = threading.Thread(target=_run, args=(listener, port, stop), daemon=True)
        thread.start()
        try:
            yield f"rfc2217://127.0.0.1:{listener.getsockname()[1]}", port
        finally:
            stop.set()
            thread.join(5)


def _run(listener, port, stop):
    listener.settimeout(5)
    client, _ = listener.accept()
    with client, contextlib.suppress(OSError):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        manager = PortManager(port, Connection(client))
        while not stop.is_set():
            if select.select([client], [], [], 0.002)[0]:
                data = client.recv(4096)
                if not data:
                    return
                port.live()
                port.transport.write(b"".join(manager.filter(data)), port.transport.now() + 60)
            port.live()
            if answer := port.transport.read(0.0):
                client.sendall(b"".join(manager.escape(answer)))
