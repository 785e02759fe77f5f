"""Every kind of fault at every step of a command: right after at most one repetition, and nothing sent twice."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from pathlib import Path

import fault_matrix
import pytest
from fault_matrix import CELLS, KINDS, STEPS, UNREACHABLE, Outcome, run_case

from espwire.cli import context as context_module
from espwire.cli.context import Context
from espwire.device import connect as connect_module
from espwire.flash import read, survey, write
from espwire.flash.journal import Journal, Unfinished
from espwire.virtual import nor_flash

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no fork")
CI_RUNS, FULL_RUNS, FULL_PARTS = 600, 20_000, 4
CI_CELL, FULL_CELL = 3, 20


def run_kind(kind: str, count: int, first: int, folder: Path) -> list[Outcome]:
    """So many runs, each at the step at which the fewest faults have happened so far."""
    outcomes: list[Outcome] = []
    fired = Counter({step: 0 for other, step in CELLS if other == kind})
    tried = Counter(fired)
    for number in range(count):
        step = min(fired, key=lambda step: (fired[step], tried[step]))
        outcomes.append(run_in(folder, first + number, kind, step))
        fired[step] += outcomes[-1].fired
        tried[step] += 1
    return outcomes


def run_in(folder: Path, seed: int, kind: str, step: str) -> Outcome:
    place = folder / f"{seed}-{kind}-{step}"
    place.mkdir()
    outcome = run_case(seed, kind, step, place)
    shutil.rmtree(place)
    return outcome


def judge(kind: str, outcomes: list[Outcome], least: int) -> None:
    """Print a row of the matrix; nothing is wrong, and each cell has so many faults."""
    fired = Counter(outcome.case.step for outcome in outcomes if outcome.fired)
    cells = [f"{step} {fired[step]}" for step in STEPS if (kind, step) in CELLS]
    repeated = sum(len(outcome.codes) > 1 for outcome in outcomes)
    print(f"\n{kind}: {', '.join(cells)}; {len(outcomes)} runs, {repeated} repeated")
    print("  ended with:", dict(Counter(outcome.ids[0] for outcome in outcomes)))
    print("  longest:", round(max(outcome.seconds for outcome in outcomes)), "simulated seconds")
    wrong = [(o.case, o.codes, o.ids, o.wrong) for o in outcomes if o.wrong]
    assert wrong == []
    assert min(fired[step] for other, step in CELLS if other == kind) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_at_any_step(kind, tmp_path):
    judge(kind, run_kind(kind, -(-CI_RUNS // len(KINDS)), 0, tmp_path), CI_CELL)


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", range(FULL_PARTS))
def test_full_size(part, kind, tmp_path):
    count = -(-FULL_RUNS // len(KINDS) // FULL_PARTS)
    first = int(os.environ.get("ESPWIRE_SEED", "100000")) + part * count
    judge(kind, run_kind(kind, count, first, tmp_path), FULL_CELL // FULL_PARTS)


def test_unreachable_cells_are_unreachable(tmp_path):
    for seed, (kind, step) in enumerate(sorted(UNREACHABLE)):
        if step != "journal":
            assert not run_in(tmp_path, seed, kind, step).fired, (kind, step)


class TestTheHarnessNotices:
    """With a protection switched off, some run is wrong."""

    def find_wrong(self, folder: Path, kind: str, *steps: str, count: int = 60) -> str:
        """The first thing that is wrong."""
        outcomes = (run_in(folder, seed, kind, step) for seed in range(count) for step in steps)
        return next((outcome.wrong for outcome in outcomes if outcome.wrong), "")

    def test_a_journal_without_the_shared_sectors(self, monkeypatch, tmp_path):
        monkeypatch.setattr(write, "find_shared", lambda writes: ())
        assert self.find_wrong(tmp_path, "killed", "erase", "program")

    def test_no_record_of_erases(self, monkeypatch, tmp_path):
        whole = Journal.write

        def forget(self, unfinished):
            whole(self, Unfinished((), unfinished.shared))

        monkeypatch.setattr(Journal, "write", forget)
        monkeypatch.setattr(nor_flash, "WEAK_CHANCE", 1.0)
        assert self.find_wrong(tmp_path, "power", "erase")

    def test_no_check_of_the_board(self, monkeypatch, tmp_path):
        connect = connect_module.connect

        def connect_to_any(*arguments, **keywords):
            device = connect(*arguments, **keywords)
            device.mac = "the same"
            return device

        monkeypatch.setattr(connect_module, "connect", connect_to_any)
        assert self.find_wrong(tmp_path, "replaced", "program") == "another board was written"

    def test_no_search_by_identity(self, monkeypatch, tmp_path):
        monkeypatch.setattr(Context, "_find_again", lambda context: context.bus.sleep(0.3))
        assert self.find_wrong(tmp_path, "renamed", "program")

    def test_no_wait_for_a_lost_board(self, monkeypatch, tmp_path):
        monkeypatch.setattr(context_module, "MOST_LOSSES", 0)
        for kind in ("lost", "unplugged", "renamed", "reset", "power"):
            assert self.find_wrong(tmp_path, kind, "program"), kind

    def test_no_comparison_of_what_is_in_flash(self, monkeypatch, tmp_path):
        """Everything is taken to be there: nothing is written."""
        monkeypatch.setattr(survey, "compare_digests", lambda *arguments: ())
        assert self.find_wrong(tmp_path, "delay", "compare")

    def test_no_comparison_before_writing_again(self, monkeypatch, tmp_path):
        """Nothing is taken to be there: too much is sent after a loss."""
        monkeypatch.setattr(survey, "_is_compared", lambda *arguments: False)
        assert "bytes were sent" in self.find_wrong(tmp_path, "lost", "verify", "end")

    def test_no_comparison_of_a_partial_file(self, monkeypatch, tmp_path):
        monkeypatch.setattr(read, "has_content", lambda *arguments: True)
        wrong = self.find_wrong(tmp_path, "killed", "read")
        assert wrong == "the file differs from the flash"

    def test_no_verification(self, monkeypatch, tmp_path):
        """Damaged data passes a ROM's checksum now and then, and the stub's if it does not look."""
        from test_stub_faults import trust_all

        trust_all(monkeypatch)
        monkeypatch.setattr(write, "has_content", lambda *arguments, **keywords: True)
        assert self.find_wrong(tmp_path, "flip", "program")


def test_chips_loaders_and_ports_take_turns():
    cases = [fault_matrix.make_case(seed, "lost", "program") for seed in range(60)]
    assert len({case.chip for case in cases}) == 15
    assert {(case.stub, case.usb) for case in cases} == {
        (True, "uart"),
        (True, "usb-jtag"),
        (False, "uart"),
        (False, "usb-jtag"),
    }
