"""Measures on the engines how many cycles our packed stub needs for its work; prints the table of ``virtual/programs/cycle_costs.py``.

    measure_pace.py [CHIP…]

Every number is the slope between two sizes of one job, on a flash that is never busy and a wire without bit times.
"""

from __future__ import annotations

import _decimal
import struct
import sys
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.unit.stub import board

from espwire.chips.registry import load_chip
from espwire.device.stub_image import load_stub, stub_chips
from espwire.protocol.commands import HEADER, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import HashKind, StubOp
from espwire.virtual.programs.cycle_costs import Pace

KIB = 1024
board.IDLE_POLLS = 2500  # more than any job here polls on its way
PAYLOAD, BURST = 2048, 64
TRANSACTION = 600  # counted in the listing, with its accesses
SKIP = 250 + TRANSACTION  # ditto, with the question whether the flash is ready
IMAGE = Path(_decimal.__file__).read_bytes()  # machine code, of whatever kind
CODE_AT = 0x8000


def request(op: int, body: bytes, check: int = 0) -> bytes:
    return HEADER.pack(0, op, len(body), check) + body


def words(op: int, *values: int) -> bytes:
    return request(op, struct.pack(f"<{len(values)}I", *values))


class Meter:
    """A stub on an engine; ``run`` tells what frames cost, without the polls of an empty receiver behind them."""

    def __init__(self, chip_id: str) -> None:
        chip, image = load_chip(chip_id), load_stub(chip_id)
        self.bench = board.Bench(chip, image.entry, image.segments)
        self.nor = self.bench.board.nor
        self.idle_cycles = 0
        self.start = self._cycles()
        idle = self._cycles()
        self.start -= idle
        self.idle_cycles = idle

    def _cycles(self, *frames: bytes) -> int:
        before = self.bench.engine.cycles[0]
        self.answers = self.bench.send(*frames)
        return self.bench.engine.cycles[0] - before - self.idle_cycles

    def run(self, *frames: bytes) -> int:
        """Cycles from the first byte to the last answer."""
        return self._cycles(*frames)

    def write(self, data: bytes, *, packed: bool, erase: bool = False) -> int:
        """A write of ours, as much as fits the window at once."""
        stream = zlib.compress(data, 9) if packed else data
        flags = 0 if erase else 2
        total = self.run(words(StubOp.WRITE_OPEN, 0, len(data), len(stream), int(packed), flags, 1))
        bodies = [
            at.to_bytes(4, "little") + stream[at : at + PAYLOAD]
            for at in range(0, len(stream), PAYLOAD)
        ]
        return total + self.run(*(request(StubOp.WRITE_DATA, body) for body in bodies))


def measure(chip_id: str) -> Pace:
    """All numbers of one chip."""
    m = Meter(chip_id)
    set_params = m.run(
        request(Op.SPI_SET_PARAMS, struct.pack("<6I", 0, 4 << 20, 65536, 4096, 256, 65535))
    )
    noise = [m.run(b"\1" * size) for size in (1000, 3000)]
    receive = (noise[1] - noise[0]) / 2000
    m.run(words(StubOp.WRITE_OPEN, 0, 4096, 4096, 0, 2, 1))
    m.run(request(StubOp.WRITE_DATA, bytes(5)))
    crc = _slope(m, lambda n: [request(StubOp.WRITE_DATA, bytes(n + 5))], 1000) - receive
    m.nor.memory[: 64 * KIB] = b"\xff" * 64 * KIB
    looked = _slope(m, lambda n: [words(StubOp.HASH, 0, n, 0, HashKind.BLANK)], 16 * KIB)
    pieces = _pieces(m)
    m.nor.memory[: 64 * KIB] = IMAGE[CODE_AT : CODE_AT + 64 * KIB]
    md5 = _slope(m, lambda n: [words(StubOp.HASH, 0, n, 0, HashKind.MD5)], 16 * KIB)
    m.nor.memory[: 64 * KIB] = b"\x11" * 64 * KIB
    look = (pieces - _pieces(m)) / BURST  # a piece that is not blank ends after its first burst
    read = (looked - look) * BURST
    send = (
        _slope(m, lambda n: [words(StubOp.READ_OPEN, 0, n, n, 65536, 0), ack(n)], 1024)
        - crc
        - read / BURST
    )
    copied, written = _raw(m, b"\xff"), _raw(m, b"\x5a")
    program = (written - copied) * BURST + SKIP
    sums = _vendor(m) - written
    out, both = (
        _packed(m, lambda n: b"\x5a" * n),
        _packed(m, lambda n: IMAGE[CODE_AT : CODE_AT + n]),
    )
    inflate_out = out[0] / out[2] - program / BURST
    inflate_in = (both[0] - both[2] * (inflate_out + program / BURST)) / both[1] - receive - crc
    return Pace(
        start=m.start,
        command=round(set_params - 34 * receive - 16 * send - (28 + 10) * crc),
        receive_byte=round(receive),
        send_byte=round(send),
        copy_byte=round(copied - receive - crc - SKIP / BURST),
        crc_byte=round(crc),
        sum_byte=round(sums),
        inflate_in=round(inflate_in),
        inflate_out=round(inflate_out),
        md5_byte=round(md5 - read / BURST),
        look_byte=round(look),
        read_burst=round(read),
        program_burst=round(program),
        skip_burst=SKIP,
        transaction=TRANSACTION,
    )


def ack(size: int) -> bytes:
    return words(StubOp.READ_ACK, size, 0)


def _slope(m: Meter, frames, size: int) -> float:  # type: ignore[no-untyped-def]
    few, many = (m.run(*frames(n)) for n in (size, 2 * size))
    return (many - few) / size


def _pieces(m: Meter) -> float:
    """Cycles of a blank check for two bursts."""
    return (
        2
        * BURST
        * _slope(m, lambda n: [words(StubOp.HASH, 0, n, 2 * BURST, HashKind.BLANK)], 16 * KIB)
    )


def _raw(m: Meter, byte: bytes) -> float:
    few, many = (m.write(byte * n, packed=False) for n in (8 * KIB, 24 * KIB))
    return (many - few) / (16 * KIB)


def _packed(m: Meter, make) -> tuple[int, int, int]:  # type: ignore[no-untyped-def]
    """Cycles, bytes in and bytes out between two sizes of a packed write."""
    few, many = make(8 * KIB), make(40 * KIB)
    stream = len(zlib.compress(many, 9)) - len(zlib.compress(few, 9))
    return m.write(many, packed=True) - m.write(few, packed=True), stream, len(many) - len(few)


def _vendor(m: Meter) -> float:
    def job(n: int) -> int:
        data = b"\x5a" * n
        body = struct.pack("<4I", n, 0, 0, 0) + data
        m.bench.sealed = False
        m.run(request(Op.SYNC, bytes(36)))
        taken = m.run(words(Op.FLASH_BEGIN, n, 1, 0x4000, 0)) + m.run(
            request(Op.FLASH_DATA, body, checksum(data))
        )
        m.bench.sealed = True
        return taken

    return (job(12 * KIB) - job(4 * KIB)) / (8 * KIB)


if __name__ == "__main__":
    for chip in sys.argv[1:] or stub_chips():
        print(f'        "{chip}": {measure(chip)},')
