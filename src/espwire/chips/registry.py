"""Looks up chips by name, image chip id, magic value or UF2 family, and loads their data files."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from espwire.chips.index import CHIPS, NAMES
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.chips.model import Chip


def chip_ids() -> tuple[str, ...]:
    """Ids of all chips, oldest chip first: ``esp8266``, ``esp32``, …"""
    return tuple(NAMES)


def parse_chip_id(name: str) -> str:
    """The id of a chip, from its name in any spelling: case, hyphens and underscores are ignored.

    :raises UsageError: unknown chip

    >>> parse_chip_id("ESP32-C3")
    'esp32c3'
    """
    chip_id = name.lower().replace("-", "").replace("_", "")
    if chip_id not in NAMES:
        raise UsageError(f"unknown chip {name!r}", hint=f"Known chips: {', '.join(NAMES)}.")
    return chip_id


def find_by_image_id(image_chip_id: int | None) -> str | None:
    """The id of the chip with this chip id in its image headers; None: headers without that field."""
    return next((entry.id for entry in CHIPS if entry.image_chip_id == image_chip_id), None)


def find_by_magic(magic: int) -> str | None:
    """The id of the chip with this value at 0x40001000."""
    return next((entry.id for entry in CHIPS if magic in entry.magic_values), None)


def find_by_uf2_family(family: int) -> tuple[str, ...]:
    """Ids of the chips with this UF2 family id."""
    return tuple(entry.id for entry in CHIPS if entry.uf2_family == family)


@cache
def load_chip(name: str) -> Chip:
    """The chip with this name, in any spelling.

    :raises UsageError: unknown chip
    :raises TableError: its data file is broken; the error names the file and the key
    """
    from espwire.chips import data_tables
    from espwire.chips.tables import build_chip

    chip_id = parse_chip_id(name)
    return build_chip(getattr(data_tables, chip_id)(), f"{chip_id}.toml")
