"""Revision, product name, features and MAC from register words written here by hand."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.device.baud import calibrated_word
from espwire.device.identity import Identity, Registers, estimate_crystal, format_mac
from espwire.device.security import parse_security_reply, read_flash_key_valid, read_security
from espwire.errors import DeviceError


def identity(chip, words, reads=None):
    def read(address):
        if reads is not None:
            reads.append(address)
        return words.get(address, 0)

    return Identity(load_chip(chip), Registers(read))


# words as recorded from the ROMs of an ESP32 and an ESP32-C3
ESP32 = {
    0x3FF5A00C: 0x8000,
    0x3FF5A014: 0x100000,
    0x3FF6607C: 0x96042000,
    0x3FF5A004: 0xC4000110,
    0x3FF5A008: 0xB9240A,
}
ESP32C3 = {0x60008850: 0xC0000, 0x60008858: 0, 0x60008844: 0xC4000110, 0x60008848: 0x240A}


def test_the_recorded_esp32_is_a_revision_3():
    chip = identity("esp32", ESP32)
    assert chip.revision() == 300
    assert chip.description() == "ESP32-D0WDQ6-V3"
    assert format_mac(chip.mac()) == "24:0a:c4:00:01:10"


def test_the_recorded_esp32c3_is_v0_3():
    chip = identity("esp32c3", ESP32C3)
    assert str(chip.revision()) == "v0.3"
    assert chip.description() == "ESP32-C3 (QFN32)"
    assert format_mac(chip.mac()) == "24:0a:c4:00:01:10"


def test_no_register_is_read_twice():
    reads = []
    chip = identity("esp32", ESP32, reads)
    chip.revision(), chip.description(), chip.mac(), chip.features(), chip.eui64()
    assert len(reads) == len(set(reads))


@pytest.mark.parametrize(
    ("chip", "words", "revision", "name"),
    [
        ("esp32", {0x3FF5A00C: 1 << 9}, 0, "ESP32-D0WD"),
        ("esp32", {0x3FF5A00C: 1 << 9 | 1}, 0, "ESP32-S0WD"),
        (
            "esp32",
            {0x3FF5A00C: 5 << 9 | 0x8000, 0x3FF5A014: 1 << 20 | 1 << 24, 0x3FF6607C: 1 << 31},
            301,
            "ESP32-PICO-V3",
        ),
        ("esp32", {0x3FF5A00C: 7 << 9 | 0x8000}, 100, "ESP32-D0WDR2-V3"),
        ("esp32", {0x3FF5A00C: 1 << 2}, 0, "Unknown ESP32"),
        # ESP32-S3 revision 0 holds other data in the major field
        (
            "esp32s3",
            {0x60007058: 1 << 24, 0x6000706C: 1, 0x60007050: 1 << 24},
            0,
            "ESP32-S3 (QFN56)",
        ),
        ("esp32s3", {0x60007050: 2 << 18 | 1 << 21}, 2, "ESP32-S3-PICO-1 (LGA56)"),
        ("esp32s2", {0x3F41A050: 2 << 21 | 1 << 28 | 1 << 18}, 100, "ESP32-S2FNR2"),
        ("esp32h2", {0x600B0850: 1 << 24 | 1 << 27 | 2 << 18 | 1 << 21}, 102, "ESP32-H2FH4S"),
        ("esp32h2", {0x600B0850: 2 << 18 | 1 << 21}, 102, "ESP32-H2"),
        ("esp32h2", {0x600B0850: 7 << 24}, 0, "Unknown ESP32-H2F??"),
        ("esp32h4", {0x600B1850: 1 << 31, 0x600B1854: 3 << 2 | 1 << 10}, 0, "ESP32-H4HFL4"),
        ("esp32c61", {0x600B484C: 3 << 26 | 1 << 24 | 2 << 13 | 1 << 4}, 100, "ESP32-C61HF8LA"),
        ("esp8266", {0x3FF00050: 1 << 4}, 0, "ESP8285N08"),
        ("esp8266", {0x3FF00050: 1 << 4 | 1 << 5}, 0, "ESP8285H08"),
        ("esp8266", {}, 0, "ESP8266EX"),
        ("esp32p4", {0x5012D04C: 3 << 4 | 1}, 301, "ESP32-P4"),
    ],
)
def test_revision_and_product_name(chip, words, revision, name):
    known = identity(chip, words)
    assert (known.revision(), known.description()) == (revision, name)


@pytest.mark.parametrize(
    ("words", "mac"),
    [
        ({0x3FF0005C: 0x00A1B2C3, 0x3FF00054: 0x4455, 0x3FF00050: 0x66000000}, "a1:b2:c3:44:55:66"),
        ({0x3FF00054: 0x00004455, 0x3FF00050: 0x66000000}, "18:fe:34:44:55:66"),
        ({0x3FF00054: 0x00014455, 0x3FF00050: 0x66000000}, "ac:d0:74:44:55:66"),
    ],
)
def test_the_esp8266s_mac_has_three_kinds_of_maker_part(words, mac):
    assert format_mac(identity("esp8266", words).mac()) == mac


def test_an_eui64_has_the_extension_in_the_middle():
    chip = identity("esp32c6", {0x600B0844: 0xC4000110, 0x600B0848: 0xFFFE240A})
    assert chip.eui64().hex(":") == "24:0a:c4:ff:fe:00:01:10"
    assert identity("esp32c3", ESP32C3).eui64() is None


def test_features_tell_what_is_embedded():
    c3 = identity("esp32c3", {0x60008850: 1 << 27, 0x60008854: 2})
    assert c3.features() == (
        "Wi-Fi 4",
        "Bluetooth 5 LE",
        "Single core",
        "160 MHz",
        "embedded flash 4 MB (GD)",
    )
    s3 = identity("esp32s3", {0x60007054: 1 << 3 | 1 << 7})
    assert "embedded psram 8 MB (AP_3v3)" in s3.features()
    assert (
        "embedded flash of unknown size (code 7)"
        in identity("esp32c3", {0x60008850: 7 << 27}).features()
    )
    old = identity("esp32", {0x3FF5A00C: 1 << 0 | 1 << 1 | 1 << 13 | 1 << 12})
    assert old.features()[:3] == ("Wi-Fi 4", "Single core", "160 MHz")


def test_the_crystal_is_told_by_the_uart_divider():
    assert estimate_crystal(load_chip("esp32"), 115200, 0x15A) == 40  # recorded
    assert estimate_crystal(load_chip("esp32c2"), 115200, 226) == 26
    assert estimate_crystal(load_chip("esp8266"), 115200, 451) == 26
    assert estimate_crystal(load_chip("esp32c5"), 115200, 417) == 48
    assert estimate_crystal(load_chip("esp32h2"), 115200, 0) == 32


def test_the_recorded_measurement_leads_to_the_recorded_number():
    calibration = load_chip("esp32").crystal.rom_calibration
    assert calibrated_word(calibration, 460800, 0x28000, 0x50) == 460800
    # a clock measured 1 % fast is asked for 1 % more
    assert calibrated_word(calibration, 460800, 0x28000, 0x50 + 1) == 460800 * 81 // 80
    assert calibrated_word(calibration, 921600, 832 << 7, 0x50) == 921600  # 26 MHz


@pytest.mark.parametrize(("measured", "ck8m"), [(0x28000, 0), (0, 0x50), (0x28000, 0xFF)])
def test_a_nonsensical_clock_measurement_is_not_sent(measured, ck8m):
    with pytest.raises(DeviceError) as caught:
        calibrated_word(load_chip("esp32").crystal.rom_calibration, 460800, measured, ck8m)
    assert caught.value.code == "clock-measurement"


def test_the_recorded_security_answer_of_the_esp32c3():
    reply = parse_security_reply(bytes.fromhex("00000000000000000000000c0500000003000000"))
    info = read_security(load_chip("esp32c3"), None, reply, 3)
    assert (info.chip_id, info.eco, info.flags, info.key_purposes) == (5, 3, 0, (0,) * 6)
    assert (info.secure_boot, info.flash_encryption, info.secure_download) == (False, False, False)
    assert info.manual_encrypt_disabled is None
    assert parse_security_reply(bytes(16)) is None


def test_security_flags_and_counters():
    body = (
        bytes([0b101, 0, 0, 0, 0b111, 9, 4, 0, 0, 0, 0, 0]) + (9).to_bytes(4, "little") + bytes(4)
    )
    chip = load_chip("esp32s3")
    words = {
        chip.security.manual_encrypt_disable.address: 1 << chip.security.manual_encrypt_disable.bit
    }
    registers = Registers(lambda address: words.get(address, 0))
    info = read_security(chip, registers, parse_security_reply(body), 0)
    assert info.secure_boot
    assert info.secure_download
    assert info.flash_encryption
    assert info.manual_encrypt_disabled
    assert info.flag_names() == ("SECURE_BOOT_EN", "SECURE_DOWNLOAD_ENABLE")
    assert info.purpose_names(chip)[:2] == ("SECURE_BOOT_DIGEST0", "XTS_AES_128_KEY")
    assert read_flash_key_valid(chip, registers, info) is True


def test_the_esp32s2_answers_in_a_short_form():
    reply = parse_security_reply(bytes([4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]))
    assert reply.chip_id is None
    assert reply.secure_download


@pytest.mark.parametrize(("revision", "boot"), [(101, False), (300, True)])
def test_the_esp32_tells_its_security_by_efuses(revision, boot):
    words = {0x3FF5A018: 1 << 4 | 1 << 5 | 1 << 7, 0x3FF5A000: 0b0000001 << 20 | 1 << 16}
    registers = Registers(lambda address: words.get(address, 0))
    info = read_security(load_chip("esp32"), registers, None, revision)
    assert info.secure_boot is boot  # version 2 counts from revision 300 on
    assert info.secure_boot_v1
    assert info.flash_encryption
    assert info.manual_encrypt_disabled
    assert read_flash_key_valid(load_chip("esp32"), registers, info) is True


def test_the_esp8266_has_nothing_to_tell():
    assert not read_security(load_chip("esp8266"), Registers(lambda address: 0), None, 0).known
