"""Measures on the CPU engine how many cycles our packed stub takes, relative to the constants of its Python model.

Each job runs with two sizes on a flash that is never busy and a wire without bit times; the difference is the cost of
the additional bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import NamedTuple

from tests.unit.stub import board

from espwire.chips.registry import load_chip
from espwire.device.stub_image import load_stub
from espwire.protocol.stub import HashKind, StubOp
from espwire.virtual.programs import stub_flash as flash
from espwire.virtual.programs import stub_model as model
from espwire.virtual.programs import stub_write as write

from .frames import frame, pieces, text, words

KIB = 1024
SMALL, LARGE = 8 * KIB, 24 * KIB
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
    """A stub on an engine; ``run`` counts cycles without the polls of an empty receiver at the end."""

    def __init__(self, chip_id: str) -> None:
        board.IDLE_POLLS = IDLE_POLLS
        chip, image = load_chip(chip_id), load_stub(chip_id)
        self.bench = board.Bench(chip, image.entry, image.segments)
        self._idle_cycles = 0
        self.run()
        self._idle_cycles = self.run()

    def run(self, *frames: bytes) -> int:
        before = self.bench.engine.cycles[0]
        self.bench.send(*frames)
        return self.bench.engine.cycles[0] - before - self._idle_cycles

    def write(self, data: bytes, *, packed: bool) -> int:
        stream = zlib.compress(data, 9) if packed else data
        opening = words(0, len(data), len(stream), int(packed), 2, 1)
        total = self.run(frame(StubOp.WRITE_OPEN, opening))
        return total + self.run(*pieces(stream))


def measure(chip_id: str) -> Pace:
    """The pace of a chip's stub. Takes some seconds."""
    meter = Meter(chip_id)
    size = LARGE - SMALL
    bursts = size / flash.BURST
    programming = bursts * (flash.PROGRAM_BURST + board.BUSY_POLLS * flash.POLL)
    raw = size * (RECEIVE + write.COPY_BYTE) + programming
    stream = _packed_size(LARGE) - _packed_size(SMALL)
    packed = stream * (RECEIVE + write.INFLATE_IN) + size * write.INFLATE_OUT
    jobs = (
        Job("write", _difference(lambda n: meter.write(b"\x5a" * n, packed=False)), raw),
        Job(
            "packed write",
            _difference(lambda n: meter.write(text(n), packed=True)),
            packed + programming,
        ),
        Job(
            "read",
            _difference(
                lambda n: meter.run(
                    frame(StubOp.READ_OPEN, words(0, n, KIB, 65536, 0)),
                    frame(StubOp.READ_ACK, words(n, 0)),
                )
            ),
            size * SEND + bursts * flash.READ_BURST,
        ),
        Job(
            "MD5",
            _difference(lambda n: meter.run(frame(StubOp.HASH, words(0, n, 0, HashKind.MD5)))),
            size * flash.HASH_BYTE + bursts * flash.READ_BURST,
        ),
    )
    return Pace(sum(job.measured for job in jobs) / sum(job.expected for job in jobs), jobs)


def _packed_size(size: int) -> int:
    return len(zlib.compress(text(size), 9))


def _difference(run: Callable[[int], int]) -> float:
    small, large = run(SMALL), run(LARGE)
    return large - small
