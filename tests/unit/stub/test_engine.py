"""Each chip's packed image runs on its CPU engine: hello, capabilities, a write, a hash, a read, on a minimal bus."""

from __future__ import annotations

import hashlib
import random
import zlib

import pytest
from tests.stub_drivers.frames import frame, split
from tests.unit.stub.board import Bench

from espwire.chips.registry import load_chip
from espwire.device.stub_image import StubOptions, load_stub, stub_chips
from espwire.protocol import stub as s
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import STUB_MEANINGS

SIZE = 8192


@pytest.fixture(params=stub_chips())
def bench(request: pytest.FixtureRequest) -> Bench:
    image = load_stub(request.param)
    return Bench(load_chip(request.param), image.entry, image.segments)


def test_it_sends_its_hello_and_capabilities(bench):
    chip = bench.board.chip
    assert bench.send() == [s.HELLO]
    (answer,) = bench.send(s.AskCapabilities().packet())
    told = s.parse_capabilities(split(answer)[0].body)
    assert told.build == load_stub(chip.id).build
    assert told.cpu_hz == chip.stub.own.cpu_hz
    assert told.image_chip_id == (
        0xFFFFFFFF if chip.identity.image_chip_id is None else chip.identity.image_chip_id
    )
    assert (s.Feature.ENCRYPT in told.features) == chip.stub.own.can_encrypt


def test_it_writes_hashes_and_reads_back(bench):
    pick = random.Random(1)
    data = bytes(pick.choice(b"abcdefgh") for _ in range(SIZE // 2)) + pick.randbytes(SIZE // 2)
    stream = zlib.compress(data)
    bench.board.nor.memory[0x11000:0x11010] = bytes(16)  # to erase
    bench.send()
    bench.send(s.WriteOpen(0x10000, SIZE, len(stream), s.Codec.ZLIB, 0, 7).packet())
    frames = [
        s.WriteData(at, stream[at : at + 2048]).packet() for at in range(0, len(stream), 2048)
    ]
    report = bench.send(*frames)[-1]
    assert report[8:] == s.Report(len(stream), len(stream) + 26624, SIZE, 7).reply().body
    assert bench.board.nor.memory[0x10000 : 0x10000 + SIZE] == data
    assert bench.board.nor.erased == [(0x11000, 4096)]
    (answer,) = bench.send(s.Hash(0x10000, SIZE, 4096).packet())
    assert split(answer)[0].body == b"".join(
        hashlib.md5(data[at : at + 4096]).digest() for at in (0, 4096)
    )
    _, packet = bench.send(s.ReadOpen(0x10000, SIZE, 4096, 4096).packet())
    assert packet[8:-2] == data[:4096]
    assert split(bench.send(s.Abort(3).packet())[-1])[0].value == 3
    assert not bench.board.nor.complaints


def test_nonsense_gets_an_answer_with_a_meaning(bench):
    bench.send()
    for op in (*Op, *s.StubOp, 0x77):
        if op in (Op.RUN_USER_CODE, s.StubOp.WRITE_DATA, s.StubOp.READ_ACK):
            continue
        (answer,) = bench.send(frame(op, b"\1" * 33))
        reply, status = split(answer)
        assert reply.op == op
        assert status in STUB_MEANINGS


def test_the_clock_is_raised_only_if_the_host_passes_the_baud_rate():
    image = load_stub("esp32")
    chip = load_chip("esp32")
    clock = chip.stub.own.registers["clock_control"]
    for options, raised in (
        ({"baud": 0}, False),
        ({"baud": 115200, "leave_clock": True}, False),
        ({"baud": 115200}, True),
    ):
        told = image.with_options(StubOptions(**options))
        bench = Bench(chip, told.entry, told.segments)
        assert bench.send() == [s.HELLO]
        assert (bench.board.registers.get(clock, 0) >> 27 == 1) is raised
        divider = bench.board.registers.get(chip.uart.clock_divider_address, 0)
        assert divider == ((80_000_000 * 16 + 57600) // 115200 >> 4 | 7 << 20 if raised else 0)
