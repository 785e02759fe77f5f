"""Is a chip reached again after a client was killed in the middle of a frame? A script, for any port.

    python tests/conformance/killed_clients.py --port socket://127.0.0.1:4000 --places 20 --seed 1

A write to flash is begun and cut off after a random number of bytes, at as many places as asked for; after each, espwire
must connect, find the same chip, and write and verify 4 KiB at ``--scratch`` (64 KiB there are overwritten).

``--stub ESPTOOL`` is the path of esptool: it leaves its stub running, and a request to that is cut off instead. Then
espwire must reset the chip into its ROM where the port has lines, and use the stub as it is where it has none.

One line for each place, then a summary; exit code 1 if any recovery failed.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from espwire.compress import deflate_zlib
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.errors import ToolError
from espwire.protocol import slip
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import Op
from espwire.transport.base import Transport
from espwire.transport.url import open_transport

SIZE = 0x4000
CHECKED = 0x1000
READ_FLASH = 0xD2  # the stub's; no ROM has it
STUB_BLOCK = 0x4000
STUB_TIMEOUT_S = 60
THROUGH_STUB = "through the stub"

Opener = Callable[[], Transport]


class Killed(Exception):
    """The client is dead: nothing more is sent."""


class CutLink:
    """A link that dies after ``limit`` bytes were sent, in the middle of whatever that is; None: it lives."""

    def __init__(self, transport: Transport, limit: int | None = None) -> None:
        self.transport, self.limit = transport, limit
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes, deadline: float) -> None:
        """Send as much as the client still can."""
        if self.limit is not None and self.sent + len(data) > self.limit:
            self.transport.write(data[: self.limit - self.sent], deadline)
            self.transport.drain()
            raise Killed
        self.sent += len(data)
        self.transport.write(data, deadline)


class Outcome(NamedTuple):
    """What became of one place."""

    good: bool
    text: str


def write_flash(device: Device, address: int, data: bytes) -> None:
    """Write by the chip's better way."""
    backend = device.backend
    packed = deflate_zlib(data) if backend.limits.can_compress and len(data) % 4 == 0 else None
    backend.write(address, data, packed=packed)


def play_client(transport: CutLink, scratch: int, data: bytes) -> None:
    """All that a client does for a write, or as much of it as it lives to do."""
    device = connect(transport, before="no-reset", stub=False)
    device.attach_flash()
    write_flash(device, scratch, data)


def check(device: Device, scratch: int, data: bytes) -> str:
    """Whether the chip works; what is wrong, or nothing."""
    device.attach_flash()
    write_flash(device, scratch, data)
    if not device.loader.supports(Op.SPI_FLASH_MD5):
        return ""
    return (
        ""
        if device.flash_md5(scratch, len(data)) == hashlib.md5(data).digest()
        else "the flash differs"
    )


def recover(opener: Opener, mac: str, scratch: int, data: bytes) -> Outcome:
    """Connect as the next client does."""
    began, transport = time.monotonic(), opener()
    try:
        device = connect(transport, stub=False)
        wrong = check(device, scratch, data) if device.mac == mac else f"the MAC is {device.mac}"
        through = f" {THROUGH_STUB}" if device.loader.dialect.name == "stub" else ""
    except ToolError as error:
        return Outcome(False, f"{error.code}: {error}")
    finally:
        transport.close()
    return Outcome(
        not wrong,
        wrong
        or f"reached again, written and verified{through} in {time.monotonic() - began:.2f} s",
    )


def kill_writing(opener: Opener, place: int, scratch: int, data: bytes) -> None:
    """A client of the ROM that dies after ``place`` bytes."""
    transport = opener()
    try:
        play_client(CutLink(transport, place), scratch, data)
    except Killed:
        pass
    finally:
        transport.close()


def stub_requests(scratch: int, data: bytes) -> list[tuple[str, bytes]]:
    """Requests to a stub, worth cutting off: a write with data, and the start of a read."""
    begin = slip.encode(_request(Op.FLASH_BEGIN, (len(data), 1, STUB_BLOCK, scratch)))
    block = slip.encode(
        _request(Op.FLASH_DATA, (len(data), 0, 0, 0), data, checksum=_checksum(data))
    )
    read = slip.encode(_request(READ_FLASH, (scratch, len(data), CHECKED, 64)))
    return [("FLASH_BEGIN", begin), ("FLASH_DATA", block), ("READ_FLASH", read)]


def _request(op: int, words: tuple[int, ...], data: bytes = b"", *, checksum: int = 0) -> bytes:
    body = b"".join(word.to_bytes(4, "little") for word in words) + data
    return HEADER.pack(0, op, len(body), checksum) + body


def _checksum(data: bytes) -> int:
    value = 0xEF
    for byte in data:
        value ^= byte
    return value


def start_stub(esptool: str, port: str) -> None:
    """Have esptool leave its stub running."""
    words = [
        esptool,
        "--port",
        port,
        "--before",
        "no-reset",
        "--after",
        "no-reset-stub",
        "flash-id",
    ]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=STUB_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise SystemExit(f"esptool failed:\n{done.stdout}{done.stderr}")


def kill_stub_client(opener: Opener, chance: random.Random, scratch: int, data: bytes) -> str:
    """A client of the stub that dies in one of its frames."""
    name, frame = chance.choice(stub_requests(scratch, data))
    place = chance.randrange(1, len(frame))
    transport = opener()
    try:
        transport.write(frame[:place], transport.now() + 10)
        transport.drain()
        transport.read(0.05)
    finally:
        transport.close()
    return f"{name} cut after {place} of {len(frame)} bytes"


def run(options: argparse.Namespace) -> int:
    """All places; the number that failed."""
    chance = random.Random(options.seed)
    opener: Opener = lambda: open_transport(options.port)  # noqa: E731  a name for a closure
    data = chance.randbytes(SIZE)
    first = CutLink(opener())
    try:
        found = connect(first, stub=False)
    except ToolError as error:
        raise SystemExit(
            f"a chip must wait in its ROM loader at {options.port}: {error}"
        ) from error
    with found as device:
        mac, who = device.mac, f"{device.chip.name} {device.mac}"
        device.attach_flash()
        write_flash(device, options.scratch, data)
    print(f"{who}: a client sends {first.sent} bytes for {SIZE} bytes of flash")
    failed, stub_runs = 0, False
    for number in range(1, options.places + 1):
        if options.stub:
            if not stub_runs:
                start_stub(options.stub, options.port)
            where = kill_stub_client(opener, chance, options.scratch, data)
        else:
            place = chance.randrange(1, first.sent)
            where = f"cut after {place} of {first.sent} bytes"
            kill_writing(opener, place, options.scratch, data)
        outcome = recover(opener, mac, options.scratch, data[:CHECKED])
        stub_runs = THROUGH_STUB in outcome.text
        failed += not outcome.good
        print(
            f"{number:3}  {'ok  ' if outcome.good else 'FAIL'}  {where}: {outcome.text}", flush=True
        )
    print(f"{options.places - failed} of {options.places} recovered")
    return failed


def main() -> int:
    """Read the options, run, tell."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--port", required=True, help="a port at which a chip waits in its ROM loader"
    )
    parser.add_argument("--places", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--scratch", type=lambda text: int(text, 0), default=0x180000, help="64 KiB to overwrite"
    )
    parser.add_argument(
        "--stub", metavar="ESPTOOL", help="cut off a client of esptool's stub instead of the ROM's"
    )
    return 1 if run(parser.parse_args()) else 0


if __name__ == "__main__":
    sys.exit(main())
