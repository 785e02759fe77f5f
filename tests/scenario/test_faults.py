"""Writing under faults: right content or a clear error, in bounded time. And the proof that this would notice."""

import os
from collections import Counter

import pytest
from faults_harness import CELLS, run_cases

from espwire.device.loader import Loader
from espwire.flash import write
from espwire.virtual.rom import Rom

CI_ROUNDS, FULL_ROUNDS = 2, 8  # 540 and 2160 writes


def judge(outcomes):
    for outcome in outcomes:
        assert not outcome.false_success, outcome
        assert outcome.seconds <= outcome.bound, outcome
        if outcome.error is not None:
            assert outcome.error.hint, outcome
            assert outcome.error.code, outcome
            assert "\n" not in str(outcome.error), outcome


def cells_that_never_fired(outcomes):
    fired = {(outcome.chip, outcome.kind) for outcome in outcomes if outcome.fired}
    return [cell for cell in CELLS if cell not in fired]


def test_faulty_writes_end_right_or_in_a_clear_error():
    outcomes = run_cases(CI_ROUNDS)
    assert len(outcomes) >= 300
    judge(outcomes)
    assert cells_that_never_fired(outcomes) == []
    ends = Counter(outcome.error is None for outcome in outcomes)
    assert ends[True] > len(outcomes) // 4  # most single faults are survived, not just reported
    assert ends[False] > 0


@pytest.mark.soak
def test_full_size():
    first = int(os.environ.get("ESPWIRE_SEED", "1000"))
    outcomes = run_cases(FULL_ROUNDS, first)
    assert len(outcomes) >= 2000
    judge(outcomes)
    assert cells_that_never_fired(outcomes) == []
    ends = Counter(
        (outcome.kind, outcome.error.code if outcome.error else "written") for outcome in outcomes
    )
    for (kind, end), count in sorted(ends.items()):
        print(f"{kind:<10} {end:<20} {count}")


class TestTheHarnessNotices:
    """With a check switched off, the same cases must show a false success."""

    def test_a_missing_final_verify(self, monkeypatch):
        monkeypatch.setattr(write._Run, "verify", lambda self, step: None)
        assert any(outcome.false_success for outcome in run_cases(CI_ROUNDS))

    def test_a_missing_status_check(self, monkeypatch):
        monkeypatch.setattr(
            Loader,
            "check_status",
            lambda self, reply, result: type(reply)(reply.op, reply.value, reply.body[:result]),
        )
        assert any(outcome.false_success for outcome in run_cases(CI_ROUNDS))

    def test_a_missing_sequence_check(self, monkeypatch):
        whole = Rom._take_block

        def without_order(self, transfer, **options):
            if transfer is not None:
                transfer.sequence = self._word(1)
            return whole(self, transfer, **options)

        monkeypatch.setattr(Rom, "_take_block", without_order)
        assert any(outcome.false_success for outcome in run_cases(CI_ROUNDS))
