"""The settings of the command line: one table, which files, environment, options, help and completion are read from.

To add a setting, add a line to ``SETTINGS``. A value given as an option wins over the environment, which wins over the
files (config_files.py). ``Context.get`` returns the value that counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from espwire.chips.index import NAMES
from espwire.cli.number_types import Number
from espwire.errors import ToolError, UsageError
from espwire.text import shorten

if TYPE_CHECKING:
    from espwire.settings import Settings

PREFIXES = ("ESPWIRE_", "ESPTOOL_")  # of environment variables; the first one wins
BEFORE = ("default-reset", "usb-reset", "no-reset", "no-reset-no-sync")
AFTER = ("hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset")
MODES = ("keep", "qio", "qout", "dio", "dout")
FREQUENCIES = ("keep", *(f"{mhz}m" for mhz in (80, 64, 60, 48, 40, 32, 30, 26, 24, 20, 16, 15, 12)))
DEFAULT_BAUD = 115200
UNLIMITED = 0x7FFFFFFF  # attempts
MAX_BAUD = 100_000_000
MAX_SECONDS = 86_400.0
MAX_BITS = 128  # of a number that an error message shows in full

Parse = Callable[[Any], Any]  # raises ValueError with a description of valid values


def _parse_text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("a string")
    return raw.strip()


def _parse_chip(raw: Any) -> str | None:
    from espwire.chips.registry import parse_chip_id

    name = _parse_text(raw)
    if name.lower() == "auto":
        return None
    try:
        return parse_chip_id(name)
    except ToolError:
        raise ValueError("a supported chip, or auto") from None


def _parse_whole(raw: Any, least: int, most: int) -> int:
    unlimited = most >= UNLIMITED
    expected = (
        f"a whole number, {least} or more"
        if unlimited
        else f"a whole number from {least} to {most}"
    )
    try:
        value = int(raw, 10) if isinstance(raw, str) else raw
    except ValueError:
        raise ValueError(expected) from None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(expected)
    return value


def _parse_attempts(raw: Any) -> int:
    """0 and negative numbers mean no limit, as in esptool."""
    value = _parse_whole(raw, -UNLIMITED, UNLIMITED)
    return value if value > 0 else UNLIMITED


def _parse_count(raw: Any) -> int:
    return _parse_whole(raw, 1, UNLIMITED)


def _parse_flag(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("true or false")
    return raw


def _parse_seconds(raw: Any) -> float:
    expected = "a time in seconds, 0 or more"
    try:
        value = float(raw)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected) from None
    if isinstance(raw, bool) or not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(expected)
    return value


def _parse_reset_sequence(raw: Any) -> str:
    from espwire.device.reset_sequences import SEQUENCES, parse_sequence

    try:
        if _parse_text(raw).lower().replace("-", "_") not in SEQUENCES:
            parse_sequence(raw)
    except UsageError as error:
        raise ValueError(f"a reset sequence such as D0|R1|W0.1|D1|R0|W0.05|D0 ({error})") from None
    return _parse_text(raw)


def _parse_choice(choices: tuple[str, ...]) -> Parse:
    def parse(raw: Any) -> str:
        value = _parse_text(raw).lower().replace("_", "-")
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return parse


def _parse_frequency(raw: Any) -> str:
    """``40m`` or ``40``."""
    value = f"{raw}m" if isinstance(raw, int) or (isinstance(raw, str) and raw.isdecimal()) else raw
    frequency: str = _parse_choice(FREQUENCIES)(value)
    return frequency


class Setting(NamedTuple):
    """A setting and where its value can come from."""

    name: str
    parse: Parse = _parse_flag  # of a value from a file or the environment
    default: Any = None  # None for a library setting: the library's own default
    key: str = ""  # "table.key" in espwire.toml
    vendor_key: str = ""  # key in section [esptool] of esptool.cfg
    variable: str = ""  # environment variable without its prefix
    flags: tuple[str, ...] = ()  # of the global option
    help: str = ""
    option: Mapping[str, Any] = MappingProxyType({})  # further arguments of the click option
    offline: bool = False  # also an option of commands that never use a port


def _flag(name: str, *flags: str, help: str, key: str = "", offline: bool = False) -> Setting:
    return Setting(
        name,
        default=False,
        key=key,
        flags=flags,
        help=help,
        option={"is_flag": True},
        offline=offline,
    )


def _choice(choices: tuple[str, ...]) -> dict[str, Any]:
    return {"type": click.Choice(choices)}


def _timing(name: str, vendor_key: str = "") -> Setting:
    return Setting(name, _parse_seconds, key=f"timing.{name}", vendor_key=vendor_key)


_LIST = (
    Setting(
        "chip",
        _parse_chip,
        key="connect.chip",
        variable="CHIP",
        flags=("-c", "--chip"),
        help=f"Expected chip: {', '.join(NAMES)}. Default: auto, which detects it.",
        option={"metavar": "CHIP"},
    ),
    Setting(
        "port",
        _parse_text,
        key="connect.port",
        variable="PORT",
        flags=("-p", "--port"),
        help="Port of the board: a device (/dev/ttyUSB0, COM3), a USB serial number, a known MAC address,"
        " socket://HOST:PORT, rfc2217://HOST:PORT, espwire://HOST:PORT, labgrid://PLACE or virtual:CHIP?…"
        " Several boards: separated by commas."
        " Default: the only connected board.",
        option={"metavar": "PORT"},
    ),
    _flag(
        "all_boards",
        "--all",
        help="Work on all connected boards at once, as with a list of ports.",
    ),
    Setting(
        "place",
        _parse_text,
        flags=("--place",),
        help="Work on the labgrid places whose names fit this pattern, such as 'esp32c3-*', at once.",
        option={"metavar": "PATTERN"},
    ),
    _flag(
        "watch",
        "--watch",
        help="Work on each board that is plugged in, until Ctrl-C; with --all or --port also on those"
        " that are connected already.",
    ),
    _flag(
        "yes",
        "--yes",
        help="With --all and --watch: also use boards with a USB-serial bridge that were never used before.",
    ),
    Setting(
        "limit",
        default=16,
        flags=("--limit",),
        help="Work on at most this number of boards at once. Default: 16.",
        option={"type": Number(1, 256), "metavar": "N"},
    ),
    Setting(
        "stagger",
        default=0.1,
        flags=("--stagger",),
        help="Time between the starts of two boards. Default: 0.1 s.",
        option={"type": click.FloatRange(0, 3600), "metavar": "SECONDS"},
    ),
    Setting(
        "log_dir",
        flags=("--log-dir",),
        help="Folder for the logs of several boards. Default: a folder of espwire's own.",
        option={"metavar": "FOLDER"},
    ),
    Setting(
        "port_filter",
        default=(),
        flags=("--port-filter",),
        help="Without --port, consider only ports that match these vid=, pid=, name= or serial= values."
        " Takes several values.",
        option={"metavar": "KEY=VALUE…", "multiple": True},
    ),
    _flag(
        "any_port",
        "--any-port",
        help="Without --port, also consider ports that are not known to be boards.",
    ),
    _flag(
        "no_state",
        "--no-state",
        help="Do not use or update the cache of known adapters and boards.",
    ),
    Setting(
        "baud",
        lambda raw: _parse_whole(raw, 1, MAX_BAUD),
        DEFAULT_BAUD,
        key="connect.baud",
        variable="BAUD",
        flags=("-b", "--baud"),
        help="Highest baud rate for data. Default: the fastest one that works.",
        option={"type": Number(1, MAX_BAUD), "metavar": "N"},
    ),
    Setting(
        "before",
        _parse_choice(BEFORE),
        "default-reset",
        key="connect.before",
        variable="BEFORE",
        flags=("--before",),
        help="How to reset the chip into download mode. Default: default-reset.",
        option=_choice(BEFORE),
    ),
    Setting(
        "after",
        _parse_choice(AFTER),
        "hard-reset",
        key="connect.after",
        variable="AFTER",
        flags=("-a", "--after"),
        help="What to do with the chip at the end. Default: hard-reset.",
        option=_choice(AFTER),
    ),
    _flag(
        "no_stub",
        "--no-stub",
        key="connect.no_stub",
        help="Use the ROM bootloader only; do not upload a stub flasher.",
    ),
    Setting(
        "stub",
        _parse_text,
        key="connect.stub",
        flags=("--stub",),
        help="Upload this stub flasher (Espressif's JSON format) instead of espwire's own.",
        option={"metavar": "FILE"},
    ),
    Setting(
        "stub_version",
        lambda raw: _parse_whole(raw, 1, 2),
        key="connect.stub_version",
        variable="STUB_VERSION",
        flags=("--stub-version",),
        help="Accepted for compatibility with esptool; has no effect.",
        option={"type": Number(1, 2), "metavar": "N", "hidden": True},
    ),
    Setting(
        "connect_attempts",
        _parse_attempts,
        key="connect.attempts",
        vendor_key="connect_attempts",
        variable="CONNECT_ATTEMPTS",
        flags=("--connect-attempts",),
        help="How often to reset the chip and try to connect; 0: no limit. Default: 7.",
        option={"type": Number(max=1_000_000), "metavar": "N"},
    ),
    Setting(
        "override_vddsdio",
        flags=("--override-vddsdio",),
        help="ESP32: set the flash voltage to 1.8V, 1.9V or OFF until the next reset.",
        option={
            "type": click.Choice(("1.8V", "1.9V", "OFF"), case_sensitive=False),
            "metavar": "VOLTAGE",
        },
    ),
    Setting(
        "config",
        flags=("--config",),
        help="Read settings from this espwire.toml or esptool.cfg.",
        option={"metavar": "FILE", "is_eager": True},
    ),
    _flag(
        "trace",
        "-t",
        "--trace",
        help="Print each packet with its time to standard error.",
        offline=True,
    ),
    _flag("verbose", "-v", "--verbose", help="Print more detail.", offline=True),
    _flag(
        "quiet",
        "-q",
        "--quiet",
        "-s",
        "--silent",
        help="Print only results, warnings and errors.",
        offline=True,
    ),
    _flag("json", "--json", help="Print one JSON event per line to standard output.", offline=True),
    Setting(
        "open_attempts",
        lambda raw: max(_parse_whole(raw, -UNLIMITED, UNLIMITED), 0),
        key="connect.open_attempts",
        vendor_key="open_port_attempts",
        variable="OPEN_PORT_ATTEMPTS",
    ),
    Setting("syncs_per_attempt", _parse_count, key="connect.syncs_per_attempt"),
    # the options of these three belong to single commands: options.header_options
    Setting("flash_mode", _parse_choice(MODES), "keep", key="flash.mode", variable="FM"),
    Setting("flash_freq", _parse_frequency, "keep", key="flash.freq", variable="FF"),
    Setting("flash_size", _parse_text, "keep", key="flash.size", variable="FS"),
    Setting(
        "block_attempts",
        _parse_count,
        key="flash.block_attempts",
        vendor_key="write_block_attempts",
    ),
    _timing("default", "timeout"),
    _timing("sync", "sync_timeout"),
    _timing("write", "serial_write_timeout"),
    _timing("md5_per_mb", "md5_timeout_per_mb"),
    _timing("erase_per_mb", "erase_region_timeout_per_mb"),
    _timing("write_per_mb", "erase_write_timeout_per_mb"),
    _timing("chip_erase", "chip_erase_timeout"),
    _timing("longest", "max_timeout"),
    _timing("baud_settle"),
    _timing("mem_end", "mem_end_rom_timeout"),
    Setting("reset_delay", _parse_seconds, key="reset.delay", vendor_key="reset_delay"),
    Setting(
        "custom_reset_sequence",
        _parse_reset_sequence,
        key="reset.enter",
        vendor_key="custom_reset_sequence",
    ),
    Setting(
        "custom_hard_reset_sequence",
        _parse_reset_sequence,
        key="reset.leave",
        vendor_key="custom_hard_reset_sequence",
    ),
)
SETTINGS = {setting.name: setting for setting in _LIST}


class Value(NamedTuple):
    """A checked value. ``origin`` names the file, line and key, or the variable, that it comes from."""

    value: Any
    origin: str


def check(name: str, raw: Any, origin: str) -> Value:
    """Parse a value from a file or the environment.

    :raises UsageError: code ``config-value``; the message contains ``origin``
    """
    try:
        return Value(SETTINGS[name].parse(raw), origin)
    except ValueError as error:
        raise UsageError(
            f"{origin} must be {error}; got {_describe(raw)}",
            hint="Correct this value, or remove it to use the default.",
            code="config-value",
            where=origin,
            setting=name,
        ) from None


def _describe(raw: Any) -> str:
    """A value of any size, in bounded time and length."""
    if isinstance(raw, int) and raw.bit_length() > MAX_BITS:
        return f"a number of {raw.bit_length():,} bits"
    if isinstance(raw, str):
        return f"'{shorten(raw)}'"
    if isinstance(raw, (list, dict)):
        return "a table" if isinstance(raw, dict) else "an array"
    return str(raw)


def read_environment(environment: Mapping[str, str]) -> dict[str, Value]:
    """Values of environment variables by setting. An empty variable counts as not set.

    :raises UsageError: code ``config-value``
    """
    values: dict[str, Value] = {}
    for setting in SETTINGS.values():
        for prefix in PREFIXES if setting.variable else ():
            variable = prefix + setting.variable
            if setting.name not in values and (raw := environment.get(variable, "").strip()):
                values[setting.name] = check(setting.name, raw, f"the variable {variable}")
    return values


def build_settings(values: Mapping[str, Value]) -> Settings:
    """The library's settings; what ``values`` lacks keeps the library's default."""
    from espwire.settings import RetryPolicy, Settings, Timing

    def pick(kind: type[Any]) -> dict[str, Any]:
        return {each.name: values[each.name].value for each in fields(kind) if each.name in values}

    return Settings(
        timing=Timing(**pick(Timing)), retry=RetryPolicy(**pick(RetryPolicy)), **pick(Settings)
    )
