"""A network that adds time to each byte: a TCP proxy, half of the round trip in each direction."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator


class SlowNetwork:
    """Passes connections on to ``address``. ``own``: where it listens, ``host:port``."""

    def __init__(self, address: str, round_trip: float) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._delay = round_trip / 2
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.own = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                time.sleep(self._delay * 2)  # the handshake takes a round trip
                server = socket.create_connection(self._target)
                self._sockets += (client, server)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._pass(client, server)
                self._pass(server, client)

    def _pass(self, source: socket.socket, target: socket.socket) -> None:
        pieces: queue.Queue[tuple[float, bytes]] = queue.Queue()

        def receive() -> None:
            data = b"begin"
            while data:
                data = b""
                with contextlib.suppress(OSError):
                    data = source.recv(65536)
                pieces.put((time.monotonic() + self._delay, data))

        def send() -> None:
            while True:
                due, data = pieces.get()
                time.sleep(max(0.0, due - time.monotonic()))
                with contextlib.suppress(OSError):
                    if data:
                        target.sendall(data)
                        continue
                    target.shutdown(socket.SHUT_WR)
                return

        for work in (receive, send):
            threading.Thread(target=work, daemon=True).start()


@contextlib.contextmanager
def slow_network(address: str, round_trip: float) -> Iterator[str]:
    """The address of a proxy to ``address``; without a delay, the address itself."""
    if not round_trip:
        yield address
        return
    network = SlowNetwork(address, round_trip)
    try:
        yield network.own
    finally:
        network.close()
