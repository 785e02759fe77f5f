"""Guards: what stops a write, what only warns, and by which consent it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.security import SecurityInfo
from espwire.errors import SafetyStop
from espwire.flash.guards import Target, allows_revision, find_erase_problems, find_problems, stop_if_fatal
from espwire.flash.plan import Finding, FlashSurvey, Part, Policy
from espwire.image.build import build, create_image
from espwire.image.flash_settings import HeaderSettings
from espwire.image.model import ExtendedHeader, Segment

DATA = Path(__file__).parents[2] / "data"
BOOT32 = (DATA / "esp32/esp32-bootloader.bin").read_bytes()
PARTITIONS = (DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes()


def target(chip_id: str, *, size: int | None = 0x400000, revision: int | None = 0, **security) -> Target:
    chip = load_chip(chip_id)
    survey = FlashSurvey(dialect=chip.rom, flash_size=size)
    return Target(chip=chip, survey=survey, revision=revision, security=SecurityInfo(**security))


def image(chip_id: str, *, size: str = "2MB", **keywords) -> bytes:
    chip = load_chip(chip_id)
    parts = [Segment(0x40000000, b"code")]
    return build(create_image(parts, 0x40000000, chip=chip, settings=HeaderSettings(size=size), **keywords))


def problems(data: bytes, address: int, where: Target, policy: Policy | None = None) -> dict[str, Finding]:
    return {f.code: f for f in find_problems([Part(address, data, "x.bin")], where, policy or Policy())}


@pytest.mark.parametrize("chip_id", chip_ids())
def test_a_right_image_in_its_place_raises_no_objection(chip_id):
    chip = load_chip(chip_id)
    assert problems(image(chip_id), chip.flash.bootloader_offset, target(chip_id)) == {}
    assert problems(image(chip_id), 0x10000, target(chip_id)) == {}
    assert problems(b"data", 0x10000, target(chip_id)) == {}


def test_secure_boot_v1_bars_the_area_below_0x8000():
    barred = problems(b"data", 0x7000, target("esp32", secure_boot_v1=True))["secure-boot-area"]
    assert (barred.fatal, barred.consent) == (True, "secure-boot-area")
    assert problems(b"data", 0x8000, target("esp32", secure_boot_v1=True)) == {}
    assert problems(b"data", 0x7000, target("esp32")) == {}


def test_the_key_manager_bars_the_area_below_0x2000():
    assert problems(b"data", 0x1000, target("esp32c5", key_manager_flash_key=True))["key-manager-area"].fatal
    assert problems(b"data", 0x2000, target("esp32c5", key_manager_flash_key=True)) == {}
    assert problems(b"data", 0x1000, target("esp32c3", key_manager_flash_key=None)) == {}


def test_an_image_for_another_chip_is_fatal_only_where_the_chip_boots():
    boot = problems(BOOT32, 0x0, target("esp32c3"))["wrong-chip-image"]
    assert boot.fatal
    assert "esp32," in boot.text
    assert not problems(BOOT32, 0x10000, target("esp32c3"))["wrong-chip-image"].fatal
    assert problems(image("esp8266"), 0x1000, target("esp32"))["wrong-chip-image"].fatal
    assert problems(BOOT32, 0x0, target("esp8266"))["wrong-chip-image"].fatal


def test_a_broken_image_is_fatal_only_where_the_chip_boots():
    assert problems(BOOT32[:5000], 0x1000, target("esp32"))["image-broken"].fatal
    assert problems(BOOT32[:5000], 0x10000, target("esp32")) == {}
    damaged = BOOT32[:200] + b"\0\1\2\3" + BOOT32[204:]
    assert problems(damaged, 0x1000, target("esp32"))["image-damaged"].fatal
    assert not problems(damaged, 0x10000, target("esp32"))["image-damaged"].fatal


@pytest.mark.parametrize(
    "legacy, least, most, minor, good, bad",
    [
        (0, 0, 65535, False, [0, 3, 301], []),
        (0, 3, 65535, False, [3, 101], [2]),
        (0, 3, 99, False, [3, 99], [2, 100]),
        (3, 0, 0, False, [300, 301], [299, 3]),
        (3, 0, 0, True, [3, 4], [2]),
        (1, 0, 65535, False, [100, 300], [99]),
        (9, 3, 65535, False, [3], [2]),  # the new field wins where it says something
    ],
)
def test_revisions_follow_the_three_rules(legacy, least, most, minor, good, bad):
    header = ExtendedHeader(5, legacy, least, most)
    assert all(allows_revision(header, revision, legacy_is_minor=minor) for revision in good)
    assert not any(allows_revision(header, revision, legacy_is_minor=minor) for revision in bad)


def test_a_wrong_revision_is_fatal_only_where_the_chip_boots_and_unknown_is_no_objection():
    data = image("esp32c3", min_revision=3, max_revision=199)
    found = problems(data, 0, target("esp32c3", revision=2))["wrong-revision"]
    assert found.fatal
    assert "v0.3 to v1.99" in found.text
    assert "v0.2" in found.text
    assert not problems(data, 0x10000, target("esp32c3", revision=200))["wrong-revision"].fatal
    assert problems(data, 0, target("esp32c3", revision=3)) == {}
    assert problems(data, 0, target("esp32c3", revision=None)) == {}


def test_plaintext_on_an_encrypting_chip_is_fatal_when_nothing_can_encrypt_it_any_more():
    data = image("esp32c3")
    open_chip = target("esp32c3", flash_encryption=True, manual_encrypt_disabled=False)
    assert not problems(data, 0x10000, open_chip)["plaintext"].fatal
    locked = replace(open_chip, security=SecurityInfo(flash_encryption=True, manual_encrypt_disabled=True))
    assert problems(data, 0x10000, locked)["plaintext-locked"].fatal
    assert problems(PARTITIONS, 0x8000, locked)["plaintext-locked"].fatal
    sdm = replace(open_chip, survey=replace(open_chip.survey, secure_download=True))
    assert problems(data, 0x10000, sdm)["plaintext-locked"].fatal
    assert problems(b"ciphertext, as far as anyone can tell", 0x10000, locked) == {}
    assert find_problems([Part(0x10000, data, "x", encrypted=True)], open_chip, Policy()) == ()


def test_the_end_of_the_flash_is_a_limit():
    assert problems(b"data", 0x3FFFFC, target("esp32")) == {}
    past = problems(b"data!", 0x3FFFFC, target("esp32"))["past-flash-end"]
    assert past.fatal
    assert "4MB" in past.text
    assert problems(b"data", 0x800000, target("esp32", size=None)) == {}


def test_a_guessed_size_is_called_a_guess():
    where = target("esp32")
    where = replace(where, survey=replace(where.survey, size_assumed=True))
    assert "assumed" in problems(b"data", 0x400000, where)["past-flash-end"].text


def test_beyond_16_mb_needs_a_loader_with_long_addresses():
    where = target("esp32s3", size=0x2000000)
    assert problems(b"data!", 0xFFFFFC, where)["beyond-16mb"].fatal
    assert problems(b"data", 0xFFFFFC, where) == {}
    long = replace(where, survey=replace(where.survey, long_addresses=True))
    assert problems(b"data", 0x1000000, long) == {}


def test_a_header_that_claims_more_flash_than_there_is_only_warns():
    found = problems(image("esp32c3", size="16MB"), 0, target("esp32c3"))["header-flash-size"]
    assert not found.fatal
    assert "16MB" in found.text
    assert "4MB" in found.text
    assert problems(image("esp32c3", size="16MB"), 0x10000, target("esp32c3")) == {}


def test_erasing_a_secured_chip_needs_consent():
    for facts in ({"flash_encryption": True}, {"secure_boot": True}, {"secure_boot_v1": True}):
        (finding,) = [f for f in find_erase_problems(0x100000, 0x200000, target("esp32", **facts)) if f.fatal]
        assert finding.code == "erase-secured"
    assert find_erase_problems(0, 0x400000, target("esp32")) == ()
    policy = Policy(erase_all=True)
    assert "erase-secured" in problems(b"data", 0x10000, target("esp32", secure_boot=True), policy)


def test_fatal_findings_stop_unless_consented_to():
    fatal = [Finding("a", "first reason", True, "yes-a"), Finding("b", "second", True, "yes-b"), Finding("c", "note")]
    with pytest.raises(SafetyStop) as caught:
        stop_if_fatal(fatal, Policy())
    assert caught.value.consents == ("yes-a", "yes-b")
    assert "first reason" in str(caught.value)
    assert [f["code"] for f in caught.value.details["findings"]] == ["a", "b"]
    with pytest.raises(SafetyStop):
        stop_if_fatal(fatal, Policy(consents=frozenset({"yes-a"})))
    stop_if_fatal(fatal, Policy(consents=frozenset({"yes-a", "yes-b"})))
    stop_if_fatal(fatal, Policy(force=True))
    stop_if_fatal([Finding("c", "note")], Policy())


@given(st.binary(max_size=300), st.sampled_from([b"", b"\xe9", b"\xea", b"\xaa\x50", BOOT32[:400]]), st.data())
def test_no_data_whatever_breaks_the_guards(noise, start, data):
    chip_id = data.draw(st.sampled_from(chip_ids()))
    where = target(chip_id, flash_encryption=True, manual_encrypt_disabled=True)
    find_problems([Part(where.chip.flash.bootloader_offset, start + noise)], where, Policy())
