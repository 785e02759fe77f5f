"""One flipped bit never makes a false success. What a ROM's protocol cannot protect is listed here, with its reason.

``make soak`` flips every bit; the run in CI a seeded sample that is spread over all fields of all frames.
"""

from __future__ import annotations

import os
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from bit_sweep import (
    ENGINES,
    JOBS,
    LOADERS,
    REFUSED,
    Flip,
    Outcome,
    Pair,
    Rig,
    parse_flip,
    split_frames,
)

from espwire.protocol.commands import Reply
from espwire.protocol.stub import SEAL_BYTES, StubOp

pytestmark = pytest.mark.slow

CI_FLIPS = 40  # of each job with each loader
ENGINE_FLIPS = 40
SEED = int(os.environ.get("ESPWIRE_SEED", "1"))


@dataclass(frozen=True)
class Unprotected:
    """What may happen with a ROM: ``effect`` after a flip of a field, and why nothing can prevent it."""

    effect: str
    loader: str
    job: str
    fields: str
    reason: str


BEGINS = r"(FLASH_BEGIN|FLASH_DEFL_BEGIN) .*"
# Patterns are regular expressions for the whole of each name. With a stub nothing is accepted.
UNPROTECTED = (
    Unprotected(
        "damaged",
        r"rom-.*",
        r"write-flash.*|erase-.*",
        BEGINS,
        "A BEGIN has no checksum, and the ROM erases before it answers: wrong sectors are lost, and that is an error.",
    ),
    Unprotected(
        "outside|wrong",
        r"rom-esp8266",
        r"write-flash.*|erase-.*",
        BEGINS,
        "This ROM computes no MD5 and does not read its flash: without the stub nothing can be verified.",
    ),
    Unprotected(
        "outside",
        r"rom-.*",
        r"write-flash-blank|erase-region-before-blank",
        BEGINS,
        "More than the range is erased, and the sector behind the range was blank already: it shows nothing.",
    ),
)


def find_reason(pair: Pair, flip: Flip, outcome: Outcome) -> str:
    """Why this outcome is accepted; empty if it is not."""
    for known in UNPROTECTED:
        patterns = (known.effect, known.loader, known.job, known.fields)
        names = (outcome.effect, pair.loader, pair.job.name, pair.name(flip))
        if all(re.fullmatch(pattern, name) for pattern, name in zip(patterns, names, strict=True)):
            return known.reason
    return ""


@dataclass
class Tally:
    """How the runs of a sweep ended. ``faults`` are those that nothing excuses, each with how to run it again."""

    ends: Counter[str]
    accepted: Counter[str]
    faults: list[str]
    longest: float = 0.0

    def __str__(self) -> str:
        accepted = (
            "; ".join(f"{count} × {reason}" for reason, count in sorted(self.accepted.items()))
            or "none"
        )
        ends = ", ".join(f"{end} {count}" for end, count in self.ends.most_common())
        return f"{self.ends.total()} flips: {ends}; accepted: {accepted}; longest {self.longest:.0f} s of simulated time"


def sweep(rig: Rig, pair: Pair, flips: Sequence[Flip]) -> Tally:
    """Run the job once for each flip."""
    tally = Tally(Counter(), Counter(), [])
    for flip in flips:
        outcome = rig.try_flip(pair, flip)
        tally.longest = max(tally.longest, outcome.seconds)
        tally.ends[outcome.effect or outcome.error or "right"] += 1
        if not outcome.changed:
            tally.faults.append(f"{pair} '{flip}' changed nothing")
        elif outcome.effect and (reason := find_reason(pair, flip, outcome)):
            tally.accepted[reason] += 1
        elif outcome.effect:
            tally.faults.append(f"{pair} '{flip}' {pair.name(flip)}: {outcome}")
    return tally


def show(faults: Sequence[str]) -> str:
    how = "run one again by `python -m tests.scenario.bit_sweep` and the words up to the flip"
    return "\n".join([f"{len(faults)} false ends; {how}:", *faults[:40]])


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Rig:
    return Rig(tmp_path_factory.mktemp("sweep"))


@pytest.mark.parametrize("loader", LOADERS)
def test_no_flipped_bit_of_a_sample_makes_a_false_success(rig: Rig, loader: str) -> None:
    faults = []
    for job in JOBS:
        pair = rig.pair(loader, job)
        tally = sweep(rig, pair, pair.sample(CI_FLIPS, SEED))
        faults += tally.faults
        assert tally.ends.total() == CI_FLIPS
    assert not faults, show(faults)


@pytest.mark.soak
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("loader", LOADERS)
def test_no_flipped_bit_makes_a_false_success(rig: Rig, loader: str, job: str) -> None:
    pair = rig.pair(loader, job)
    tally = sweep(rig, pair, pair.flips(SEED))
    print(f"\n{pair}: {tally}")
    assert not tally.faults, show(tally.faults)


@pytest.mark.soak
@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("loader", ENGINES)
def test_no_flipped_bit_makes_a_false_success_with_the_code_of_the_stub(
    rig: Rig, loader: str, job: str
) -> None:
    pair = rig.pair(loader, job)
    tally = sweep(rig, pair, pair.sample(ENGINE_FLIPS, SEED))
    print(f"\n{pair}: {tally}")
    assert not tally.faults, show(tally.faults)


class TestTheHarness:
    """It flips what it says it flips, and everything it should."""

    def test_every_bit_of_header_arguments_and_status_is_flipped(self, rig: Rig) -> None:
        pair = rig.pair("rom-esp32", "write-flash-u")
        flips = {(f.to_chip, f.frame, f.byte, f.bit) for f in pair.flips() if not f.line}
        for to_chip, frames in pair.frames.items():
            for number, frame in enumerate(frames):
                if not frame.is_message:
                    continue
                wanted = [at for at in range(len(frame.content)) if frame.field(at) != "payload"]
                assert all(
                    (to_chip, number, byte, bit) in flips for byte in wanted for bit in range(8)
                )
                payload = [at for at in range(len(frame.content)) if frame.field(at) == "payload"]
                sampled = sum(
                    (to_chip, number, byte, bit) in flips for byte in payload for bit in range(8)
                )
                assert sampled == min(64, 8 * len(payload))

    @pytest.mark.parametrize("loader", LOADERS)
    def test_all_jobs_send_requests_and_get_answers(self, rig: Rig, loader: str) -> None:
        for job in JOBS:
            pair = rig.pair(loader, job)
            for frames in pair.frames.values():
                assert sum(frame.is_message for frame in frames) >= 3
            with_stub = any(
                frame.is_message and frame.content[1] in set(StubOp) for frame in pair.frames[False]
            )
            assert with_stub is loader.startswith("stub")
            assert pair.printed["chip"]["mac"]
            assert ("result" in pair.printed) is (
                not pair.job.code and (loader, job) not in REFUSED
            )

    def test_a_flip_in_the_content_changes_its_frame_and_no_other(self, rig: Rig) -> None:
        pair = rig.pair("rom-esp32", "flash-id")
        for flip in pair.sample(400, SEED):
            before, change = pair.frames[flip.to_chip], pair.find_change(flip)
            line = bytearray(pair.lines[flip.to_chip])
            line[change.start : change.end] = change.new
            after = split_frames(bytes(line))
            if flip.line:
                assert len(change.new) == 1
                continue
            changed = [
                n
                for n, (old, new) in enumerate(zip(before, after, strict=True))
                if old.content != new.content
            ]
            assert changed == [flip.frame]

    def test_a_flip_is_written_and_read_alike(self) -> None:
        for flip in (Flip(True, 12, 34, 5), Flip(False, 0, 1, 7, line=True)):
            assert parse_flip(str(flip)) == flip


class TestTheSweepNotices:
    """With a check switched off, the same sweep must find false successes."""

    def test_missing_checks_of_what_was_erased_and_written(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("espwire.flash.write._Run.verify", lambda self, step: None)
        monkeypatch.setattr(
            "espwire.device.backends.rom.EraseCheck._compare", lambda self, expected: None
        )
        assert count_false_successes(rig, "rom-esp32", "write-flash-u", r"FLASH_BEGIN body\[[03]\]")

    @pytest.mark.parametrize("job", ["flash-id", "erase-flash"])
    def test_a_second_answer_that_is_not_compared(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch, job: str
    ) -> None:
        monkeypatch.setattr("espwire.device.double_read._agree", lambda one, other: True)
        assert count_false_successes(rig, "rom-esp32c3", job, r"READ_REG.reply value")

    def test_a_missing_crc_check_in_the_stub(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("espwire.virtual.programs.stub_model.is_sealed", lambda frame: True)
        assert count_false_successes(rig, "stub-esp32c3", "erase-region", r"ERASE_REGION body.*")

    def test_a_missing_crc_check_of_answers(
        self, rig: Rig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            "espwire.protocol.reply_matcher.unseal",
            lambda reply: Reply(reply.op, reply.value, reply.body[:-SEAL_BYTES]),
        )
        assert count_false_successes(rig, "stub-esp32c3", "dump-mem", r"BATCH.reply body.*")


def count_false_successes(rig: Rig, loader: str, job: str, fields: str) -> int:
    """Runs that end with exit code 0 and are wrong, documented or not, of up to 100 with flips of these fields."""
    pair = Rig(rig.folder).pair(
        loader, job
    )  # recorded anew: without the check the traffic may be another
    flips = [flip for flip in pair.flips(SEED) if re.fullmatch(fields, pair.name(flip))]
    chosen = random.Random(SEED).sample(flips, min(100, len(flips)))
    outcomes = [rig.try_flip(pair, flip) for flip in chosen]
    return sum(outcome.code == 0 and outcome.effect in ("wrong", "outside") for outcome in outcomes)
