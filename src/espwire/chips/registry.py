"""Looks up chips by name, image chip id, magic value or UF2 family, and loads their data files."""

# no `from __future__ import annotations`: load_table reads the types of RomTable's fields

from collections.abc import Mapping
from functools import cache
from typing import Any, Literal, NamedTuple

from espwire.chips.index import CHIPS, NAMES
from espwire.chips.model import Chip
from espwire.chips.tables import load_table, parse_toml, read_data_file
from espwire.errors import TableError, UsageError
from espwire.protocol.dialect import SECURE_DOWNLOAD_OPS, BaudRule, Dialect, EraseRule, Md5Form
from espwire.protocol.opcodes import Op

ROM_SYNC_VALUE = 0x20120707


class RomTable(NamedTuple):
    """The table ``[rom]`` of a data file, from which the ``Dialect`` is built."""

    commands: tuple[str, ...]
    status_bytes: int
    ram_block: int
    flash_block: int
    flash_begin_words: int
    encrypted_write: bool
    md5_reply: Literal["hex32", "none"]
    spi_attach_bytes: int
    secure_download_mode: bool
    read_flash_block: int = 0
    baud_rule: Literal["plain", "esp32-calibration", "assumes-40", "mistaken-crystal", "none"] = (
        "plain"
    )
    secure_download_baud: bool = True
    erase_rule: Literal["true-size", "rom_head_sector_bug"] = "true-size"
    requests_ahead: int = 1


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
    file = f"{parse_chip_id(name)}.toml"
    return chip_from_toml(read_data_file(file), file)


def chip_from_toml(text: str, file: str) -> Chip:
    """The chip in the text of a data file; ``file`` is its name for errors.

    :raises TableError: the data file is broken
    """
    table = parse_toml(text, file)
    rom = load_table(RomTable, table.pop("rom", {}), f"{file}: rom")
    dialect = _build_dialect(rom, table, file)
    return load_table(Chip, table | {"rom": dialect}, f"{file}:")


def _build_dialect(rom: RomTable, table: Mapping[str, Any], file: str) -> Dialect:
    try:
        ops = frozenset(Op[name] for name in rom.commands)
    except KeyError as error:
        raise TableError(
            f"{file}: rom.commands: unknown command {error}",
            hint="Use a name of protocol/opcodes.py.",
        ) from None
    return Dialect(
        name="ROM",
        ops=ops,
        secure_ops=SECURE_DOWNLOAD_OPS & ops if rom.secure_download_mode else frozenset(),
        status_bytes=rom.status_bytes,
        begin_words=rom.flash_begin_words,
        flash_block=rom.flash_block,
        ram_block=rom.ram_block,
        attach_bytes=rom.spi_attach_bytes,
        slow_read=rom.read_flash_block,
        md5=Md5Form(rom.md5_reply),
        baud=BaudRule(rom.baud_rule),
        secure_baud=rom.secure_download_baud,
        erase=EraseRule(rom.erase_rule),
        security_info_bytes=table.get("identity", {}).get("security_info_bytes", 0),
        encrypted_write=rom.encrypted_write,
        sync_value=ROM_SYNC_VALUE,
        requests_ahead=rom.requests_ahead,
    )
