"""ESPHome's upload function, as `esphome upload --file` calls it: CHIP PORT FILE."""

import sys

from esphome.__main__ import upload_using_esptool
from esphome.components.esp32.const import KEY_ESP32
from esphome.const import KEY_CORE, KEY_TARGET_PLATFORM, KEY_VARIANT
from esphome.core import CORE

chip, port, file = sys.argv[1:]
CORE.data[KEY_CORE] = {KEY_TARGET_PLATFORM: "esp8266" if chip == "esp8266" else "esp32"}
CORE.data[KEY_ESP32] = {KEY_VARIANT: chip.upper()}
sys.exit(upload_using_esptool({"esphome": {"platformio_options": {}}}, port, file, 0))
