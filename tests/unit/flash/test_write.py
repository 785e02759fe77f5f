"""What is done to parts before they are planned: the boot image's header takes the flash settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.flash.targets import rom_target

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.device.security import SecurityInfo
from espwire.errors import UsageError
from espwire.events import Note, Warned
from espwire.flash import boot_content, safety
from espwire.flash.findings import Policy
from espwire.flash.model import FlashTarget
from espwire.flash.prepare import prepare_blobs
from espwire.image.codec import parse
from espwire.image.header import HeaderSettings

BOOT = (Path(__file__).parents[2] / "data/esp32/esp32-bootloader.bin").read_bytes()
CHIP = load_chip("esp32")


def target(size: int | None = 0x800000, **keywords) -> FlashTarget:
    return rom_target("esp32", flash_size=size, **keywords)


def prepare(part: Blob, settings: HeaderSettings, where: FlashTarget | None = None):
    events = []
    (prepared,) = prepare_blobs([part], where or target(), settings, report=events.append)
    return prepared.data, events


def test_without_settings_nothing_is_changed():
    assert prepare(Blob(0x1000, BOOT), HeaderSettings()) == (BOOT, [])


def test_the_detected_size_goes_into_the_boot_image():
    data, events = prepare(Blob(0x1000, BOOT, "boot.bin"), HeaderSettings(size="detect"))
    assert data[3] & 0xF0 == CHIP.flash.sizes["8MB"]
    assert [type(e) for e in events] == [Note]
    assert "boot.bin" in events[0].text


def test_other_blobs_stay_as_they_are_with_a_note():
    data, events = prepare(Blob(0x10000, BOOT), HeaderSettings(mode="qio"))
    assert data == BOOT
    assert "0x1000" in events[0].text


def test_data_without_an_image_is_left_alone_with_a_warning():
    data, events = prepare(Blob(0x1000, b"encrypted", "boot.bin"), HeaderSettings(mode="qio"))
    assert data == b"encrypted"
    assert [e.code for e in events if isinstance(e, Warned)] == ["header-kept"]


@pytest.mark.parametrize("where", [target(None), target(size_assumed=True)])
def test_a_size_that_cannot_be_detected_is_a_usage_error(where):
    with pytest.raises(UsageError) as caught:
        prepare(Blob(0x1000, BOOT), HeaderSettings(size="detect"), where)
    assert caught.value.code == "flash-size-unknown"


def test_a_size_that_no_header_can_say_is_left_with_a_warning():
    data, events = prepare(
        Blob(0x1000, BOOT), HeaderSettings(size="detect", mode="qio"), target(0x180000)
    )
    assert data[2:4] == bytes([0, BOOT[3]])
    assert "flash-size-unusual" in [e.code for e in events if isinstance(e, Warned)]


@pytest.mark.parametrize("address", [0x1000, 0x10000])
def test_a_setting_that_does_not_exist_is_an_error_wherever_the_part_goes(address):
    with pytest.raises(UsageError):
        prepare(Blob(address, BOOT), HeaderSettings(mode="turbo"))


def test_an_image_is_parsed_once_for_its_header_and_all_safety_checks(monkeypatch):
    calls = []

    def count(data, chip=None):
        calls.append(data)
        return parse(data, chip)

    monkeypatch.setattr(boot_content, "parse", count)
    where = target(security=SecurityInfo(flash_encryption=True))
    images, settings = boot_content.ParsedImages(CHIP), HeaderSettings(mode="qio", size="detect")
    (blob,) = prepare_blobs([Blob(0x1000, BOOT, "boot.bin")], where, settings, images)
    findings = safety.find_problems([blob], where, Policy(), images)
    assert [finding.code for finding in findings] == ["plaintext"]
    assert calls == [BOOT]
    assert blob.data != BOOT
    assert images.parse(blob.data) == parse(blob.data, CHIP)
