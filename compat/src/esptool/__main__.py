"""``python -m esptool``."""

from espwire_compat.programs import esptool

if __name__ == "__main__":
    esptool()
