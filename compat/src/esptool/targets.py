"""One class per chip, for scripts that know which chip they have."""

from __future__ import annotations

from esptool.loader import ESPLoader
from espwire.chips.index import CHIPS

CHIP_LIST = sorted(CHIPS)


class ESP32C2ROM(ESPLoader):
    """An ESP32-C2; connecting to another chip fails."""

    CHIP_NAME = "ESP32-C2"
    CHIP = "esp32c2"


class ESP32C3ROM(ESPLoader):
    """An ESP32-C3; connecting to another chip fails."""

    CHIP_NAME = "ESP32-C3"
    CHIP = "esp32c3"


class ESP32C5ROM(ESPLoader):
    """An ESP32-C5; connecting to another chip fails."""

    CHIP_NAME = "ESP32-C5"
    CHIP = "esp32c5"


class ESP32C61ROM(ESPLoader):
    """An ESP32-C61; connecting to another chip fails."""

    CHIP_NAME = "ESP32-C61"
    CHIP = "esp32c61"


class ESP32C6ROM(ESPLoader):
    """An ESP32-C6; connecting to another chip fails."""

    CHIP_NAME = "ESP32-C6"
    CHIP = "esp32c6"


class ESP32E22ROM(ESPLoader):
    """An ESP32-E22; connecting to another chip fails."""

    CHIP_NAME = "ESP32-E22"
    CHIP = "esp32e22"


class ESP32H21ROM(ESPLoader):
    """An ESP32-H21; connecting to another chip fails."""

    CHIP_NAME = "ESP32-H21"
    CHIP = "esp32h21"


class ESP32H2ROM(ESPLoader):
    """An ESP32-H2; connecting to another chip fails."""

    CHIP_NAME = "ESP32-H2"
    CHIP = "esp32h2"


class ESP32H4ROM(ESPLoader):
    """An ESP32-H4; connecting to another chip fails."""

    CHIP_NAME = "ESP32-H4"
    CHIP = "esp32h4"


class ESP32P4ROM(ESPLoader):
    """An ESP32-P4; connecting to another chip fails."""

    CHIP_NAME = "ESP32-P4"
    CHIP = "esp32p4"


class ESP32ROM(ESPLoader):
    """An ESP32; connecting to another chip fails."""

    CHIP_NAME = "ESP32"
    CHIP = "esp32"


class ESP32S2ROM(ESPLoader):
    """An ESP32-S2; connecting to another chip fails."""

    CHIP_NAME = "ESP32-S2"
    CHIP = "esp32s2"


class ESP32S31ROM(ESPLoader):
    """An ESP32-S31; connecting to another chip fails."""

    CHIP_NAME = "ESP32-S31"
    CHIP = "esp32s31"


class ESP32S3ROM(ESPLoader):
    """An ESP32-S3; connecting to another chip fails."""

    CHIP_NAME = "ESP32-S3"
    CHIP = "esp32s3"


class ESP8266ROM(ESPLoader):
    """An ESP8266; connecting to another chip fails."""

    CHIP_NAME = "ESP8266"
    CHIP = "esp8266"
