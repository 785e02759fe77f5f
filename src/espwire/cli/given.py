"""Values that come from outside the command line: what may be given, of which kind, and from where one came.

Files (config.py) and environment (environment.py) hand over ``Given`` values; the session merges them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espwire.cli.options import AFTER, BEFORE, FREQUENCIES, MODES
from espwire.errors import ToolError, UsageError
from espwire.text import shorten

if TYPE_CHECKING:
    from espwire.settings import Settings

NO_END = 0x7FFFFFFF  # attempts without end
MAX_BAUD = 100_000_000
MAX_SECONDS = 86_400.0
MAX_BITS = 128


@dataclass(frozen=True)
class Given:
    """A checked value. ``where`` names file, line and key, or the variable, for whoever must correct it."""

    value: Any
    where: str


Values = Mapping[str, Given]
Check = Callable[[Any], Any]  # the value, or ValueError with what it should have been


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw.strip():
        raise ValueError("a text")
    return raw.strip()


def _chip(raw: Any) -> str | None:
    from espwire.chips.registry import parse_chip_id

    name = _text(raw)
    if name.lower() == "auto":
        return None
    try:
        return parse_chip_id(name)
    except ToolError:
        raise ValueError("a chip this program knows, or auto") from None


def _whole(raw: Any, least: int, most: int) -> int:
    wanted = (
        f"a whole number, {least} or more"
        if most >= NO_END
        else f"a whole number from {least} to {most}"
    )
    try:
        value = int(raw, 10) if isinstance(raw, str) else raw
    except ValueError:
        raise ValueError(wanted) from None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(wanted)
    return value


def _baud(raw: Any) -> int:
    return _whole(raw, 1, MAX_BAUD)


def _tries(raw: Any) -> int:
    """0 and less: without end, as the vendor's tool has it."""
    value = _whole(raw, -NO_END, NO_END)
    return value if value > 0 else NO_END


def _openings(raw: Any) -> int:
    return max(_whole(raw, -NO_END, NO_END), 0)


def _count(raw: Any) -> int:
    return _whole(raw, 1, NO_END)


def _stub(raw: Any) -> int:
    return _whole(raw, 1, 2)


def _flag(raw: Any) -> bool:
    if not isinstance(raw, bool):
        raise ValueError("true or false")
    return raw


def _seconds(raw: Any) -> float:
    wanted = "a time in seconds, 0 or more"
    try:
        value = float(raw)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(wanted) from None
    if isinstance(raw, bool) or not math.isfinite(value) or not 0 <= value <= MAX_SECONDS:
        raise ValueError(wanted)
    return value


def _sequence(raw: Any) -> str:
    from espwire.device.reset_sequences import SEQUENCES, parse_sequence

    try:
        if _text(raw).lower().replace("-", "_") not in SEQUENCES:
            parse_sequence(raw)
    except UsageError as error:
        raise ValueError(f"a reset sequence such as D0|R1|W0.1|D1|R0|W0.05|D0 ({error})") from None
    return _text(raw)


def _one_of(choices: tuple[str, ...]) -> Check:
    def check(raw: Any) -> str:
        value = _text(raw).lower().replace("_", "-")
        if value not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return value

    return check


def _frequency(raw: Any) -> str:
    """As ``-ff``: ``40m``, ``40``."""
    value = f"{raw}m" if isinstance(raw, int) or (isinstance(raw, str) and raw.isdecimal()) else raw
    checked: str = _one_of(FREQUENCIES)(value)
    return checked


TIMES = (
    *(
        "default",
        "sync",
        "write",
        "md5_per_mb",
        "erase_per_mb",
        "write_per_mb",
        "chip_erase",
        "longest",
    ),
    *("baud_settle", "reset_delay", "mem_end"),
)
COUNTS = {
    "connect_attempts": _tries,
    "open_attempts": _openings,
    "block_attempts": _count,
    "syncs_per_attempt": _count,
}
SEQUENCES = ("custom_reset_sequence", "custom_hard_reset_sequence")
# name → what it must be; the first ones are fields of the session, the others of Settings and Timing
CHECKS: dict[str, Check] = {
    "chip": _chip,
    "port": _text,
    "baud": _baud,
    "before": _one_of(BEFORE),
    "after": _one_of(AFTER),
    "no_stub": _flag,
    "stub": _text,
    "stub_version": _stub,
    "flash_mode": _one_of(MODES),
    "flash_freq": _frequency,
    "flash_size": _text,
    **COUNTS,
    **dict.fromkeys(SEQUENCES, _sequence),
    **dict.fromkeys(TIMES, _seconds),
}


def check(name: str, raw: Any, where: str) -> Given:
    """The value of ``name`` as what it must be.

    :raises UsageError: code ``config-value``; names ``where``
    """
    try:
        return Given(CHECKS[name](raw), where)
    except ValueError as error:
        raise UsageError(
            f"{where} is {describe_raw(raw)}, not {error}",
            hint=f"Give {error}.",
            code="config-value",
            where=where,
            setting=name,
        ) from None


def describe_raw(raw: Any) -> str:
    """A value of a file or variable for a message, in bounded time and length whatever it is."""
    if isinstance(raw, int) and raw.bit_length() > MAX_BITS:
        return f"a number of {raw.bit_length():,} bits"
    if isinstance(raw, str):
        return f"'{shorten(raw)}'"
    if isinstance(raw, (list, dict)):
        return "a table" if isinstance(raw, dict) else "an array"
    return str(raw)


def build_settings(values: Values) -> Settings:
    """The library's settings from checked values; what is not among them keeps its default."""
    from espwire.settings import RetryPolicy, Settings, Timing

    times = {name: values[name].value for name in TIMES if name in values}
    counts = {name: values[name].value for name in COUNTS if name in values}
    sequences = {name: values[name].value for name in SEQUENCES if name in values}
    return Settings(timing=Timing(**times), retry=RetryPolicy(**counts), **sequences)
