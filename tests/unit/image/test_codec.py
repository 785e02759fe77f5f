"""Images: parsing, building, and never anything but an ImageError on bad input."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import ImageError, UsageError
from espwire.image.codec import build, create_image, parse
from espwire.image.header import HeaderSettings
from espwire.image.model import ExtendedHeader, Image, IromPart, Segment, compute_checksum

DATA = Path(__file__).parents[2] / "data"
REAL = {
    "esp32": "esp32/esp32-bootloader.bin",
    "esp32c3": "esp32c3/micropython-head.bin",
    "esp32c5": "esp32c5/marauder_c5_bootloader.bin",
    "esp32s2": "esp32s2/micropython-head.bin",
    "esp8266": "esp8266/boot_v1.7.bin",
}

# written by hand from chips/data/image.toml: two segments, entry 0x40380000, chip id 5, dio, 4 MB, 40 MHz
GOLDEN = bytes.fromhex(
    "e9 02 02 20 00003840"  # magic, segments, mode, size and frequency, entry
    "ee 000000 0500 03 0300 6300 00000000 01"  # wp, drive, chip, least legacy, least 3, most 99, reserved, hash
    "00003840 04000000 13000000"  # a segment of four bytes
    "0000c93f 04000000 01020304"
    "00000000 00000000 00000000 000000 f8"  # fill to 15 bytes, checksum: ef ^ 13 ^ 01 ^ 02 ^ 03 ^ 04
)
GOLDEN += hashlib.sha256(GOLDEN).digest()

# version 1 of the ESP8266: no extended header, no hash
GOLDEN_V1 = bytes.fromhex(
    "e9 01 00 00 04001040 00001040 08000000 1122334455667788 0000000000000067"
)

segments = st.lists(
    st.builds(
        Segment,
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=80).map(lambda d: d + bytes(-len(d) % 4)),
    ),
    min_size=1,
    max_size=16,
).map(tuple)
byte = st.integers(0, 255)
extended = st.builds(
    ExtendedHeader,
    st.integers(0, 0xFFFF),
    byte,
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.sampled_from([0, 1]),
    byte,
    st.binary(min_size=3, max_size=3),
    st.binary(min_size=4, max_size=4),
)


def test_a_hand_written_image_is_understood_field_by_field():
    image = parse(GOLDEN, load_chip("esp32c3"))
    assert image.segments == (
        Segment(0x40380000, b"\x13\0\0\0"),
        Segment(0x3FC90000, b"\x01\x02\x03\x04"),
    )
    assert [s.offset for s in image.segments] == [32, 44]
    assert (image.mode_code, image.size_code, image.frequency_code, image.entry) == (
        2,
        0x20,
        0,
        0x40380000,
    )
    assert image.extended == ExtendedHeader(5, 3, 3, 99)
    assert (image.checksum, image.checksum_valid, image.digest_valid) == (0xF8, True, True)
    assert image.version == 3
    assert image.intact


def test_the_hand_written_image_is_built_from_its_values():
    image = Image(
        mode_code=2,
        size_frequency=0x20,
        entry=0x40380000,
        segments=(Segment(0x40380000, b"\x13\0\0\0"), Segment(0x3FC90000, b"\x01\x02\x03\x04")),
        extended=ExtendedHeader(5, 3, 3, 99),
    )
    assert build(image) == GOLDEN


def test_an_esp8266_image_has_no_extended_header():
    image = parse(GOLDEN_V1, load_chip("esp8266"))
    assert image.segments == (Segment(0x40100000, bytes.fromhex("1122334455667788")),)
    assert (image.version, image.checksum, image.checksum_valid) == (1, 0x67, True)
    assert parse(GOLDEN_V1) == image
    assert build(image) == GOLDEN_V1


def test_an_esp8266_version_2_image_has_two_headers_and_a_crc():
    irom = IromPart(0, 0, 0x40100004, Segment(0, bytes(range(32))))
    image = Image(
        mode_code=0,
        size_frequency=0,
        entry=0x40100004,
        segments=(Segment(0x40100000, b"abcd"),),
        irom=irom,
    )
    data = build(image)
    assert data[:8] == bytes.fromhex("ea04000004001040")
    assert data[8:16] == bytes.fromhex("0000000020000000")
    assert data[48:56] == bytes.fromhex("e901000004001040")
    assert (len(data) - 4) % 16 == 0
    crc = zlib.crc32(data[:-4])
    assert data[-4:] == (crc ^ 0xFFFFFFFF if crc >> 31 else crc + 1).to_bytes(4, "little")
    parsed = parse(data)
    assert (parsed.version, parsed.crc_valid, parsed.checksum_valid, parsed.trailing) == (
        2,
        True,
        True,
        b"",
    )
    assert build(parsed) == data
    assert parse(data[:-1] + bytes([data[-1] ^ 1])).crc_valid is False
    assert parse(data + b"more").trailing == b"more"


@pytest.mark.parametrize("chip_id", REAL)
def test_a_real_image_is_valid_and_builds_back(chip_id):
    data = (DATA / REAL[chip_id]).read_bytes()
    for chip in (load_chip(chip_id), None):
        image = parse(data, chip)
        assert image.intact
        assert build(image) == data
    if image.extended is not None:
        assert image.extended.chip_id == load_chip(chip_id).identity.image_chip_id


@pytest.mark.parametrize("chip_id", chip_ids())
def test_a_new_image_of_every_chip_is_valid(chip_id):
    chip = load_chip(chip_id)
    image = create_image(
        [Segment(0x40380000, b"12345"), Segment(0x3FC90000, b"")], 0x40380000, chip=chip
    )
    parsed = parse(build(image), chip)
    assert parsed.intact
    assert parsed.segments[0].data == b"12345\0\0\0"
    assert parsed == parse(build(parsed), chip)


def test_a_setting_that_the_chip_does_not_have_is_a_usage_error():
    with pytest.raises(UsageError, match="'26m'") as caught:
        create_image([], 0, chip=load_chip("esp32c6"), settings=HeaderSettings(frequency="26m"))
    assert "40m" in caught.value.hint


@given(segments, extended, st.integers(0, 0xFFFFFFFF), byte, byte, st.binary(max_size=40))
def test_what_is_built_parses_to_the_same(parts, header, entry, mode, size, trailing):
    image = Image(
        mode_code=mode,
        size_frequency=size,
        entry=entry,
        segments=parts,
        extended=header,
        trailing=trailing,
    )
    data = build(image)
    parsed = parse(data, load_chip("esp32"))
    assert (parsed.segments, parsed.extended, parsed.entry, parsed.trailing) == (
        parts,
        header,
        entry,
        trailing,
    )
    assert parsed.intact
    assert build(parsed) == data


@given(st.data())
def test_a_damaged_image_still_builds_back_or_is_an_image_error(data):
    image = bytearray(data.draw(st.sampled_from([GOLDEN, GOLDEN_V1])) + b"tail")
    for at in data.draw(st.lists(st.integers(0, len(image) - 1), min_size=1, max_size=3)):
        image[at] = data.draw(byte)
    for chip in (None, load_chip("esp32c3"), load_chip("esp8266")):
        with contextlib.suppress(ImageError):
            assert build(parse(bytes(image), chip)) == image


@given(
    st.binary(max_size=200),
    st.sampled_from([b"", b"\xe9", b"\xea", b"\xe9\x01\x02\x03", b"\xe9\x10"]),
)
def test_arbitrary_bytes_are_an_image_or_an_image_error(noise, start):
    for chip in (None, load_chip("esp32"), load_chip("esp8266")):
        with contextlib.suppress(ImageError):
            assert build(parse(start + noise, chip)) == start + noise


@given(st.integers(0, len(GOLDEN) - 1))
def test_a_truncated_image_is_an_error(size):
    with pytest.raises(ImageError) as caught:
        parse(GOLDEN[:size], load_chip("esp32c3"))
    assert caught.value.code == ("image-truncated" if size else "image-empty")


def test_wrong_checksum_and_hash_are_reported_not_raised():
    broken = bytearray(GOLDEN)
    broken[45] ^= 1
    image = parse(bytes(broken))
    assert (image.checksum_valid, image.digest_valid, image.intact) == (False, False, False)


def test_other_files_are_named_as_such():
    with pytest.raises(ImageError, match="begins with 0xaa") as caught:
        parse((DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes())
    assert caught.value.code == "image-magic"


@given(segments)
def test_the_checksum_is_the_xor_of_all_bytes(parts):
    expected = 0xEF
    for part in parts:
        for value in part.data:
            expected ^= value
    assert compute_checksum(parts) == expected


def test_values_that_no_image_can_hold_do_not_build():
    too_many = tuple(Segment(0, b"") for _ in range(17))
    for bad in (
        Image(mode_code=0, size_frequency=0, entry=0, segments=too_many),
        Image(mode_code=0, size_frequency=0, entry=-1, segments=(Segment(0, b""),)),
        Image(mode_code=0, size_frequency=300, entry=0, segments=(Segment(0, b""),)),
        Image(mode_code=0, size_frequency=0, entry=0, segments=(Segment(1 << 32, b""),)),
        Image(mode_code=0, size_frequency=0, entry=0, segments=(Segment(0, b""),), digest=b"short"),
    ):
        with pytest.raises(ImageError) as caught:
            build(bad)
        assert caught.value.code == "image-build"
