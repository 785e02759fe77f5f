"""Only what differs is written, what shares a sector with a file is kept, and an interrupted write can be repeated."""

from __future__ import annotations

from pathlib import Path

import needed_writes
import pytest
from needed_writes import POLICIES, Case, count_written, make_case, run

from espwire.flash import survey, write
from espwire.flash.journal import Journal, Unfinished
from espwire.flash.model import Found
from espwire.sizes import SECTOR

CI_SEEDS, FULL_SEEDS = 8, 400
LOADERS = [
    ("esp32", True),
    ("esp32c3", True),
    ("esp8266", True),
    ("esp32s3", False),
    ("esp32", False),
    ("esp8266", False),
]
SECURED = [
    ("esp32", True, "encrypted"),
    ("esp32c3", False, "encrypted"),
    ("esp32c3", True, "plain on encrypted"),
    ("esp32s3", False, "plain on encrypted"),
    ("esp32c3", False, "secure download"),
    ("esp32s2", False, "secure download"),
]
KINDS = [None, "cable", "power"]


def find_fault(case: Case, folder: Path) -> str:
    """What is wrong after a write, as text; empty if nothing."""
    flash, plan, events = run(case, folder)
    what = f"{case.chip} seed {case.seed} {case.policy} {case.mode}"
    for at in range(0, len(flash), SECTOR):
        if not case.is_right(flash, at):
            return f"{what}: the sector at {at:#x} is wrong"
    counted = case.interrupt is None and case.stub and case.policy != "diff-with"
    if counted and count_written(events) != plan.written:
        return f"{what}: {count_written(events)} bytes written, {plan.written} planned"
    return ""


def find_faults(
    seeds: range, folder: Path, chip: str, stub: bool, kind: str | None, mode: str = ""
) -> list[str]:
    """What is wrong, with each policy in turn."""
    cases = (
        make_case(
            seed,
            chip,
            stub=stub,
            interrupt=kind,
            mode=mode,
            policy=POLICIES[seed % len(POLICIES)],
        )
        for seed in seeds
    )
    return [fault for case in cases if (fault := find_fault(case, folder))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chip", "stub"), LOADERS)
def test_the_flash_is_the_old_content_with_the_files_over_it(chip, stub, kind, tmp_path):
    assert find_faults(range(CI_SEEDS), tmp_path, chip, stub, kind) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("chip", "stub", "mode"), SECURED)
def test_the_same_where_the_flash_cannot_be_compared(chip, stub, mode, kind, tmp_path):
    assert find_faults(range(4), tmp_path, chip, stub, kind, mode) == []


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("chip", "stub", "mode"), [*((chip, stub, "") for chip, stub in LOADERS), *SECURED]
)
def test_full_size(chip, stub, mode, kind, tmp_path):
    assert find_faults(range(100, 100 + FULL_SEEDS), tmp_path, chip, stub, kind, mode) == []


@pytest.mark.parametrize("seed", [143, 319])
def test_a_file_that_is_in_flash_but_not_what_shared_its_sector_is_not_skipped(seed, tmp_path):
    """The cable was pulled between the file's last byte and the kept data behind it."""
    case = make_case(seed, "esp32", stub=True, interrupt="cable", policy="skip-flashed")
    assert find_fault(case, tmp_path) == ""


def test_equal_flash_is_not_written(tmp_path):
    case = make_case(3, "esp32c3", stub=True)
    equal = Case(**{**vars(case), "before": case.wanted})
    flash, plan, _ = run(equal, tmp_path)
    assert flash == case.wanted
    assert plan.written == 0


class TestTheHarnessNotices:
    """With a protection switched off, some case shows it."""

    def faults(self, folder: Path, kind: str | None) -> list[str]:
        return [
            fault
            for chip in ("esp32", "esp32c3")
            for fault in find_faults(range(0, 96, 8), folder, chip, True, kind)
        ]

    def test_neighbours_that_are_not_read(self, monkeypatch, tmp_path):
        monkeypatch.setattr(survey, "_read_neighbours", lambda *arguments: Found())
        assert self.faults(tmp_path, None)

    def test_a_journal_without_the_shared_sectors(self, monkeypatch, tmp_path):
        monkeypatch.setattr(write, "find_shared", lambda writes: ())
        assert self.faults(tmp_path, "power")

    def test_sectors_that_are_blank_after_an_interrupted_erase(self, monkeypatch, tmp_path):
        whole = Journal.write

        def forget(self, unfinished):
            whole(self, Unfinished((), unfinished.shared))

        monkeypatch.setattr(Journal, "write", forget)
        monkeypatch.setattr("espwire.virtual.nor_flash.WEAK_CHANCE", 1.0)
        assert self.faults(tmp_path, "power")


def test_the_number_of_sectors_written_is_what_differs(tmp_path):
    for seed in range(8):
        case = make_case(seed, "esp32c3", stub=True)
        _, plan, _ = run(case, tmp_path)
        sectors = sum(-(-len(p.data) // SECTOR) for w in plan.writes for p in w.pieces)
        assert sectors >= case.sectors
        if any(step.size < len(step.data) for step in plan.writes):
            assert sectors <= case.sectors + needed_writes.MAX_SECTORS
