"""Damaged files of jobs: each is usable or one error, whatever bytes are wrong."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from espwire.errors import ToolError
from espwire.jobs import report as report_module
from espwire.jobs.boards import BoardSource, open_boards
from espwire.jobs.job_file import parse_job
from espwire.jobs.report import ReportTarget, open_report

COPIES, COPIES_SOAK = 40, 1000
ROW = {"run": "1", "state": "passed", "mac": "24:0a:c4:00:01:10", "steps": [], "serial": "A1"}
EXAMPLE = Path(__file__).parents[3] / "docs/examples/job/thermostat.toml"


def damage(data: bytes, source: random.Random) -> bytes:
    """Change, remove and insert bytes, or cut the end off."""
    changed = bytearray(data)
    for _ in range(source.choice([1, 2, 8, 50])):
        at = source.randrange(len(changed) + 1)
        match source.choice(["change", "insert", "remove", "cut"] + ["change"] * 4):
            case "change":
                changed[at : at + 1] = bytes(
                    [source.choice([0, 255, 34, 10, source.randrange(256)])]
                )
            case "insert":
                changed[at:at] = source.randbytes(source.choice([1, 4, 50]))
            case "remove":
                del changed[at : at + source.choice([1, 4, 100])]
            case _:
                del changed[at:]
    return bytes(changed)


def use_boards(path: Path) -> None:
    boards = open_boards(BoardSource(str(path)))
    boards.find("24:0a:c4:00:00:01")
    boards.list_assigned()


def use_report(path: Path) -> None:
    report = open_report(ReportTarget(str(path), ("serial",)))
    report.check()
    report.write(ROW)
    assert "240ac4000110" in report.list_passed()


def list_report(path: Path) -> None:
    open_report(ReportTarget(str(path), ("serial",))).list_passed()


def use_job(path: Path) -> None:
    parse_job(path.read_bytes(), str(path))


def write_boards(path: Path) -> None:
    macs = [f"24:0a:c4:00:00:{number:02x}" for number in range(40)]
    if path.suffix == ".csv":
        path.write_text("mac,serial\n" + "".join(f'{mac},"{mac}"\n' for mac in macs), "utf-8")
        return
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE boards (mac TEXT, serial TEXT)")
    connection.executemany("INSERT INTO boards VALUES (?, ?)", [(mac, mac * 9) for mac in macs])
    connection.commit()
    connection.close()


def write_report(path: Path) -> None:
    for number in range(5):
        open_report(ReportTarget(str(path), ("serial",))).write(ROW | {"run": str(number)})


def write_job(path: Path) -> None:
    path.write_bytes(EXAMPLE.read_bytes())


CASES = [
    ("boards.csv", write_boards, use_boards),
    ("boards.db", write_boards, use_boards),
    ("report.jsonl", write_report, use_report),
    ("report.csv", write_report, use_report),
    ("report.db", write_report, use_report),
    ("list.jsonl", write_report, list_report),
    ("list.csv", write_report, list_report),
    ("list.db", write_report, list_report),
    ("job.toml", write_job, use_job),
]


def check_copies(
    path: Path, write: Callable[[Path], None], use: Callable[[Path], None], copies: int
) -> Counter[str]:
    """The outcomes of damaged copies: ``usable``, or the id of the error."""
    write(path)
    use(path)
    whole, source = path.read_bytes(), random.Random(path.name)
    outcomes: Counter[str] = Counter()
    errors: list[tuple[int, bool]] = []
    for _ in range(copies):
        path.write_bytes(damage(whole, source))
        try:
            use(path)
            outcomes["usable"] += 1
        except ToolError as error:
            outcomes[error.code] += 1
            errors.append((error.exit_code, len(str(error)) < 1000))
    assert set(errors) <= {(6, True)}
    return outcomes


@pytest.mark.parametrize(("name", "write", "use"), CASES, ids=[case[0] for case in CASES])
def test_a_damaged_file_is_usable_or_one_error(
    tmp_path: Path, monkeypatch, name, write, use
) -> None:
    monkeypatch.setattr(report_module.os, "fsync", lambda descriptor: None)
    outcomes = check_copies(tmp_path / name, write, use, COPIES)
    assert len(outcomes) > 1, outcomes


@pytest.mark.soak
@pytest.mark.parametrize(("name", "write", "use"), CASES, ids=[case[0] for case in CASES])
def test_many_damaged_files(tmp_path: Path, monkeypatch, name, write, use) -> None:
    monkeypatch.setattr(report_module.os, "fsync", lambda descriptor: None)
    print(name, dict(check_copies(tmp_path / name, write, use, COPIES_SOAK)))
