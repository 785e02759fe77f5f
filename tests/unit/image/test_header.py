"""Flash settings in an image's header."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import UsageError
from espwire.image.codec import build, create_image, parse, patch_header
from espwire.image.header import (
    HeaderSettings,
    find_header_size,
    find_size_name,
    parse_size,
    parse_size_name,
)
from espwire.image.model import Segment
from espwire.sizes import parse_flash_size

BOOT = (Path(__file__).parents[2] / "data/esp32/esp32-bootloader.bin").read_bytes()
ESP32, ESP8266 = load_chip("esp32"), load_chip("esp8266")


def patch(data, chip, **settings):
    return patch_header(data, chip, HeaderSettings(**settings))[0]


def test_a_patched_real_image_has_new_settings_and_a_new_hash():
    patched = patch(BOOT, ESP32, mode="dout", size="16MB", frequency="80m")
    assert patched[2:4] == bytes([3, 0x4F])
    assert patched[4:-32] == BOOT[4:-32]
    assert patched[-32:] == hashlib.sha256(patched[:-32]).digest()
    assert parse(patched, ESP32).intact


def test_what_is_kept_keeps_its_nibble():
    assert patch(BOOT, ESP32, size="2MB")[2:4] == bytes([BOOT[2], 0x10 | BOOT[3] & 15])
    assert patch(BOOT, ESP32, frequency="26m")[2:4] == bytes([BOOT[2], BOOT[3] & 0xF0 | 1])
    assert patch(BOOT, ESP32) is BOOT


def test_what_follows_the_image_is_untouched():
    patched = patch(BOOT + b"signature", ESP32, mode="qio")
    assert patched.endswith(b"signature")
    assert parse(patched, ESP32).digest_valid


@pytest.mark.parametrize(
    "data, why",
    [
        (b"", "not a bootable image"),
        (b"\xe9\x01", "not a bootable image"),
        (b"\xaa" * 100, "not a bootable image"),
        (BOOT[:1000], "truncated"),
        (BOOT[:100] + b"\0\1\2\3" + BOOT[104:], "wrong"),
    ],
)
def test_anything_but_an_intact_image_is_left_unchanged(data, why):
    patched, obstacle = patch_header(data, ESP32, HeaderSettings(mode="dout"))
    assert why in obstacle
    assert patched == data


def test_unknown_settings_name_the_possible_ones():
    for keywords in ({"mode": "dtr"}, {"size": "3MB"}, {"frequency": "48m"}):
        with pytest.raises(UsageError) as caught:
            patch(BOOT, ESP32, **keywords)
        assert next(iter(keywords.values())) in str(caught.value)
        assert "keep" in caught.value.hint
    with pytest.raises(UsageError, match="must be known"):
        patch(BOOT, ESP32, size="detect")


def test_the_esp8266_takes_the_classic_sizes():
    image = build(create_image([Segment(0x40100000, b"abcd")], 0x40100000, chip=ESP8266))
    for name, code in (
        ("32m-c2", 0x70),
        ("32m-c1", 0x60),
        ("16m-c1", 0x50),
        ("4m", 0x00),
        ("2m", 0x10),
        ("32m", 0x40),
    ):
        assert patch(image, ESP8266, size=name)[3] & 0xF0 == code


@pytest.mark.parametrize(
    "text, name",
    [
        ("2m", "256KB"),
        ("4m", "512KB"),
        ("8m", "1MB"),
        ("16m", "2MB"),
        ("32m", "4MB"),
        ("64m", "8MB"),
        ("128m", "16MB"),
        ("16m-c1", "2MB-c1"),
        ("32m-c1", "4MB-c1"),
        ("32m-c2", "4MB-c2"),
        ("4mb", "4MB"),
        ("4MB-C1", "4MB-c1"),
        ("512KB", "512KB"),
        ("keep", "keep"),
        ("DETECT", "detect"),
    ],
)
def test_every_spelling_of_a_size_becomes_that_of_the_chip_data(text, name):
    assert parse_size_name(text) == name


@given(st.text(max_size=12))
def test_other_spellings_are_usage_errors(text):
    with contextlib.suppress(UsageError):
        assert parse_size_name(text)


@pytest.mark.parametrize("chip_id", chip_ids())
def test_every_size_of_every_chip_has_a_code_and_back(chip_id):
    chip = load_chip(chip_id)
    for name, code in chip.flash.sizes.items():
        assert parse_size_name(name) == name
        assert find_header_size(chip, code) == parse_size(name)
        assert parse_flash_size(find_size_name(chip, parse_size(name)) or "") == parse_size(name)
    assert find_size_name(chip, 12345) is None
    assert find_header_size(chip, 0xF0) is None


@given(
    st.lists(st.binary(min_size=4, max_size=40), min_size=1, max_size=4),
    st.sampled_from(chip_ids()),
    st.data(),
    st.binary(max_size=20),
)
def test_patching_changes_the_settings_and_nothing_else(payloads, chip_id, data, trailing):
    chip = load_chip(chip_id)
    image = (
        build(create_image([Segment(0x40000000, p) for p in payloads], 0x40000000, chip=chip))
        + trailing
    )
    mode = data.draw(st.sampled_from([*chip.flash.modes, "keep"]))
    size = data.draw(st.sampled_from([*chip.flash.sizes, "keep"]))
    frequency = data.draw(st.sampled_from([*chip.flash.frequencies, "keep"]))
    before, after = (
        parse(image, chip),
        parse(patch(image, chip, mode=mode, size=size, frequency=frequency), chip),
    )
    assert after.intact
    assert (after.segments, after.extended, after.trailing) == (
        before.segments,
        before.extended,
        before.trailing,
    )
    assert after.mode_code == chip.flash.modes.get(mode, before.mode_code)
    assert after.size_code == chip.flash.sizes.get(size, before.size_code)
    assert after.frequency_code == chip.flash.frequencies.get(frequency, before.frequency_code)
