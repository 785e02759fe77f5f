"""Merging: what stands where in the file, what is refused. Bytes against esptool: tests/peers/test_merge_bin_peer.py."""

import pytest

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import UsageError
from espwire.image.codec import build, create_image, parse
from espwire.image.header import HeaderSettings
from espwire.image.hex import build_hex, parse_hex
from espwire.image.merge import MergeOptions, find_merge_chip, merge_blobs
from espwire.image.model import Segment
from espwire.image.uf2 import parse_uf2

ESP32 = load_chip("esp32")
BOOT = build(create_image([Segment(0x40080400, b"boot" * 30)], 0x40080400, chip=ESP32))
PARTS = (Blob(0x8000, b"table", "table"), Blob(0x1000, BOOT, "boot"))


def test_raw_fills_gaps_with_ff_and_sorts():
    merged = merge_blobs(PARTS, ESP32)
    assert merged.data[:0x1000] == b"\xff" * 0x1000
    assert merged.data[0x1000:].startswith(BOOT)
    assert merged.data[0x1000 + len(BOOT) :] == b"\xff" * (0x7000 - len(BOOT)) + b"table"


def test_the_target_offset_is_where_the_file_begins():
    merged = merge_blobs(PARTS, ESP32, MergeOptions(target_offset=0x1000, pad_to_size=0x40000))
    assert merged.data.startswith(BOOT)
    assert len(merged.data) == 0x40000 - 0x1000


def test_hex_and_uf2_keep_addresses_and_gaps():
    for kind, read in (
        ("hex", lambda data: [(p.address, p.data) for p in parse_hex(data)]),
        ("uf2", None),
    ):
        data = merge_blobs(PARTS, ESP32, MergeOptions(format=kind)).data
        parts = (
            read(data)
            if read
            else [(p.address, p.data) for p in next(iter(parse_uf2(data).values()))]
        )
        assert parts == [(0x1000, BOOT), (0x8000, b"table")]


def test_hex_goes_over_a_64_kib_boundary_in_two_records():
    assert build_hex([Blob(0xFFFE, b"abcd")]).splitlines() == [
        b":020000040000FA",
        b":02FFFE0061623E",
        b":020000040001F9",
        b":020000006364" + b"37",
        b":00000001FF",
    ]


def test_only_the_image_at_the_bootloader_offset_gets_the_settings():
    settings = HeaderSettings(mode="qio", size="8MB")
    parts = (Blob(0x1000, BOOT, "boot"), Blob(0x10000, BOOT, "app"))
    merged = merge_blobs(parts, ESP32, MergeOptions(settings=settings))
    first, second = parse(merged.blobs[0].data), merged.blobs[1].data
    assert (first.mode_code, first.size_code, first.digest_valid) == (0, 0x30, True)
    assert second == BOOT
    assert merged.warnings == ()


def test_a_damaged_image_keeps_its_wrong_checksum_and_is_reported():
    damaged = BOOT[:40] + b"!" + BOOT[41:]
    merged = merge_blobs(
        [Blob(0x1000, damaged, "boot")],
        ESP32,
        MergeOptions(settings=HeaderSettings(mode="qio")),
    )
    assert merged.data[0x1000:] == damaged
    assert "left unchanged" in merged.warnings[0]


@pytest.mark.parametrize(
    ("parts", "options", "code"),
    [
        ([], {}, "usage"),
        ([(0x1000, 16), (0x1800, 16)], {}, "merge-overlap"),
        ([(0x1000, 16)], {"target_offset": 0x2000}, "merge-before-target"),
        ([(0xFFFF0000, 16)], {}, "merge-size"),
        ([(0xFFFFFFF8, 16)], {"format": "hex"}, "merge-size"),
        ([(0x1000, 16)], {"format": "uf2", "chunk_size": 480}, "merge-chunk-size"),
    ],
)
def test_what_cannot_be_merged_is_refused(parts, options, code):
    with pytest.raises(UsageError) as caught:
        merge_blobs(
            [Blob(at, bytes(size), "x") for at, size in parts], ESP32, MergeOptions(**options)
        )
    assert caught.value.code == code


def test_a_chip_without_a_uf2_family_is_refused():
    with pytest.raises(UsageError) as caught:
        merge_blobs(PARTS, load_chip("esp32e22"), MergeOptions(format="uf2"))
    assert caught.value.code == "merge-uf2-family"


def test_the_chip_is_that_of_the_images():
    assert find_merge_chip(PARTS).id == "esp32"


def test_an_unclear_chip_is_an_error():
    other = load_chip("esp32c3")
    image = build(create_image([Segment(0x40380000, b"boot" * 30)], 0x40380000, chip=other))
    for parts in (PARTS[:1], (*PARTS, Blob(0x10000, image))):
        with pytest.raises(UsageError) as caught:
            find_merge_chip(parts)
        assert caught.value.code == "merge-chip"
