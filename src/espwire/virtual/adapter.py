"""The USB adapter in front of a virtual chip: the baud rates that it can set, and the bytes that it damages or loses.

Adapters: a CP2102 silently refuses a rate above its highest one and stays where it is; a CH340 and a PL2303 round to
the nearest rate that they have. Sources: AN205 of the CP2102, the divider in the Linux driver of the CH340, and the
list of rates in that of the PL2303.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from espwire.errors import UsageError

LONGEST_RUN = 32  # bytes that a loss takes
DROPS = 0.3  # share of errors that are losses; the others flip a bit
PAUSE_S = 0.001  # of the line, which ends a burst

Curve = Mapping[int, tuple[float, float]]


def parse_errors(text: str) -> Curve:
    """Parse ``921600:0,2000000:1e-3/1e-2``: error probability per byte by baud rate, to the chip and to the host.

    :raises UsageError: code ``fault-spec``
    """
    curve: dict[int, tuple[float, float]] = {}
    for item in filter(None, (item.strip() for item in text.split(","))):
        rate, _, chances = item.partition(":")
        to_chip, _, to_host = chances.partition("/")
        try:
            pair = float(to_chip), float(to_host or to_chip)
            if not all(0 <= chance <= 1 for chance in pair) or int(rate) <= 0:
                raise ValueError
        except ValueError:
            raise UsageError(
                f"{item!r} is not a valid error rate",
                hint="Write rate:probability, or rate:to-chip/to-host, such as 2000000:1e-4/1e-2.",
                code="fault-spec",
            ) from None
        curve[int(rate)] = pair
    return curve


def _set_cp2102(wanted: int, before: int) -> int:
    return wanted if wanted <= 921_600 else before


def _set_ch340(wanted: int, before: int) -> int:
    """12 MHz divided by 9 to 256, or 6 MHz divided by 2 to 256."""
    rates = [round(12e6 / n) for n in range(9, 257)] + [round(6e6 / n) for n in range(2, 257)]
    return min(rates, key=lambda rate: abs(rate - wanted)) if wanted > 50_000 else wanted


def _set_pl2303(wanted: int, before: int) -> int:
    fixed = (115_200, 230_400, 460_800, 614_400, 921_600, 1_228_800, 2_457_600, 3_000_000)
    return min(fixed, key=lambda rate: abs(rate - wanted)) if wanted > 115_200 else wanted


# the rate that is set, from the wanted one and the one before
ADAPTERS: Mapping[str, Callable[[int, int], int]] = {
    "any": lambda wanted, before: wanted,
    "cp2102": _set_cp2102,
    "ch340": _set_ch340,
    "pl2303": _set_pl2303,
}


@dataclass
class _Burst:
    """Bytes in a row in one direction, and when the last of them ended."""

    size: int = 0
    until: float = -math.inf


class Adapter:
    """One adapter. ``burst``: it loses what exceeds so many bytes without a pause of the line; 0: nothing."""

    def __init__(self, name: str, errors: Curve, burst: int, seed: int) -> None:
        self.find_rate, self.errors, self.burst = ADAPTERS[name], errors, burst
        self._random = random.Random(seed)
        self._bursts = {True: _Burst(), False: _Burst()}

    def carry(self, begin: float, end: float, data: bytes, rate: int, *, to_chip: bool) -> bytes:
        """What arrives of ``data``, which is on the line from ``begin`` to ``end`` at ``rate``."""
        if self.burst:
            burst = self._bursts[to_chip]
            burst.size = (burst.size if begin - burst.until < PAUSE_S else 0) + len(data)
            burst.until = end
            data = data[: max(0, len(data) - max(0, burst.size - self.burst))]
        chance = self.errors[rate][not to_chip] if rate in self.errors else 0.0
        return self._spoil(data, chance) if chance else data

    def _spoil(self, data: bytes, chance: float) -> bytes:
        pick, out, at = self._random, bytearray(), 0
        while (hit := at + self._gap(chance)) < len(data):
            out += data[at:hit]
            if pick.random() < DROPS:
                at = hit + pick.randint(1, LONGEST_RUN)
            else:
                out.append(data[hit] ^ 1 << pick.randrange(8))
                at = hit + 1
        return bytes(out) + data[at:]

    def _gap(self, chance: float) -> int:
        """Good bytes before the next bad one: geometric."""
        return int(math.log(1 - self._random.random()) / math.log(1 - chance)) if chance < 1 else 0
