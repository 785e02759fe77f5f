"""Time-outs and retries as values. Read by the library from its caller only; files and environment are the CLI's."""

from __future__ import annotations

from dataclasses import dataclass, field

MB = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """Seconds; ``*_per_mb`` are seconds for 10**6 bytes. Defaults from ``chips/data/protocol.toml``."""

    default: float = 3.0
    sync: float = 0.1
    write: float = 10.0
    md5_per_mb: float = 8.0
    erase_per_mb: float = 40.0
    write_per_mb: float = 40.0
    chip_erase: float = 120.0
    longest: float = 240.0
    baud_settle: float = 0.05

    def scaled(self, per_mb: float, size: int) -> float:
        """A time-out that grows with ``size`` bytes, at least ``default``."""
        return max(self.default, per_mb * size / MB)


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How hard to try."""

    timing: Timing = field(default_factory=Timing)
    connect_attempts: int = 7
    syncs_per_attempt: int = 5
    block_attempts: int = 3
