"""Safety checks about secure boot and flash encryption that need no device."""

from __future__ import annotations

from functools import cache

import pytest
from tests.unit.flash.test_safety import image, problems, target

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.flash.findings import Policy
from espwire.flash.safety import find_problems
from espwire.image.codec import build, create_image
from espwire.image.model import Segment
from espwire.secure.keys import P256, PrivateKey, generate_key
from espwire.secure.secure_boot import sign
from espwire.secure.secure_boot_v1 import digest_bootloader


@cache
def key() -> PrivateKey:
    return generate_key(P256)


def bootloader(chip_id: str, size: int) -> bytes:
    """A signed bootloader of ``size`` bytes, a multiple of 4 KiB, without its signature sector."""
    chip = load_chip(chip_id)
    code = Segment(0x40000000, bytes(size - 0x400))
    signed = sign(build(create_image([code], code.address, chip=chip)), [key()])
    assert signed.image_bytes == size
    return signed.data


@pytest.mark.parametrize(
    ("chip", "limit"), [("esp32", 0xC000), ("esp32c3", 0x10000), ("esp32p4", 0x10000)]
)
def test_a_signed_bootloader_that_the_rom_cannot_check_is_named_with_its_size(chip, limit):
    at = load_chip(chip).flash.bootloader_offset
    secured, plain = target(chip, secure_boot=True), target(chip)
    fits, large = bootloader(chip, limit), bootloader(chip, limit + 0x1000)
    assert "bootloader-size" not in problems(fits, at, secured)
    found = problems(large, at, secured)["bootloader-size"]
    assert found.fatal
    assert f"{limit + 0x1000:#x} bytes" in found.text
    assert f"at most {limit:#x}" in found.text
    assert not problems(large, at, plain)["bootloader-size"].fatal
    assert "bootloader-size" not in problems(large, 0x20000, secured)  # not where it boots


def test_a_digest_file_of_version_1_belongs_at_address_0():
    made = digest_bootloader(image("esp32"), bytes(range(32)), bytes(range(128)))
    for address in (0x1000, 0x10000):
        found = problems(made, address, target("esp32"))["wrong-offset"]
        assert found.fatal
        assert "which belongs at 0x0" in found.text
    assert problems(made, 0, target("esp32")) == {}


def test_a_bootloader_of_version_1_may_not_be_replaceable():
    barred = problems(image("esp32"), 0x1000, target("esp32", secure_boot_v1=True))
    assert "not if the chip made that key itself" in barred["secure-boot-area"].text


def test_plaintext_inside_a_merged_file_is_found_on_an_encrypting_chip():
    merged = b"\xff" * 0x1000 + image("esp32")
    open_chip = target("esp32", flash_encryption=True, manual_encrypt_disabled=False)
    assert not problems(merged, 0, open_chip)["plaintext"].fatal
    assert "plaintext" not in problems(merged, 0, target("esp32"))
    locked = target("esp32", flash_encryption=True, manual_encrypt_disabled=True)
    assert problems(merged, 0, locked)["plaintext-locked"].fatal
    assert find_problems([Blob(0, merged, "x")], locked, Policy(), host_key=True) == ()


def test_ciphertext_at_a_place_that_is_not_aligned_is_named():
    import random

    noise, where = random.Random(3).randbytes(0x2000), target("esp32c3", flash_encryption=True)
    assert "0x10008 is not a multiple of 16" in (
        problems(noise, 0x10008, where)["unaligned-ciphertext"].text
    )
    assert problems(noise, 0x10010, where) == {}
    assert problems(noise, 0x10008, target("esp32c3")) == {}
