"""The longest time between two polls of the receive FIFO: 128 bytes are 0.64 ms at 2 Mbaud, and there is no interrupt.

Counted by the engines: two cycles per instruction, twenty per access to a peripheral, at the chip's clock.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable

import pytest
from tests.stub_drivers.frames import SECTOR, frame, pack, pack_for, text, words
from tests.stub_drivers.programs import FREE_RAM
from tests.unit.virtual.stub_bench import StubBench, data_frame, start

from espwire.chips.registry import load_chip
from espwire.compress import find_lzma_form
from espwire.device.stub_image import stub_chips
from espwire.protocol import stub as s
from espwire.protocol.commands import checksum
from espwire.protocol.opcodes import Op

pytestmark = pytest.mark.slow

LIMIT_S = 0.0003
SIZE = 0x1000
OLD = random.Random(4).randbytes(0x3000)
ALIKE = b"".join(text(200) + bytes((i, i ^ 0x5A)) for i in range(40))  # four long candidates each
SKEWED = bytes(
    byte for byte in range(256) for _ in range(1 + int(1.3 ** (byte / 10 - 8)))
)  # codes of all lengths


def write(bench: StubBench, data: bytes, stream: bytes, codec: int = s.Codec.ZLIB) -> None:
    bench.ask(s.WriteOpen(0, len(data), len(stream), codec, 0, 1).packet())
    bench.send(*(data_frame(at, stream[at : at + 2048]) for at in range(0, len(stream), 2048)))
    assert bytes(bench.chip.flash.contents[: len(data)]) == data


def write_slowly(bench: StubBench) -> None:
    """Write with pauses between frames, to read back, and request the MD5 at the end."""
    bench.ask(s.WriteOpen(0, len(OLD), len(OLD), s.Codec.RAW, s.WRITE_READ_BACK, 1).packet())
    for at in range(0, len(OLD), 2048):
        bench.send(s.WriteData(at, OLD[at : at + 2048], 0x55).packet())
    bench.ask(frame(Op.SPI_FLASH_MD5, words(0, len(OLD), 0, 0)))
    assert bytes(bench.chip.flash.contents[: len(OLD)]) == OLD


def write_damaged(bench: StubBench) -> None:
    bench.ask(s.WriteOpen(0, 8192, 8192, s.Codec.RAW, 0, 1).packet())
    bad = bytearray(data_frame(0, OLD[:2048]))
    bad[99] ^= 4
    bench.send(bytes(bad), bytes(bad), data_frame(4096, OLD[:2048]), data_frame(0, b""))
    bench.send(s.Abort(1).packet())


def write_vendor(bench: StubBench, op: int, data: bytes, stream: bytes) -> None:
    bench.unseal()
    bench.ask(frame(op, words(len(data), 1, len(stream), 0)))
    bench.ask(frame(op + 1, words(len(stream), 0, 0, 0) + stream, checksum(stream)))
    assert bench.ask(frame(op + 2, words(1)))[-2:] == b"\0\0"
    assert bytes(bench.chip.flash.contents[: len(data)]) == data
    bench.sealed = True


def read_vendor(bench: StubBench) -> None:
    bench.unseal()
    bench.ask(frame(Op.READ_FLASH, words(0, SECTOR, 2048, 2)))
    for done in (2048, 4096):
        bench.next()
        bench.post(words(done))
    bench.next()
    bench.sealed = True


def read_packed(bench: StubBench, data: bytes) -> None:
    bench.chip.flash.contents[0x30000 : 0x30000 + len(data)] = data
    assert bench.read_checked(0x30000, len(data))[0] == data


def load_ram(bench: StubBench) -> None:
    code = text(2048)
    bench.ask(frame(Op.MEM_BEGIN, words(2048, 1, 2048, FREE_RAM[bench.chip.chip.id])))
    bench.send(frame(Op.MEM_DATA, words(2048, 0, 0, 0) + code))
    bench.unseal()
    bench.send(frame(Op.MEM_DATA, words(2048, 0, 0, 0) + code, checksum(code)))
    bench.sealed = True


def ask_small(bench: StubBench) -> None:
    batch = s.Batch((s.SpiTransaction(0x9F, read=64).request(), s.Hash(0, 0).request())).packet()
    md5 = s.Batch((s.Request(Op.SPI_FLASH_MD5, 0, words(0, 2 * SECTOR, 0, 0)),)).packet()
    for request in (
        s.AskCapabilities().packet(),
        batch,
        md5,
        frame(Op.SYNC, bytes(36)),
        frame(0x77, bytes(3000)),
    ):
        bench.send(request)
    register = bench.chip.chip.spi.base + bench.chip.chip.spi.data_offset
    bench.ask(frame(Op.WRITE_REG, words(register, 1, 1, 3000) * 16))


JOBS: dict[str, Callable[[StubBench], object]] = {
    "zlib, dynamic tables": lambda b: write(b, text(SIZE), pack(text(SIZE))),
    "zlib, many tables": lambda b: write(b, text(SIZE), _flushed(text(SIZE))),
    "zlib, long codes": lambda b: write(b, SKEWED, pack(SKEWED, 9, zlib.Z_HUFFMAN_ONLY)),
    "zlib, stored": lambda b: write(b, OLD[:SIZE], pack(OLD[:SIZE], 0)),
    "zlib, runs": lambda b: write(b, bytes(SIZE * 3), pack(bytes(SIZE * 3), 9, zlib.Z_RLE)),
    "zlib, blank": lambda b: write(b, b"\xff" * SIZE * 3, pack(b"\xff" * SIZE * 3)),
    "read back": write_slowly,
    "raw": lambda b: write(b, OLD[:SIZE], OLD[:SIZE], s.Codec.RAW),
    "raw, all escaped": lambda b: write(b, b"\xdb" * 2048, b"\xdb" * 2048, s.Codec.RAW),
    "damage": write_damaged,
    "vendor, deflated": lambda b: write_vendor(
        b, Op.FLASH_DEFL_BEGIN, text(SIZE), pack(text(SIZE))
    ),
    "vendor, plain": lambda b: write_vendor(b, Op.FLASH_BEGIN, OLD[:SECTOR], OLD[:SECTOR]),
    "vendor, read": read_vendor,
    "read": lambda b: b.read(0, SECTOR),
    "read, blank": lambda b: b.read(0x20000, SECTOR),
    "read, checked": lambda b: b.read_checked(0, SECTOR, packed=False),
    "read, packed": lambda b: read_packed(b, text(2 * SIZE)),
    "read, random": lambda b: read_packed(b, OLD[:SIZE]),
    "read, zeros": lambda b: read_packed(b, bytes(SIZE)),
    "read, alike": lambda b: read_packed(b, ALIKE),
    "read, blank and checked": lambda b: b.read_checked(0x20000, 2 * SECTOR),
    "hash": lambda b: b.send(s.Hash(0, 2 * SECTOR, 1000).packet()),
    "hash, vendor": lambda b: b.ask(frame(Op.SPI_FLASH_MD5, words(0, 2 * SECTOR, 0, 0))),
    "blank check": lambda b: b.send(s.Hash(0, 16 * SECTOR, SECTOR, s.HashKind.BLANK).packet()),
    "erase": lambda b: b.ask(frame(Op.ERASE_REGION, words(0, 0x11000))),
    "RAM": load_ram,
    "small": ask_small,
}


def _flushed(data: bytes) -> bytes:
    """A table for every few hundred bytes."""
    packer = zlib.compressobj(9)
    parts = [
        packer.compress(data[at : at + 700]) + packer.flush(zlib.Z_FULL_FLUSH)
        for at in range(0, len(data), 700)
    ]
    return b"".join(parts) + packer.flush()


def write_lzma(bench: StubBench, data: bytes) -> None:
    codec = find_lzma_form(bench.chip.chip).codec
    write(bench, data, pack_for(codec, data), codec)


LZMA_JOBS: dict[str, Callable[[StubBench], object]] = {
    "LZMA": lambda b: write_lzma(b, text(SIZE)),
    "LZMA, literals": lambda b: write_lzma(b, OLD[:SIZE]),
    "LZMA, blank": lambda b: write_lzma(b, b"\xff" * SIZE * 3),
    "LZMA, calls": lambda b: write_lzma(b, bytes.fromhex("97001300E780C000EF002000") * 400),
}


@pytest.mark.parametrize("chip", stub_chips())
def test_the_receiver_is_never_left_alone_for_long(chip):
    bench = start(chip, "engine", baud=921600, flash=OLD, profile="fast")
    own = load_chip(chip).stub.own
    assert own is not None
    program = bench.chip.program
    uart = program.uart
    gaps = {}
    for name, job in (JOBS | (LZMA_JOBS if own.can_lzma else {})).items():
        uart.longest_gap = 0
        job(bench)
        gaps[name] = uart.longest_gap / program.clock.hz
    print(
        f"\n{chip}: longest gap in µs: "
        + ", ".join(f"{name} {gap * 1e6:.0f}" for name, gap in gaps.items())
    )
    assert all(gaps.values())
    assert max(gaps.values()) <= LIMIT_S
    assert uart.overruns == 0
