"""Strict loading of the data files: tables become records; errors name the file and the key."""

# no `from __future__ import annotations`: load_table reads the types of RomTable's fields

import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from espwire.chips.model import Chip
from espwire.errors import TableError
from espwire.protocol.dialect import SECURE_DOWNLOAD_OPS, BaudRule, Dialect, EraseRule, Md5Form
from espwire.protocol.opcodes import Op
from espwire.record import REQUIRED, Record

SCHEMA = 1
ROM_SYNC_VALUE = 0x20120707
T = TypeVar("T", bound=Record)


class RomTable(Record):
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
    deflate_fills_window: bool = False
    flash_end_restarts: bool = True


def chip_from_toml(text: str, file: str) -> Chip:
    """The chip in the text of a data file; ``file`` is its name for errors.

    :raises TableError: the data file is broken
    """
    return build_chip(parse_toml(text, file), file)


def build_chip(table: Mapping[str, Any], file: str) -> Chip:
    """The chip in the tables of a data file; ``file`` is its name for errors.

    :raises TableError: the data file is broken
    """
    rom = load_table(RomTable, table.get("rom", {}), f"{file}: rom")
    dialect = _build_dialect(rom, table, file)
    return load_table(Chip, {**table, "rom": dialect}, f"{file}:")


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
        deflate_fills_window=rom.deflate_fills_window,
        flash_end_restarts=rom.flash_end_restarts,
    )


def read_data_file(name: str) -> str:
    """The text of a file in ``chips/data``."""
    import pkgutil

    data = pkgutil.get_data("espwire.chips", f"data/{name}")
    assert data is not None
    return data.decode()


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """The tables in the text of a data file, without ``schema``.

    :raises TableError: the text is not TOML, or has another schema
    """
    import tomllib

    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TableError(f"{file} is not TOML: {error}", hint="Correct the data file.") from None
    schema = table.pop("schema", None)
    if schema != SCHEMA:
        raise TableError(
            f"{file}: schema is {schema}, not {SCHEMA}",
            hint="Use the data files of this version of espwire.",
        )
    return table


def load_table(cls: type[T], table: Any, where: str) -> T:
    """``table`` as an instance of ``cls``.

    :param where: for errors: ``esp32.toml:``, or with a key ``esp32.toml: flash``
    :raises TableError: a key is missing or unknown, or its value has the wrong type
    """
    if not isinstance(table, Mapping):
        raise _wrong(where, "must be a table", table)
    prefix = f"{where} " if where.endswith(":") else f"{where}."
    values = {}
    kinds = cls.__annotations__
    for name, kind in kinds.items():
        if name in table:
            values[name] = _load(kind, table[name], f"{prefix}{name}")
        elif cls._fields[name] is REQUIRED:
            raise TableError(
                f"{prefix}{name} is missing",
                hint=f"Add the key; see {cls.__name__} in {cls.__module__}.",
            )
    if unknown := table.keys() - kinds.keys():
        raise TableError(
            f"{prefix}{min(unknown)} is not a known key",
            hint=f"Remove it, or add it to {cls.__name__} in {cls.__module__}.",
        )
    return cls(**values)


def _wrong(where: str, what: str, value: object) -> TableError:
    return TableError(f"{where} {what}, got {value!r}", hint="Correct the data file.")


def _load(kind: Any, value: Any, where: str) -> Any:
    """``value`` checked against the type of a field."""
    if type(value) is kind or kind is Any:
        return value
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        return _load_union(arguments, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _wrong(where, "must be a list", value)
        return tuple(_load(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, Mapping):
            raise _wrong(where, "must be a table", value)
        items = ((_load_key(arguments[0], key, where), key, item) for key, item in value.items())
        return types.MappingProxyType(
            {new: _load(arguments[1], item, f"{where}.{key}") for new, key, item in items}
        )
    if origin is typing.Literal:
        if value not in arguments:
            raise _wrong(where, f"must be one of {', '.join(map(repr, arguments))}", value)
        return value
    if isinstance(kind, type) and issubclass(kind, Record):
        return load_table(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    raise _wrong(where, f"must be of type {kind.__name__}", value)


def _load_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    """The first type of ``X | Y | None`` that fits; TOML has no value for None."""
    *others, last = [kind for kind in kinds if kind is not types.NoneType]
    for kind in others:
        try:
            return _load(kind, value, where)
        except TableError:
            continue
    return _load(last, value, where)


def _load_key(kind: Any, key: str, where: str) -> str | int:
    """A key of a mapping: TOML has only strings."""
    if kind is not int:
        return key
    if not key.isdecimal():
        raise _wrong(f"{where}.{key}", "must have a number as its key", key)
    return int(key)
