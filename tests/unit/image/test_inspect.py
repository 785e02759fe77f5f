"""Inspecting: every part of an image, several images in a file, what is wrong with them, and round trips."""

import hashlib
import random
import struct
import zlib
from pathlib import Path

import bincopy
import pytest

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import DataError, ImageError
from espwire.image.codec import build, compute_crc, create_image, is_image, parse
from espwire.image.descriptors import APP, BOOT
from espwire.image.diff import diff_images
from espwire.image.inspect import inspect_bytes
from espwire.image.merge import MergeOptions, merge_blobs
from espwire.image.model import Segment
from espwire.image.partition_table import Partition, PartitionTable, build_table
from espwire.image.read_any import read_any
from espwire.image.scan import find_regions, guess_start, looks_encrypted
from espwire.image.signature import BLOCK, find_signatures
from espwire.image.split import flatten

ROOT = Path(__file__).resolve().parents[3]
REAL = sorted((ROOT / "tests/data").glob("esp*/*.bin")) + sorted(
    (ROOT.parent / "shared/firmware").glob("esp*/*.bin")
)
ESP32, S2 = load_chip("esp32"), load_chip("esp32s2")
TEXTS = (b"1.2.3", b"lamp", b"12:34:56", b"Jan  1 2025", b"v5.4")
APP_DATA = (
    APP.pack(0xABCD5432, 7, bytes(8), *TEXTS, b"\x11" * 32, 1, 199, 16, bytes(3), bytes(72))
    + b"rodata!!" * 8
)
BOOT_DATA = BOOT.pack(0x50, b"\0\0", 0, 3, b"v5.4", b"Jan  1 2025", bytes(16)) + b"code" * 30


def app(chip=ESP32, **given):
    start = chip.mapped_flash.drom_start + 0x20
    return build(create_image([Segment(start, APP_DATA)], start, chip=chip, **given))


def bootloader(chip=ESP32):
    ram = next(region for region in chip.memory.map if "DRAM" in region.name).start
    return build(create_image([Segment(ram, BOOT_DATA)], ram, chip=chip))


TABLE = build_table(
    PartitionTable(
        (
            Partition("nvs", 1, 2, 0x9000, 0x4000),
            Partition("otadata", 1, 0, 0xD000, 0x2000),
            Partition("ota_0", 0, 0x10, 0x10000, 0x10000),
            Partition("ota_1", 0, 0x11, 0x20000, 0x10000),
        )
    )
)


def dump(chip=ESP32, extra=()):
    start = chip.flash.bootloader_offset
    parts = [
        (start, bootloader(chip)),
        (0x8000, TABLE),
        (0xD000, b"\1\0\0\0"),
        (0x10000, app(chip)),
        *extra,
    ]
    return merge_blobs([Blob(at, data, "x") for at, data in parts], chip).data


def test_all_fields_of_an_application_are_shown():
    item = inspect_bytes(app()).items[0]
    assert (item.kind, item.intact, item.info.chip) == ("app", True, "esp32")
    described = item.info.app
    assert (described.project, described.version, described.idf_version) == (
        "lamp",
        "1.2.3",
        "v5.4",
    )
    assert (described.secure_version, described.mmu_page_size) == (7, 0x10000)
    assert (item.info.flash_mode, item.info.flash_frequency) == ("dio", "40m")
    assert item.info.segments[0].memory == ("DROM",)


def test_a_bootloader_is_recognised_by_its_descriptor():
    item = inspect_bytes(bootloader()).items[0]
    assert (item.kind, item.info.bootloader.version, item.info.bootloader.idf_version) == (
        "bootloader",
        3,
        "v5.4",
    )


@pytest.mark.parametrize(("at", "said"), [(60, "checksum"), (-1, "SHA-256")])
def test_a_wrong_sum_is_a_problem_and_no_error(at, said):
    data = bytearray(app())
    data[at] ^= 1
    found = inspect_bytes(bytes(data))
    assert not found.intact
    assert any(said in problem for problem in found.problems)


def test_an_unknown_chip_is_a_problem():
    data = bytearray(app(hash_appended=False))
    data[12] = 200
    assert "no known chip" in inspect_bytes(bytes(data)).problems[0]


def test_another_chip_than_asked_for_is_a_note():
    found = inspect_bytes(app(), chip=S2)
    assert found.intact
    assert "ESP32" in found.items[0].info.warnings[-1]


def test_a_dump_has_an_item_per_region():
    found = inspect_bytes(dump(), "dump.bin")
    places = [(item.kind, item.offset, item.name) for item in found.items]
    assert found.format == "merged"
    assert found.intact
    assert places == [
        ("bootloader", 0x1000, ""),
        ("partition-table", 0x8000, ""),
        ("ota-data", 0xD000, "otadata"),
        ("app", 0x10000, "ota_0"),
    ]


def test_a_dump_that_begins_with_the_bootloader_starts_at_the_bootloader_offset():
    cut = dump(S2)[0x1000:]
    assert guess_start(cut) == 0x1000
    names = [(item.name, item.offset) for item in find_regions(cut) if item.name]
    assert names == [("otadata", 0xC000), ("ota_0", 0xF000)]


def test_a_broken_application_in_a_partition_is_a_problem():
    found = inspect_bytes(dump(extra=[(0x20000, app()[:200])]))
    assert [item.intact for item in found.items] == [True, True, True, True, False]
    assert "ota_1" in found.problems[0]


def test_even_bytes_in_an_app_partition_look_encrypted():
    noise = random.Random(1).randbytes(0x8000)
    assert looks_encrypted(noise)
    assert find_regions(dump(extra=[(0x20000, noise)]))[-1].kind == "encrypted"


@pytest.mark.parametrize("kind", ["hex", "uf2"])
def test_hex_and_uf2_have_an_item_per_region(kind):
    parts = [
        Blob(0x1000, bootloader(), "b"),
        Blob(0x8000, TABLE, "t"),
        Blob(0x10000, app(), "a"),
    ]
    found = inspect_bytes(merge_blobs(parts, ESP32, MergeOptions(format=kind)).data)
    assert found.format == kind
    assert [(item.kind, item.offset) for item in found.items] == [
        ("bootloader", 0x1000),
        ("partition-table", 0x8000),
        ("app", 0x10000),
    ]


def test_s_records_are_read_as_intel_hex_is():
    parts = [(0x1000, bootloader()), (0x8000, TABLE), (0x10000, app())]
    data = write_srecord(parts)
    found = inspect_bytes(data)
    assert (found.format, found.intact) == ("srecord", True)
    assert [item.offset for item in found.items] == [0x1000, 0x8000, 0x10000]
    start, flat = flatten(read_any(data))
    assert (start, flat[: len(parts[0][1])]) == parts[0]
    assert diff_images(data, merge_blobs([Blob(*part) for part in parts], ESP32, HEX).data).same


HEX = MergeOptions(format="hex")


def write_srecord(parts):
    text = bincopy.BinFile()
    for address, data in parts:
        text.add_binary(data, address)
    return text.as_srec(32, 32).encode()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image-empty"),
        (b"hello", "image-magic"),
        (TABLE, "image-is-table"),
        (b"\0" + random.Random(2).randbytes(0x8000), "image-encrypted"),
        (app()[:100], "image-truncated"),
    ],
)
def test_anything_but_an_image_is_one_error_with_the_reason(data, code):
    with pytest.raises(ImageError) as caught:
        inspect_bytes(data)
    assert caught.value.code == code


def signed(*blocks):
    image = app()
    padded = image + b"\xff" * (-len(image) % 4096)
    sector = b"".join(block(padded) for block in blocks)
    return padded + sector.ljust(4096, b"\xff")


def rsa(padded):
    body = struct.pack("<BBH32s", 0xE7, 2, 0, hashlib.sha256(padded).digest()) + b"\x07" * 1160
    return body + struct.pack("<I16x", zlib.crc32(body))


def ecdsa(padded):
    body = (
        struct.pack("<BBBB32sB", 0xE7, 3, 0, 0, hashlib.sha256(padded).digest(), 2) + b"\x09" * 64
    )
    body = body.ljust(1196, b"\0")
    return body + struct.pack("<I16x", zlib.crc32(body))


def p384(padded):
    body = (
        struct.pack("<BBBB48sB", 0xE7, 3, 1, 0, hashlib.sha384(padded).digest(), 3) + b"\x09" * 192
    )
    body = body.ljust(1196, b"\0")
    return body + struct.pack("<I16x", zlib.crc32(body))


def test_signature_blocks_are_described():
    data = signed(rsa, ecdsa, p384)
    found = inspect_bytes(data).items[0].info.signatures
    assert [(one.block, one.scheme, one.intact) for one in found] == [
        (0, "RSA-3072 PSS", True),
        (1, "ECDSA P-256", True),
        (2, "ECDSA P-384", True),
    ]
    first = data[found[0].offset :]
    assert len(first) >= BLOCK
    assert found[0].key_digest == hashlib.sha256(first[36:812]).digest()
    assert found[1].key_digest == hashlib.sha256(data[found[1].offset :][36:101]).digest()
    assert found[2].key_digest == hashlib.sha256(data[found[2].offset :][52:149]).digest()
    assert parse_back(data)


def test_a_signature_over_other_bytes_or_with_a_wrong_crc_is_a_problem():
    data = bytearray(signed(rsa))
    data[4096 + 40] ^= 1
    assert "CRC of signature block 0" in inspect_bytes(bytes(data)).problems[0]
    other = signed(lambda padded: rsa(padded + b"!"))
    assert "does not match the image" in inspect_bytes(other).problems[0]


def test_a_version_1_signature_is_found_behind_the_image():
    image = app()
    data = image + bytes(4) + b"\x01" * 64
    assert [(one.version, one.offset) for one in find_signatures(data, len(image))] == [
        (1, len(image))
    ]
    assert find_signatures(image + bytes(68), len(image)) == ()


def test_segments_behind_the_checksum_are_shown_as_hidden():
    visible = build(
        create_image(
            [Segment(0x40380000, b"ram!" * 9)], 0x40380000, chip=ESP32, hash_appended=False
        )
    )
    data = (
        visible + struct.pack("<II", 0, 8) + bytes(8) + struct.pack("<II", 0x42000020, 4) + b"rom!"
    )
    segments = inspect_bytes(data).items[0].info.segments
    assert [(one.address, one.size, one.hidden) for one in segments] == [
        (0x40380000, 36, False),
        (0, 8, True),
        (0x42000020, 4, True),
    ]
    assert data[segments[2].offset :] == b"rom!"
    assert parse_back(data)


def test_the_second_checksum_of_an_esp8266_image_counts():
    chip = load_chip("esp8266")
    second = build(create_image([Segment(0x40100000, b"iram" * 9)], 0x40100000, chip=chip))
    first = struct.pack("<BBBBIII", 0xEA, 4, 0, 0, 0x40100000, 0, 16) + b"irom" * 4
    data = first + second[: 8 + 8 + 36]
    data += (
        second[52 : len(second) - 1].ljust(15 - len(data) % 16, b"\0")[: 15 - len(data) % 16]
        + second[-1:]
    )
    data += compute_crc(data)
    found = inspect_bytes(data)
    assert (found.items[0].info.image.version, found.intact) == (2, True)
    assert "CRC-32" in inspect_bytes(data[:-1] + bytes([data[-1] ^ 1])).problems[0]
    assert parse_back(data)


def test_a_sha_256_behind_an_esp8266_image_counts():
    chip = load_chip("esp8266")
    plain = build(create_image([Segment(0x40100000, b"iram" * 9)], 0x40100000, chip=chip))
    data = plain + hashlib.sha256(plain).digest()
    assert inspect_bytes(data).items[0].info.image.digest_valid is True
    assert "SHA-256" in inspect_bytes(data[:-1] + bytes([data[-1] ^ 1])).problems[0]
    assert parse_back(data)


def parse_back(data):
    return build(parse(data)) == data


def test_every_image_builds_back_into_its_bytes():
    files = [path.read_bytes() for path in REAL]
    files += [
        build(create_image([Segment(0x40000000, b"x" * 8)], 0x40000000, chip=load_chip(name)))
        for name in chip_ids()
    ]
    images = [data for data in files if is_image(data)]
    assert len(images) >= 18
    assert all(map(parse_back, images))


def test_any_bytes_give_a_result_or_one_error():
    dice = random.Random(3)
    seeds = [app(), bootloader(), dump(), signed(rsa)]
    for number in range(300):
        data = bytearray(seeds[number % len(seeds)])
        for _ in range(dice.randrange(1, 6)):
            data[dice.randrange(min(len(data), dice.choice((32, 0x9000))))] = dice.randrange(256)
        del data[dice.choice((len(data), dice.randrange(len(data)))) :]
        try:
            found = inspect_bytes(bytes(data))
        except DataError:
            continue
        assert found.items


def test_of_tables_without_end_only_the_first_few_are_looked_into():
    """A file of nothing but tables would cost seconds; a flash has one."""
    sector = build_table(PartitionTable((Partition("a", 1, 6, 0x9000, 0x1000),))).ljust(
        0x1000, b"\xff"
    )
    found = find_regions(sector * 100)
    assert sum(item.kind == "partition-table" for item in found) == 16
