"""Finds the fastest baud rate that carries data reliably, and leaves one at which a transfer loses too much.

Before a long transfer, ``tune`` tries rates of ``RATES``, which the stub limits in time: without a request that arrives
undamaged, it returns to the rate before after ``TRIAL_MS``. So no rate can cut the connection. At each rate, requests
with random content are sent in one burst and all replies are awaited; both carry a CRC-32.

Each rate has a score per direction: the rate that data effectively gets, in baud. It begins with the rate itself, so
what is unknown looks good; a trial or a transfer that loses data lowers it. The next rate is always the one with the
best score. Errors need not grow with the rate, and a rate that failed is not tried first again. A transfer that is
worse than the best other score is interrupted and continues there:

==========================================  ==================================================================
event                                       what happens
==========================================  ==================================================================
trial: all replies came                     the rate is confirmed and used
trial: some are missing                     score from their share; used if no other rate has a better one
trial: none came, or the port refuses       score 0; wait until the stub has returned to the rate before
transfer loses data at a rate               first a small window at the same rate, then the rate with the next best score
no better score is left                     the transfer continues until its own limits of attempts
transfer ends                               the rate is remembered for this adapter and chip, and tried first
==========================================  ==================================================================
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

from espwire.device.baud import ROM_BAUD
from espwire.device.loader import BITS_PER_BYTE, Direction, Loader
from espwire.errors import CommandFailed, NoReply, TransportError, TransportLost
from espwire.events import Note, Report
from espwire.protocol.commands import ChangeBaudrate, Request, SpiFlashMd5
from espwire.protocol.replies import BAD_LENGTH
from espwire.protocol.stub import AskCapabilities, Batch, Feature, StubOp, TrialBaudrate

UPLOAD_BAUD = 460_800  # for the upload of a stub, where the chip can be reset if that fails
# both families: multiples of 115200, and divisors of the adapters' 12, 24 and 48 MHz
RATES = (ROM_BAUD, 230_400, UPLOAD_BAUD, 921_600, 1_000_000, 1_500_000, 2_000_000)
USUAL_RATE = 921_600  # that most adapters have
PROBE_BUDGET_S = 0.5
TRIAL_MS = 100
TRIAL_S = TRIAL_MS / 1000 + 0.012  # the stub counts only while it waits
REPLY_S = 0.2  # for one reply
ANSWER_S = 0.025  # for the stub's work on a burst, and for the adapter
BURST_S = 0.02  # on the line
LEAST_FRAMES = 4
FRAME_BYTES = 512  # of a request that is longer than a batch may be; the stub refuses it if it arrives undamaged
HEADS = 32  # bytes of a frame apart from its content, escapes included
LOSS_BYTES = 0x2000  # that an error costs: what was under way
LEAST_LOSSES = 3  # before a transfer is judged
BETTER = 0.9  # another score must exceed the present one by this factor
SMALL_WINDOW = 0.7  # of the rate
MOST_CHANGES = 3 * len(RATES)
SMALLEST_NOTE = 0x10000  # bytes that prove a rate
SEARCHES = 6  # for the stub, after a trial
DEAF_S = 3.0  # that an adapter may need after a change of its rate


class Choice(NamedTuple):
    """A rate, and whether the window of the direction is small."""

    rate: int
    small: bool = False


class RateMemory:
    """Which rate was stable in earlier sessions, per direction. This one remembers nothing."""

    def find_rate(self, direction: Direction) -> int | None:
        """The rate of the last long transfer."""
        return None

    def note_rate(self, direction: Direction, rate: int) -> None:
        """A long transfer ended at this rate."""


class LineTuner:
    """Chooses the rate of one connection to our stub.

    :param most: the highest rate; with ``probes`` False, the rate that the user wants
    """

    def __init__(
        self,
        loader: Loader,
        report: Report,
        *,
        most: int = RATES[-1],
        probes: bool = True,
        memory: RateMemory | None = None,
    ) -> None:
        self._loader, self._report, self._probes = loader, report, probes
        self._memory = memory or RateMemory()
        self._rates = tuple(sorted({*(rate for rate in RATES if rate <= most), loader.baud}))
        self._scores: dict[tuple[Direction, Choice], float] = {}
        self._small: set[Direction] = set()
        self._proven: dict[Direction, int] = {"write": 0, "read": 0}
        self._changes = 0
        self._random = random.Random(1)
        self.stable_baud: int | None = None

    # --- for transfers ---

    def tune(self, direction: Direction, size: int) -> None:
        """Look for the best rate for ``size`` bytes on the line, if that takes less time than it saves.

        :raises NoReply: the stub no longer replies
        """
        loader = self._loader
        gain = size * BITS_PER_BYTE * (1 / loader.baud - 1 / self._rates[-1])
        if not self._probes or gain < PROBE_BUDGET_S:
            return
        remembered = self._memory.find_rate(direction)
        if remembered in self._rates:
            for rate in self._rates:
                for choice in (Choice(rate), Choice(rate, small=True)) if rate > remembered else ():
                    self._scores.setdefault((direction, choice), BETTER * remembered)
        self._move(direction, PROBE_BUDGET_S)

    def note(self, direction: Direction, size: int) -> None:
        """``size`` bytes were transferred completely."""
        self.stable_baud = self._loader.baud
        self._proven[direction] += size
        if self._probes and self._proven[direction] >= SMALLEST_NOTE:
            self._memory.note_rate(direction, self._loader.baud)

    def has_small_window(self, direction: Direction) -> bool:
        """Whether few bytes may be on their way at once."""
        return direction in self._small

    def is_bad(self, direction: Direction, losses: int, lost_share: float) -> bool:
        """Whether a transfer that lost this share of its time should continue at another rate, or with a small window."""
        if losses < LEAST_LOSSES or self._changes >= MOST_CHANGES:
            return False
        now = self._find_present(direction)
        effective = self._find_speed(now) * (1 - lost_share)
        others = [choice for choice in self._list_choices(direction) if choice != now]
        return any(BETTER * self._score(direction, other) > effective for other in others)

    def leave(self, direction: Direction, lost_share: float) -> bool:
        """Use another rate, or a small window. False: none is better.

        :raises NoReply: the stub no longer replies
        """
        if self._changes >= MOST_CHANGES:
            return False
        self._changes += 1
        now = self._find_present(direction)
        self._scores[direction, now] = self._find_speed(now) * (1 - lost_share)
        self._proven[direction] = 0
        smaller = Choice(now.rate, small=True)
        if (direction, smaller) not in self._scores and not now.small and lost_share < 1:
            self._small.add(direction)
            return True
        # whatever is being programmed ends first
        self._loader.call(SpiFlashMd5(0, 4), result=16, repeatable=True)
        return self._move(direction, math.inf)

    # --- inside ---

    def _find_present(self, direction: Direction) -> Choice:
        return Choice(self._loader.baud, direction in self._small)

    @staticmethod
    def _find_speed(choice: Choice) -> float:
        return choice.rate * (SMALL_WINDOW if choice.small else 1.0)

    def _score(self, direction: Direction, choice: Choice) -> float:
        return self._scores.get((direction, choice), self._find_speed(choice))

    def _list_choices(self, direction: Direction) -> list[Choice]:
        """All, the fastest first; a small window only where a large one has failed."""
        full = [Choice(rate) for rate in reversed(self._rates)]
        small = [
            Choice(rate, small=True)
            for rate, _ in full
            if (direction, Choice(rate)) in self._scores
        ]
        return full + small

    def _move(self, direction: Direction, budget: float) -> bool:
        """Use the choice with the best score; whether it is another one than before."""
        loader, before = self._loader, self._find_present(direction)
        began, longest, tried = loader.transport.now(), 0.0, set[Choice]()
        while (choices := self._rank(direction, tried))[0].rate != loader.baud:
            spent = loader.transport.now() - began
            best = self._pick(direction, choices, budget - spent, longest)
            if spent + longest > budget:
                break
            tried.add(best)
            enough = max(self._score(direction, other) for other in choices if other != best)
            self._try(best, direction, enough)
            longest = max(longest, loader.transport.now() - began - spent)
            if best.rate == loader.baud:
                self._use_window(direction, best)
        else:
            self._use_window(direction, choices[0])
        if loader.baud != before.rate:
            self._report(Note(text=f"changed the baud rate to {loader.baud}"))
        return self._find_present(direction) != before

    def _rank(self, direction: Direction, tried: set[Choice]) -> list[Choice]:
        """The present choice and those that were not tried, the best first."""
        present = self._find_present(direction)
        choices = [c for c in self._list_choices(direction) if c not in tried and c != present]
        return sorted([present, *choices], key=lambda choice: -self._score(direction, choice))

    def _pick(
        self, direction: Direction, choices: list[Choice], left: float, longest: float
    ) -> Choice:
        """The best one, or one that most lines can carry, if there may be no time for more."""
        present = self._loader.baud
        usual = UPLOAD_BAUD if present < UPLOAD_BAUD and not longest else USUAL_RATE
        safer = Choice(usual)
        due = usual == UPLOAD_BAUD or 2 * longest > left
        helps = present < usual < choices[0].rate and (direction, safer) not in self._scores
        return safer if due and helps and safer in choices else choices[0]

    def _use_window(self, direction: Direction, choice: Choice) -> None:
        (self._small.add if choice.small else self._small.discard)(direction)

    def _try(self, choice: Choice, direction: Direction, enough: float) -> None:
        """Try a rate. It stays in use if all frames arrive, or if the others have no better score than ``enough``."""
        loader, before = self._loader, self._loader.baud
        frames = self._plan_frames(choice.rate, direction)
        sent, arrived = loader.transport.now(), 0
        try:
            loader.call(TrialBaudrate(choice.rate, before, TRIAL_MS), timeout=REPLY_S)
        except (NoReply, CommandFailed):
            self._lower(direction, choice.rate, 0.0)
            loader.transport.sleep(TRIAL_S)
            self._find_again(before, before)
            return
        replied_at = loader.transport.now()
        try:
            self._set_port(choice.rate)
            arrived, replied_at = self._exchange(frames, replied_at - sent, replied_at)
        except TransportLost:
            raise
        except TransportError:  # the driver refuses the rate
            pass
        if arrived == len(frames) and self._confirm(choice.rate):
            return
        share = min(arrived, len(frames) - 1) / len(frames)
        self._lower(direction, choice.rate, share)
        if self._score(direction, choice) > enough:
            self._find_again(before, choice.rate, before)
            return
        settle_s = loader.settings.timing.baud_settle
        loader.transport.sleep(max(0.0, replied_at + TRIAL_S - settle_s - loader.transport.now()))
        # an adapter may have refused the rate silently: only where replies came has the stub been there
        self._find_again(before, before, *[choice.rate] * bool(arrived))

    def _lower(self, direction: Direction, rate: int, share: float) -> None:
        """Lower the scores of a rate at which this share of frames arrived."""
        for choice in (Choice(rate), Choice(rate, small=True)):
            score = _estimate(self._find_speed(choice), share)
            self._scores[direction, choice] = min(score, self._score(direction, choice))

    def _plan_frames(self, rate: int, direction: Direction) -> list[bytes]:
        """Requests that take about ``BURST_S``: long ones with short replies, or the other way round."""
        count = max(LEAST_FRAMES, int(BURST_S * rate / BITS_PER_BYTE / FRAME_BYTES))
        pick = self._random
        if direction == "write":
            bodies = [pick.randbytes(FRAME_BYTES + 4) for _ in range(count)]
            return [Request(StubOp.BATCH, 0, body).packet() for body in bodies]
        long_replies = [AskCapabilities().request()] * 7
        digests = [
            [SpiFlashMd5(pick.randrange(0x10000), 16).request() for _ in range(2)]
            for _ in range(count)
        ]
        return [Batch((*long_replies, *pair)).packet() for pair in digests]

    def _exchange(self, frames: list[bytes], trip: float, replied_at: float) -> tuple[int, float]:
        """Send all; how many replies show that both ways were good, and when the last of them came."""
        loader, good = self._loader, 0
        loader.begin_pipeline()
        began = loader.transport.now()
        loader.send(*frames)
        on_the_line = len(frames) * (FRAME_BYTES + HEADS) * BITS_PER_BYTE / loader.baud
        first = began + 2 * on_the_line / len(frames) + trip + ANSWER_S
        last = began + on_the_line + trip + 2 * ANSWER_S
        for _ in frames:
            left = (last if good else first) - loader.transport.now()
            reply = loader.receive(StubOp.BATCH, max(left, 0.0))
            if reply is None:
                break
            if int.from_bytes(reply.body[-2:], "big") in (0, BAD_LENGTH):
                good, replied_at = good + 1, loader.transport.now()
        loader.end_pipeline()
        return good, replied_at

    def _confirm(self, rate: int) -> bool:
        """Have the stub keep the rate in use."""
        try:
            self._loader.call(ChangeBaudrate(rate, rate), timeout=REPLY_S)
        except (NoReply, CommandFailed):
            return False
        return True

    def _find_again(self, before: int, *rates: int) -> None:
        """Find the stub after a trial, and have it keep the rate, unless it is the one before.

        :raises NoReply: code ``line-bad``: at none: the chip may have been reset
        """
        loader = self._loader
        for _ in range(SEARCHES):
            for rate in rates:
                self._set_port(rate)
                if loader.try_abort(2 * ANSWER_S) and (rate == before or self._confirm(rate)):
                    return
        for rate in dict.fromkeys(
            rates
        ):  # an adapter may carry nothing for seconds after a change of its rate
            self._set_port(rate)
            end = loader.transport.now() + DEAF_S
            while loader.transport.now() < end:
                if loader.try_abort(REPLY_S) and (rate == before or self._confirm(rate)):
                    return
        raise NoReply(
            "the stub no longer replies at any baud rate",
            hint="Repeat the command with --baud 115200, and check cable and supply.",
            code="line-bad",
        )

    def _set_port(self, rate: int) -> None:
        loader = self._loader
        loader.transport.sleep(loader.settings.timing.baud_settle)
        loader.transport.set_baud(rate)
        loader.baud = rate
        loader.transport.discard_input()


def can_tune(loader: Loader) -> bool:
    """Whether the running stub ends the trial of a rate by itself."""
    capabilities = loader.dialect.capabilities
    return capabilities is not None and Feature.TRIAL_RATE in capabilities.features


def _estimate(speed: float, share: float) -> float:
    """What remains of a speed in baud if this share of frames arrives."""
    if not share:
        return 0.0
    errors_per_byte = -math.log(share) / FRAME_BYTES
    return speed / (1 + errors_per_byte * LOSS_BYTES)
