"""What is packed for a chip unpacks to the same, is no larger than by zlib, and needs no library."""

from __future__ import annotations

import importlib.util
import platform
import sys
import zlib
from pathlib import Path

import pytest

from espwire.compress import deflate_zlib

DATA = Path(__file__).parents[1] / "data"
FIRMWARE = (
    "esp32/esp32-bootloader.bin",
    "esp32c3/micropython-head.bin",
    "esp32c5/marauder_c5_bootloader.bin",
    "esp32s2/micropython-head.bin",
    "esp8266/boot_v1.7.bin",
)
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
