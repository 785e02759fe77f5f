"""The Python model of our stub against the stub itself on the engine: the same replies and flash, nearly the same time."""

import hashlib
import struct
import zlib
from random import Random

import pytest
from tests.stub_drivers import pace
from tests.unit.virtual.stub_bench import PAYLOAD, data_frame, request, start, words

from espwire.chips.registry import load_chip
from espwire.device.stub_image import StubOptions, load_stub, stub_chips
from espwire.protocol.commands import checksum, parse_reply
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import (
    WRITE_READ_BACK,
    AskCapabilities,
    Batch,
    HashKind,
    SpiTransaction,
    StubOp,
    WriteData,
    parse_batch_reply,
    parse_capabilities,
)

CHIPS = stub_chips()
SMALL, LARGE = 0x2000, 0x10000


def firmware(size, seed=1):
    random, out = Random(seed), bytearray()
    while len(out) < size:
        out += random.randbytes(150) + bytes(106)
    return bytes(out[:size])


def bad_requests():
    yield request(0x77, b"1234")
    yield words(Op.READ_REG)
    yield words(Op.READ_REG, 1)
    yield words(Op.FLASH_BEGIN, 1, 2)
    yield words(Op.FLASH_END, 1)
    yield request(Op.FLASH_DATA, struct.pack("<4I", 1, 0, 0, 0) + b"x", 0)
    yield words(Op.ERASE_REGION, 1, 4096)
    yield words(Op.CHANGE_BAUDRATE, 1, 115200)
    yield words(Op.SPI_ATTACH, 1)
    yield words(StubOp.WRITE_OPEN, 1, 4096, 4096, 0, 0, 1)
    yield words(StubOp.WRITE_OPEN, 0, 4096, 4095, 0, 0, 1)
    yield words(StubOp.WRITE_OPEN, 0, 4096, 4096, 9, 0, 1)
    yield words(StubOp.READ_OPEN, 0, 4096, 3, 4096, 0)
    yield words(StubOp.HASH, 0, 0, 0, 0)
    yield words(StubOp.SPI, 0x9F, 0, 65 << 24, 0)
    yield request(StubOp.BATCH, struct.pack("<BBH", Op.READ_REG, 0, 90) + b"abcd")
    yield request(StubOp.BATCH, bytes(600))
    yield data_frame(0, b"late")
    yield data_frame(0, b"")
    yield request(StubOp.WRITE_DATA, WriteData(0).body(), 1)
    yield b"\1\2\3"


def streams(seed):
    """Lists of frames that are sent at once, with all answers before the next list. None: from now on as a vendor's tool."""
    data = firmware(SMALL + 100, seed)
    packed = zlib.compress(data, 9)
    yield [request(Op.SYNC, b"\7\7\x12\x20" + b"\x55" * 32)]
    yield [request(StubOp.CAPABILITIES, b"\1\0\0\0")]
    yield from ([frame] for frame in bad_requests())
    yield [words(StubOp.SPI, 0x9F, 0, 3 << 24, 0)]
    batch = request(StubOp.BATCH, struct.pack("<BBH4I", StubOp.SPI, 0, 16, 0x9F, 0, 3 << 24, 0))
    yield [batch]
    yield [words(StubOp.WRITE_OPEN, 0x1000, len(data), len(packed), 1, 0, seed)]
    frames = [data_frame(at, packed[at : at + PAYLOAD]) for at in range(0, len(packed), PAYLOAD)]
    broken = bytearray(frames[1])
    broken[30] ^= 1
    yield [frames[0], bytes(broken), *frames[2:]]
    yield [*frames[1:], data_frame(0, b"")]
    yield [words(StubOp.HASH, 0, 0x5000, 0x1000, HashKind.MD5)]
    yield [words(StubOp.HASH, 0, 0x5000, 0x1000, HashKind.BLANK)]
    yield [words(StubOp.READ_OPEN, 0x800, 0x2900, 1024, 4096, 1)]
    yield [words(StubOp.READ_ACK, 1024, 0), words(StubOp.READ_ACK, 1024, 1)]
    yield [words(StubOp.ABORT, 77)]
    yield [
        words(StubOp.WRITE_OPEN, 0x8000, len(data), 2048, 1, 0, 3),
        data_frame(0, packed[:2048]),
        data_frame(0, b""),
    ]
    yield [words(StubOp.WRITE_OPEN, 0x8000, 4097, len(packed), 1, 0, 4), *frames]
    yield None
    yield [words(Op.FLASH_BEGIN, 5000, 2, 4096, 0xC000)]
    for number in (0, 0, 1):
        block = data[number * 4096 :][:4096]
        yield [
            request(Op.FLASH_DATA, struct.pack("<4I", 4096, number, 0, 0) + block, checksum(block))
        ]
    yield [words(Op.FLASH_END, 1)]
    yield [words(Op.SPI_FLASH_MD5, 0, 0x10000, 0, 0)]
    yield [words(Op.READ_FLASH, 0, 3000, 1024, 64)]
    yield [(3000).to_bytes(4, "little")]
    yield [words(Op.ERASE_REGION, 0xC000, 0x1000)]


@pytest.mark.parametrize("chip", CHIPS)
def test_model_and_engine_answer_the_same_and_leave_the_same_flash(chip):
    content = firmware(LARGE, seed=9)
    model, engine = (
        start(chip, stub, baud=921600, profile="fast", flash=content) for stub in ("twin", "engine")
    )
    for number, frames in enumerate(streams(3)):
        if frames is None:
            model.unseal(), engine.unseal()
            continue
        one, other = model.send(*frames, quiet=0.15), engine.send(*frames, quiet=0.15)
        assert one == other, (number, frames[0][:30].hex())
    assert model.chip.flash.contents[: 2 * LARGE] == engine.chip.flash.contents[: 2 * LARGE]


def measure(chip, stub, size, kind):
    data = firmware(size)
    bench = start(
        chip, stub, baud=921600 if kind == "uart" else 115200, flash=b"\x5a" * 2 * size, kind=kind
    )
    times = {"write": bench.write(0, data)}
    got, times["read"] = bench.read(0, size)
    assert got == data == bytes(bench.chip.flash.contents[:size])
    got, times["checked read"] = bench.read_checked(0, size, packed=kind == "uart")
    assert got == data
    begin = bench.now
    reply = bench.ask(words(StubOp.HASH, 0, size, 0, HashKind.MD5))
    times["hash"] = bench.now - begin
    assert reply[8:-2] == hashlib.md5(data).digest()
    return times


def compare(chip, size, kind="uart", jobs=("write", "read", "checked read", "hash")):
    model, engine = measure(chip, "twin", size, kind), measure(chip, "engine", size, kind)
    print(chip, {job: f"{model[job]:.4f} {engine[job]:.4f}" for job in model})
    for job in jobs:
        assert abs(model[job] / engine[job] - 1) <= 0.1, job


@pytest.mark.parametrize("chip", CHIPS)
def test_the_model_takes_the_engines_time(chip):
    compare(chip, SMALL)


def test_the_model_takes_the_engines_time_over_usb():
    compare(
        "esp32c3", SMALL, "usb-jtag", ("write", "read", "checked read")
    )  # a hash takes less than a slice of the engine's time


@pytest.mark.soak
@pytest.mark.parametrize("chip", CHIPS)
def test_the_model_takes_the_engines_time_for_64_kib(chip):
    compare(chip, LARGE)


def test_a_mebibyte_is_written_by_the_model():
    data = firmware(1 << 20)
    bench = start("esp32c3", "twin", baud=921600, flash=b"\x5a" * (1 << 20))
    bench.write(0, data)
    assert bytes(bench.chip.flash.contents[: len(data)]) == data


def test_capabilities_contain_the_build():
    bench = start("esp32", "twin")
    found = parse_capabilities(bench.ask(request(StubOp.CAPABILITIES, b"\1\0\0\0"))[8:-2])
    assert found is not None
    assert found.image_chip_id == 0


@pytest.mark.parametrize("stub", ["twin", "engine"])
@pytest.mark.parametrize("chip", CHIPS)
def test_a_batch_that_comes_with_the_image_is_answered_behind_the_hello(chip, stub):
    asked = (AskCapabilities().request(), SpiTransaction(0x9F, read=3).request())
    bench = start(chip, stub, batch=Batch(asked).body())
    reply = parse_reply(bench.next())
    capabilities, jedec = parse_batch_reply(reply.body[:-2], asked)
    assert reply.op == StubOp.BATCH
    assert parse_capabilities(capabilities.body[:-2]) is not None
    assert jedec.body[:-2] == bench.chip.flash.part.jedec
    assert bench.ask(request(Op.SYNC, bytes(36)))[1] == Op.SYNC


def test_a_batch_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="129"):
        load_stub("esp32").with_options(StubOptions(batch=bytes(129)))


@pytest.mark.parametrize("stub", ["twin", "engine"])
@pytest.mark.parametrize("chip", CHIPS)
def test_data_read_back_while_writing_shortens_the_md5_and_is_verified(chip, stub):
    data = firmware(SMALL)
    bench = start(
        chip, stub, baud=115200, profile="fast"
    )  # the wire is slow enough to read back meanwhile
    times = {}
    for flags in (0, WRITE_READ_BACK):
        bench.write(0x1000, data, flags=flags)
        begin = bench.now
        reply = bench.ask(words(Op.SPI_FLASH_MD5, 0x1000, len(data), 0, 0))
        times[flags] = bench.now - begin
        assert reply[8:-2] == hashlib.md5(data).digest()
    assert times[WRITE_READ_BACK] < 0.95 * times[0]
    bench.write(0x1000, data, flags=WRITE_READ_BACK)
    bench.chip.flash.contents[0x1000 + 77] ^= 1  # as after a write past the end of a smaller part
    changed = hashlib.md5(bench.chip.flash.contents[0x1000 : 0x1000 + len(data)]).digest()
    assert bench.ask(words(Op.SPI_FLASH_MD5, 0x1000, len(data), 0, 0))[8:-2] == changed
    bench.write(0x1000, data, flags=WRITE_READ_BACK)
    bench.ask(words(Op.ERASE_REGION, 0x2000, 0x1000))  # any other request ends it
    changed = hashlib.md5(bench.chip.flash.contents[0x1000 : 0x1000 + len(data)]).digest()
    assert bench.ask(words(Op.SPI_FLASH_MD5, 0x1000, len(data), 0, 0))[8:-2] == changed


@pytest.mark.parametrize("chip", CHIPS)
def test_the_pace_in_the_chip_data_is_within_10_percent_of_the_engine(chip):
    assert pace.measure(chip).pace == pytest.approx(load_chip(chip).stub.own.pace, rel=0.1)
