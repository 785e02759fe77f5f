"""Parse ``flasher_args.json`` and ``flash_args``, in which ESP-IDF's build lists what to flash."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from espwire.chips.registry import parse_chip_id
from espwire.errors import DataError, UsageError
from espwire.image.header import HeaderSettings, parse_size_name
from espwire.sizes import parse_number
from espwire.text import shorten, split_words

MAX_BYTES = 1 << 20
MAX_FILES = 256
MAX_TEXT = 4096
HINT = "The file is incomplete or not from this build: build again."
SETTINGS = {"flash_mode": "mode", "flash_freq": "frequency", "flash_size": "size"}
SHORT_SETTINGS = {"-fm": "flash_mode", "-ff": "flash_freq", "-fs": "flash_size"}
BEFORE = {"default-reset", "usb-reset", "no-reset", "no-reset-no-sync"}
AFTER = {"hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset"}


@dataclass(frozen=True)
class FileEntry:
    """A file and its flash address. ``role``: bootloader, app, …; ``encrypted``: to be encrypted by the chip."""

    address: int
    path: str
    role: str = ""
    encrypted: bool = False


@dataclass(frozen=True, kw_only=True)
class FlasherArgs:
    """The content of such a file. ``chip``, ``before`` and ``after`` are empty if not specified."""

    files: tuple[FileEntry, ...]
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    chip: str = ""
    before: str = ""
    after: str = ""
    stub: bool = True


def broken(name: str, reason: str, *, code: str = "flasher-args") -> DataError:
    """The error for a broken build file."""
    return DataError(f"{name}: {reason}", hint=HINT, code=code)


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Turn a ``ValueError`` with a reason, or an invalid number or size, into the error for the file."""
    try:
        yield
    except (ValueError, UsageError) as error:
        raise broken(name, str(error)) from None


def parse_flasher_args(data: bytes, name: str = "flasher_args.json") -> FlasherArgs:
    """The content of a ``flasher_args.json``.

    :raises DataError: code ``flasher-args``; the message contains file and key
    """
    table = parse_json(data, name, code="flasher-args")
    with _naming(name):
        roles, encrypted = _find_roles(table)
        files = []
        for text, value in _table(table, "flash_files", required=True).items():
            path = _text(value, f"flash_files[{_short(text)}]")
            address = _address(text, "flash_files")
            files.append(FileEntry(address, path, roles.get(path, ""), path in encrypted))
        extra = _table(table, "extra_esptool_args")
        stub = extra.get("stub", True)
        if not isinstance(stub, bool):
            raise ValueError(f"extra_esptool_args.stub is {_short(stub)}, not true or false")
        return FlasherArgs(
            files=_check_files(files),
            settings=_read_settings(_table(table, "flash_settings")),
            chip=_read_chip(extra.get("chip", "")),
            before=_reset_mode(extra, "before", BEFORE),
            after=_reset_mode(extra, "after", AFTER),
            stub=stub,
        )


def parse_flash_args(data: bytes, name: str = "flash_args") -> FlasherArgs:
    """The content of a ``flash_args`` or ``flash_project_args``: options, then pairs of address and file.

    :raises DataError: code ``flasher-args``
    """
    with _naming(name):
        if len(data) > MAX_BYTES:
            raise ValueError(f"the file has {len(data):,} bytes, more than 1 MiB")
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains a zero byte")
        settings: dict[str, Any] = {}
        files: list[FileEntry] = []
        arguments = iter(split_words(text))
        for argument in arguments:
            option, _, value = argument.partition("=")
            key = SHORT_SETTINGS.get(option, option.removeprefix("--").replace("-", "_"))
            if argument.startswith("-") and key not in SETTINGS:
                continue  # other options are flags: --force, -z
            value = value or next(arguments, "")
            if not value:
                raise ValueError(f"the value after {_short(argument)} is missing")
            if argument.startswith("-"):
                settings[key] = value
            else:
                files.append(FileEntry(_address(argument, "the list of files"), value))
        return FlasherArgs(files=_check_files(files), settings=_read_settings(settings))


def parse_json(data: bytes, name: str, *, code: str) -> dict[str, Any]:
    """A JSON object of at most 1 MiB.

    :raises DataError: not a JSON object; the message contains line and column
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{name} has {len(data):,} bytes, more than 1 MiB", hint=HINT, code=code)
    try:
        table = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise DataError(
            f"{name} is not JSON ({where}): {error.msg}", hint=HINT, code=code
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{name} is not JSON: {explain_json_error(error)}", hint=HINT, code=code
        ) from None
    if not isinstance(table, dict):
        raise DataError(f"{name} is not a JSON object", hint=HINT, code=code)
    return table


def explain_json_error(error: ValueError | RecursionError) -> str:
    """Why ``json.loads`` rejected a text; Python's own message for long numbers mentions Python functions."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError | UnicodeError):
        return str(error)[:MAX_TEXT]
    return "it contains a number with too many digits"


def _check_files(files: list[FileEntry]) -> tuple[FileEntry, ...]:
    """The files by address."""
    if not 0 < len(files) <= MAX_FILES:
        raise ValueError(f"it lists {len(files)} files, not 1 to {MAX_FILES}")
    paths: dict[int, str] = {}
    for file in files:
        if file.address in paths:
            first, second = _short(paths[file.address]), _short(file.path)
            raise ValueError(f"{first} and {second} have the same address {file.address:#x}")
        paths[file.address] = file.path
    return tuple(sorted(files, key=lambda file: file.address))


def _find_roles(table: dict[str, Any]) -> tuple[dict[str, str], set[str]]:
    """File → role, from the entries next to ``flash_files``; and the files that are marked as encrypted."""
    roles: dict[str, str] = {}
    encrypted: set[str] = set()
    for role, entry in table.items():
        if not isinstance(entry, dict) or "file" not in entry:
            continue
        path = _text(entry["file"], f"{_short(role)}.file")
        roles[path] = role
        if entry.get("encrypted") in ("true", True):
            encrypted.add(path)
    return roles, encrypted


def _read_settings(table: dict[str, Any]) -> HeaderSettings:
    settings = {name: _text(table[key], key) for key, name in SETTINGS.items() if key in table}
    return HeaderSettings(**settings | {"size": parse_size_name(settings.get("size", "keep"))})


def _read_chip(value: Any) -> str:
    text = _text(value, "extra_esptool_args.chip", empty=True)
    try:
        return "" if text in ("", "auto") else parse_chip_id(text)
    except UsageError:
        raise ValueError(f"extra_esptool_args.chip {_short(text)} is not a known chip") from None


def _reset_mode(table: dict[str, Any], key: str, known: set[str]) -> str:
    """A reset mode with hyphens; empty for an unknown one, so that the command line decides."""
    value = _text(table.get(key, ""), f"extra_esptool_args.{key}", empty=True).replace("_", "-")
    return value if value in known else ""


def _table(table: dict[str, Any], key: str, *, required: bool = False) -> dict[str, Any]:
    value = table.get(key)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        text = "is missing" if value is None else f"is {_short(value)}, not an object"
        raise ValueError(f"{key} {text}")
    return value


def _text(value: Any, key: str, *, empty: bool = False) -> str:
    """A string that can be a path: JSON may contain zeros and lone surrogates, which no file system accepts."""
    valid = isinstance(value, str) and (value or empty) and len(value) <= MAX_TEXT
    if not valid or any(char == "\0" or "\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(f"{key} must be a string, got {_short(value)}")
    return str(value)


def _address(text: str, where: str) -> int:
    try:
        return parse_number(text, "address")
    except (UsageError, ValueError):  # ValueError: thousands of digits
        raise ValueError(f"{_short(text)} in {where} is not a flash address") from None


def _short(value: Any) -> str:
    if isinstance(value, list | dict):  # it may be nested too deep for repr()
        return "an array" if isinstance(value, list) else "an object"
    return shorten(repr(value))
