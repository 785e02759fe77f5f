"""Stub images: ours from the package, the vendor's JSON, and junk."""

from __future__ import annotations

import base64
import json
import shutil
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import espwire.device
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.stub_image import (
    StubImage,
    StubOptions,
    load_stub,
    parse_stub_options,
    parse_vendor_stub,
    stub_chips,
)
from espwire.errors import DataError, Unsupported

PACKED = Path(espwire.device.__path__[0], "stubs")
CODE_LIMIT = 16384


def test_there_is_an_image_for_each_chip_with_a_stub_of_ours():
    assert set(stub_chips()) == {
        chip for chip in chip_ids() if load_chip(chip).stub.own is not None
    }
    assert {path.stem for path in PACKED.glob("*.z")} == set(stub_chips())


@pytest.mark.parametrize("chip_id", stub_chips())
def test_an_image_lies_in_the_ram_meant_for_it(chip_id):
    image, own = load_stub(chip_id), load_chip(chip_id).stub.own
    (code_at, code), (data_at, data) = image.segments
    assert own.code_start == code_at <= image.entry < code_at + len(code) <= own.code_end
    assert own.data_start == data_at == image.options_address
    assert data_at + len(data) <= own.data_end
    assert len(code) <= CODE_LIMIT
    assert data.startswith(bytes(8))
    assert data.count(image.build) == 1
    assert image.compiler


def test_options_are_the_first_words_of_the_data():
    image = load_stub("esp32c3")
    options = StubOptions(
        baud=921600, leave_clock=True, over_usb=True, spi_clock=0x30103, batch=b"ab"
    )
    told = image.with_options(options)
    head = (3, 921600, 0x30103, 2)
    assert told.segments[1][1][:18] == b"".join(word.to_bytes(4, "little") for word in head) + b"ab"
    assert parse_stub_options(told.segments[1][1]) == options
    assert (told.size, told.entry, told.segments[0]) == (image.size, image.entry, image.segments[0])
    assert StubImage(0, ((0, b"x"),)).with_options(StubOptions(baud=1)).segments == ((0, b"x"),)


def test_a_chip_without_a_stub_is_reported():
    with pytest.raises(Unsupported, match="esp32e22"):
        load_stub("esp32e22")


@pytest.mark.parametrize("damage", ["missing", "cut", "other", "index"])
def test_damaged_files_are_reported(tmp_path, damage):
    shutil.copytree(PACKED, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "esp32.z"
    match damage:
        case "missing":
            file.unlink()
        case "cut":
            file.write_bytes(file.read_bytes()[:-9])
        case "other":
            file.write_bytes(zlib.compress(b"something else"))
        case "index":
            (tmp_path / "index.toml").write_text("[esp32")
    with pytest.raises(DataError):
        load_stub("esp32", tmp_path)


VENDOR = {
    "entry": 0x40080004,
    "text": base64.b64encode(b"code bytes").decode(),
    "text_start": 0x40080000,
    "data": base64.b64encode(b"data").decode(),
    "data_start": 0x3FFB0000,
    "bss_start": 0x3FFA0000,
}


def test_the_vendors_format():
    image = parse_vendor_stub(json.dumps(VENDOR).encode(), "stub.json")
    assert image == StubImage(0x40080004, ((0x40080000, b"code bytes\0\0"), (0x3FFB0000, b"data")))
    without = {key: value for key, value in VENDOR.items() if not key.startswith("data")}
    assert len(parse_vendor_stub(json.dumps(without).encode(), "x").segments) == 1


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("entry", 0x1000, "outside"),
        ("entry", "0x40080004", "entry"),
        ("entry", True, "entry"),
        ("entry", -1, "entry"),
        ("text", "%%%", "base64"),
        ("text", 5, "base64"),
        ("text_start", None, "missing"),
        ("text_start", 0xFFFFFFFF, "exceeds the 32-bit"),
        ("data", None, "base64"),
        ("data_start", 1 << 32, "data_start"),
    ],
)
def test_errors_in_a_vendors_stub_are_reported(key, value, said):
    with pytest.raises(DataError, match=said) as caught:
        parse_vendor_stub(json.dumps(VENDOR | {key: value}).encode(), "stub.json")
    assert "stub.json" in str(caught.value)
    assert caught.value.hint


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(
        lambda x: json.dumps(x).encode()
    )
)
def test_junk_is_refused_as_a_stub(data):
    with pytest.raises(DataError):
        parse_vendor_stub(data, "junk")
