"""What can go wrong on a wire and with a chip: a schedule of faults with a seed. It decides; wire and chip suffer.

``flip:0.001,drop:1e-4,power@3``: a rate for each chance, or the number of the chance at which it happens once. A chance
is a byte on the wire (``flip drop dup garbage``), a piece of traffic (``delay stall``), a long frame to the chip
(``overflow``), or a command that the chip starts (``reset power``).
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
FIFO_BYTES = 128
RUN_BYTES = 32
WHOLE_PIECE = 0.4  # the share of drops and repetitions that take a whole frame, as a bridge's lost packet does
BURST = 0.25  # the share of flips that hit the same bit of two bytes
GARBAGE_BYTES = 16
DELAY_S = (0.01, 0.3)
STALL_S = (1.0, 6.0)
BITE_S = 0.15  # reset and power hit within this time of a command's start


@dataclass(frozen=True, kw_only=True)
class FaultSpec:
    """How often each kind happens: ``rates`` per chance, ``once`` at the numbered chance (from 1)."""

    rates: Mapping[str, float] = field(default_factory=dict)
    once: Mapping[str, int] = field(default_factory=dict)


def parse_faults(text: str) -> FaultSpec:
    """The schedule in a text like ``flip:0.001,power@3``; empty text is no faults.

    :raises UsageError: (``fault-spec``) no such kind, or no number
    """
    rates: dict[str, float] = {}
    once: dict[str, int] = {}
    for item in filter(None, (piece.strip() for piece in text.split(","))):
        kind, mark, number = item.partition("@" if "@" in item else ":")
        try:
            if kind not in KINDS or not mark:
                raise ValueError
            if mark == "@":
                once[kind] = int(number)
            else:
                rates[kind] = float(number)
            wrong = once.get(kind, 1) < 1 or not 0 <= rates.get(kind, 0) <= 1
        except ValueError:
            wrong = True
        if wrong:
            hint = f"Write kind:rate (0 to 1) or kind@number, with a kind of {', '.join(KINDS)}."
            raise UsageError(f"fault {item!r} is not a fault", hint=hint, code="fault-spec")
    return FaultSpec(rates=rates, once=once)


class Faults:
    """The schedule at work. ``fired`` is what happened: (time, kind)."""

    def __init__(self, spec: FaultSpec, seed: int = 0) -> None:
        self.spec = spec
        self.fired: list[tuple[float, str]] = []
        self._random = random.Random(seed)
        # chances until a kind happens next; kinds that never happen are not in here
        self._left = dict(spec.once)
        for kind, rate in spec.rates.items():
            if rate > 0 and kind not in self._left:
                self._left[kind] = self._gap(rate)
        self._active = bool(self._left)

    def command(self, t: float) -> tuple[str, float] | None:
        """At a command's start: the kind that shall hit the chip, and in how many seconds."""
        for kind in COMMAND_KINDS:
            if self._chance(t, kind, 1) is not None:
                return kind, self._random.uniform(0, BITE_S)
        return None

    def piece(self, t: float, data: bytes, *, to_chip: bool) -> tuple[float, bytes]:
        """What becomes of a piece of traffic: extra seconds on its way, and the bytes that come out."""
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
        """``data`` with as many faults of one kind as fall on it; each falls behind the one before."""
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
        """Spend chances; which of them (from 0) it happens at, or None."""
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
        """Chances up to and with the next hit: geometric."""
        if rate >= 1:
            return 1
        return 1 + int(math.log(1 - self._random.random()) / math.log(1 - rate))
