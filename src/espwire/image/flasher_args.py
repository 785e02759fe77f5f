"""What ESP-IDF's build writes of itself, ``flasher_args.json`` and ``flash_args``, as values. Reads no other file."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from espwire.errors import DataError, ToolError, UsageError
from espwire.image.header import HeaderSettings, parse_size_name
from espwire.sizes import parse_number
from espwire.text import shorten, split_words

MAX_BYTES = 1 << 20
MAX_FILES = 256
MAX_TEXT = 4096
HINT = "It was not written by this build, or not whole: build again."
SETTINGS = {"flash_mode": "mode", "flash_freq": "frequency", "flash_size": "size"}
SHORT_SETTINGS = {"-fm": "flash_mode", "-ff": "flash_freq", "-fs": "flash_size"}
BEFORE = {"default-reset", "usb-reset", "no-reset", "no-reset-no-sync"}
AFTER = {"hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset"}


@dataclass(frozen=True)
class FileEntry:
    """A file and its flash address. ``role``: bootloader, app, …; ``encrypted``: meant to be, on the chip."""

    address: int
    path: str
    role: str = ""
    encrypted: bool = False


@dataclass(frozen=True, kw_only=True)
class FlasherArgs:
    """One such file. ``chip``, ``before`` and ``after`` are empty where it does not say."""

    files: tuple[FileEntry, ...]
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    chip: str = ""
    before: str = ""
    after: str = ""
    stub: bool = True


def parse_flasher_args(data: bytes, name: str = "flasher_args.json") -> FlasherArgs:
    """The content of a ``flasher_args.json``.

    :raises DataError: code ``flasher-args``; the message tells file and key
    """
    table = parse_json(data, name, code="flasher-args")
    roles, encrypted = _find_roles(table, name)
    files = []
    for text, value in _table(table, "flash_files", name, required=True).items():
        path = _text(value, f"flash_files[{_short(text)}]", name)
        files.append(
            FileEntry(
                _address(text, "flash_files", name), path, roles.get(path, ""), path in encrypted
            )
        )
    if not files:
        raise broken(name, "flash_files names no file")
    if len(files) > MAX_FILES:
        raise broken(name, f"flash_files names {len(files)} files, more than {MAX_FILES}")
    _refuse_twice(files, name)
    extra = _table(table, "extra_esptool_args", name)
    stub = extra.get("stub", True)
    if not isinstance(stub, bool):
        raise broken(name, f"extra_esptool_args.stub is {_short(stub)}, neither true nor false")
    return FlasherArgs(
        files=tuple(sorted(files, key=lambda file: file.address)),
        settings=_read_settings(_table(table, "flash_settings", name), name),
        chip=_read_chip(extra.get("chip", ""), name),
        before=_choice(extra, "before", BEFORE, name),
        after=_choice(extra, "after", AFTER, name),
        stub=stub,
    )


def parse_flash_args(data: bytes, name: str = "flash_args") -> FlasherArgs:
    """The content of a ``flash_args`` or ``flash_project_args``: options, then pairs of address and file.

    :raises DataError: code ``flasher-args``
    """
    words = _split(data, name)
    settings: dict[str, Any] = {}
    files: list[FileEntry] = []
    at = 0
    while at < len(words):
        word, at = words[at], at + 1
        given, _, value = word.partition("=")
        key = SHORT_SETTINGS.get(given, given.removeprefix("--").replace("-", "_"))
        if word.startswith("-") and key not in SETTINGS:
            continue  # of other options only flags occur: --force, -z
        if at >= len(words) and not value:
            raise broken(name, f"nothing follows {_short(word)}")
        if not value:
            value, at = words[at], at + 1
        if key in SETTINGS and word.startswith("-"):
            settings[key] = value
        else:
            files.append(FileEntry(_address(word, "the list of files", name), value))
    if not 0 < len(files) <= MAX_FILES:
        raise broken(name, f"it names {len(files)} files; 1 to {MAX_FILES} are possible")
    _refuse_twice(files, name)
    files.sort(key=lambda file: file.address)
    return FlasherArgs(files=tuple(files), settings=_read_settings(settings, name))


def parse_json(data: bytes, name: str, *, code: str) -> dict[str, Any]:
    """A JSON object of at most 1 MiB.

    :raises DataError: it is none; line and column are in the message
    """
    if len(data) > MAX_BYTES:
        raise DataError(f"{name} is {len(data)} bytes long, above 1 MiB", hint=HINT, code=code)
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
        raise DataError(f"{name} holds no JSON object", hint=HINT, code=code)
    return table


def explain_json_error(error: ValueError | RecursionError) -> str:
    """Why ``json.loads`` rejected a text. Python's own words for long numbers name functions of Python."""
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, json.JSONDecodeError | UnicodeError):
        return str(error)[:MAX_TEXT]
    return "it contains a number with too many digits"


def broken(name: str, reason: str, *, code: str = "flasher-args") -> DataError:
    """The one kind of complaint about such a file."""
    return DataError(f"{name}: {reason}", hint=HINT, code=code)


def _split(data: bytes, name: str) -> list[str]:
    if len(data) > MAX_BYTES:
        raise broken(name, f"it is {len(data)} bytes long, above 1 MiB")
    try:
        text = data.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds a zero byte")
        return split_words(text)
    except ValueError as error:
        raise broken(name, f"it cannot be split into words: {error}") from None


def _find_roles(table: dict[str, Any], name: str) -> tuple[dict[str, str], set[str]]:
    """File → what it is, from the entries beside ``flash_files``; and the files that are marked as encrypted."""
    roles: dict[str, str] = {}
    encrypted: set[str] = set()
    for role, entry in table.items():
        if not isinstance(entry, dict) or "file" not in entry:
            continue
        path = _text(entry["file"], f"{_short(role)}.file", name)
        roles[path] = role
        if entry.get("encrypted") in ("true", True):
            encrypted.add(path)
    return roles, encrypted


def _read_settings(table: dict[str, Any], name: str) -> HeaderSettings:
    found = {}
    for key, keyword in SETTINGS.items():
        if key in table:
            found[keyword] = _text(table[key], key, name)
    try:
        return HeaderSettings(**found | {"size": parse_size_name(found.get("size", "keep"))})
    except UsageError as error:
        raise broken(name, str(error)) from None


def _read_chip(value: Any, name: str) -> str:
    from espwire.chips.registry import parse_chip_id

    text = _text(value, "extra_esptool_args.chip", name, empty=True)
    if text in ("", "auto"):
        return ""
    try:
        return parse_chip_id(text)
    except ToolError:
        raise broken(
            name, f"extra_esptool_args.chip {_short(text)} is no chip that is known"
        ) from None


def _choice(table: dict[str, Any], key: str, known: set[str], name: str) -> str:
    """A reset mode in today's spelling; one that nobody knows is left to the command line."""
    value = _text(table.get(key, ""), f"extra_esptool_args.{key}", name, empty=True).replace(
        "_", "-"
    )
    return value if value in known else ""


def _refuse_twice(files: list[FileEntry], name: str) -> None:
    seen: dict[int, str] = {}
    for file in files:
        if file.address in seen:
            raise broken(
                name,
                f"{_short(seen[file.address])} and {_short(file.path)} both go to {file.address:#x}",
            )
        seen[file.address] = file.path


def _table(table: dict[str, Any], key: str, name: str, *, required: bool = False) -> dict[str, Any]:
    value = table.get(key)
    if value is None and not required:
        return {}
    if not isinstance(value, dict):
        raise broken(
            name,
            f"{key} is missing" if value is None else f"{key} is {_short(value)}, not an object",
        )
    return value


def _text(value: Any, key: str, name: str, *, empty: bool = False) -> str:
    if (
        not isinstance(value, str)
        or not (value or empty)
        or len(value) > MAX_TEXT
        or not _is_writable(value)
    ):
        raise broken(name, f"{key} is {_short(value)}, not a text")
    return value


def _is_writable(value: str) -> bool:
    """Whether a text can be a path: JSON may hold zeros and lone surrogates, which no file system takes."""
    return "\0" not in value and not any("\ud800" <= sign <= "\udfff" for sign in value)


def _address(text: str, where: str, name: str) -> int:
    try:
        return parse_number(text, "address")
    except (UsageError, ValueError):  # ValueError: thousands of digits
        raise broken(name, f"{_short(text)} in {where} is no flash address") from None


def _short(value: Any) -> str:
    if isinstance(value, list | dict):  # however deep: its text could be nested too deep to be made
        return "an array" if isinstance(value, list) else "an object"
    return shorten(repr(value))
