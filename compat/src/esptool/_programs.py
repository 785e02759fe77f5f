"""The programs whose names lack ``.py``."""

from __future__ import annotations

import sys


def esptool() -> None:
    """As ``esptool.py`` of espwire, under the shorter name."""
    from espwire.cli.esptool import run

    run("esptool")


def espefuse() -> None:
    """As ``espefuse.py``."""
    _later("espefuse")


def espsecure() -> None:
    """As ``espsecure.py``."""
    _later("espsecure")


def esp_rfc2217_server() -> None:
    """As ``esp_rfc2217_server.py``."""
    _later("esp_rfc2217_server")


def _later(name: str) -> None:
    from espwire.cli.later import answer

    sys.exit(answer(name, sys.argv[1:]))
