"""The variables of the environment that give defaults: ``ESPWIRE_*``, else the vendor's ``ESPTOOL_*``."""

from __future__ import annotations

from collections.abc import Mapping

from espwire.cli.given import Given, check

PREFIXES = ("ESPWIRE_", "ESPTOOL_")  # ours first
VARIABLES = {
    "CHIP": "chip",
    "PORT": "port",
    "BAUD": "baud",
    "BEFORE": "before",
    "AFTER": "after",
    "CONNECT_ATTEMPTS": "connect_attempts",
    "OPEN_PORT_ATTEMPTS": "open_attempts",
    "STUB_VERSION": "stub_version",
    "FF": "flash_freq",
    "FM": "flash_mode",
    "FS": "flash_size",
}


def read_environment(environment: Mapping[str, str]) -> dict[str, Given]:
    """What the variables give, by the names of given.py. An empty variable counts as not set.

    :raises UsageError: code ``config-value``; names the variable
    """
    found: dict[str, Given] = {}
    for suffix, name in VARIABLES.items():
        for variable in (prefix + suffix for prefix in PREFIXES):
            if raw := environment.get(variable, "").strip():
                found[name] = check(name, raw, f"the variable {variable}")
                break
    return found
