"""Only what differs is written, what shares a sector with a file is kept, and an interrupted write can be repeated."""

from __future__ import annotations

from pathlib import Path

import needed_writes
import pytest
from needed_writes import POLICIES, Case, count_written, make_case, run

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.flash import survey, write
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal, Unfinished
from espwire.flash.model import FlashTarget, Found
from espwire.flash.plan import plan
from espwire.sizes import SECTOR
from espwire.virtual.transport import open_virtual

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


@pytest.mark.parametrize(
    ("chip", "stub", "mode", "kind", "seed"),
    [
        # the cable was pulled between the file's last byte and the kept data behind it
        ("esp32", True, "", "cable", 143),
        ("esp32", True, "", "cable", 319),
        # a sector that reads blank, but whose erase was interrupted, is erased again on encrypting chips too
        ("esp32", True, "encrypted", "power", 100),
        ("esp32c3", True, "plain on encrypted", "power", 110),
        # the ROM erases one sector more than --erase requests
        ("esp8266", False, "", "cable", 108),
    ],
)
def test_what_the_full_size_has_found(chip, stub, mode, kind, seed, tmp_path):
    assert find_faults(range(seed, seed + 1), tmp_path, chip, stub, kind, mode) == []


def test_what_the_rom_erases_behind_an_erased_range_needs_a_consent():
    device = connect(open_virtual("virtual:esp8266?size=1MB&profile=instant"), stub=False)
    device.attach_flash()
    blob = Blob(0x20000, bytes(SECTOR * 2), "a.bin")
    for erase, stops in ((0x3000, True), (0x4000, False)):
        policy = Policy(erase=((0xB000, 0xB000 + erase),))
        findings = plan([blob], target=FlashTarget.of(device), policy=policy).findings
        found = [finding for finding in findings if finding.code == "erases-behind"]
        assert [finding.consent for finding in found] == ["neighbours"] * stops
        for finding in found:
            assert "the area to erase, 0xe000..0xf000 (4KB)" in finding.text


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
