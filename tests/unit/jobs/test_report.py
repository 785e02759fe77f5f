"""Reports of jobs: a row before the first write and at the end, in three formats, from several programs at once."""

from __future__ import annotations

import csv
import errno
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from espwire.errors import DataError, FileError
from espwire.files import lock
from espwire.jobs import report as module
from espwire.jobs.report import COLUMNS, ReportTarget, open_report

NAMES = ("report.jsonl", "report.csv", "report.db")
ROW: dict[str, Any] = {
    "run": "1",
    "state": "started",
    "mac": "24:0a:c4:00:01:10",
    "steps": [],
    "serial": "A1",
}
PROCESSES, ROWS = 5, 20


def target(folder: Path, name: str) -> ReportTarget:
    return ReportTarget(str(folder / name), ("serial",))


def read_rows(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file, strict=True))
    connection = sqlite3.connect(path)
    connection.row_factory = sqlite3.Row
    rows = [dict(row) for row in connection.execute("SELECT * FROM runs ORDER BY rowid")]
    connection.close()
    return rows


@pytest.mark.parametrize("name", NAMES)
def test_a_run_has_a_row_when_it_starts_and_when_it_ends(tmp_path: Path, name: str) -> None:
    report = open_report(target(tmp_path, name))
    report.check()
    assert list(tmp_path.iterdir()) == []
    report.write(ROW)
    assert report.list_passed() == set()
    steps = [{"do": "erase nvs", "text": 'a, "b"'}]
    report.check()
    report.write(ROW | {"state": "passed", "seconds": 1.5, "steps": steps})
    report.check()
    rows = read_rows(tmp_path / name)
    assert [row["state"] for row in rows] == (
        ["passed"] if name == "report.db" else ["started", "passed"]
    )
    last = rows[-1]
    assert tuple(last) == (*COLUMNS, "serial")
    assert (last["serial"], last["mac"], float(last["seconds"])) == ("A1", ROW["mac"], 1.5)
    assert (last["steps"] if name == "report.jsonl" else json.loads(last["steps"])) == steps
    assert report.list_passed() == {"240ac4000110"}


def test_line_breaks_do_not_split_a_row_of_csv(tmp_path: Path) -> None:
    open_report(target(tmp_path, "report.csv")).write(ROW | {"message": "a\nb\rc"})
    assert (tmp_path / "report.csv").read_text("utf-8").count("\n") == 2
    assert read_rows(tmp_path / "report.csv")[0]["message"] == "a b c"


def test_the_first_line_of_a_report_can_be_long(tmp_path: Path) -> None:
    report = open_report(target(tmp_path, "report.jsonl"))
    report.write(ROW | {"steps": ["x" * 200_000]})
    report.check()
    report.write(ROW | {"run": "2"})
    assert len(read_rows(tmp_path / "report.jsonl")) == 2


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_line_that_a_power_loss_cut_off_does_not_damage_the_next(
    tmp_path: Path, name: str
) -> None:
    report, path = open_report(target(tmp_path, name)), tmp_path / name
    report.write(ROW)
    first = path.stat().st_size
    report.write(ROW | {"run": "2", "steps": [{"do": 'write "a", b'}]})
    whole = path.read_bytes()
    for end in range(first + 1, len(whole)):
        path.write_bytes(whole[:end])
        report.check()
        report.write(ROW | {"run": "3", "state": "passed"})
        last = path.read_text("utf-8").splitlines()[-1]
        if name == "report.csv":
            row = read_rows(path)[-1]  # as any program reads it
        else:
            row = json.loads(last)
        assert (row["run"], row["state"], row["mac"]) == ("3", "passed", ROW["mac"])
        assert report.list_passed() == {"240ac4000110"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.jsonl", b"\xe9\x02\x02\x20"),
        ("report.jsonl", b"[1]\n"),
        ("report.jsonl", b'{"a": 1}\n'),
        ("report.csv", b"run,time\n"),
        ("report.csv", b"\x00\x01"),
    ],
)
def test_another_file_is_not_a_report(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_report(target(tmp_path, name)).check()
    assert caught.value.code == "report-columns"
    assert (tmp_path / name).read_bytes() == content


@pytest.mark.parametrize("name", NAMES[1:])
def test_a_report_with_other_fields_is_refused(tmp_path: Path, name: str) -> None:
    open_report(ReportTarget(str(tmp_path / name), ("operator",))).write(ROW)
    with pytest.raises(DataError) as caught:
        open_report(target(tmp_path, name)).check()
    assert caught.value.code == "report-columns"


@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_cannot_hold_a_report_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    for path in (tmp_path / name, tmp_path / "missing" / name):
        with pytest.raises(FileError) as caught:
            open_report(ReportTarget(str(path))).check()
        assert caught.value.code == "file-write"


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "report.db").write_bytes(b"text" * 1000)
    with pytest.raises(DataError) as caught:
        open_report(target(tmp_path, "report.db")).check()
    assert caught.value.code == "database-damaged"


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_an_error_before_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.os, "fsync", fail)
    with pytest.raises(FileError, match="No space left") as caught:
        open_report(target(tmp_path, name)).check()
    assert caught.value.code == "file-write"
    assert caught.value.hint == "Free disk space, or write to another disk."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_disk_that_fills_up_in_a_row_leaves_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    report = open_report(target(tmp_path, name))
    report.write(ROW)
    before, real = (tmp_path / name).read_bytes(), os.write
    calls: list[int] = []

    def write(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, data[:10])

    monkeypatch.setattr(module.os, "write", write)
    with pytest.raises(FileError, match="No space left"):
        report.write(ROW | {"run": "2"})
    assert (tmp_path / name).read_bytes() == before


def test_a_full_database_is_an_error_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = open_report(target(tmp_path, "report.db"))
    report.write(ROW)
    real = sqlite3.connect

    def connect(*words: Any, **options: Any) -> sqlite3.Connection:
        connection = real(*words, **options)
        connection.execute("PRAGMA max_page_count = 3")
        return connection

    monkeypatch.setattr(sqlite3, "connect", connect)
    with pytest.raises(FileError, match="full") as caught:
        report.write(ROW | {"run": "2", "steps": ["x" * 100_000]})
    assert caught.value.hint.startswith("Free disk space")
    assert [row["run"] for row in read_rows(tmp_path / "report.db")] == ["1"]


def test_a_locked_report_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK_S", 0.05)
    report = open_report(target(tmp_path, "report.jsonl"))
    report.write(ROW)
    with (tmp_path / "report.jsonl").open("r+b") as file:
        assert lock(file.fileno())
        with pytest.raises(FileError) as caught:
            report.write(ROW)
    assert caught.value.code == "report-locked"


WRITE = """
import sys
from espwire.jobs.report import ReportTarget, open_report
path, process, rows = sys.argv[1], sys.argv[2], int(sys.argv[3])
report = open_report(ReportTarget(path, ("serial",)))
for number in range(rows):
    report.write({"run": f"{process}-{number}", "state": "passed", "mac": "", "serial": "x" * 3000})
"""


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_several_programs_at_once_are_all_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITE, str(path), str(number), str(ROWS)])
        for number in range(PROCESSES)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0] * PROCESSES
    runs = [row["run"] for row in read_rows(path)]
    assert sorted(runs) == sorted(f"{a}-{b}" for a in range(PROCESSES) for b in range(ROWS))
    assert {len(row["serial"]) for row in read_rows(path)} == {3000}
