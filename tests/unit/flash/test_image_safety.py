"""Images at other addresses than theirs, other files where the chip boots from, missing signatures."""

from __future__ import annotations

import random
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.flash.targets import rom_target

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.security import SecurityInfo
from espwire.flash import boot_content
from espwire.flash.boot_content import ParsedImages, find_boot_content_problems, find_bootloader
from espwire.flash.findings import Finding, Policy
from espwire.flash.model import FlashTarget
from espwire.flash.safety import find_problems
from espwire.image.codec import build, create_image
from espwire.image.model import Segment

DATA = Path(__file__).parents[2] / "data"
BOOT32 = (DATA / "esp32/esp32-bootloader.bin").read_bytes()
MERGED32 = (DATA / "esp32/micropython-head.bin").read_bytes()
MERGED_C3 = (DATA / "esp32c3/micropython-head.bin").read_bytes()
BOOT_C5 = (DATA / "esp32c5/marauder_c5_bootloader.bin").read_bytes()
BLANK = b"\xff"


def target(chip_id: str, **security: bool) -> FlashTarget:
    return rom_target(chip_id, flash_size=0x400000, security=SecurityInfo(**security))


def problems(data: bytes, address: int, where: FlashTarget) -> dict[str, Finding]:
    return {f.code: f for f in find_problems([Blob(address, data, "x.bin")], where, Policy())}


def app(chip_id: str = "esp32c3") -> bytes:
    """An application: it has something in mapped flash."""
    chip = load_chip(chip_id)
    segments = [Segment(chip.mapped_flash.irom_start + 0x20, b"code" * 16)]
    return build(create_image(segments, segments[0].address, chip=chip))


@pytest.mark.parametrize(
    ("chip", "data", "address", "right"),
    [
        ("esp32c3", MERGED_C3, 0x1000, "0x0"),
        ("esp32c3", MERGED_C3, 0x2000, "0x0"),
        ("esp32c3", MERGED_C3, 0x10000, "0x0"),  # merged: at no address but its own
        ("esp32", MERGED32, 0x0, "0x1000"),
        ("esp32", BOOT32, 0x0, "0x1000"),
        ("esp32", BOOT32, 0x2000, "0x1000"),
        ("esp32c5", BOOT_C5, 0x0, "0x2000"),
        (
            "esp32",
            BLANK * 0x1000 + MERGED32,
            0x1000,
            "0x0",
        ),  # a whole flash, written at the bootloader's offset
    ],
)
def test_a_bootloader_or_merged_file_at_another_offset_is_fatal(chip, data, address, right):
    found = problems(data, address, target(chip))
    assert found["wrong-offset"].fatal
    assert f"give {right} as its address" in found["wrong-offset"].text
    assert "not-an-image" not in found


@pytest.mark.parametrize(
    ("chip", "data", "address"),
    [
        ("esp32c3", MERGED_C3, 0x0),
        ("esp32", MERGED32, 0x1000),
        ("esp32", BLANK * 0x1000 + MERGED32, 0x0),
        ("esp32", BOOT32, 0x310000),  # as data
        ("esp32c3", app(), 0x10000),
        ("esp32c3", app(), 0x1000),
        ("esp32", b"\xe9data", 0x0),
    ],
)
def test_images_in_their_place_or_stored_as_data_pass(chip, data, address):
    assert "wrong-offset" not in problems(data, address, target(chip))


def test_a_bootloader_for_another_chip_at_its_own_offset_is_fatal():
    found = problems(MERGED_C3, 0x0, target("esp32"))["wrong-offset"]
    assert found.fatal
    assert "for esp32c3, not for esp32" in found.text


def test_images_of_an_esp8266_may_be_at_many_addresses():
    boot = (DATA / "esp8266/boot_v1.7.bin").read_bytes()
    assert "wrong-offset" not in problems(boot, 0x1000, target("esp8266"))


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize(
    "data",
    [
        (DATA / "inputs/download.bin").read_bytes(),
        b"PK\x03\x04zip",
        random.Random(1).randbytes(8192),
    ],
)
def test_something_else_where_the_chip_boots_from_is_fatal_and_named(chip, data):
    offset = load_chip(chip).flash.bootloader_offset
    found = problems(data, offset, target(chip))["not-an-image"]
    assert found.fatal
    assert found.consent == "not-an-image"
    assert any(
        name in found.text
        for name in ("an HTML page", "a ZIP archive", "encrypted or compressed data")
    )
    assert "not-an-image" not in problems(data, 0x10000, target(chip))


def test_a_file_that_covers_the_boot_offset_is_looked_at_there():
    page = (DATA / "inputs/download.bin").read_bytes()
    assert problems(BLANK * 0x1000 + page, 0x0, target("esp32"))["not-an-image"].fatal
    assert problems(bytes(0x1000) + page, 0x0, target("esp32"))["not-an-image"].fatal
    assert problems(bytes(0x1000) + MERGED_C3, 0x0, target("esp32"))["wrong-chip-image"].fatal
    assert problems(bytes(0x1000) + BOOT32, 0x0, target("esp32")) == {}


def test_blank_where_the_chip_boots_from_is_a_warning():
    assert not problems(BLANK * 0x2000, 0x0, target("esp32c3"))["boot-blank"].fatal


def test_encrypted_data_may_go_where_a_chip_with_flash_encryption_boots_from():
    data = random.Random(2).randbytes(8192)
    assert problems(data, 0x0, target("esp32c3")).keys() == {"not-an-image"}
    assert "not-an-image" not in problems(data, 0x0, target("esp32c3", flash_encryption=True))
    assert "not-an-image" in problems(b"<html>", 0x0, target("esp32c3", flash_encryption=True))
    assert (
        find_boot_content_problems(Blob(0, data), load_chip("esp32c3")) == ()
    )  # merging: nobody knows


def sign(data: bytes, *, right: bool = True) -> bytes:
    """Secure boot version 2 signature block of RSA with a digest of the image; the signature itself is not checked."""
    import hashlib

    padded = data.ljust(-(-len(data) // 0x1000) * 0x1000, b"\xff")
    digest = hashlib.sha256(padded if right else b"").digest()
    block = (b"\xe7\x02\0\0" + digest).ljust(1196, b"\x11")
    return padded + (block + zlib.crc32(block).to_bytes(4, "little")).ljust(0x1000, b"\xff")


@pytest.mark.parametrize("address", [0x0, 0x10000])
def test_an_unsigned_image_for_a_chip_with_secure_boot_is_fatal(address):
    data = app() if address else MERGED_C3[:0x5000]
    found = problems(data, address, target("esp32c3", secure_boot=True))["unsigned-image"]
    assert found.fatal
    assert "is not signed" in found.text
    assert "unsigned-image" not in problems(data, address, target("esp32c3"))


def test_a_signature_must_fit():
    secured = target("esp32c3", secure_boot=True)
    assert "unsigned-image" not in problems(sign(app()), 0x10000, secured)
    assert (
        "no signature that fits"
        in problems(sign(app(), right=False), 0x10000, secured)["unsigned-image"].text
    )


def test_an_application_without_its_first_byte_is_found():
    data = b"\0" + sign(app())[1:]
    described = bytes(0x20) + 0xABCD5432.to_bytes(4, "little") + bytes(300)
    secured = target("esp32c3", secure_boot=True)
    for content, address in (
        (data, 0x20000),
        (described, 0x20000),
        (BLANK * 0x10000 + described, 0x10000),
    ):
        found = problems(content, address, secured)["unsigned-image"]
        assert found.fatal
        assert "for 0x20000 that does not start with an image header" in found.text
        assert "unsigned-image" not in problems(content, address, target("esp32c3"))
    assert "unsigned-image" not in problems(bytes(0x3000), 0x20000, secured)


def test_unsigned_images_in_a_merged_file_are_found():
    data = BLANK * 0x10000 + app()
    found = problems(data, 0x0, target("esp32c3", secure_boot=True))["unsigned-image"]
    assert "for 0x10000" in found.text


def test_secure_boot_v1_needs_signed_applications_only():
    v1 = target("esp32", secure_boot_v1=True)
    assert "unsigned-image" not in problems(BOOT32, 0x1000, v1)
    assert problems(app("esp32"), 0x10000, v1)["unsigned-image"].fatal


def test_what_is_not_an_image_needs_no_signature():
    assert problems(b"data", 0x10000, target("esp32c3", secure_boot=True)) == {}


@pytest.mark.parametrize("address", [0x1000, 0x10000])
def test_an_image_is_not_parsed_where_it_cannot_be_misplaced(monkeypatch, address):
    def parse(data, chip=None):
        raise AssertionError("not needed")

    monkeypatch.setattr(boot_content, "parse", parse)
    images = ParsedImages(load_chip("esp32"))
    assert find_bootloader(Blob(address, BOOT32), images) is None
    with pytest.raises(AssertionError):
        find_bootloader(Blob(0, BOOT32), images)


def test_only_the_first_image_counts():
    part = Blob(0, b"\xff" * 0x1000 + b"\0" + BOOT32)
    assert find_bootloader(part, ParsedImages(load_chip("esp32c3"))) is None


def test_the_old_revision_field_of_the_c3_is_explained():
    where = target("esp32c3")
    found = problems(MERGED_C3, 0x0, replace(where, revision=101, security=None))["wrong-revision"]
    assert found.fatal
    assert "only a minor revision, 3" in found.text
    assert "v1.1" in found.text
    assert "ESP-IDF 5" in found.text
    assert "wrong-revision" not in problems(MERGED_C3, 0, replace(where, revision=3, security=None))
