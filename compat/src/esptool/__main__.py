"""``python -m esptool``."""

from esptool._programs import esptool

if __name__ == "__main__":
    esptool()
