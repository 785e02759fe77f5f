"""A WebSocket (RFC 6455) at whose other end is a chip that `espwire virtual serve --rfc2217` serves."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import selectors
import socket
import struct
import subprocess
import sys
import threading

from espwire.errors import TransportError
from espwire.transport.base import CancelToken
from espwire.transport.rfc2217 import open_rfc2217

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
CONTINUATION, BINARY, CLOSE = 0, 2, 8


class Bridge:
    """One client at a time; a new connection reaches the same chip, which keeps its flash and runs on."""

    def __init__(self, *options: str) -> None:
        command = [sys.executable, "-m", "espwire", "--json", "virtual", "serve", *options]
        self._server = subprocess.Popen(
            [*command, "--rfc2217"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._server.stdout is not None
        line = json.loads(self._server.stdout.readline())
        self._url = line["data"]["port"]
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._server.terminate()
        self._server.wait()
        assert self._server.stdout is not None
        self._server.stdout.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError, TransportError):
                    self._bridge(client)

    def _bridge(self, client: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(4096)
        key = next(
            line.split(b":")[1].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + GUID).digest())
        client.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        selector = selectors.DefaultSelector()
        selector.register(client, selectors.EVENT_READ)
        chip = open_rfc2217(self._url, 115200, CancelToken())
        try:
            while True:
                if selector.select(0):
                    kind, data = receive(client)
                    if kind == CLOSE:
                        return
                    if kind in (BINARY, CONTINUATION):
                        chip.write(data, chip.now() + 10)
                    else:
                        order = json.loads(data)
                        if "baud" in order:
                            chip.set_baud(order["baud"])
                        else:
                            chip.set_lines(dtr=order["dtr"], rts=order["rts"])
                elif data := chip.read(0.002):
                    send(client, data)
        finally:
            chip.close()
            selector.close()


def receive(client: socket.socket) -> tuple[int, bytes]:
    """One frame: its kind and content."""

    def take(size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = client.recv(size - len(data))
            if not part:
                raise OSError("closed")
            data += part
        return data

    first, length = take(2)
    length &= 0x7F
    if length >= 126:
        length = int.from_bytes(take(2 if length == 126 else 8), "big")
    mask = take(4) * (length // 4 + 1)
    data = take(length)
    plain = int.from_bytes(data, "big") ^ int.from_bytes(mask[:length], "big")
    return first & 15, plain.to_bytes(length, "big")


def send(client: socket.socket, data: bytes) -> None:
    for at in range(0, len(data), 0x8000):
        part = data[at : at + 0x8000]
        short = len(part) < 126
        length = bytes([len(part)]) if short else b"\x7e" + struct.pack(">H", len(part))
        client.sendall(bytes([0x80 | BINARY]) + length + part)
