"""Time-outs and retries as values. Read by the library from its caller only; files and environment are the CLI's."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from espwire.errors import UsageError

MB = 1_000_000
LEAST = {"connect_attempts": 1, "syncs_per_attempt": 1, "block_attempts": 1, "open_attempts": 0}


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Seconds; ``*_per_mb`` are seconds for 10**6 bytes. Defaults from ``chips/data/protocol.toml``.

    :raises UsageError: code ``bad-setting``: negative, or no number
    """

    default: float = 3.0
    sync: float = 0.1
    write: float = 10.0
    md5_per_mb: float = 8.0
    erase_per_mb: float = 40.0
    write_per_mb: float = 40.0
    chip_erase: float = 120.0
    longest: float = 240.0
    baud_settle: float = 0.005
    reset_delay: float = 0.05
    mem_end: float = 0.2

    def __post_init__(self) -> None:
        """Refuse what cannot be a time."""
        for name in (one.name for one in fields(self)):
            value = getattr(self, name)
            if (
                not isinstance(value, (int, float))
                or isinstance(value, bool)
                or not 0 <= value < math.inf
            ):
                raise _bad(name, value, "a time in seconds, 0 or more")

    def scaled(self, per_mb: float, size: int) -> float:
        """A time-out that grows with ``size`` bytes: at least ``default``, at most ``longest``."""
        return max(self.default, min(per_mb * size / MB, self.longest))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How hard to try. ``open_attempts`` 0: without end.

    The custom sequences are text for ``device.lines.parse_sequence``; they replace the port's own.

    :raises UsageError: code ``bad-setting``
    """

    timing: Timing = field(default_factory=Timing)
    connect_attempts: int = 7
    syncs_per_attempt: int = 5
    block_attempts: int = 3
    open_attempts: int = 1
    custom_reset_sequence: str | None = None
    custom_hard_reset_sequence: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be a number of attempts."""
        for name, least in LEAST.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise _bad(name, value, f"a whole number, {least} or more")


def _bad(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"{name} is {value!r}, not {wanted}",
        hint=f"Give {wanted}.",
        code="bad-setting",
        setting=name,
    )
