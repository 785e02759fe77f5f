"""Our stub on a bad wire: right content or a clear error, nothing touched outside the range. And the proof that it would show."""

import os
from collections import Counter

import pytest
from stub_faults_harness import (
    JOBS,
    KINDS,
    SECONDS,
    kill_and_recover,
    run_stub_case,
    run_stub_cases,
)
from tests.stub_drivers.ports import stub_ports

from espwire.device.backends.stub import ReadTransfer, WriteTransfer
from espwire.errors import NoReply
from espwire.protocol.commands import Reply, parse_request
from espwire.protocol.stub import SEAL_BYTES
from espwire.virtual.programs.stub_flash import SECTOR, StubFlash
from espwire.virtual.programs.stub_model import Trust

pytestmark = pytest.mark.slow

PORTS = tuple(url for _, url in stub_ports())
CI_CASES, FULL_CASES, FULL_PARTS = 500, 10_000, 20
FULL_ENGINE_CASES = 40  # per port
KILLS = 200


def judge(outcomes, least=0.9):
    for outcome in outcomes:
        assert not outcome.false_success, outcome
        assert not outcome.outside, outcome
        assert outcome.seconds <= SECONDS, outcome
        if outcome.error is not None:
            assert outcome.error.hint or outcome.error.code == "no-reply", outcome
            assert "\n" not in str(outcome.error), outcome
    survived = sum(outcome.error is None for outcome in outcomes)
    assert survived >= least * len(outcomes), Counter(o.error.code for o in outcomes if o.error)


def tell(outcomes):
    ends = Counter((o.job, o.kind, o.error.code if o.error else "well") for o in outcomes)
    for (job, kind, end), count in sorted(ends.items()):
        print(f"{job:<6} {kind:<10} {end:<16} {count}")


def test_faulty_writes_and_reads_end_right_or_in_a_clear_error():
    outcomes = run_stub_cases(CI_CASES, "twin", PORTS)
    judge(outcomes)
    fired = {(outcome.kind, outcome.job) for outcome in outcomes if outcome.fired}
    assert len(fired) == 2 * len(KINDS)
    assert all(
        outcome.changed for outcome in outcomes if outcome.job == "write" and outcome.error is None
    )


def test_the_same_on_the_engine():
    """Each port has one kind of fault, for a write and a read."""
    judge(
        [
            run_stub_case(7 + at, port, "engine", KINDS[at % len(KINDS)], job, most=1500)
            for at, port in enumerate(PORTS)
            for job in JOBS
        ]
    )


@pytest.mark.soak
@pytest.mark.parametrize("part", range(FULL_PARTS))
def test_full_size(part):
    count = FULL_CASES // FULL_PARTS
    first = int(os.environ.get("ESPWIRE_SEED", "100000")) + part * count
    outcomes = run_stub_cases(count, "twin", PORTS, first)
    tell(outcomes)
    judge(outcomes)


@pytest.mark.soak
@pytest.mark.parametrize("port", PORTS)
def test_full_size_on_the_engine(port):
    outcomes = run_stub_cases(FULL_ENGINE_CASES, "engine", (port,), first=900)
    tell(outcomes)
    judge(outcomes, least=0.8)  # of few cases


def test_after_a_client_that_was_killed_in_mid_frame_the_next_one_works_at_once():
    outcomes = [kill_and_recover(seed, PORTS[seed % len(PORTS)], "twin") for seed in range(KILLS)]
    for outcome in outcomes:
        assert outcome.error is None, outcome
        assert outcome.right, outcome
        assert not outcome.outside, outcome
        assert outcome.seconds < 10, outcome
    print("recovered within", max(outcome.seconds for outcome in outcomes), "s")


def trust_all(monkeypatch):
    """Have the stub take every frame that is as long as it says."""

    def find(frame, *, sealed):
        return Trust.DAMAGED if parse_request(frame) is None else Trust.SEALED

    monkeypatch.setattr("espwire.virtual.programs.stub_model.find_trust", find)


class TestTheHarnessNotices:
    """With a check switched off, the same cases must not be judged well."""

    def cases(self, kind="flip", job="write", count=60):
        return [
            run_stub_case(seed, PORTS[seed % len(PORTS)], "twin", kind, job)
            for seed in range(count)
        ]

    def test_a_missing_check_of_data(self, monkeypatch):
        trust_all(monkeypatch)
        assert any(outcome.false_success for outcome in self.cases())

    def test_a_missing_check_of_packets(self, monkeypatch):
        def cut(reply):
            return Reply(reply.op, reply.value, reply.body[:-SEAL_BYTES])

        monkeypatch.setattr("espwire.protocol.reply_matcher.unseal", cut)
        outcomes = self.cases(job="read")
        assert not any(outcome.false_success for outcome in outcomes)  # the MD5 at the end
        assert any(outcome.error is not None for outcome in outcomes)
        monkeypatch.setattr(ReadTransfer, "_check_digest", ReadTransfer.abort)
        assert any(outcome.false_success for outcome in self.cases(job="read"))

    def test_a_missing_check_of_requests(self, monkeypatch):
        trust_all(monkeypatch)
        assert run_stub_case(
            1022, "virtual:esp32c3?kind=uart", "twin", "flip", "read"
        ).false_success

    def test_without_rewinds(self, monkeypatch):
        def give_up(transfer):
            raise NoReply("no way back")

        judge(self.cases(kind="drop"))
        monkeypatch.setattr(WriteTransfer, "_rewind", give_up)
        monkeypatch.setattr(ReadTransfer, "_rewind", give_up)
        with pytest.raises(AssertionError):
            judge(self.cases(kind="drop"))

    def test_an_erase_that_goes_too_far(self, monkeypatch):
        start = StubFlash.start_erase

        def further(self, address, size):
            yield from start(self, address, size)
            yield from start(self, address + size, SECTOR)

        monkeypatch.setattr(StubFlash, "start_erase", further)
        assert any(outcome.outside for outcome in self.cases(kind="delay", count=3))
