"""Boot messages of all generations as public logs show them, straps in words, panics and logs told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol.boot_log import (
    explain_strap,
    find_boots,
    find_brown_out,
    find_missing_image,
    find_panic,
    is_application_log,
    parse_boot,
    printable_share,
    strap_pins,
    wrong_pins,
)

ESP32_FLASH = (
    "ets Jun  8 2016 00:22:57\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
)
ESP32_DOWNLOAD = (
    "ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\n"
    "waiting for download\r\n"
)
C3_BROWN_OUT = "ESP-ROM:esp32c3-api1-20210207\r\nBuild:Feb  7 2021\r\nrst:0xf (BROWNOUT_RST),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
C2_DOWNLOAD = (
    "ESP-ROM:esp8684-api2-20220127\r\nBuild:Jan 27 2022\r\nrst:0x1 (POWERON),boot:0x4 (DOWNLOAD(UART0))\r\n"
    "waiting for download\r\n"
)
ESP8266_FLASH = "\r\n ets Jan  8 2013,rst cause:2, boot mode:(3,6)\r\n\r\nload 0x4010f000, len 1384, room 16\r\n"
C61_UNKNOWN_REASON = "ESP-ROM:esp32c61-eco3-20250228\r\nBuild:Feb 28 2025\r\nrst:0x17 (N/A),boot:0xc (SPI_FAST_FLASH_BOOT)\r\n"
ESP8266_DOWNLOAD = "\r\n ets Jan  8 2013,rst cause:1, boot mode:(1,6)\r\n\r\n"


@pytest.mark.parametrize(
    ("text", "chip", "strap", "mode", "reason", "download"),
    [
        (ESP32_FLASH, "esp32", 0x13, "SPI_FAST_FLASH_BOOT", "power-on", False),
        (
            ESP32_DOWNLOAD,
            "esp32",
            3,
            "DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2)",
            "power-on",
            True,
        ),
        (C3_BROWN_OUT, "esp32c3", 0xC, "SPI_FAST_FLASH_BOOT", "brown-out", False),
        (C2_DOWNLOAD, "esp32c2", 4, "DOWNLOAD(UART0)", "power-on", True),
        (C61_UNKNOWN_REASON, "esp32c61", 0xC, "SPI_FAST_FLASH_BOOT", "power glitch", False),
        (ESP8266_FLASH, "esp8266", 3, "flash", "external reset", False),
        (ESP8266_DOWNLOAD, "esp8266", 1, "UART download", "power-on", True),
    ],
)
def test_a_boot_message_tells_chip_strap_mode_and_reason(text, chip, strap, mode, reason, download):
    boot = parse_boot("noise\r\n" + text)
    assert (boot.chip_id, boot.strap, boot.mode, boot.reset_reason, boot.download) == (
        chip,
        strap,
        mode,
        reason,
        download,
    )
    assert boot.brown_out is (reason == "brown-out")
    assert chip in chip_ids()


def test_each_start_is_found_and_what_follows_belongs_to_it():
    boots = find_boots(ESP32_FLASH + ESP32_DOWNLOAD + ESP32_FLASH)
    assert [boot.download for boot in boots] == [False, True, False]
    assert parse_boot("") is None
    assert parse_boot("boot: ESP-IDF v5.1 2nd stage bootloader") is None


@pytest.mark.parametrize("chip", chip_ids())
def test_each_chip_s_pins_have_bits_and_a_value_is_explained_by_pins(chip):
    known = load_chip(chip)
    pins = strap_pins(known.strapping)
    if not pins:
        assert explain_strap(known, 4) == "strap value 0x4"
        return
    right = sum(pin.level << pin.bit for pin in pins)
    assert wrong_pins(known, right) == ()
    assert "must be" not in explain_strap(known, right)
    for pin in pins:
        wrong = right ^ 1 << pin.bit
        assert wrong_pins(known, wrong) == (pin,)
        assert f"GPIO{pin.gpio} {'low' if pin.level else 'high'} (must be " in explain_strap(
            known, wrong
        )


def test_a_strap_value_of_no_known_chip_stays_a_number():
    assert explain_strap(None, 0x13) == "strap value 0x13"


@pytest.mark.parametrize(
    "line",
    [
        "Guru Meditation Error: Core  1 panic'ed (LoadProhibited). Exception was unhandled.",
        "abort() was called at PC 0x400d1a2b on core 0",
        "assert failed: xQueueSemaphoreTake queue.c:1549 (pxQueue->uxItemSize == 0)",
        "Fatal exception 29(StoreProhibitedCause):",
        "Exception (28):",
    ],
)
def test_a_panic_is_found_in_its_line(line):
    assert find_panic(f"I (5) a: b\r\n{line}\r\nPC: 0x400d\r\n") == line
    assert find_panic("I (5) main: all is well\r\n") == ""


def test_complaints_of_supply_and_flash():
    assert find_brown_out("\r\nBrownout detector was triggered\r\n")
    assert not find_brown_out(ESP32_FLASH)
    assert find_missing_image("invalid header: 0xffffffff\r\n") == "invalid header: 0xffffffff"
    assert find_missing_image("flash read err, 1000\r\n") == "flash read err, 1000"


@pytest.mark.parametrize(
    ("text", "is_log"),
    [
        ("I (1234) wifi: connected\r\n", True),
        ("\x1b[0;32mI (31) boot: ESP-IDF v5.1\x1b[0m\r\n", True),
        ("[   123][E][vfs_api.cpp:99] open(): not there\r\n", True),
        ("Temperature: 21.5 C\r\n", True),
        (ESP32_DOWNLOAD, False),
        (ESP8266_DOWNLOAD, False),
        ("", False),
        ("\r\n\r\n", False),
    ],
)
def test_a_log_of_the_user_s_program_is_told_from_what_the_rom_says(text, is_log):
    assert is_application_log(text) is is_log


@given(st.text())
def test_any_text_can_be_asked(text):
    for boot in find_boots(text):
        assert boot.reset_reason
    find_panic(text), find_brown_out(text), find_missing_image(text), is_application_log(text)


@given(st.binary())
def test_the_share_of_text_is_a_share(data):
    assert 0 <= printable_share(data) <= 1
