"""Model and engine at the limits of a chip: flash that is not attached, ROM, unmapped addresses, small parts."""

import hashlib
import struct

import pytest
from tests.unit.virtual.stub_bench import data_frame, request, start, words

from espwire.chips.registry import load_chip
from espwire.device.stub_image import stub_chips
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.virtual.chip import State

CHIPS = stub_chips()
STUBS = ["twin", "engine"]


def benches(chip, **options):
    """Benches of both, with the same flash."""
    return [start(chip, stub, baud=921600, profile="fast", **options) for stub in STUBS]


def put(address, data):
    """The frames that put ``data`` into RAM."""
    body = struct.pack("<4I", len(data), 0, 0, 0) + data
    return words(Op.MEM_BEGIN, len(data), 1, len(data), address), request(Op.MEM_DATA, body)


def rom_of(chip):
    """An address in the chip's ROM."""
    return load_chip(chip).rom_addresses["ets_delay_us"] & ~0xF


@pytest.mark.parametrize("chip", CHIPS)
def test_flash_that_is_not_attached_is_neither_read_nor_written(chip):
    content = bytes(range(256)) * 16
    answers = []
    for bench in benches(chip, flash=content):
        bench.chip.registers.attached = False
        md5 = bench.ask(words(Op.SPI_FLASH_MD5, 0, 4096, 0, 0))[8:24]
        assert md5 != hashlib.md5(content).digest()
        bench.send(words(StubOp.WRITE_OPEN, 0, 64, 64, 0, 0, 7), data_frame(0, bytes(64)))
        bench.send(words(Op.ERASE_REGION, 0, 4096))
        bench.send(words(Op.ERASE_FLASH))
        assert bench.chip.flash.contents[:4096] == content
        answers.append(md5)
    assert answers[0] == answers[1]


@pytest.mark.parametrize("chip", CHIPS)
def test_a_store_to_rom_ends_the_stub(chip):
    for bench in benches(chip):
        begin, data = put(rom_of(chip), b"1234")
        assert bench.ask(begin)[-2:] == b"\0\0"
        bench.send(data)
        assert (bench.chip.state, bench.chip.runner.ended.how) == (State.GONE, "crash")
        assert bench.chip.runner.ended.address == rom_of(chip)


@pytest.mark.parametrize("chip", CHIPS)
def test_a_register_write_to_rom_ends_the_stub(chip):
    for bench in benches(chip):
        bench.send(words(Op.WRITE_REG, rom_of(chip), 1, 0xFFFFFFFF, 0))
        assert bench.chip.runner.ended.how == "crash"


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("address", [0, 0x20000000, 0x90000000])
def test_a_read_from_nowhere_ends_the_stub(chip, address):
    if address >> 28 == load_chip(chip).peripherals["uart0"] >> 28:
        address = 0x70000000
    for bench in benches(chip):
        bench.send(words(Op.READ_REG, address + 4))
        assert bench.chip.runner.ended.how == "crash"


@pytest.mark.parametrize(
    ("chip", "address"), [("esp32", 0x400C0000), ("esp32", 0x3FF80000), ("esp32", 0x50000000)]
)
def test_ram_that_keeps_its_contents_in_sleep_can_be_written(chip, address):
    for bench in benches(chip):
        begin, data = put(address, b"1234")
        assert bench.ask(begin)[-2:] == b"\0\0"
        assert bench.ask(data)[-2:] == b"\0\0"
        assert bench.ask(words(Op.READ_REG, address))[4:8] == b"1234"


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("size", ["4MB", "16MB", "32MB"])
def test_above_16_mb_a_small_part_answers_nothing_and_changes_nothing(chip, size):
    """The size is not set, so the stub accepts every address and uses the commands with four address bytes."""
    content, far, answers = bytes(range(256)) * 16, 1 << 24, []
    for bench in benches(chip, flash=content, size=int(size[:-2]) << 20):
        seen = bench.ask(words(StubOp.HASH, far - 128, 4096, 0, 0))
        bench.send(words(Op.ERASE_REGION, far, 4096))
        bench.send(words(StubOp.WRITE_OPEN, far, 64, 64, 0, 0, 7), data_frame(0, bytes(64)))
        assert bench.chip.flash.contents[:4096] == content
        assert (size == "32MB") is (bytes(bench.chip.flash.contents[far : far + 64]) == bytes(64))
        answers.append((seen, bench.ask(words(StubOp.HASH, far, 64, 0, 0))))
    assert answers[0] == answers[1]


def spi(opcode):
    """A command of one byte to the flash."""
    return request(StubOp.SPI, struct.pack("<4I", opcode, 0, 0, 0))


@pytest.mark.parametrize("chip", CHIPS)
def test_a_sleeping_or_missing_part_is_not_waited_for(chip):
    blank = hashlib.md5(b"\xff" * 64).digest()
    for bench in benches(chip, flash=b"\x5a" * 4096):
        assert bench.ask(spi(0xB9))[-2:] == b"\0\0"
        assert bench.ask(words(Op.SPI_FLASH_MD5, 0, 64, 0, 0))[8:-2] == blank
        assert bench.ask(words(Op.ERASE_REGION, 0, 4096))[-2:] == b"\0\0"
        assert bench.ask(words(StubOp.WRITE_OPEN, 0, 64, 64, 0, 0, 7))[-2:] == b"\0\0"
        assert bench.ask(data_frame(0, bytes(64)))[-2:] == b"\0\0"
        assert bytes(bench.chip.flash.contents[:4096]) == b"\x5a" * 4096


@pytest.mark.parametrize("chip", CHIPS)
def test_a_part_in_four_byte_address_mode_behaves_the_same_with_both(chip):
    answers = []
    for bench in benches(chip, flash=bytes(range(256)) * 16, size=32 << 20):
        bench.send(spi(0xB7))
        frames = (
            words(Op.SPI_FLASH_MD5, 0x10, 100, 0, 0),
            words(StubOp.WRITE_OPEN, 0, 200, 200, 0, 0, 7),
            data_frame(0, bytes(range(200))),
            words(Op.ERASE_REGION, 0, 4096),
            spi(0xE9),
            words(Op.SPI_FLASH_MD5, 0, 1 << 16, 0, 0),
        )
        answers.append([bench.send(frame) for frame in frames])
        assert bytes(bench.chip.flash.contents[:256]) != bytes(range(256))
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("offset", "size", "flags"),
    [(0x1000, 4096, 1), (0x1000, 100, 1), (0x1010, 64, 3), (0x1000, 96, 1)],
)
@pytest.mark.parametrize("key", [{}, {"flash_key": bytes(32)}], ids=["no key", "key"])
def test_both_encrypt_and_refuse_in_the_same_cases(offset, size, flags, key):
    if key:
        pytest.importorskip("cryptography")
    data, answers = bytes(range(1, 251)) * 20, []
    for bench in benches("esp32", **key):
        frames = [data_frame(at, data[at : min(at + 2048, size)]) for at in range(0, size, 2048)]
        replies = bench.send(words(StubOp.WRITE_OPEN, offset, size, size, 0, flags, 7), *frames)
        answers.append((replies, bytes(bench.chip.flash.contents[: 2 * 4096])))
    assert answers[0] == answers[1]
