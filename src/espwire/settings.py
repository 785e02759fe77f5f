"""Timeouts and numbers of attempts. The library takes them from its caller only, never from files or the environment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from espwire.errors import UsageError

MB = 1_000_000


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
        """A timeout that grows with ``size`` bytes: at least ``default``, at most ``longest``."""
        return max(self.default, min(per_mb * size / MB, self.longest))


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often anything is attempted, the first time included. ``device.loader`` applies these numbers.

    The first group is for users to set. Requests that are not in this table are sent once: a register write, for
    example, because repeating it may have an effect.

    Attempts multiply where they nest. A READ_REG that is never answered is sent ``request_attempts`` times; the flash
    block around a failing request is repeated ``block_attempts`` times at one place, and all blocks of a transfer
    together at most ``restarts_per_block_attempt * block_attempts`` times. A slow read nests that twice: the request for
    4 or 64 bytes in the read of a piece of 64 KiB.

    :raises UsageError: code ``bad-setting``
    """

    open_attempts: int = 1  # opening the port; 0: without limit
    connect_attempts: int = 7  # reset, then SYNC
    syncs_per_attempt: int = 5  # SYNC after each reset
    block_attempts: int = 3  # one block of a transfer to or from flash or RAM, or one range to hash

    # requests
    request_attempts: int = 2  # without a reply, if the chip may carry the request out twice
    damaged_attempts: int = 3  # reported by our stub as damaged, and not carried out
    agreement_attempts: int = 8  # answers of a ROM, which have no checksum, until two agree
    memory_batch_attempts: int = 2  # a batch of memory words, each time with request_attempts
    unstable_word_attempts: int = 6  # further reads of a memory word whose value keeps changing
    # back in step after a lost reply
    resync_attempts: int = 2  # SYNC
    abort_attempts: int = 4  # ABORT, which our stub takes in the middle of a stream
    # connecting
    reopen_attempts: int = 8  # a port that a reset took away, once it is listed again
    security_info_attempts: int = 2  # GET_SECURITY_INFO during detection
    detect_attempts: int = 3  # detection, until a second answer names the same chip
    capabilities_attempts: int = 3  # CAPABILITIES of a running stub
    attach_attempts: int = 3  # connecting the flash chip by registers
    flash_id_attempts: int = 2  # power, attach and JEDEC id of a flash chip that stays silent
    # transfers
    restarts_per_block_attempt: int = 10  # a whole write or slow read, in total
    stream_attempts: int = 13  # a stream of our stub, from one position
    stream_restarts_per_block_attempt: int = 30  # a stream of our stub, in total
    read_attempts: int = 3  # a piece of flash whose MD5 differs from what was read
    read_restarts: int = 30  # a read that lost answers, in total
    # a long read over a bad line: replies that may be lost, and one more for each so many requests
    lost_replies: int = 30
    requests_per_lost_reply: int = 50

    def __post_init__(self) -> None:
        """Refuse what cannot be a number of attempts."""
        for name in (one.name for one in fields(self)):
            value, least = getattr(self, name), int(name != "open_attempts")
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise _bad(name, value, f"a whole number, {least} or more")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be tuned.

    The custom sequences are text for ``device.reset_sequences.parse_sequence``; they replace the port's own.
    """

    timing: Timing = field(default_factory=Timing)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    custom_reset_sequence: str | None = None
    custom_hard_reset_sequence: str | None = None


def _bad(name: str, value: object, wanted: str) -> UsageError:
    return UsageError(
        f"{name} is {value!r}, not {wanted}",
        hint=f"Give {wanted}.",
        code="bad-setting",
        setting=name,
    )
