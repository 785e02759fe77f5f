"""The imitation of the vendor's stub: its protocol, and published timings (including esptool's share).

The host acts like esptool 5: one block or packet at a time, with its processing time and the round trip of a bridge.
"""

import hashlib
import struct
import zlib

import pytest
from tests.unit.virtual.stub_bench import StubBench, request, words

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol import slip
from espwire.protocol.commands import checksum
from espwire.protocol.opcodes import Op
from espwire.virtual.build import build_chip
from espwire.virtual.config import VirtualOptions
from espwire.virtual.flash_parts import FlashTiming
from espwire.virtual.programs.vendor_stub import has_vendor_layout
from espwire.virtual.transport import VirtualTransport

ROUND_TRIP_S = 0.002  # of a CP210x
BLOCK_THINK_S, PACKET_THINK_S = 0.011, 0.0043  # esptool's, before a block and after a packet
BLOCK = 0x4000


def start_vendor(chip, *, baud=115200, latency=ROUND_TRIP_S / 2, **options):
    transport = VirtualTransport(
        build_chip(VirtualOptions(chip=chip, stub="vendor", latency=latency, **options))
    )
    transport.chip._set_baud(115200)
    transport.chip.run(0x40000000)
    bench = StubBench(transport)
    bench.sealed = False
    assert bench.next() == b"OHAI"
    if baud != 115200:
        assert bench.ask(words(Op.CHANGE_BAUDRATE, baud, 115200))[-2:] == b"\0\0"
        transport.sleep(0.05)
        transport.set_baud(baud)
    return bench


def read_flash(bench, size):
    start, done, digest = bench.now, 0, hashlib.md5(usedforsecurity=False)
    assert bench.ask(words(Op.READ_FLASH, 0, size, 4096, 64))[-2:] == b"\0\0"
    while done < size:
        data = bench.next()
        digest.update(data)
        done += len(data)
        bench.transport.sleep(PACKET_THINK_S)
        bench.post(done.to_bytes(4, "little"))
    assert bench.next() == digest.digest()
    return bench.now - start


def write_packed(bench, offset, data):
    start, stream = bench.now, zlib.compress(data, 9)
    assert (
        bench.ask(words(Op.FLASH_DEFL_BEGIN, len(data), -(-len(stream) // BLOCK), BLOCK, offset))[
            -2:
        ]
        == b"\0\0"
    )
    for number, at in enumerate(range(0, len(stream), BLOCK)):
        block = stream[at : at + BLOCK]
        bench.transport.sleep(BLOCK_THINK_S)
        body = struct.pack("<4I", len(block), number, 0, 0) + block
        assert bench.ask(request(Op.FLASH_DEFL_DATA, body, checksum(block)))[-2:] == b"\0\0"
    assert bench.ask(words(Op.FLASH_DEFL_END, 1))[-2:] == b"\0\0"
    return bench.now - start


def firmware(size, ratio=0.62):
    """Bytes that compress to about ``ratio``."""
    from random import Random

    random, out = Random(5), bytearray()
    while len(out) < size:
        out += random.randbytes(int(256 * ratio)) + bytes(256 - int(256 * ratio))
    return bytes(out[:size])


# the published range for 4 MB, and 15 % around it; a quarter is read, since time goes with size
@pytest.mark.parametrize(
    ("baud", "low", "high"), [(115200, 377, 394), (460800, 99, 99), (2_000_000, 30.7, 30.7)]
)
def test_reads_take_the_published_time(baud, low, high):
    bench = start_vendor("esp32", baud=baud)
    bench.chip.flash.contents[: 1 << 20] = firmware(1 << 20, ratio=0.99)
    took = 4 * read_flash(bench, 1 << 20)
    print(f"4 MB at {baud}: {took:.1f} s")
    assert 0.85 * low <= took <= 1.15 * high


# ESP32-U4WDH at 4 Mbaud behind a CH343, 1.77 MB: 196 ms a block, 1.0 ms a page in bursts of 32 bytes, with the bits on the bus
U4WDH = FlashTiming(
    program_base_s=10e-6,
    program_byte_s=3.0e-6,
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
    assert 0.5 < times["esp32"] < 0.8  # on the CPU engine: 0.66
    assert 3.6 < times["esp32c3"] < 4.6  # 4.1


@pytest.mark.parametrize(
    ("chip", "kind", "mhz"),
    [
        ("esp8266", "uart", 52),  # the ROM's: twice the crystal
        ("esp32", "uart", 160),
        ("esp32s2", "uart", 240),
        ("esp32p4", "uart", 200),
        ("esp32c3", "uart", 20),  # the ROM's: half the crystal
        ("esp32h2", "uart", 32),
        ("esp32c3", "usb-jtag", 160),
        ("esp32h2", "usb-jtag", 96),  # its maximum
        ("esp32s3", "uart", 240),
    ],
)
def test_the_clock_follows_the_chips_data_and_its_port(chip, kind, mhz):
    made = build_chip(VirtualOptions(chip=chip, stub="vendor", kind=kind))
    made._set_baud(115200)
    made.run(0x40000000)
    assert made.program.hz == mhz * 1_000_000


# (chip, entry, uploads) of stubs that are not in the data: esptool 3.3.3, 4.5.1, 4.8.1, 4.9, 5.2, esptool-js 0.5.7, 0.7
VERSIONS = [
    ("esp32", 0x400BE5AC, ((0x400BE000, 3432), (0x3FFDEBA8, 4))),
    ("esp32", 0x400A800C, ((0x400A8000, 6884), (0x3FFDED60, 92))),
    ("esp8266", 0x4010D004, ((0x4010D000, 8240), (0x3FFFACA8, 768))),
    ("esp8266", 0x4010E004, ((0x4010E000, 8020), (0x3FFFACA4, 768))),
    ("esp8266", 0x4010C504, ((0x4010C500, 12260), (0x3FFFAE5C, 3968))),
    ("esp32s2", 0x400287F0, ((0x40028000, 4336), (0x3FFE2BFC, 160))),
    ("esp32s3", 0x40379524, ((0x40378000, 7832), (0x3FCB2DC0, 264), (0x3FCB0000, 3000))),
    ("esp32c3", 0x40380000, ((0x40380000, 6300), (0x3FC96D64, 84))),
    ("esp32c2", 0x403805D0, ((0x40380000, 3424), (0x3FCB6BA8, 4))),
    ("esp32c5", 0x40800610, ((0x40800000, 3648), (0x40852BB0, 160))),
    ("esp32c6", 0x40800000, ((0x40800000, 6272), (0x40852D64, 84))),
    ("esp32c61", 0x40801130, ((0x40800000, 6552), (0x40816D68, 204))),
    ("esp32h2", 0x40800690, ((0x40800000, 3740), (0x40842BAC, 160))),
    ("esp32h4", 0x40810E92, ((0x40810000, 5884), (0x40842D68, 204))),
    ("esp32p4", 0x4FF1068E, ((0x4FF10000, 3680), (0x4FF62BAC, 160))),
    ("esp32p4", 0x4FF50BA0, ((0x4FF50000, 5400), (0x4FF72C00, 160))),
    ("esp32s31", 0x2F00221E, ((0x2F001000, 7144), (0x2F01CDB8, 204))),
]


@pytest.mark.parametrize(("chip", "entry", "uploads"), VERSIONS)
def test_other_versions_of_a_known_layout_are_recognised(chip, entry, uploads):
    assert has_vendor_layout(load_chip(chip), uploads, entry)


@pytest.mark.parametrize("chip", chip_ids())
def test_every_known_layout_is_recognised_and_near_misses_are_not(chip):
    for layout in load_chip(chip).stub.reference_layouts:
        code, data, entry = layout["text_start"], layout["data_start"], layout["entry"]
        size = layout["text_bytes"]
        assert has_vendor_layout(
            load_chip(chip), ((code, size), (data, layout["data_bytes"])), entry
        )
        for other in (
            ((code, size),),  # no data
            ((code + 16, size), (data, 160)),  # code elsewhere
            ((code, entry - code), (data, 160)),  # the entry is after it
            ((code, size), (code + size, 160)),  # data after the code, as in many small programs
        ):
            assert not has_vendor_layout(load_chip(chip), other, entry), (layout, other)


def test_a_stub_that_is_uploaded_as_esptool_does_it_is_served_by_default():
    transport = VirtualTransport(build_chip(VirtualOptions(chip="esp32s2", latency=0.0)))
    bench = StubBench(transport)
    bench.sealed = False  # as esptool sends them
    bench.send(request(Op.SYNC, b"\7\7\x12\x20" + b"\x55" * 32))
    for address, size in ((0x40028000, 6600), (0x3FFE2DC4, 212)):
        blocks = -(-size // 0x1800)
        assert bench.ask(words(Op.MEM_BEGIN, size, blocks, 0x1800, address))[8] == 0
        for number in range(blocks):
            piece = bytes(min(0x1800, size - number * 0x1800))
            body = struct.pack("<4I", len(piece), number, 0, 0) + piece
            assert bench.ask(request(Op.MEM_DATA, body, checksum(piece)))[8] == 0
    assert bench.ask(words(Op.MEM_END, 0, 0x400290A4))[8] == 0
    assert bench.next() == b"OHAI"
    # the first register that esptool writes then: of the flash controller
    assert bench.ask(words(Op.WRITE_REG, 0x3F402028, 0x17, 0xFFFFFFFF, 0))[-2:] == b"\0\0"


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
