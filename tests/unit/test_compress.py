"""What is packed for a chip unpacks to the same, is no larger than by zlib, and needs no library."""

from __future__ import annotations

import importlib.util
import lzma
import platform
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.compress import (
    FOR_RISCV,
    FOR_XTENSA,
    LzmaForm,
    LzmaStream,
    convert_branches,
    deflate_zlib,
    has_lzma,
)
from espwire.errors import DataError
from espwire.virtual.programs.unpack import restore_branches

DATA = Path(__file__).parents[1] / "data"
FIRMWARE = (
    "esp32/esp32-bootloader.bin",
    "esp32c3/micropython-head.bin",
    "esp32c5/marauder_c5_bootloader.bin",
    "esp32s2/micropython-head.bin",
    "esp8266/boot_v1.7.bin",
)
PARTS = [bytes([one]) for one in b"\x00\xef\x17\x97\x67\x80\xe7\xff"]
PARTS += map(bytes.fromhex, ("EF000010", "97000000E7800000", "9712", "E7828200", "0000"))
needs_libdeflate = pytest.mark.skipif(
    importlib.util.find_spec("deflate") is None, reason="deflate is not installed"
)


def check(packed: bytes, data: bytes) -> None:
    assert type(packed) is bytes
    assert packed[0] & 15 == 8, "method: deflate"
    assert packed[0] >> 4 <= 7, "window: at most 32 KiB"
    assert not packed[1] & 32, "no preset dictionary"
    unpacker = zlib.decompressobj(15)
    assert unpacker.decompress(packed) == data
    assert unpacker.eof
    assert not unpacker.unused_data


@pytest.mark.parametrize("name", FIRMWARE)
def test_firmware_is_no_larger_than_by_zlib(name: str) -> None:
    data = (DATA / name).read_bytes()
    packed = deflate_zlib(data)
    check(packed, data)
    assert len(packed) <= len(zlib.compress(data, 9))


def test_firmware_is_smaller_as_a_whole() -> None:
    images = [(DATA / name).read_bytes() for name in FIRMWARE]
    packed, by_zlib = (
        sum(map(len, map(pack, images)))
        for pack in (deflate_zlib, lambda data: zlib.compress(data, 9))
    )
    print(f"libdeflate {packed:,} bytes, zlib {by_zlib:,}: {1 - packed / by_zlib:.2%} less")
    if importlib.util.find_spec("deflate") is not None:
        assert packed < 0.99 * by_zlib


@pytest.mark.parametrize("data", [b"", b"a", bytes(100_000), bytes(range(256)) * 1000], ids=len)
def test_odd_input_is_packed_too(data: bytes) -> None:
    check(deflate_zlib(data), data)


def test_without_the_library_zlib_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deflate", None)
    data = (DATA / FIRMWARE[0]).read_bytes()
    assert deflate_zlib(data) == zlib.compress(data, 9)


@needs_libdeflate
def test_where_there_is_a_wheel_it_is_used() -> None:
    assert platform.machine()
    data = (DATA / FIRMWARE[0]).read_bytes()
    assert deflate_zlib(data) != zlib.compress(data, 9)


@pytest.mark.parametrize("form", [FOR_XTENSA, FOR_RISCV], ids=["xtensa", "riscv"])
@pytest.mark.parametrize("name", FIRMWARE)
def test_an_lzma_stream_decompresses_to_the_data_and_is_smaller(name: str, form: LzmaForm) -> None:
    data = (DATA / name).read_bytes()
    stream = LzmaStream(data, form)
    assert stream.size is None
    packed = b"".join(iter(lambda: stream.read(1000), b""))
    assert stream.size == len(packed) < len(deflate_zlib(data)) + 10
    converted = convert_branches(data, 0) if form.branches else data
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=form.build_filters())
    assert unpacker.decompress(packed) == converted
    assert unpacker.eof
    assert not unpacker.unused_data
    assert stream.find_done(len(packed)) == len(data)


@given(st.lists(st.sampled_from(PARTS), max_size=400).map(b"".join))
def test_branches_of_any_data_are_restored(data: bytes) -> None:
    whole = convert_branches(data, 0)
    pieces = (data[at : at + 512] for at in range(0, len(data), 512))
    assert b"".join(convert_branches(one, at * 512) for at, one in enumerate(pieces)) == whole
    units = ((at, whole[at : at + 256]) for at in range(0, len(whole), 256))
    assert b"".join(restore_branches(unit, at) for at, unit in units) == data


def test_two_calls_of_a_function_become_the_same_bytes() -> None:
    near = bytes.fromhex("EF004000")  # jal ra, +4
    first = convert_branches(near + bytes(60) + bytes.fromhex("EFF05FFC"), 0)  # and -60
    assert first[:4] == first[64:68] == bytes.fromhex("EF000002")
    far = bytes.fromhex("97120000E7828200")  # auipc t0, 1; jalr t0, 8(t0): to 0x1008
    assert convert_branches(far, 0) == bytes.fromhex("97020001E7820200")[:6] + b"\x02\x08"


def test_a_compressor_that_fails_does_not_leave_the_reader_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Iterator[tuple[bytes, int]]:
        yield b"abc", 3
        raise MemoryError

    monkeypatch.setattr("espwire.compress.compress_lzma", fail)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    stream = LzmaStream(b"abcdef", FOR_XTENSA)
    assert stream.read(3) == b"abc"
    with pytest.raises(DataError):
        stream.read(1)


def test_python_without_lzma_is_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_lzma()
    monkeypatch.setattr("espwire.compress.find_spec", lambda name: None)
    assert not has_lzma()


def test_without_threads_the_stream_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(256)) * 700
    threaded = LzmaStream(data, FOR_RISCV)
    expected = threaded.read(1 << 20)

    def fail(thread: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("threading.Thread.start", fail)
    stream = LzmaStream(data, FOR_RISCV)
    pieces = []
    while piece := stream.read(100):
        pieces.append(piece)
    assert b"".join(pieces) == expected
    assert stream.size == len(expected) == threaded.size
