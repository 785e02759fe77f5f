"""What came instead of an answer, and what listening once more brings. Judges nothing: ``diagnosis.py`` does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any

from espwire.chips.model import Chip
from espwire.device.loader import Loader
from espwire.device.overheard import TEXT_LIMIT
from espwire.events import Note, Report, silent
from espwire.link.base import Link
from espwire.values import dataclass
from espwire.wire.banner import find_boots, printable_share

# usual rates, the likely ones first: the ESP8266's boot text, old sketches, fast logs
OTHER_RATES = (74880, 9600, 57600, 230400, 460800, 921600, 38400, 19200, 1_500_000, 2_000_000)
BOOT_TEXT_RATE = 74880  # protocol.toml [link]: what a ROM says at start can only be at this or the usual rate
LISTEN_S = 1.2  # per rate, and after a plain restart: programs that log at all do so about once a second
ROUNDS, ROUND_S = 3, 0.6
ENOUGH_TEXT = 64
LEAST_TEXT = 12
TEXT_SHARE = 0.95
LEAST_GARBAGE = 6
HOLD_S = 0.25  # a large capacitor at EN needs its time, and then the ROM's boot text must come
UNDER_WAY_S = 0.015  # what the chip said before it was stopped has arrived by then


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was done and what came. Bytes are as received; ``text`` is their printable part.

    ``attempts``: what came after each reset, in order; ``before``: what came before the first one; ``after``: what came
    when nothing more was done; ``at_rates``: what was heard at other rates, ``rounds``: the same after each of a few
    resets at the rate that a ROM may talk at; ``restarted``: what came after a plain restart, None if not tried;
    ``while_held``: what came while RTS was asserted, which should keep the chip still.
    """

    raw: bytes = field(default=b"", repr=False)
    text: str = ""
    sequences: tuple[str, ...] = ()
    can_reset: bool = True
    baud: int = 115200
    chip: Chip | None = None
    attempts: tuple[bytes, ...] = ()
    before: bytes = field(default=b"", repr=False)
    after: bytes = field(default=b"", repr=False)
    at_rates: Mapping[int, bytes] = field(default_factory=dict)
    rounds: tuple[bytes, ...] = ()
    restarted: bytes | None = field(default=None, repr=False)
    while_held: bytes = field(default=b"", repr=False)

    @property
    def was_reset(self) -> bool:
        """Whether any line was moved."""
        return bool(self.sequences) and self.can_reset


def examine(
    loader: Loader,
    *,
    sequences: tuple[str, ...],
    chip: Chip | None = None,
    reset: Callable[[], None] | None = None,
    report: Report = silent,
) -> Evidence:
    """After all attempts failed: put together what came, and listen once more where that tells more.

    Garbage: at other rates, with a few resets for the rate that a ROM may talk at. Silence after resets, or a loader
    that does not answer: one plain restart. Leaves rate and lines as a closed port has them. Lines are moved only if
    ``sequences`` moved them before.

    :param sequences: names of the reset sequences that were played; empty if none was
    :param reset: plays one of them once more
    :raises LinkError, Cancelled: as the link does
    """
    link = loader.link
    *earlier, last = loader.heard
    before, attempts = (earlier[0], (*earlier[1:], last)) if earlier and sequences else (b"", (*earlier, last))
    heard = b"".join(attempts)
    evidence: dict[str, Any] = {}
    # native USB: a reset takes the port away, and there is no rate to be wrong
    moved = bool(sequences) and link.info.can_reset and link.info.kind in ("uart", "virtual")
    booted = bool(find_boots(readable(heard)))
    after = _listen(link, LISTEN_S, TEXT_LIMIT) if heard else b""
    fell_silent = not booted and not after and not any(attempts[1:])
    if moved and (fell_silent or _reached_loader(readable(heard))):
        evidence["while_held"], evidence["restarted"] = _restart(link)
    gone = fell_silent and moved and not any(evidence.values())
    if is_garbage(heard) and not booted and not gone and link.info.can_change_baud:
        report(Note(text=f"what comes is no text at {loader.baud} baud: listening at other rates"))
        evidence |= _listen_at_rates(loader, reset if moved else None)
    return Evidence(
        raw=before + heard + after,
        text=readable(before + heard + after),
        sequences=sequences,
        can_reset=link.info.can_reset,
        baud=loader.baud,
        chip=chip,
        attempts=attempts,
        before=before,
        after=after,
        **evidence,
    )


def is_garbage(data: bytes) -> bool:
    """Whether a good part of it is no text."""
    bad = len(data) * (1 - printable_share(data))
    return bad >= LEAST_GARBAGE and printable_share(data) < TEXT_SHARE


def readable(data: bytes) -> str:
    """The printable part, and line ends."""
    return "".join(chr(byte) for byte in data if 0x20 <= byte <= 0x7E or byte in b"\t\r\n")


def _listen_at_rates(loader: Loader, reset: Callable[[], None] | None) -> dict[str, Any]:
    """What comes at each usual rate, up to the first at which it is text without doubt; as fields of Evidence.

    Where that text says that the chip reached its loader, a plain restart at that rate follows.
    """
    link = loader.link
    found: dict[int, bytes] = {}
    evidence: dict[str, Any] = {"at_rates": found}
    try:
        for rate in OTHER_RATES:
            if rate == loader.baud:
                continue
            link.set_baud(rate)
            link.discard_input()
            if reset is not None and rate == BOOT_TEXT_RATE:
                rounds = []
                for _ in range(ROUNDS):
                    reset()
                    rounds.append(_listen(link, ROUND_S, TEXT_LIMIT))
                data, evidence["rounds"] = b"".join(rounds), tuple(rounds)
                if _reached_loader(readable(data)):
                    evidence["while_held"], evidence["restarted"] = _restart(link)
                elif not find_boots(readable(data)):
                    data += _listen(link, LISTEN_S, ENOUGH_TEXT)
            else:
                data = _listen(link, LISTEN_S, TEXT_LIMIT if rate == BOOT_TEXT_RATE else ENOUGH_TEXT)
            found[rate] = data
            if len(data) >= LEAST_TEXT and (printable_share(data) == 1.0 or find_boots(readable(data))):
                break
    finally:
        link.set_baud(loader.baud)
    return evidence


def _reached_loader(text: str) -> bool:
    return any(boot.download for boot in find_boots(text))


def _restart(link: Link) -> tuple[bytes, bytes]:
    """A plain restart, the boot pin left alone: what came while RTS was asserted, and what after."""
    link.set_lines(dtr=False, rts=True)
    link.sleep(UNDER_WAY_S)
    link.discard_input()
    held = _listen(link, HOLD_S, ENOUGH_TEXT)
    link.set_lines(dtr=False, rts=False)
    return held, _listen(link, LISTEN_S, ENOUGH_TEXT)


def _listen(link: Link, seconds: float, enough: int) -> bytes:
    """What comes within ``seconds``, up to about ``enough`` bytes."""
    heard, deadline = b"", link.now() + seconds
    while len(heard) < enough and (left := deadline - link.now()) > 0:
        heard += link.read(left)
    return heard
