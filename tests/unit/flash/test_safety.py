"""Guards: what stops a write, what only warns, and by which consent it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.flash.targets import rom_target

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.security import SecurityInfo
from espwire.errors import SafetyStop, UsageError
from espwire.flash.findings import Finding, Policy, stop_if_fatal
from espwire.flash.model import FlashTarget
from espwire.flash.safety import allows_revision, find_erase_problems, find_problems
from espwire.image.codec import build, create_image
from espwire.image.header import HeaderSettings
from espwire.image.model import ExtendedHeader, Segment

DATA = Path(__file__).parents[2] / "data"
BOOT32 = (DATA / "esp32/esp32-bootloader.bin").read_bytes()
PARTITIONS = (DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes()


def target(
    chip_id: str, *, size: int | None = 0x400000, revision: int | None = 0, **security
) -> FlashTarget:
    return rom_target(
        chip_id, flash_size=size, revision=revision, security=SecurityInfo(**security)
    )


def image(chip_id: str, *, size: str = "2MB", **keywords) -> bytes:
    chip = load_chip(chip_id)
    parts = [Segment(0x40000000, b"code")]
    return build(
        create_image(parts, 0x40000000, chip=chip, settings=HeaderSettings(size=size), **keywords)
    )


def problems(
    data: bytes, address: int, where: FlashTarget, policy: Policy | None = None
) -> dict[str, Finding]:
    return {
        f.code: f for f in find_problems([Blob(address, data, "x.bin")], where, policy or Policy())
    }


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
    assert problems(b"data", 0x1000, target("esp32c5", key_manager_flash_key=True))[
        "key-manager-area"
    ].fatal
    assert "key-manager-area" not in problems(
        b"data", 0x2000, target("esp32c5", key_manager_flash_key=True)
    )
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


def test_a_wrong_revision_is_fatal_only_where_the_chip_boots_and_an_unknown_revision_passes():
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
    locked = replace(
        open_chip, security=SecurityInfo(flash_encryption=True, manual_encrypt_disabled=True)
    )
    assert problems(data, 0x10000, locked)["plaintext-locked"].fatal
    assert problems(PARTITIONS, 0x8000, locked)["plaintext-locked"].fatal
    sdm = replace(open_chip, secure_download=True)
    assert problems(data, 0x10000, sdm)["plaintext-locked"].fatal
    unknown = problems(b"ciphertext, as far as anyone can tell", 0x10000, locked)[
        "plaintext-locked"
    ]
    assert (unknown.fatal, unknown.consent) == (True, "plaintext")
    assert "as it is" in unknown.text
    assert problems(b"ciphertext, as far as anyone can tell", 0x10000, open_chip) == {}
    assert find_problems([Blob(0x10000, data, "x", encrypted=True)], open_chip, Policy()) == ()


def test_the_end_of_the_flash_is_a_limit():
    assert problems(b"data", 0x3FFFFC, target("esp32")) == {}
    past = problems(b"data!", 0x3FFFFC, target("esp32"))["past-flash-end"]
    assert past.fatal
    assert "4MB" in past.text
    assert problems(b"data", 0x800000, target("esp32", size=None)) == {}


def test_force_does_not_override_the_flash_size_by_its_id():
    """What goes past it comes back at address 0 in most parts, over the boot loader."""
    where = target("esp32", size=0x400000)
    stated = replace(where, id_size=0x200000)
    past = problems(b"data!", 0x1FFFFC, stated)["past-flash-end"]
    assert past.fatal
    assert "2MB" in past.text
    with pytest.raises(SafetyStop):
        stop_if_fatal([past], Policy(force=True))
    stop_if_fatal([past], Policy(consents=frozenset({"past-flash-end"})))
    only_stated = problems(b"data!", 0x3FFFFC, where)["past-flash-end"]
    stop_if_fatal([only_stated], Policy(force=True))


def test_a_guessed_size_is_called_a_guess():
    where = target("esp32")
    where = replace(where, size_assumed=True)
    assert "assumed" in problems(b"data", 0x400000, where)["past-flash-end"].text


def test_beyond_16_mb_needs_a_loader_with_long_addresses():
    where = target("esp32s3", size=0x2000000)
    found = problems(b"data!", 0xFFFFFC, where)["beyond-16mb"]
    assert found.fatal
    assert found.text.endswith(
        "ends at 0x1000001, but this ROM loader's addresses end at 0x1000000"
    )
    assert problems(b"data", 0xFFFFFC, where) == {}
    long = replace(where, limits=replace(where.limits, address_bits=32))
    assert problems(b"data", 0x1000000, long) == {}


def test_a_header_that_claims_more_flash_than_there_is_only_warns():
    found = problems(image("esp32c3", size="16MB"), 0, target("esp32c3"))["header-flash-size"]
    assert not found.fatal
    assert "16MB" in found.text
    assert "4MB" in found.text
    assert problems(image("esp32c3", size="16MB"), 0x10000, target("esp32c3")) == {}


def test_erasing_a_secured_chip_needs_consent():
    for facts in ({"flash_encryption": True}, {"secure_boot": True}, {"secure_boot_v1": True}):
        (finding,) = [
            f for f in find_erase_problems(0x8000, 0x9000, target("esp32", **facts)) if f.fatal
        ]
        assert finding.code == "erase-secured"
        assert find_erase_problems(0x9000, 0x200000, target("esp32", **facts)) == ()
    assert find_erase_problems(0, 0x400000, target("esp32")) == ()
    policy = Policy(erase_all=True)
    assert "erase-secured" in problems(b"data", 0x10000, target("esp32", secure_boot=True), policy)


def test_fatal_findings_stop_unless_consented_to():
    a, b = "past-flash-end", "plaintext"
    fatal = [
        Finding("a", "first reason", True, a),
        Finding("b", "second", True, b),
        Finding("c", "note"),
    ]
    with pytest.raises(SafetyStop) as caught:
        stop_if_fatal(fatal, Policy())
    assert caught.value.consents == (a, b)
    assert "first reason" in str(caught.value)
    assert [f["code"] for f in caught.value.details["findings"]] == ["a", "b"]
    with pytest.raises(SafetyStop):
        stop_if_fatal(fatal, Policy(consents=frozenset({a})))
    stop_if_fatal(fatal, Policy(consents=frozenset({a, b})))
    stop_if_fatal(fatal, Policy(force=True))
    stop_if_fatal([Finding("c", "note")], Policy())


def test_what_force_does_not_pass_needs_its_name():
    locked = [Finding("a", "never again", True, "encrypting-disabled", by_name_only=True)]
    with pytest.raises(SafetyStop) as caught:
        stop_if_fatal(locked, Policy(force=True))
    assert "--force does not override this check" in caught.value.hint
    stop_if_fatal(locked, Policy(consents=frozenset({"encrypting-disabled"})))


def test_a_policy_with_a_consent_that_there_is_not_is_an_error():
    with pytest.raises(UsageError) as caught:
        stop_if_fatal([], Policy(consents=frozenset({"everything"})))
    assert caught.value.code == "unknown-consent"
    with pytest.raises(UsageError) as caught:
        stop_if_fatal([], Policy(consents=frozenset({"otherchip"})))
    assert caught.value.hint == "Did you mean other-chip?"


def encrypting(where: FlashTarget, policy: Policy | None = None) -> dict[str, Finding]:
    part = Blob(0x10000, b"x" * 32, "x.bin", encrypted=True)
    return {f.code: f for f in find_problems([part], where, policy or Policy())}


def test_a_chip_without_a_key_does_not_encrypt():
    ready = replace(target("esp32c3"), flash_key=True)
    assert encrypting(ready) == {}
    assert encrypting(replace(ready, flash_key=None)) == {}, "not known is not missing"
    missing = encrypting(replace(ready, flash_key=False))["no-flash-key"]
    assert (missing.fatal, missing.by_name_only) == (True, True)
    assert encrypting(replace(ready, flash_key=False), Policy(ignore_flash_enc_efuse=True)) == {}


def test_the_esp32_s_crypt_config_must_be_full():
    ready = replace(target("esp32"), flash_key=True, crypt_config=0xF)
    assert encrypting(ready) == {}
    half = encrypting(replace(ready, crypt_config=0x3))["crypt-config"]
    assert (half.fatal, half.by_name_only, "0x3" in half.text) == (True, True, True)
    assert encrypting(replace(ready, crypt_config=0x3), Policy(ignore_flash_enc_efuse=True)) == {}


def test_a_chip_whose_efuses_disable_encrypting_downloads_does_not_encrypt():
    disabled = target("esp32c3", flash_encryption=True, manual_encrypt_disabled=True)
    for policy in (Policy(), Policy(ignore_flash_enc_efuse=True)):
        found = encrypting(disabled, policy)["encrypting-disabled"]
        assert (found.fatal, found.by_name_only) == (True, True)


def test_encrypted_and_plain_blobs_meet_the_same_safety_checks():
    where = replace(target("esp32c3"), flash_key=True)
    wrong = find_problems([Blob(0, BOOT32, "boot", encrypted=True)], where, Policy())
    assert {f.code for f in wrong} == {"wrong-chip-image"}
    late = find_problems([Blob(0x3FF000, bytes(0x2000), "x", encrypted=True)], where, Policy())
    assert {f.code for f in late} == {"past-flash-end"}


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xe9", b"\xea", b"\xaa\x50", BOOT32[:400]]),
    st.data(),
)
def test_the_safety_checks_accept_any_data(noise, start, data):
    chip_id = data.draw(st.sampled_from(chip_ids()))
    where = target(chip_id, flash_encryption=True, manual_encrypt_disabled=True)
    find_problems([Blob(where.chip.flash.bootloader_offset, start + noise)], where, Policy())
