"""Schedules faults of the line and the chip, from a seed. ``line.py`` and ``chip.py`` apply them.

``flip:0.001,drop:1e-4,power@3``: a rate per chance, or the number of the chance at which it happens once. A chance is a
byte on the line (``flip drop dup garbage``), a piece of traffic (``delay stall``), a long frame to the chip
(``overflow``), a command that the chip starts (``reset power``), or a burn of eFuses that loses its supply (``burn``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from espwire.errors import UsageError

BYTE_KINDS = ("flip", "drop", "dup", "garbage")
PIECE_KINDS = ("delay", "stall")
FRAME_KINDS = ("overflow",)
COMMAND_KINDS = ("reset", "power")
KINDS = BYTE_KINDS + PIECE_KINDS + FRAME_KINDS + COMMAND_KINDS
BURN_KINDS = ("burn",)  # not in KINDS: only commands that burn eFuses give it a chance
FIFO_BYTES = 128
RUN_BYTES = 32
WHOLE_PIECE = (
    0.4  # share of drops and repetitions that affect a whole frame, like a packet lost by a bridge
)
BURST = 0.25  # share of flips that affect the same bit of two bytes
GARBAGE_BYTES = 16
DELAY_S = (0.01, 0.3)
STALL_S = (1.0, 6.0)
DELAY_OF_RESET_S = 0.15  # a reset or power loss happens within this time of a command's start


@dataclass(frozen=True, kw_only=True)
class FaultSpec:
    """``rates`` per chance, ``once``: number of the chance (from 1), by kind."""

    rates: Mapping[str, float] = field(default_factory=dict)
    once: Mapping[str, int] = field(default_factory=dict)


def parse_faults(text: str) -> FaultSpec:
    """Parse a schedule such as ``flip:0.001,power@3``; an empty text means no faults.

    :raises UsageError: (``fault-spec``) unknown kind, or an invalid number
    """
    rates: dict[str, float] = {}
    once: dict[str, int] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        kind, mark, number = item.partition("@" if "@" in item else ":")
        try:
            if kind not in (*KINDS, *BURN_KINDS) or not mark:
                raise ValueError
            if mark == "@":
                once[kind] = int(number)
            else:
                rates[kind] = float(number)
            invalid = once.get(kind, 1) < 1 or not 0 <= rates.get(kind, 0) <= 1
        except ValueError:
            invalid = True
        if invalid:
            hint = f"Write kind:rate (0 to 1) or kind@number, with a kind of {', '.join((*KINDS, *BURN_KINDS))}."
            raise UsageError(f"{item!r} is not a valid fault", hint=hint, code="fault-spec")
    return FaultSpec(rates=rates, once=once)


class Faults:
    """A running schedule. ``fired`` is what has happened: (time, kind)."""

    def __init__(self, spec: FaultSpec, seed: int = 0) -> None:
        self.spec = spec
        self.fired: list[tuple[float, str]] = []
        self._random = random.Random(seed)
        # chances until a kind happens next; without kinds that never happen
        self._left = dict(spec.once)
        for kind, rate in spec.rates.items():
            if rate > 0 and kind not in self._left:
                self._left[kind] = self._gap(rate)
        self._active = bool(self._left)

    def command(self, t: float) -> tuple[str, float] | None:
        """Called at a command's start: the kind of fault for the chip, and in how many seconds it happens."""
        for kind in COMMAND_KINDS:
            if self._chance(t, kind, 1) is not None:
                return kind, self._random.uniform(0, DELAY_OF_RESET_S)
        return None

    def burn(self, t: float, seconds: float) -> float | None:
        """Called when a burn of eFuses starts, which takes ``seconds``: after how many of them the supply fails."""
        if self._chance(t, "burn", 1) is None:
            return None
        return self._random.uniform(0, seconds)

    def piece(self, t: float, data: bytes, *, to_chip: bool) -> tuple[float, bytes]:
        """Apply faults to a piece of traffic: returns its delay in seconds, and the bytes that arrive."""
        if not self._active or not data:
            return 0.0, data
        wait = 0.0
        if self._chance(t, "delay", 1) is not None:
            wait += self._random.uniform(*DELAY_S)
        if self._chance(t, "stall", 1) is not None:
            wait += self._random.uniform(*STALL_S)
        if to_chip and len(data) > FIFO_BYTES and self._chance(t, "overflow", 1) is not None:
            start = self._random.randrange(FIFO_BYTES, len(data))
            data = data[:start] + data[start + self._random.randint(1, FIFO_BYTES) :]
        for kind in BYTE_KINDS:
            data = self._spoil(t, kind, data)
        return wait, data

    def _spoil(self, t: float, kind: str, data: bytes) -> bytes:
        """Apply the faults of a kind to ``data``; each comes after the one before."""
        done, start = bytearray(), 0
        while (at := self._chance(t, kind, len(data) - start)) is not None:
            position = start + at
            done += data[start:position]
            size = self._random.randint(1, RUN_BYTES)
            if kind in ("drop", "dup") and self._random.random() < WHOLE_PIECE:
                return b"" if kind == "drop" else data * 2
            match kind:
                case "flip":
                    run = bytearray(data[position : position + size])
                    bit = 1 << self._random.randrange(8)
                    run[0] ^= bit
                    # an even number of flips in one column: a XOR checksum does not see it
                    if len(run) > 1 and self._random.random() < BURST:
                        run[-1] ^= bit
                    done += run
                    start = position + len(run)
                case "drop":
                    start = min(position + size, len(data))
                case "dup":
                    done += data[position : position + size]
                    done += data[position : position + size]
                    start = min(position + size, len(data))
                case _:
                    done += self._random.randbytes(self._random.randint(1, GARBAGE_BYTES))
                    done.append(data[position])
                    start = position + 1
        return bytes(done) + data[start:] if start else data

    def _chance(self, t: float, kind: str, chances: int) -> int | None:
        """Use up chances; the index of the chance at which the kind happens, or None."""
        left = self._left.get(kind)
        if left is None or chances <= 0:
            return None
        if left > chances:
            self._left[kind] = left - chances
            return None
        rate = self.spec.rates.get(kind, 0.0)
        if rate > 0 and kind not in self.spec.once:
            self._left[kind] = self._gap(rate)
        else:
            del self._left[kind]
        self.fired.append((t, kind))
        return left - 1

    def _gap(self, rate: float) -> int:
        """Chances up to and including the next fault: geometric."""
        if rate >= 1:
            return 1
        return 1 + int(math.log(1 - self._random.random()) / math.log(1 - rate))
