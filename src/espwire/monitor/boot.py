"""Explains how a chip starts: the ROM's boot messages, and why a ROM or bootloader starts nothing."""

from __future__ import annotations

import re
from collections import deque

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol.boot_log import BootMessage, explain_strap, parse_boot, strap_pins

KEPT_LINES = 8  # a boot message has fewer
KEPT_CHARACTERS = 300  # of a line; a boot message has fewer
_MODE_LINE = re.compile(r"\bboot(?: mode)?:")
# lines of ROMs and of ESP-IDF's bootloader after which nothing starts, and what they mean
_REFUSALS = (
    (
        re.compile(r"invalid header: 0x(?!f{8}\b)|flash read err, 1000"),
        "no image is where the bootloader belongs; with flash encryption, it is plaintext or encrypted with another key",
    ),
    (
        re.compile(r"invalid header: 0xf{8}\b"),
        "the flash is blank where the bootloader belongs",
    ),
    (
        re.compile(r"secure boot check fail"),
        "secure boot version 1: the digest in flash is not that of this bootloader",
    ),
    (
        re.compile(r"secure boot verification failed"),
        "secure boot version 2: the bootloader has no valid signature by a key that this chip trusts",
    ),
    (
        re.compile(r"partition 0 invalid magic number"),
        "the partition table is not where the bootloader reads it; with flash encryption, it must be encrypted",
    ),
    (
        re.compile(r"signature verification failed"),
        "the application has no valid signature by a key that this chip trusts",
    ),
    (
        re.compile(r"security version is \d+, below"),
        "anti-rollback: the application is older than the eFuse SECURE_VERSION allows",
    ),
    (
        re.compile(r"image at 0x[0-9a-f]+ has invalid magic byte"),
        "no image is where the application belongs; with flash encryption, it must be encrypted",
    ),
    (
        re.compile(r"csum err:|[Cc]hecksum failed"),
        "the image in flash is damaged, or read wrongly: write it again, with another flash mode",
    ),
    (
        re.compile(r"No bootable app partitions"),
        "there is no valid application in any partition: write the application",
    ),
)
# literal text, of which each of these lines has some: searching for it is quick
REFUSAL_KEYS = (
    "invalid header",
    "flash read err",
    "secure boot",
    "invalid magic",
    "signature verification",
    "security version",
    "csum err",
    "hecksum failed",
    "No bootable",
)


class RefusalWatcher:
    """Explains why a chip refuses its firmware, once, however often the chip repeats it."""

    def __init__(self) -> None:
        self._last = ""

    def feed(self, line: str) -> str | None:
        """Return an explanation of a line."""
        if not any(key in line for key in REFUSAL_KEYS):
            return None
        text = next((text for pattern, text in _REFUSALS if pattern.search(line)), None)
        if text is None or text == self._last:
            return None
        self._last = text
        return text


class BootWatcher:
    """Explains a boot message of a ROM."""

    def __init__(self, chip: Chip | None = None) -> None:
        self._chip = chip
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)

    def feed(self, line: str) -> str | None:
        """Return an explanation if the line, without its end, is the one with the boot mode."""
        line = line[:KEPT_CHARACTERS]
        self._lines.append(line)
        if not _MODE_LINE.search(line):
            return None
        message = parse_boot("\n".join(self._lines) + "\n")
        self._lines.clear()
        return None if message is None else explain_boot(message, self._chip)

    def clear(self) -> None:
        """Forget the lines so far, after a lost connection."""
        self._lines.clear()


def explain_boot(message: BootMessage, chip: Chip | None = None) -> str:
    """For example ``boot:0x3 means download mode: GPIO0 was low at reset (power-on)``.

    :param chip: the chip, for a ROM that does not print its name
    """
    if message.chip_id in chip_ids():
        chip = load_chip(message.chip_id)
    value = f"boot mode:({message.strap},…)" if message.old_form else f"boot:{message.strap:#x}"
    reason = (
        f"{message.reset_reason}: the supply voltage is too low"
        if message.brown_out
        else message.reset_reason
    )
    boot_pin = (
        None
        if chip is None
        else next((pin for pin in strap_pins(chip.strapping) if pin.is_boot), None)
    )
    name = "the boot pin" if boot_pin is None else f"GPIO{boot_pin.gpio}"
    is_high = (
        None
        if boot_pin is None or boot_pin.bit is None
        else bool(message.strap >> boot_pin.bit & 1)
    )
    if message.download and is_high:
        meaning = f"download mode, requested by software: {name} was high at reset"
    elif message.download:
        meaning = f"download mode: {name} was low at reset"
    elif "flash" in message.mode.lower():
        meaning = f"start from flash: {name} was high at reset"
    else:
        meaning = f"another boot mode, {explain_strap(chip, message.strap)}"
    return f"{value} means {meaning} ({reason})"
