"""Measures on the CPU engine how many cycles our packed stub takes, relative to the constants of its Python model.

Each job runs with two sizes on a flash that is never busy and a wire without bit times; the difference is the cost of
the additional bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.unit.stub import board

from espwire.chips.registry import load_chip
from espwire.compress import find_lzma_form
from espwire.device.stub_image import load_stub
from espwire.protocol.packed import build_codes, codes_body
from espwire.protocol.stub import (
    DIGEST_BYTES,
    READ_CHECKED,
    READ_PACKED,
    READ_SHORT_BLANKS,
    WRITE_NO_ERASE,
    Codec,
    HashKind,
    ReadAck,
    ReadOpen,
    StubOp,
)
from espwire.virtual.programs import stub_flash as flash
from espwire.virtual.programs import stub_model as model
from espwire.virtual.programs import stub_read as read
from espwire.virtual.programs import stub_write as write
from espwire.virtual.programs.read_packer import HISTORY, Packer

from .frames import frame, pack_for, pieces, text, words

KIB = 1024
SMALL, LARGE, PACKET = 8 * KIB, 24 * KIB, 4 * KIB
IDLE_POLLS = 2500  # more than any job polls in the middle
RECEIVE = model.RECEIVE_BYTE + model.CRC_BYTE
SEND = model.SEND_BYTE + model.CRC_BYTE


class Job(NamedTuple):
    """Cycles of a job on the engine, and by the model's constants."""

    name: str
    measured: float
    expected: float


class Pace(NamedTuple):
    """Result for a chip: ``pace`` is the ratio of all jobs together, as in ``stub.own.pace``."""

    pace: float
    jobs: tuple[Job, ...]


class Meter:
    """A stub on an engine; ``run`` counts cycles, or instructions, without the polls of an empty receiver at the end."""

    def __init__(self, chip_id: str, *, in_instructions: bool = False) -> None:
        self._in_instructions = in_instructions
        board.IDLE_POLLS = IDLE_POLLS
        chip, image = load_chip(chip_id), load_stub(chip_id)
        self.bench = board.Bench(chip, image.entry, image.segments)
        self._idle = 0
        self.run()
        self._idle = self.run()

    def run(self, *frames: bytes) -> int:
        before = self._count()
        self.bench.send(*frames)
        return self._count() - before - self._idle

    def write(self, data: bytes, codec: Codec) -> int:
        stream = pack_for(codec, data)
        opening = words(0, len(data), len(stream), codec, WRITE_NO_ERASE, 1)
        total = self.run(frame(StubOp.WRITE_OPEN, opening))
        return total + self.run(*pieces(stream))

    def read_packed(self, data: bytes) -> tuple[int, int]:
        """Cycles of a packed read, and the bytes that it sends."""
        size = len(data)
        self.bench.board.nor.memory[:size] = data
        flags = READ_SHORT_BLANKS | READ_CHECKED | READ_PACKED
        opening = ReadOpen(0, size, PACKET, 65536, flags, codes_body())
        before = self.bench.board.sent
        cycles = self.run(opening.packet(), ReadAck(size + DIGEST_BYTES).packet())
        return cycles, self.bench.board.sent - before

    def _count(self) -> int:
        engine = self.bench.engine
        return engine.instructions if self._in_instructions else engine.cycles[0]


def _expect_packed_read() -> float:
    """Cycles for the bytes between ``SMALL`` and ``LARGE``."""
    data, packer, cycles = text(LARGE), Packer(), 0.0
    for at in range(0, LARGE, PACKET):
        before = packer.tokens * read.PACK_TOKEN + packer.entered * read.PACK_POSITION
        packet = data[at : at + PACKET]
        packed = packer.pack(at, data[:at][PACKET - HISTORY :], packet, build_codes())
        after = packer.tokens * read.PACK_TOKEN + packer.entered * read.PACK_POSITION
        if at >= SMALL:
            cycles += after - before + len(packed or packet) * (SEND + read.QUEUE_BYTE)
    per_byte = read.PACK_BYTE + flash.HASH_BYTE + flash.BLANK_BYTE
    size = LARGE - SMALL
    return cycles + size * per_byte + size / flash.BURST * flash.READ_BURST


def measure(chip_id: str) -> Pace:
    """The pace of a chip's stub. Takes some seconds."""
    meter = Meter(chip_id)
    size = LARGE - SMALL
    bursts = size / flash.BURST
    programming = bursts * (flash.LOAD_BURST + flash.PROGRAM_BURST + board.BUSY_POLLS * flash.POLL)
    raw = size * (RECEIVE + write.COPY_BYTE) + programming
    chip = load_chip(chip_id)
    packed, lzma = _packed_growth(Codec.ZLIB), find_lzma_form(chip)
    inflating = packed * (RECEIVE + write.INFLATE_IN) + size * write.INFLATE_OUT
    jobs: tuple[Job, ...] = (
        Job("write", _difference(lambda n: meter.write(b"\x5a" * n, Codec.RAW)), raw),
        Job(
            "packed write",
            _difference(lambda n: meter.write(text(n), Codec.ZLIB)),
            inflating + programming,
        ),
        Job(
            "read",
            _difference(
                lambda n: meter.run(
                    frame(StubOp.READ_OPEN, words(0, n, KIB, 65536, 0)),
                    frame(StubOp.READ_ACK, words(n, 0)),
                )
            ),
            size * (SEND + read.QUEUE_BYTE + flash.BLANK_BYTE) + bursts * flash.READ_BURST,
        ),
        Job(
            "packed read",
            _difference(lambda n: meter.read_packed(text(n))[0]),
            _expect_packed_read(),
        ),
        Job(
            "MD5",
            _difference(lambda n: meter.run(frame(StubOp.HASH, words(0, n, 0, HashKind.MD5)))),
            size * flash.HASH_BYTE + bursts * flash.READ_BURST,
        ),
    )
    if chip.stub.own is not None and chip.stub.own.can_lzma:
        decoding = _packed_growth(lzma.codec) * (RECEIVE + write.LZMA_IN) + size * write.LZMA_OUT
        decoding += size * write.BRANCH_BYTE * lzma.branches
        took = _difference(lambda n: meter.write(text(n), lzma.codec))
        jobs += (Job("LZMA write", took, decoding + programming),)
    return Pace(sum(job.measured for job in jobs) / sum(job.expected for job in jobs), jobs)


def _packed_growth(codec: Codec) -> int:
    return len(pack_for(codec, text(LARGE))) - len(pack_for(codec, text(SMALL)))


def _difference(run: Callable[[int], int]) -> float:
    small, large = run(SMALL), run(LARGE)
    return large - small
