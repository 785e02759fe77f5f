"""A hundred hostile clients at once on a served port, while one client flashes through it."""

from __future__ import annotations

import os
import random
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import espwire
from espwire.blob import Blob
from espwire.flash.write import write_flash
from espwire.transport import telnet

CLIENTS = 100
TOKEN = "a token of the laboratory"
DATA = random.Random(19).randbytes(40_000)
HELLO = telnet.build_greeting() + telnet.build_request(telnet.HELLO, b"\1" + bytes(16))
WRONG = HELLO + telnet.build_request(telnet.PROVE, bytes(32))
OVERSIZED = (
    telnet.build_greeting() + bytes((telnet.IAC, telnet.SB, telnet.COM_PORT)) + bytes(50_000)
)
KINDS = ("slow", "wrong token", "oversized", "noise", "http", "gone", "no token")
MORE_MEMORY = 20_000_000  # bytes


class Hostile:
    """Clients that attack, each again as soon as it is refused. ``ended``: how often, by kind."""

    def __init__(self, address, seed):
        host, _, port = address.rpartition(":")
        self.address, self.rng = (host, int(port)), random.Random(seed)
        self.ended, self.stop = Counter(), threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def open(self, selector, kind):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.address)
        selector.register(client, selectors.EVENT_READ, [kind, self.build(kind)])

    def build(self, kind):
        """What it sends."""
        noise = self.rng.randbytes(3000)
        return {
            "slow": HELLO * 20,
            "wrong token": WRONG,
            "oversized": OVERSIZED,
            "noise": b"\xff" + noise,
            "http": b"GET / HTTP/1.1\r\n" * 1000,
            "gone": HELLO[:9],
            "no token": telnet.build_greeting()
            + telnet.build_request(telnet.SET_CONTROL, b"\x0b") * 500,
        }[kind]

    def run(self):
        with selectors.DefaultSelector() as selector:
            for number in range(CLIENTS):
                self.open(selector, KINDS[number % len(KINDS)])
            while not self.stop.is_set():
                time.sleep(0.02)
                ready = {key.fileobj for key, _ in selector.select(0)}
                for key in list(selector.get_map().values()):
                    self.go_on(selector, key, readable=key.fileobj in ready)
            for key in list(selector.get_map().values()):
                key.fileobj.close()

    def go_on(self, selector, key, *, readable):
        client, (kind, left) = key.fileobj, key.data
        try:
            if left:
                piece = left[: 1 if kind == "slow" else 4096]
                key.data[1] = left[client.send(piece) :]
            over = readable and not client.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            over = True
        if over or (kind == "gone" and not key.data[1]):
            self.ended[kind] += 1
            selector.unregister(client)
            client.close()
            self.open(selector, kind)


def read_memory(process):
    """Bytes of memory that a process uses; 0 where the system does not report it this way."""
    status = Path(f"/proc/{process.pid}/status")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return int(found[1]) * 1024 if found else 0


def test_a_flash_is_right_while_a_hundred_clients_attack(tmp_path):
    flash = tmp_path / "flash.bin"
    chip = f"virtual:esp32c3?profile=instant&size=1MB&flash={flash.as_posix()}"
    command = ["serve-port", chip, "--listen", "127.0.0.1:0", "--token-env", "LAB_TOKEN"]
    log = tmp_path / "log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [sys.executable, "-m", "espwire", *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"LAB_TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"},
        ) as process,
    ):
        try:
            address = process.stdout.readline().decode().rpartition("//")[2].strip()
            hostile = Hostile(address, 19)
            token = TOKEN.replace(" ", "%20")
            with espwire.connect(f"espwire://{address}?token={token}", stub=False) as device:
                before = read_memory(process)
                hostile.thread.start()
                deadline = time.monotonic() + 60
                while sum(hostile.ended.values()) < CLIENTS and time.monotonic() < deadline:
                    time.sleep(0.05)
                write_flash(device, [Blob(0x10000, DATA)])
                after = read_memory(process)
            hostile.stop.set()
            hostile.thread.join(10)
        finally:
            process.terminate()
            rest = process.stdout.read()
            process.wait(20)
    assert flash.read_bytes()[0x10000 : 0x10000 + len(DATA)] == DATA
    assert set(hostile.ended) >= set(KINDS) - {"slow", "noise"}, hostile.ended
    assert after - before < MORE_MEMORY
    lines = (rest + log.read_bytes()).decode().splitlines()
    for text in ("the token is wrong", "a Telnet request is too long", "requires a token"):
        assert 1 <= sum(text in line for line in lines) <= 2, lines
    assert not any("Traceback" in line for line in lines)
    print(
        dict(hostile.ended), f"memory +{(after - before) / 1e6:.1f} MB, {len(lines)} lines of log"
    )
