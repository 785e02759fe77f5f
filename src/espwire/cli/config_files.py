"""Finds and reads the settings files: ``espwire.toml`` and esptool's ``esptool.cfg``.

A bad value is an error that names file, line and key. Unknown keys only cause warnings.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from espwire.cli.config import SETTINGS, Value, check
from espwire.cli.ports import is_url, split_ports
from espwire.errors import FileError, UsageError
from espwire.streams import read_most
from espwire.text import shorten

NAME = "espwire.toml"
MAX_BYTES = 1 << 18
SECTION = "esptool"
VENDOR_NAMES = ("esptool.cfg", "setup.cfg", "tox.ini")
VENDOR_VARIABLE, OWN_VARIABLE = "ESPTOOL_CFGFILE", "ESPWIRE_CFGFILE"
VENDOR_KEYS = {setting.vendor_key: name for name, setting in SETTINGS.items() if setting.vendor_key}
TOML_KEYS = {setting.key: name for name, setting in SETTINGS.items() if setting.key}
TABLES = tuple(dict.fromkeys(key.partition(".")[0] for key in TOML_KEYS))
# parsing a long line takes quadratic time (TOML's dotted keys, configparser's patterns), and no setting needs one
MAX_LINE, MAX_NAME, MAX_REASON, MAX_UNKNOWN = 1000, 200, 300, 10
LONGEST_PER_CHIP_ERASE = 2  # esptool's default of `max_timeout`


@dataclass(eq=False, repr=False)
class Loaded:
    """Contents of the settings files. ``warnings`` are (code, text); later ``files`` override earlier ones."""

    values: dict[str, Value] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)
    unknown: int = 0

    def warn_unknown(self, text: str) -> None:
        """Warn of an unknown key or table; after the first few, only count them."""
        self.unknown += 1
        if self.unknown <= MAX_UNKNOWN:
            self.warnings.append(("config-unknown-key", text))


def read_files(environment: Mapping[str, str], named: str | None = None) -> Loaded:
    """Find and read both kinds of file.

    :param named: read this file instead of ``espwire.toml``: as one if it ends in ``.toml``, else as ``esptool.cfg``
    :raises UsageError: codes ``config-file`` and ``config-value``
    """
    loaded = Loaded()
    origin = "--config"
    if named is None and (named := environment.get(OWN_VARIABLE, "").strip() or None):
        origin = f"the variable {OWN_VARIABLE}"
    if named is not None and not named.lower().endswith(".toml"):
        _read_named_vendor_file(named, origin, loaded)
    else:
        if (vendor := _find_vendor_file(environment, loaded)) is not None:
            add_vendor_values(*vendor, loaded)
        if named is not None:
            add_toml_values(named, _read_named(named, origin), loaded)
        elif (path := find_own_file()) is not None:
            add_toml_values(path, _read_named(path, ""), loaded)
            if path != os.path.abspath(find_user_file()):
                _check_local_port(loaded)
    if (more := loaded.unknown - MAX_UNKNOWN) > 0:
        text = f"{loaded.files[-1]}: {more:,} more unknown keys or tables"
        loaded.warnings.append(("config-unknown-key", text))
    return loaded


def _check_local_port(loaded: Loaded) -> None:
    """Refuse a port that writes a file: the settings file of the working folder may come from a downloaded project.

    :raises UsageError: code ``config-port-file``
    """
    port = loaded.values.get("port")
    if port is None or "virtual:" not in port.value.lower():
        return
    from espwire.virtual.config import names_file

    if any(names_file(name) for name in split_ports(port.value) if is_url(name)):
        raise UsageError(
            f"{port.origin} must not name a file to write in the working folder's settings; got {port.value!r}",
            hint="Give the port with -p, or pass the settings file with --config.",
            code="config-port-file",
            where=port.origin,
            setting="port",
        )


def find_own_file() -> str | None:
    """``espwire.toml`` of the working folder, else the user's."""
    if os.path.isfile(NAME):
        return os.path.abspath(NAME)
    path = find_user_file()
    return path if os.path.isfile(path) else None


def find_user_file() -> str:
    """Path of the user's ``espwire.toml``, whether it exists or not."""
    if sys.platform == "linux":  # the same folder, but platformdirs takes 6 ms to import
        folder = os.environ.get("XDG_CONFIG_HOME", "")
        if not os.path.isabs(folder):
            folder = os.path.join(os.path.expanduser("~"), ".config")
        folder = os.path.join(folder, "espwire")
    else:
        import platformdirs

        folder = platformdirs.user_config_dir("espwire", appauthor=False)
    return os.path.join(folder, NAME)


def vendor_folders() -> tuple[str, ...]:
    """The folders that may hold an esptool.cfg, in the order of precedence."""
    home = os.path.expanduser("~")
    own = ("AppData", "Local") if os.name == "nt" else (".config",)
    return ("", os.path.join(home, *own, "esptool"), home)


class Lines:
    """Line numbers, from 1, of the sections and keys of a settings file."""

    def __init__(self, text: str) -> None:
        self._numbers: dict[tuple[str, str], int] = {}
        section = None
        for number, whole in enumerate(text.splitlines(), 1):
            line = whole[:MAX_NAME].strip()
            if head := re.match(r"\[\s*([^\[\]]+)\]", line):
                section = head[1].strip().strip("\"'")
                self._numbers.setdefault((section, ""), number)
            elif section is not None and (
                match := re.match(r"""(?:"([^"]+)"|'([^']+)'|([^=:"']+))\s*[=:]""", line)
            ):
                key = _plain((match[1] or match[2] or match[3]).strip())
                self._numbers.setdefault((section, key), number)

    def find(self, section: str, key: str = "") -> int:
        """The line of ``key`` in ``[section]``, or of the section's head; 0 if it is not found."""
        return self._numbers.get((section, _plain(key)), 0)

    def locate(self, path: str, section: str, key: str = "") -> str:
        """``path, line N``, as far as the line is known."""
        line = self.find(section, key)
        return f"{path}, line {line}" if line else path


def _plain(key: str) -> str:
    return key.replace("-", "_").lower()


def _read_text(path: str) -> str:
    """:raises OSError, ValueError: it cannot be read, is too large, or is not text"""

    content = read_most(path, MAX_BYTES + 1)  # bounded also for /dev/zero
    if len(content) > MAX_BYTES:
        raise ValueError("too large")
    return content.decode("utf-8-sig")


def _bad_file(text: str) -> UsageError:
    return UsageError(text, hint="Correct the file, or choose another one.", code="config-file")


def _read_named(path: str, origin: str) -> str:
    try:
        return _read_text(path)
    except (OSError, ValueError, FileError) as error:
        reason = getattr(error, "strerror", None) or "it is not text, or too long"
        if isinstance(error, FileError):
            reason = str(error)
        raise UsageError(
            f"{path} cannot be read: {reason}",
            hint=f"Check the file name given by {origin}."
            if origin
            else "Check the file's permissions.",
            code="config-file",
        ) from None


def _read_named_vendor_file(path: str, origin: str, loaded: Loaded) -> None:
    text = _read_named(path, origin)
    parsed = parse_vendor(path, text)
    if parsed is None:
        raise UsageError(
            f"{path} has no section [{SECTION}]",
            hint="Add the section, or choose a .toml file.",
            code="config-file",
        )
    add_vendor_values(path, text, parsed, loaded)


def _find_vendor_file(
    environment: Mapping[str, str], loaded: Loaded
) -> tuple[str, str, dict[str, str]] | None:
    """The first file with the section: its path, its text and the section's contents."""
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
            reason = getattr(error, "strerror", None) or "it is not text"
            loaded.warnings.append(("config-ignored", f"{full} is ignored: {reason}"))
        if f"[{SECTION}]" not in text and os.path.basename(path) in VENDOR_NAMES[1:]:
            continue  # another tool's file
        try:
            parsed = parse_vendor(full, text)
        except UsageError as error:
            loaded.warnings.append(("config-ignored", f"{error}: the file is ignored"))
            continue
        if parsed is not None:
            return full, text, parsed
    return None


def parse_vendor(path: str, text: str) -> dict[str, str] | None:
    """The section's contents; None if the file does not have it.

    :raises UsageError: code ``config-file``
    """
    import configparser

    _check_lines(path, text)
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(text)
    except configparser.Error as error:
        line = (
            getattr(error, "lineno", None) or next(iter(getattr(error, "errors", ())), (None,))[0]
        )
        what = {
            "MissingSectionHeaderError": "text before the first [section]",
            "DuplicateOptionError": f"{getattr(error, 'option', '')} is set twice",
            "DuplicateSectionError": f"duplicate section [{getattr(error, 'section', '')}]",
        }.get(type(error).__name__, "not a setting")
        raise _bad_file(f"{path}, line {line}: {what}") from None
    return dict(parser.items(SECTION)) if parser.has_section(SECTION) else None


def _check_lines(path: str, text: str) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if len(line) > MAX_LINE:
            raise _bad_file(f"{path}, line {number}: longer than {MAX_LINE:,} characters")


def add_vendor_values(path: str, text: str, parsed: Mapping[str, str], loaded: Loaded) -> None:
    """Add the section's values to ``loaded``.

    :raises UsageError: code ``config-value``
    """
    loaded.files.append(path)
    lines = Lines(text)
    for key, raw in parsed.items():
        place = lines.locate(path, SECTION, key)
        name = VENDOR_KEYS.get(key)
        if name is None:
            loaded.warn_unknown(f"{place}: {shorten(key)} is not a setting of [{SECTION}]")
        elif raw.strip() or "sequence" not in key:
            loaded.values[name] = check(name, raw.strip(), f"{place}: {key}")
    erase = loaded.values.get("chip_erase")
    if erase is not None and "longest" not in loaded.values:
        loaded.values["longest"] = Value(erase.value * LONGEST_PER_CHIP_ERASE, erase.origin)


def add_toml_values(path: str, text: str, loaded: Loaded) -> None:
    """Add the values of an espwire.toml to ``loaded``.

    :raises UsageError: codes ``config-file``, ``config-value``
    """
    import tomllib

    loaded.files.append(path)
    _check_lines(path, text)
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise _bad_file(f"{path} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # not TOML, or a number with thousands of digits
        reason = shorten(" ".join(str(error).split()), MAX_REASON)
        raise _bad_file(f"{path} is not valid TOML: {reason}") from None
    lines = Lines(text)
    for table, content in tables.items():
        if table not in TABLES:
            loaded.warn_unknown(f"{lines.locate(path, table)}: {_explain_unknown(table, content)}")
        elif not isinstance(content, dict):
            raise UsageError(
                f"{path}: {table} must be a table, [{table}]",
                hint="See docs/guide/settings.md.",
                code="config-file",
            )
        else:
            _add_table(path, lines, table, content, loaded)


def _add_table(
    path: str, lines: Lines, table: str, content: Mapping[str, Any], loaded: Loaded
) -> None:
    for key, raw in content.items():
        place = lines.locate(path, table, key)
        name = TOML_KEYS.get(f"{table}.{key.replace('-', '_')}")
        if name is None:
            loaded.warn_unknown(f"{place}: {shorten(key)} is not a setting of [{table}]")
        else:
            loaded.values[name] = check(name, raw, f"{place}: {key}")


def _explain_unknown(name: str, content: Any) -> str:
    if isinstance(content, dict):
        return f"unknown table [{shorten(name)}]"
    homes = [table for table in TABLES if f"{table}.{_plain(name)}" in TOML_KEYS]
    where = f"; put it under [{homes[0]}]" if homes else ""
    return f"{shorten(name)} is outside all tables and has no effect{where}"
