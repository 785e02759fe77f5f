"""Each chip's packed image runs on its CPU engine: hello, capabilities, a write, a hash, a read, on a minimal bus."""

from __future__ import annotations

import hashlib
import random
import zlib
from dataclasses import replace

import pytest
from tests.stub_drivers.frames import (
    BAD_STREAM,
    NOT_IMPLEMENTED,
    TOO_LITTLE,
    TOO_MUCH,
    frame,
    pack_for,
    pieces,
    split,
    text,
)
from tests.unit.stub.board import Bench

from espwire.chips.registry import load_chip
from espwire.compress import find_lzma_form
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
    assert told.code_crc == load_stub(chip.id).code_crc
    assert told.cpu_hz == chip.stub.own.cpu_hz
    assert told.image_chip_id == (
        0xFFFFFFFF if chip.identity.image_chip_id is None else chip.identity.image_chip_id
    )
    assert (s.Feature.ENCRYPT in told.features) == chip.stub.own.can_encrypt


@pytest.mark.parametrize("part", ["code", "constants"])
def test_a_flipped_bit_in_code_or_constants_changes_the_crc(part):
    chip, image = "esp32c3", load_stub("esp32c3")
    (code_at, code), (data_at, data) = image.segments
    contents = {"code": bytearray(code), "constants": bytearray(data)}
    contents[part][-8] ^= 4  # the last function and the last constant are not used here
    segments = (code_at, bytes(contents["code"])), (data_at, bytes(contents["constants"]))
    bench = Bench(load_chip(chip), image.entry, segments)
    bench.send()
    (answer,) = bench.send(s.AskCapabilities().packet())
    found = s.parse_capabilities(split(answer)[0].body).code_crc
    assert found == replace(image, segments=segments).code_crc != image.code_crc


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


def test_it_decompresses_lzma_of_unknown_size(bench):
    chip, pick = bench.board.chip, random.Random(2)
    form = find_lzma_form(chip)
    bench.send()
    parts = [pick.randbytes(3), bytes.fromhex("EF00C010"), bytes.fromhex("9700420AE780A0B1")]
    data = b"".join(pick.choices(parts, k=1500)) + pick.randbytes(3)
    stream = pack_for(form.codec, data)
    (answer,) = bench.send(s.WriteOpen(0x20000, len(data), 0, form.codec, 0, 7).packet())
    status = split(answer)[1]
    assert status == (0 if chip.stub.own.can_lzma else NOT_IMPLEMENTED)
    if status == 0:
        answer = bench.send(*pieces(stream))[-1]
        assert answer[8:] == s.Report(len(stream), len(stream) + 26624, len(data), 7).reply().body
        assert bench.board.nor.memory[0x20000 : 0x20000 + len(data)] == data
    assert not bench.board.nor.complaints


def test_damaged_lzma_streams_end_with_a_status(bench):
    chip, pick = bench.board.chip, random.Random(2)
    if not chip.stub.own.can_lzma:
        pytest.skip("no LZMA on this chip")
    codec, data = find_lzma_form(chip).codec, text(1500)
    stream = pack_for(codec, data)
    bench.send()
    for number in range(40):
        broken = bytearray(stream)
        for _ in range(pick.choice((1, 3))):
            broken[pick.randrange(len(broken))] ^= 1 << pick.randrange(8)
        cut = bytes(broken[: pick.randrange(1, len(broken))] if number % 3 == 0 else broken)
        bench.send(s.WriteOpen(0x20000, len(data), len(cut), codec, 0, 7).packet())
        status = split(bench.send(*pieces(cut))[-1])[1]
        assert status in (0, BAD_STREAM, TOO_LITTLE, TOO_MUCH)
        assert status or number % 3
    assert bench.board.nor.memory[:0x20000] == b"\xff" * 0x20000
    assert bench.board.nor.memory[0x21000:] == b"\xff" * (len(bench.board.nor.memory) - 0x21000)
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
