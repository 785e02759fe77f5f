"""One class per chip, for scripts that know which chip they have, and its constants.

All but the ESP8266's derive from ``ESP32ROM``, as scripts expect that ask ``isinstance(esp, ESP32ROM)``.
"""

from __future__ import annotations

import sys
from types import ModuleType

from esptool.loader import ESPLoader


class ESP8266ROM(ESPLoader):
    """An ESP8266; connecting to another chip fails."""

    CHIP = "esp8266"


class ESP32ROM(ESPLoader):
    """An ESP32; connecting to another chip fails."""

    CHIP = "esp32"


class ESP32S2ROM(ESP32ROM):
    """An ESP32-S2; connecting to another chip fails."""

    CHIP = "esp32s2"


class ESP32S3ROM(ESP32ROM):
    """An ESP32-S3; connecting to another chip fails."""

    CHIP = "esp32s3"


class ESP32C3ROM(ESP32ROM):
    """An ESP32-C3; connecting to another chip fails."""

    CHIP = "esp32c3"


class ESP32C2ROM(ESP32ROM):
    """An ESP32-C2; connecting to another chip fails."""

    CHIP = "esp32c2"


class ESP32C6ROM(ESP32ROM):
    """An ESP32-C6; connecting to another chip fails."""

    CHIP = "esp32c6"


class ESP32C61ROM(ESP32ROM):
    """An ESP32-C61; connecting to another chip fails."""

    CHIP = "esp32c61"


class ESP32C5ROM(ESP32ROM):
    """An ESP32-C5; connecting to another chip fails."""

    CHIP = "esp32c5"


class ESP32E22ROM(ESP32ROM):
    """An ESP32-E22; connecting to another chip fails."""

    CHIP = "esp32e22"


class ESP32H2ROM(ESP32ROM):
    """An ESP32-H2; connecting to another chip fails."""

    CHIP = "esp32h2"


class ESP32H21ROM(ESP32ROM):
    """An ESP32-H21; connecting to another chip fails."""

    CHIP = "esp32h21"


class ESP32P4ROM(ESP32ROM):
    """An ESP32-P4; connecting to another chip fails."""

    CHIP = "esp32p4"


class ESP32H4ROM(ESP32ROM):
    """An ESP32-H4; connecting to another chip fails."""

    CHIP = "esp32h4"


class ESP32S31ROM(ESP32ROM):
    """An ESP32-S31; connecting to another chip fails."""

    CHIP = "esp32s31"


ROM_LIST: list[type[ESPLoader]] = [
    ESP8266ROM,
    ESP32ROM,
    ESP32S2ROM,
    ESP32S3ROM,
    ESP32C3ROM,
    ESP32C2ROM,
    ESP32C6ROM,
    ESP32C61ROM,
    ESP32C5ROM,
    ESP32E22ROM,
    ESP32H2ROM,
    ESP32H21ROM,
    ESP32P4ROM,
    ESP32H4ROM,
    ESP32S31ROM,
]
CHIP_DEFS: dict[str, type[ESPLoader]] = {str(rom.CHIP): rom for rom in ROM_LIST}
CHIP_LIST = list(CHIP_DEFS)


def _add_submodules() -> None:
    """Let ``from esptool.targets.esp32 import ESP32ROM`` find the class, too."""
    for chip, rom in CHIP_DEFS.items():
        module = ModuleType(f"{__name__}.{chip}", rom.__doc__)
        setattr(module, rom.__name__, rom)
        sys.modules[module.__name__] = module


_add_submodules()
