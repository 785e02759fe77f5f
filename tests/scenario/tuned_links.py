"""Seeded links with an error rate per baud rate, and the rate that is best on each: the harness of test_line_tuner.py.

The best rate is found by jobs at fixed rates, without tuning. A rate is not tried where even a perfect line would take
longer than the best one so far.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.line_tuner import RATES
from espwire.device.loader import BITS_PER_BYTE
from espwire.errors import ToolError
from espwire.flash.read import read_flash
from espwire.flash.write import write_flash
from espwire.virtual.transport import open_virtual

SIZE, BASE = 0x100000, 0x10000
CHIPS = ("esp32", "esp32c3", "esp8266")
PROFILES = ("typ", "fast", "instant")
LATENCIES = ("0.001", "0.004")
SAFE = 230_400  # up to this rate there are no errors: no chip could be found otherwise
LEAST_PACKED = 0.6  # of the data, which takes at least so much of its size on the line
CLOSE = 1.02  # a rate that takes so little longer than the best one is as good


@cache
def make_data() -> bytes:
    """About as compressible as firmware."""
    pick, out = random.Random(5), bytearray()
    while len(out) < SIZE:
        out += pick.randbytes(166) + bytes(90)
    return b"\0" + bytes(out[1:SIZE])


@dataclass(frozen=True)
class Link:
    """A board behind an adapter, and the job: ``write`` or ``read`` a MiB."""

    seed: int
    job: str
    chip: str
    profile: str
    latency: str
    adapter: str = "any"
    errors: tuple[tuple[int, float, float], ...] = ()

    def make_url(self) -> str:
        """The port."""
        url = f"virtual:{self.chip}?size=2MB&profile={self.profile}&latency={self.latency}"
        errors = ",".join(f"{rate}:{down:.3g}/{up:.3g}" for rate, down, up in self.errors)
        return f"{url}&adapter={self.adapter}&errors={errors}&seed={self.seed}"


@dataclass(frozen=True)
class Outcome:
    """How a job ended: seconds, and the baud rate at the end. ``error``: the code of its error; empty: success."""

    seconds: float
    rate: int
    error: str = ""


class FalseSuccess(AssertionError):
    """A job that succeeded with the wrong content."""


def make_link(seed: int) -> Link:
    """The link of a seed."""
    pick = random.Random(seed)
    top = [rate for rate in RATES if rate > SAFE]
    kind = pick.choice(("limit", "slope", "holes", "adapter"))
    chances = dict.fromkeys(top, 0.0)
    if kind == "limit":
        limit = pick.choice(top)
        chances |= {rate: pick.choice((0.01, 0.1, 1.0)) for rate in top if rate > limit}
    elif kind == "slope":
        first = pick.randrange(len(top))
        for index, rate in enumerate(top[first:]):
            chances[rate] = min(1.0, 10 ** (pick.uniform(-6, -4) + index))
    elif kind == "holes":
        chances |= {rate: pick.choice((0.0, 0.0, 1e-5, 1e-4, 1e-3, 1.0)) for rate in top}
    one_way = pick.choice(("both", "both", "to chip", "to host"))
    errors = tuple(
        (rate, 0.0 if one_way == "to host" else chance, 0.0 if one_way == "to chip" else chance)
        for rate, chance in chances.items()
    )
    return Link(
        seed,
        pick.choice(("write", "write", "write", "read")),
        pick.choice(CHIPS),
        pick.choice(PROFILES),
        pick.choice(LATENCIES),
        pick.choice(("cp2102", "ch340", "pl2303")) if kind == "adapter" else "any",
        errors,
    )


def run(link: Link, rate: int | None = None) -> Outcome:
    """Do the job: tuned, or at a fixed rate.

    :raises FalseSuccess: it succeeded with the wrong content
    """
    transport = open_virtual(link.make_url())
    contents, data = transport.chip.flash.contents, make_data()
    contents[:] = random.Random(link.seed).randbytes(len(contents))
    if link.job == "read":
        contents[BASE : BASE + SIZE] = data
    now, error = rate or 0, ""
    try:
        with connect(transport, baud="auto" if rate is None else rate) as device:
            if rate is not None:
                device.loader.tuner = None
            if link.job == "read":
                found = read_flash(device, BASE, SIZE)
            else:
                write_flash(device, [Blob(BASE, data)])
                found = bytes(contents[BASE : BASE + SIZE])
            now = device.loader.baud
            if found != data:
                raise FalseSuccess(link)
    except ToolError as failure:
        error = failure.code
    return Outcome(transport.now(), now, error)


@cache
def _run_perfect(
    job: str, chip: str, profile: str, latency: str, adapter: str, rate: int
) -> Outcome:
    return run(Link(1, job, chip, profile, latency, adapter), rate)


def find_best(link: Link) -> dict[int, float]:
    """Seconds of the job by rate, for all rates that can be the best."""
    times: dict[int, float] = {}
    errors = {rate: max(pair) for rate, *pair in link.errors}
    for rate in reversed(RATES):
        most = CLOSE * min(times.values(), default=float("inf"))
        key = (link.job, link.chip, link.profile, link.latency)
        if LEAST_PACKED * SIZE * BITS_PER_BYTE / rate > most or errors.get(rate) == 1:
            continue
        outcome = _run_perfect(*key, link.adapter, rate)
        if errors.get(rate) and outcome.seconds <= most:
            outcome = run(link, rate)
        if not outcome.error:
            times[rate] = outcome.seconds
    return times


def count_steps(rate: int, times: dict[int, float], close: float = 1.0) -> int:
    """Steps in the list of rates from ``rate`` to the best one, or to the nearest that is close to it."""
    best = min(times.values())
    return min(
        abs(RATES.index(rate) - RATES.index(other))
        for other, seconds in times.items()
        if seconds <= close * best
    )
