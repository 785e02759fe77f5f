"""Reads the user's settings files: ``espwire.toml``, and the vendor's ``esptool.cfg`` as it is. Finds, reads, checks.

What is wrong with a value is an error that names file, line and key; what is not known is only warned of.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espwire.cli.given import TIMES, Given, check
from espwire.errors import FileError, UsageError
from espwire.text import shorten

NAME = "espwire.toml"
MAX_BYTES = 1 << 18  # anything above is surely the wrong file
SECTION = "esptool"
VENDOR_NAMES = ("esptool.cfg", "setup.cfg", "tox.ini")
VENDOR_VARIABLE, OWN_VARIABLE = "ESPTOOL_CFGFILE", "ESPWIRE_CFGFILE"
# key of the vendor's file → name of given.py
VENDOR_KEYS = {
    "timeout": "default",
    "chip_erase_timeout": "chip_erase",
    "max_timeout": "longest",
    "sync_timeout": "sync",
    "md5_timeout_per_mb": "md5_per_mb",
    "erase_region_timeout_per_mb": "erase_per_mb",
    "erase_write_timeout_per_mb": "write_per_mb",
    "mem_end_rom_timeout": "mem_end",
    "serial_write_timeout": "write",
    "connect_attempts": "connect_attempts",
    "write_block_attempts": "block_attempts",
    "reset_delay": "reset_delay",
    "open_port_attempts": "open_attempts",
    "custom_reset_sequence": "custom_reset_sequence",
    "custom_hard_reset_sequence": "custom_hard_reset_sequence",
}
# table of espwire.toml → key → name of given.py; hyphens and underscores are the same
TABLES: dict[str, dict[str, str]] = {
    "connect": {
        **{
            name: name
            for name in (
                "chip",
                "port",
                "baud",
                "before",
                "after",
                "no_stub",
                "stub",
                "stub_version",
            )
        },
        "attempts": "connect_attempts",
        "open_attempts": "open_attempts",
        "syncs_per_attempt": "syncs_per_attempt",
    },
    "flash": {
        "mode": "flash_mode",
        "freq": "flash_freq",
        "size": "flash_size",
        "block_attempts": "block_attempts",
    },
    "timing": {name: name for name in TIMES if name != "reset_delay"},
    "reset": {
        "enter": "custom_reset_sequence",
        "leave": "custom_hard_reset_sequence",
        "delay": "reset_delay",
    },
}
# TOML's dotted keys and the vendor's patterns take quadratic time for a long line: no setting needs one
MAX_LINE, MAX_NAME, MAX_REASON, MOST_UNKNOWN = 1000, 200, 300, 10
LONGEST_PER_CHIP_ERASE = 2  # the vendor's rule for `max_timeout` where it is not given


@dataclass(eq=False, repr=False)
class Loaded:
    """What the files gave. ``warnings`` are (code, text); ``files`` those that count, the weaker one first."""

    values: dict[str, Given] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    unknown: int = 0

    def warn_unknown(self, place: str, text: str) -> None:
        """Warn of a key or table that is unknown. Only the first few are named; ``read_files`` counts the others."""
        self.unknown += 1
        if self.unknown <= MOST_UNKNOWN:
            self.warnings.append(("config-unknown-key", place + text))


def read_files(environment: Mapping[str, str], named: str | None = None) -> Loaded:
    """Find and read both kinds of file.

    :param named: a file to read in place of ``espwire.toml``: our form if it ends in ``.toml``, else the vendor's
    :raises UsageError: codes ``config-file`` (a named file cannot be read, a file makes no sense), ``config-value``
    """
    loaded = Loaded()
    origin = "--config"
    if named is None and (named := environment.get(OWN_VARIABLE, "").strip() or None):
        origin = f"the variable {OWN_VARIABLE}"
    toml = named is not None and named.lower().endswith(".toml")
    if named is None or toml:
        if (vendor := _find_vendor_file(environment, loaded)) is not None:
            _take_vendor(*vendor, loaded)
    else:
        text = _read_named(named, origin)
        parsed = _parse_vendor(named, text)
        if isinstance(parsed, str):
            raise UsageError(
                parsed, hint="Correct the file, or name another one.", code="config-file"
            )
        if parsed is None:
            raise UsageError(
                f"{named} has no section [{SECTION}]",
                hint="Add it, or name a .toml file.",
                code="config-file",
            )
        _take_vendor(named, text, parsed, loaded)
    if toml and named is not None:
        _take_toml(named, _read_named(named, origin), loaded)
    elif named is None and (path := find_own_file()) is not None:
        _take_toml(path, _read_named(path, "the settings file"), loaded)
        if path != os.path.abspath(find_user_file()):
            _check_local_port(loaded)
    if (more := loaded.unknown - MOST_UNKNOWN) > 0:
        loaded.warnings.append(
            ("config-unknown-key", f"{loaded.files[-1]}: {more:,} more keys or tables are unknown")
        )
    return loaded


def _check_local_port(loaded: Loaded) -> None:
    """The settings file of the working folder came with that folder: a project, an archive. It must not make files.

    :raises UsageError: code ``config-port-file``
    """
    port = loaded.values.get("port")
    if port is None or not port.value.lower().startswith("virtual:"):
        return
    from espwire.virtual.config import names_file

    if names_file(port.value):
        raise UsageError(
            f"{port.where} is {port.value!r}: a settings file in the working folder may not name a file to write",
            hint="Give the port with -p, or pass the settings file with --config.",
            code="config-port-file",
            where=port.where,
            setting="port",
        )


def find_own_file() -> str | None:
    """``espwire.toml`` here, else in the user's folder for settings."""
    if os.path.isfile(NAME):
        return os.path.abspath(NAME)
    path = find_user_file()
    return path if os.path.isfile(path) else None


def find_user_file() -> str:
    """Where the user's own ``espwire.toml`` would be."""
    if (
        sys.platform == "linux"
    ):  # what platformdirs says there, in a tenth of the time that importing it takes
        base = os.environ.get("XDG_CONFIG_HOME", "").strip() or os.path.expanduser("~/.config")
        folder = os.path.join(base, "espwire")
    else:
        import platformdirs

        folder = platformdirs.user_config_dir("espwire", appauthor=False)
    return os.path.join(folder, NAME)


def vendor_folders() -> tuple[str, ...]:
    """Where the vendor's file is looked for, in this order."""
    home = os.path.expanduser("~")
    own = ("AppData", "Local") if os.name == "nt" else (".config",)
    return ("", os.path.join(home, *own, "esptool"), home)


def find_line(text: str, section: str, key: str = "") -> int:
    """The line, from 1, of ``key`` in ``[section]``, or of the section's head; 0 if it cannot be told."""
    return _Lines(text).find(section, key)


class _Lines:
    """Line numbers of sections and keys in a text, by one pass over it."""

    def __init__(self, text: str) -> None:
        self._places: dict[tuple[str, str], int] = {}
        section = None
        for number, whole in enumerate(text.splitlines(), 1):
            line = whole[:MAX_NAME].strip()
            if head := re.match(r"\[\s*([^\[\]]+)\]", line):
                section = head[1].strip().strip("\"'")
                self._places.setdefault((section, ""), number)
            elif section is not None and (
                named := re.match(r"""(?:"([^"]+)"|'([^']+)'|([^=:"']+))\s*[=:]""", line)
            ):
                self._places.setdefault(
                    (section, _plain((named[1] or named[2] or named[3]).strip())), number
                )

    def find(self, section: str, key: str = "") -> int:
        """The line of ``key`` in ``[section]``, or of the section's head; 0 if it is not found."""
        return self._places.get((section, _plain(key)), 0)


def _plain(key: str) -> str:
    return key.replace("-", "_").lower()


def _place(path: str, lines: _Lines, section: str, key: str) -> str:
    line = lines.find(section, key)
    return f"{path}, line {line}" if line else path


def _read_text(path: str) -> str:
    """The file's text; ``/dev/zero`` has an end here.

    :raises OSError, ValueError: it cannot be read, is too big, or no text
    """
    from espwire.streams import read_most

    content = read_most(path, MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError("too big")
    return content.decode("utf-8-sig")


def _read_named(path: str, origin: str) -> str:
    try:
        return _read_text(path)
    except (OSError, ValueError, FileError) as error:
        reason = getattr(error, "strerror", None) or "it is no text, or too long"
        if isinstance(error, FileError):
            reason = str(error)
        raise UsageError(
            f"{path} cannot be read: {reason}",
            hint=f"Check the name that {origin} gives.",
            code="config-file",
        ) from None


def _find_vendor_file(
    environment: Mapping[str, str], loaded: Loaded
) -> tuple[str, str, dict[str, str]] | None:
    """The first file with the section: path, text and what the section holds."""
    paths = [environment.get(VENDOR_VARIABLE, "").strip()]
    paths += [os.path.join(folder, name) for folder in vendor_folders() for name in VENDOR_NAMES]
    for path in paths:
        if not path or not os.path.isfile(path):
            continue
        full = os.path.abspath(path)
        try:
            text = _read_text(path)
        except (OSError, ValueError) as error:
            text = ""
            reason = getattr(error, "strerror", None) or "it is no text"
            loaded.warnings.append(("config-ignored", f"{full} is ignored: {reason}"))
        if f"[{SECTION}]" not in text and os.path.basename(path) in VENDOR_NAMES[1:]:
            continue  # of another tool: not worth loading a parser
        parsed = _parse_vendor(full, text)
        if isinstance(parsed, str):
            loaded.warnings.append(("config-ignored", f"{parsed}: the file is ignored"))
        elif parsed is not None:
            return full, text, parsed
    return None


def _parse_vendor(path: str, text: str) -> dict[str, str] | str | None:
    """What the section holds; None: there is none; a text: what is wrong with the file."""
    import configparser

    if (number := _find_long_line(text)) is not None:
        return f"{path}, line {number}: it has more than {MAX_LINE:,} characters"
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = (
            getattr(error, "lineno", None) or next(iter(getattr(error, "errors", ())), (None,))[0]
        )
        what = {
            "MissingSectionHeaderError": "something stands before the first [section]",
            "DuplicateOptionError": f"{getattr(error, 'option', '')} stands there twice",
            "DuplicateSectionError": f"[{getattr(error, 'section', '')}] stands there twice",
        }.get(type(error).__name__, "this is no setting")
        return f"{path}, line {line}: {what}"
    if not parser.has_section(SECTION):
        return None
    return dict(parser.items(SECTION))


def _find_long_line(text: str) -> int | None:
    return next(
        (number for number, line in enumerate(text.splitlines(), 1) if len(line) > MAX_LINE), None
    )


def _take_vendor(path: str, text: str, parsed: Mapping[str, str], loaded: Loaded) -> None:
    loaded.files.append(path)
    lines = _Lines(text)
    for key, raw in parsed.items():
        place = _place(path, lines, SECTION, key)
        where = f"{place}: {key}"
        if key not in VENDOR_KEYS:
            loaded.warn_unknown(place, f": {shorten(key)} is not a setting of [{SECTION}]")
        elif raw.strip() or "sequence" not in key:
            loaded.values[VENDOR_KEYS[key]] = check(VENDOR_KEYS[key], raw.strip(), where)
    erase, longest = loaded.values.get("chip_erase"), loaded.values.get("longest")
    if erase is not None and longest is None:
        loaded.values["longest"] = Given(erase.value * LONGEST_PER_CHIP_ERASE, erase.where)


def _take_toml(path: str, text: str, loaded: Loaded) -> None:
    import tomllib

    loaded.files.append(path)
    if (number := _find_long_line(text)) is not None:
        raise UsageError(
            f"{path}, line {number}: it has more than {MAX_LINE:,} characters",
            hint="Correct the file, or name another one.",
            code="config-file",
        )
    try:
        tables = tomllib.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # not TOML, a number of thousands of digits, nested without end
        deep = isinstance(error, RecursionError)
        reason = (
            "it is nested too deeply" if deep else shorten(" ".join(str(error).split()), MAX_REASON)
        )
        raise UsageError(
            f"{path} is not valid TOML: {reason}",
            hint="Correct the file, or name another one.",
            code="config-file",
        ) from None
    lines = _Lines(text)
    for table, content in tables.items():
        if table not in TABLES:
            loaded.warn_unknown(
                _place(path, lines, table, ""), f": {_explain_unknown(table, content)}"
            )
        elif not isinstance(content, dict):
            raise UsageError(
                f"{path}: {table} must be a table, [{table}]",
                hint="See docs/guide/settings.md.",
                code="config-file",
            )
        else:
            _take_table(path, lines, table, content, loaded)


def _explain_unknown(name: str, content: Any) -> str:
    if isinstance(content, dict):
        return f"there is no table [{shorten(name)}]"
    homes = [f"[{table}]" for table, settings in TABLES.items() if _plain(name) in settings]
    return f"{shorten(name)} is outside of all tables and has no effect" + (
        f"; put it under {homes[0]}" if homes else ""
    )


def _take_table(
    path: str, lines: _Lines, table: str, content: Mapping[str, Any], loaded: Loaded
) -> None:
    for key, raw in content.items():
        place = _place(path, lines, table, key)
        name = TABLES[table].get(key.replace("-", "_"))
        if name is None:
            loaded.warn_unknown(place, f": {shorten(key)} is not a setting of [{table}]")
        else:
            loaded.values[name] = check(name, raw, f"{place}: {key}")
