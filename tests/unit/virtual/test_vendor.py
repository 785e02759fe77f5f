"""The imitation of the vendor's stub: its dialect, and the times that others have published (esptool's side included).

The host here does what esptool 5 does: one block or packet at a time, with its thinking time and a bridge's round trip.
"""

import hashlib
import struct
import zlib

import pytest
from tests.unit.virtual.stub_bench import StubBench, request, words

from espwire.virtual.link import VirtualLink
from espwire.virtual.options import VirtualOptions, build_chip
from espwire.virtual.parts import FlashTiming
from espwire.wire import slip
from espwire.wire.commands import Op, checksum

ROUND_TRIP_S = 0.002  # of a CP210x
BLOCK_THINK_S, PACKET_THINK_S = 0.011, 0.0043  # esptool's, before a block and after a packet
BLOCK = 0x4000


def start_vendor(chip, *, baud=115200, latency=ROUND_TRIP_S / 2, **options):
    link = VirtualLink(build_chip(VirtualOptions(chip=chip, stub="vendor", latency=latency, **options)))
    link.chip._set_baud(115200)
    link.chip.run(0x40000000)
    bench = StubBench(link)
    bench.sealed = False
    assert bench.next() == b"OHAI"
    if baud != 115200:
        assert bench.ask(words(Op.CHANGE_BAUDRATE, baud, 115200))[-2:] == b"\0\0"
        link.sleep(0.05)
        link.set_baud(baud)
    return bench


def read_flash(bench, size):
    start, done, digest = bench.now, 0, hashlib.md5(usedforsecurity=False)
    assert bench.ask(words(Op.READ_FLASH, 0, size, 4096, 64))[-2:] == b"\0\0"
    while done < size:
        data = bench.next()
        digest.update(data)
        done += len(data)
        bench.link.sleep(PACKET_THINK_S)
        bench.post(done.to_bytes(4, "little"))
    assert bench.next() == digest.digest()
    return bench.now - start


def write_packed(bench, offset, data):
    start, stream = bench.now, zlib.compress(data, 9)
    assert bench.ask(words(Op.FLASH_DEFL_BEGIN, len(data), -(-len(stream) // BLOCK), BLOCK, offset))[-2:] == b"\0\0"
    for number, at in enumerate(range(0, len(stream), BLOCK)):
        block = stream[at : at + BLOCK]
        bench.link.sleep(BLOCK_THINK_S)
        body = struct.pack("<4I", len(block), number, 0, 0) + block
        assert bench.ask(request(Op.FLASH_DEFL_DATA, body, checksum(block)))[-2:] == b"\0\0"
    assert bench.ask(words(Op.FLASH_DEFL_END, 1))[-2:] == b"\0\0"
    return bench.now - start


def firmware(size, ratio=0.62):
    """Bytes that deflate to about ``ratio``."""
    from random import Random

    random, out = Random(5), bytearray()
    while len(out) < size:
        out += random.randbytes(int(256 * ratio)) + bytes(256 - int(256 * ratio))
    return bytes(out[:size])


# the published range for 4 MB, and 15 % around it; a quarter is read, since time goes with size
@pytest.mark.parametrize(("baud", "low", "high"), [(115200, 377, 394), (460800, 99, 99), (2_000_000, 30.7, 30.7)])
def test_reads_take_the_published_time(baud, low, high):
    bench = start_vendor("esp32", baud=baud)
    bench.chip.flash.contents[: 1 << 20] = firmware(1 << 20, ratio=0.99)
    took = 4 * read_flash(bench, 1 << 20)
    print(f"4 MB at {baud}: {took:.1f} s")
    assert 0.85 * low <= took <= 1.15 * high


# ESP32-U4WDH at 4 Mbaud behind a CH343, 1.77 MB: 196 ms a block, 1.0 ms a page in bursts of 32 bytes
U4WDH = FlashTiming(
    program_base_s=10e-6,
    program_byte_s=3.4e-6,
    erase_4k_s=0.045,
    erase_32k_s=0.12,
    erase_64k_s=0.196,
    write_status_s=0.01,
)


@pytest.mark.parametrize(("fill", "published"), [(0x5A, 13.0), (0xFF, 7.6)], ids=["dirty", "blank"])
def test_a_write_takes_the_published_time(fill, published):
    bench = start_vendor("esp32", baud=4_000_000, latency=0.0015)
    flash = bench.chip.flash
    flash.timing = U4WDH
    data = firmware(1_770_000)
    flash.contents[: 2 << 20] = bytes([fill]) * (2 << 20)
    took = write_packed(bench, 0, data)
    print(f"1.77 MB at 4 Mbaud: {took:.2f} s")
    assert bytes(flash.contents[: len(data)]) == data
    assert 0.85 * published <= took <= 1.15 * published


def test_the_clock_is_raised_on_the_chips_that_the_facts_name():
    times = {}
    for chip in ("esp32", "esp32c3"):
        bench = start_vendor(chip, baud=921600)
        start = bench.now
        assert len(bench.ask(words(Op.SPI_FLASH_MD5, 0, 1 << 20, 0, 0))) == 26
        times[chip] = bench.now - start
    assert 0.4 < times["esp32"] < 0.6
    assert 1.8 < times["esp32c3"] < 2.6


def test_a_failed_block_shows_on_the_next_request():
    bench = start_vendor("esp32c3")
    assert bench.ask(words(Op.FLASH_DEFL_BEGIN, 4096, 2, BLOCK, 0))[-2:] == b"\0\0"
    block = b"no zlib stream at all"
    body = struct.pack("<4I", len(block), 0, 0, 0) + block
    frame = request(Op.FLASH_DEFL_DATA, body, checksum(block))
    assert bench.ask(frame)[-2:] == b"\0\0"
    assert bench.ask(frame)[-2:] == b"\xc7\0"


@pytest.mark.parametrize(
    ("frame", "status"),
    [
        (words(Op.READ_REG), b"\xc0\0"),
        (words(Op.FLASH_BEGIN, 1, 2), b"\xc0\0"),
        (request(0x77), b"\xc3\0"),
        (words(Op.FLASH_END, 1), b"\xc6\0"),
        (words(Op.ERASE_REGION, 1, 4096), b"\xc2\0"),
    ],
)
def test_bad_requests_get_their_status(frame, status):
    assert start_vendor("esp32").ask(frame)[-2:] == status


def test_sync_is_answered_eight_times_with_zeros():
    replies = start_vendor("esp8266").send(request(Op.SYNC, b"\7\7\x12\x20" + b"\x55" * 32))
    assert replies == [bytes((1, 8, 2, 0, 0, 0, 0, 0, 0, 0))] * 8
    assert slip.encode(replies[0]).count(b"\xc0") == 2
