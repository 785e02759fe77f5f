"""What the screen shows: text, explanations of boot messages, times, and noise that is another baud rate."""

from __future__ import annotations

import random
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.monitor.console import FILE, Console
from espwire.monitor.log import open_log
from espwire.virtual.boot import Reason, find_boot_text

ESP32 = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\n"
ESP32 += b"waiting for download\r\n"


def test_a_boot_message_is_explained_below_its_line(screen: Any) -> None:
    Console(screen).feed(ESP32)
    assert (
        "<boot:0x3 means download mode: GPIO0 was low at reset (power-on)>\nwaiting for download\n"
        in screen.text
    )


@pytest.mark.parametrize("size", [1, 7])
def test_chunks_do_not_matter(screen: Any, size: int) -> None:
    console = Console(screen)
    for start in range(0, len(ESP32), size):
        console.feed(ESP32[start : start + size])
    assert screen.notes == ["boot:0x3 means download mode: GPIO0 was low at reset (power-on)"]


@pytest.mark.parametrize("name", chip_ids())
def test_every_chip_s_boot_message_is_explained(screen: Any, name: str) -> None:
    chip = load_chip(name)
    text = find_boot_text(chip)
    console = Console(screen, chip=chip)
    console.feed(text.app(Reason.POWER_ON))
    console.feed(text.download(Reason.POWER_ON))
    pin = "the boot pin" if chip.strapping.boot_gpio is None else f"GPIO{chip.strapping.boot_gpio}"
    starts, waits = screen.notes
    assert f"means start from flash: {pin} was high at reset (" in starts
    assert f"means download mode: {pin} was low at reset (" in waits


def test_a_forced_download_mode_is_not_blamed_on_the_pin(screen: Any) -> None:
    Console(screen).feed(
        b"ESP-ROM:esp32c3-api1\r\nrst:0x15 (USB),boot:0xd (DOWNLOAD(USB/UART0/1))\r\n"
    )
    assert screen.notes == [
        "boot:0xd means download mode, requested by software: GPIO9 was high at reset (USB)"
    ]


def test_a_brown_out_is_named_for_what_it_is(screen: Any) -> None:
    Console(screen).feed(
        b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0xf (BROWNOUT_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)\r\n"
    )
    assert screen.notes[0].endswith("(brown-out: the supply voltage is too low)")


def test_without_a_banner_the_pins_are_not_named(screen: Any) -> None:
    Console(screen).feed(
        b"rst:0x1 (POWERON),boot:0x4 (DOWNLOAD(USB/UART0/1))\r\nboot: something else\n"
    )
    assert screen.notes == [
        "boot:0x4 means download mode: the boot pin was low at reset (power-on)"
    ]


def test_noise_is_reported_once_and_names_the_old_rate(screen: Any) -> None:
    console = Console(screen, baud=115200)
    noise = random.Random(1).randbytes(2000)
    console.feed(noise)
    console.feed(noise)
    assert len(screen.notes) == 1
    assert "74880" in screen.notes[0]
    console.feed(b"now it is text " * 50)
    console.feed(noise)
    assert len(screen.notes) == 2


def test_noise_on_a_port_without_rates_and_text_in_any_language_are_no_news(screen: Any) -> None:
    Console(screen).feed(random.Random(1).randbytes(2000))
    Console(screen, baud=115200).feed("Привет, мир! 你好 Grüße ".encode() * 50)
    assert screen.notes == []


def test_each_line_has_the_time_it_began(screen: Any) -> None:
    console = Console(screen, stamp=lambda: datetime(2026, 11, 22, 12, 0, 0, 5000))
    console.feed(b"on")
    console.note("hello")
    console.feed(b"e\r\n\x1b[32mtwo\x1b[0m\n")
    assert screen.text == "12:00:00.005 on\n<hello>\ne\n12:00:00.005 \x1b[32mtwo\x1b[0m\n"


def test_a_file_gets_no_colours(screen: Any) -> None:
    Console(screen, passes=FILE).feed(b"\x1b[32mgreen\x1b[0m\x1b[K\r\n")
    assert screen.text == "green\n"


def test_raw_passes_bytes_and_still_explains(screen: Any) -> None:
    Console(screen, raw=True).feed(b"\x00\xff" + ESP32)
    assert screen.raw == b"\x00\xff" + ESP32
    assert len(screen.notes) == 1


def test_the_end_leaves_the_terminal_with_its_own_colour_on_a_line_of_its_own(screen: Any) -> None:
    console = Console(screen)
    console.feed(b"\x1b[31mred")
    console.close()
    assert screen.text == "\x1b[31mred\x1b[0m\n"


def test_refused_firmware_is_explained_once(screen: Any) -> None:
    console = Console(screen)
    for _ in range(3):
        console.feed(b"Valid secure boot key blocks: 0\r\nsecure boot verification failed\r\n")
        console.feed(b"ets_main.c 329 \r\n")
    assert screen.notes == [
        "secure boot version 2: the bootloader has no valid signature by a key that this chip trusts"
    ]


@pytest.mark.parametrize(
    ("line", "start"),
    [
        (b"invalid header: 0xffffffff", "the flash is blank"),
        (b"invalid header: 0x8b2289f0", "no image is where the bootloader belongs"),
        (b"flash read err, 1000", "no image is where the bootloader belongs"),
        (b"secure boot check fail", "secure boot version 1"),
        (b"E (60) flash_parts: partition 0 invalid magic number 0x94f6", "the partition table is"),
        (b"E (88) esp_image: image at 0x10000 has invalid magic byte", "no image is where the app"),
        (b"csum err:0x6f!=0xef", "the image in flash is damaged"),
        (
            b"E (90) boot: No bootable app partitions in the partition table",
            "there is no valid app",
        ),
    ],
)
def test_why_a_chip_does_not_start_is_explained(screen: Any, line: bytes, start: str) -> None:
    Console(screen).feed(line + b"\r\n")
    (note,) = screen.urgent
    assert note.startswith(start)


def test_the_log_has_explanations_below_their_lines(screen: Any, tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        Console(screen, log=log).feed(b"Brownout detector was triggered\r\n\r\nRebooting...\r\n")
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1].startswith("--- the supply voltage is too low")
    assert lines[2:] == ["", "Rebooting..."]
