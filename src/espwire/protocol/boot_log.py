"""Parses what chips print: boot messages, strapping values, panics, logs.

Sources: the vendor's pages "Boot Mode Selection" (strap bits, message forms), ESP-IDF's ``reset_reasons.h`` (numbers),
its logging and panic pages (forms of the lines), public boot logs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espwire.chips.model import Chip, Strapping

BROWN_OUT = 0x0F  # of every chip whose message has ``rst:``; the ESP8266 has no such reason
POWER_ON = 0x01
# number after ``rst:`` → meaning, for the ESP32 and later chips
RESET_REASONS = {
    0x01: "power-on",
    0x03: "software reset",
    0x04: "watchdog",
    0x05: "wake-up from deep sleep",
    0x06: "SDIO host",
    0x07: "watchdog of timer group 0",
    0x08: "watchdog of timer group 1",
    0x09: "RTC watchdog",
    0x0A: "intrusion test",
    0x0B: "watchdog of timer group 0",
    0x0C: "software reset",
    0x0D: "RTC watchdog",
    0x0E: "the other core",
    0x0F: "brown-out",
    0x10: "RTC watchdog",
    0x11: "watchdog of timer group 1",
    0x12: "super watchdog",
    0x13: "clock glitch",
    0x14: "eFuse error",
    0x15: "USB",
    0x16: "USB JTAG",
    0x17: "power glitch",
    0x18: "JTAG",
    0x1A: "CPU lock-up",
}
RST_CAUSES = {
    1: "power-on",
    2: "external reset",
    3: "software reset",
    4: "watchdog",
}  # ESP8266: ``rst cause:``
# name in the ROM's banner → chip id, where they differ; the ESP32-C2 is also sold as ESP8684
BANNER_NAMES = {"esp8684": "esp32c2"}

_MESSAGE = re.compile(
    r"rst:0x(?P<reset>[0-9a-fA-F]+) ?(?:\((?P<reset_name>[\w/]+)\))?,boot:0x(?P<strap>[0-9a-fA-F]+)"
    r"(?: \((?P<mode>[^\r\n()]*(?:\([^()\r\n]*\))?)\))?"
)
_MESSAGE_8266 = re.compile(r"rst cause:(?P<reset>\d), boot mode:\((?P<strap>\d),(?P<where>\d)\)")
_BANNER = re.compile(
    r"ESP-ROM:(?P<name>esp[0-9a-z]+)|ets (?P<month>[A-Z][a-z]{2}) [ \d]\d (?P<year>\d{4})"
)
_WAITING = re.compile(
    r"wait(?:ing)? (?:for|uart0|usb|spi|sdio)\b[^\r\n]*download|wait\w* \w+ download", re.IGNORECASE
)
_PANIC = re.compile(
    r"Guru Meditation Error[^\r\n]*|abort\(\) was called[^\r\n]*|assert failed:[^\r\n]*|Fatal exception[^\r\n]*"
    r"|Exception \(\d+\):[^\r\n]*|Backtrace: ?0x[^\r\n]*|Soft WDT reset[^\r\n]*|Task watchdog got triggered[^\r\n]*"
    r"|panic'ed[^\r\n]*|Rebooting\.\.\."
)
_BROWN_OUT_TEXT = re.compile(r"Brown-?out detector was triggered", re.IGNORECASE)
_IDF_LOG = re.compile(
    r"(?:^|[\r\n\x1bm])[EWIDV] \(\d+\) [\w.:/ -]+: |(?:^|[\r\n])\[ *\d+\]\[[EWIDV]\]", re.MULTILINE
)
_NO_IMAGE = re.compile(
    r"invalid header: 0x[0-9a-fA-F]+|flash read err,? ?\d*|csum err:[^\r\n]*|No bootable app[^\r\n]*"
)
_WORDS = re.compile(r"[\t\x20-\x7e]{4,}")


@dataclass(frozen=True, kw_only=True)
class BootMessage:
    """One start of a ROM. ``strap``: the latched strapping value; ``chip_id``: from the banner, or empty.

    ``reset``: number of the reset reason, ``reset_reason``: as text; ``download``: the ROM waits for a host.
    """

    strap: int
    mode: str
    reset: int
    reset_reason: str
    download: bool
    chip_id: str = ""
    old_form: bool = False  # the ESP8266's
    text: str = ""

    @property
    def brown_out(self) -> bool:
        """Whether the reset reason is brown-out."""
        return not self.old_form and self.reset == BROWN_OUT


def parse_boot(text: str) -> BootMessage | None:
    """The last complete boot message in ``text``.

    >>> parse_boot("rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)").strap
    8
    """
    found = find_boots(text)
    return found[-1] if found else None


def is_waiting_for_download(text: str) -> bool:
    """Whether the last boot message in ``text`` is complete, up to the end of the line "waiting for download"."""
    hits = list(_MESSAGE.finditer(text))
    waiting = _WAITING.search(text, hits[-1].end()) if hits else None
    return waiting is not None and "\n" in text[waiting.end() :]


def find_boots(text: str) -> tuple[BootMessage, ...]:
    """All boot messages in ``text``, in order, each with the text up to the next."""
    hits = sorted(
        [*_MESSAGE.finditer(text), *_MESSAGE_8266.finditer(text)], key=lambda hit: hit.start()
    )
    found = []
    for at, hit in enumerate(hits):
        before = text[hits[at - 1].end() if at else 0 : hit.start()]
        after = text[hit.end() : hits[at + 1].start() if at + 1 < len(hits) else len(text)]
        found.append(_message(hit, before, after))
    return tuple(found)


def _message(hit: re.Match[str], before: str, after: str) -> BootMessage:
    chip_id = _banner_chip(before)
    if hit.re is _MESSAGE_8266:
        strap, reset = int(hit["strap"]), int(hit["reset"])
        mode = {1: "UART download", 3: "flash", 0: "remap", 2: "jump"}.get(strap, "SDIO")
        words = RST_CAUSES.get(reset, f"reason {reset}")
        return BootMessage(
            strap=strap,
            mode=mode,
            reset=reset,
            reset_reason=words,
            download=strap == 1,  # this ROM does not print that it waits
            chip_id=chip_id or "esp8266",
            old_form=True,
            text=hit[0],
        )
    strap, reset, mode = int(hit["strap"], 16), int(hit["reset"], 16), hit["mode"] or ""
    uart_only = "UART" in mode and "SPI_FAST_FLASH" not in mode
    return BootMessage(
        strap=strap,
        mode=mode,
        reset=reset,
        reset_reason=RESET_REASONS.get(reset, (hit["reset_name"] or f"reason {reset:#x}")),
        download=bool(_WAITING.search(after)) or uart_only,
        chip_id=chip_id,
        text=hit[0],
    )


def _banner_chip(text: str) -> str:
    """The id of the chip whose ROM printed the last banner in ``text``; empty: unknown."""
    found = list(_BANNER.finditer(text))
    if not found:
        return ""
    last = found[-1]
    if last["year"]:
        return "esp8266" if int(last["year"]) < 2015 else "esp32"
    return BANNER_NAMES.get(last["name"], last["name"])


def find_panic(text: str) -> str:
    """The line that reports a crash; empty if there is none."""
    hit = _PANIC.search(text)
    return hit[0].strip() if hit else ""


def find_brown_out(text: str) -> str:
    """The line that reports a brown-out; empty if there is none."""
    hit = _BROWN_OUT_TEXT.search(text)
    return hit[0] if hit else ""


def find_missing_image(text: str) -> str:
    """The line that reports an invalid image in flash; empty if there is none."""
    hit = _NO_IMAGE.search(text)
    return hit[0].strip() if hit else ""


def is_application_log(text: str) -> bool:
    """Whether the application prints: log lines of ESP-IDF or Arduino, or words outside boot messages."""
    if _IDF_LOG.search(text):
        return True
    rest = text
    for pattern in (_MESSAGE, _MESSAGE_8266, _NO_IMAGE, _BROWN_OUT_TEXT):
        rest = pattern.sub("", rest)
    rest = re.sub(r"ESP-ROM:[^\r\n]*|Build:[^\r\n]*|ets [^\r\n]*|wait[^\r\n]*download", "", rest)
    return bool(_WORDS.search(rest))


def printable_share(data: bytes) -> float:
    """The share of text in ``data``, 0 to 1; escape sequences of coloured logs count as text."""
    if not data:
        return 0.0
    good = sum(1 for byte in data if 0x20 <= byte <= 0x7E or byte in b"\t\r\n\x1b")
    return good / len(data)


@dataclass(frozen=True)
class Pin:
    """A strapping pin of download mode: the level that it needs (0 or 1), and its bit in the strapping value."""

    gpio: int
    level: int
    bit: int | None
    is_boot: bool = False


def strap_pins(strapping: Strapping) -> tuple[Pin, ...]:
    """The boot pin and the other strapping pins of download mode."""
    bits = strapping.bits
    pins = []
    if strapping.boot_gpio is not None:
        bit = bits.get("boot", bits.get(f"gpio{strapping.boot_gpio}"))
        pins.append(Pin(strapping.boot_gpio, 0, bit, is_boot=True))
    if strapping.second_gpio is not None:
        bit = bits.get("second", bits.get(f"gpio{strapping.second_gpio}"))
        pins.append(
            Pin(strapping.second_gpio, int(strapping.second_level_for_download == "high"), bit)
        )
    for other in strapping.second_gpios:
        pins.append(Pin(other.gpio, int(other.level == "high"), bits.get(f"gpio{other.gpio}")))
    return tuple(pins)


def wrong_pins(chip: Chip, strap: int) -> tuple[Pin, ...]:
    """The pins whose level in ``strap`` prevents download mode."""
    return tuple(
        pin
        for pin in strap_pins(chip.strapping)
        if pin.bit is not None and strap >> pin.bit & 1 != pin.level
    )


def explain_strap(chip: Chip | None, strap: int) -> str:
    """A strapping value as text: ``GPIO0 high (must be low for download), GPIO2 low``.

    ``chip`` None: unknown, so the pins are not named.
    """
    known = (
        ()
        if chip is None
        else tuple(pin for pin in strap_pins(chip.strapping) if pin.bit is not None)
    )
    if not known:
        return f"strap value {strap:#x}"
    words = []
    for pin in known:
        is_high = strap >> (pin.bit or 0) & 1
        said = f"GPIO{pin.gpio} {'high' if is_high else 'low'}"
        words.append(
            said
            if is_high == pin.level
            else f"{said} (must be {'high' if pin.level else 'low'} for download)"
        )
    return f"strap value {strap:#x}: {', '.join(words)}"
