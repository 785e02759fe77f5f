"""``espwire job`` on virtual chips: whole jobs, retries, lost power, waiting for text, and every refusal."""

from __future__ import annotations

import csv
import json
import random
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.device.loader import Loader
from espwire.errors import DataError, DeviceError, NoReply, TransportLost, VerifyError
from espwire.events import Event, Note
from espwire.files import write_file
from espwire.flash.write import write_flash
from espwire.jobs import run as run_module
from espwire.jobs import steps as steps_module
from espwire.jobs.job_file import parse_job
from espwire.jobs.report import TextReport
from espwire.jobs.run import JobRun
from espwire.jobs.wait import WaitFor
from espwire.virtual.transport import VirtualTransport

ROOT = Path(__file__).parents[1]
BUILDS = {"esp32c3": ROOT / "data/builds/esp-idf", "esp32": ROOT / "data/builds/esp-idf-ota"}
MAC, OTHER = "24:0a:c4:00:01:10", "24:0a:c4:00:01:11"
APP = random.Random(3).randbytes(5000)
SERIAL = """
[[step]]
do = "write"
at = 0x20000
data = "{serial}"
size = 16
"""
REPORT = """
[boards]
file = "boards.db"
[report]
file = "report.jsonl"
fields = ["serial"]
"""


class PowerLoss(BaseException):
    """The program ends at once; see ``lose_power``."""


class Factory:
    """A folder with a job, a table of serial numbers, and boards: virtual chips whose flash is a file."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.file("app.bin", APP)
        self.serials("A1", "A2", "A3")

    def file(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    def serials(self, *serials: str) -> None:
        path = self.folder / "boards.db"
        path.unlink(missing_ok=True)
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE boards (mac TEXT, serial TEXT)")
        connection.executemany("INSERT INTO boards VALUES (NULL, ?)", [(each,) for each in serials])
        connection.commit()
        connection.close()

    def table(self) -> dict[str, str | None]:
        """Serial number → MAC address."""
        connection = sqlite3.connect(self.folder / "boards.db")
        rows = connection.execute("SELECT serial, mac FROM boards").fetchall()
        connection.close()
        return dict(rows)

    def run(
        self,
        job: str,
        *words: str,
        code: int = 0,
        mac: str = MAC,
        chip: str = "esp32c3",
        query: str = "",
    ) -> list[dict[str, Any]]:
        """The JSON lines of a job that ends with ``code``."""
        path = self.file("job.toml", job)
        flash = (self.folder / f"{mac.replace(':', '')}.flash").as_posix()
        port = f"virtual:{chip}?flash={flash}&size=1MB&profile=instant&mac={mac}{query}"
        got = main(["--json", "-p", port, "job", str(path), *words])
        out, err = self.capsys.readouterr()
        assert got == code, (got, out, err)
        return [json.loads(line) for line in out.splitlines()]

    def held(self, address: int, size: int, mac: str = MAC) -> bytes:
        return (self.folder / f"{mac.replace(':', '')}.flash").read_bytes()[
            address : address + size
        ]

    def touched(self, mac: str = MAC) -> bool:
        path = self.folder / f"{mac.replace(':', '')}.flash"
        return path.exists() and bool(path.read_bytes().strip(b"\xff"))

    def rows(self) -> list[dict[str, Any]]:
        path = self.folder / "report.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


@pytest.fixture
def factory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Factory:
    return Factory(tmp_path, capsys)


WHOLE = """
name = "thermostat"
chip = "CHIP"
[variables]
product = "T1"
[boards]
file = "boards.db"
[report]
file = "report.jsonl"
fields = ["serial", "operator"]
[[step]]
do = "flash"
path = "BUILD"
[[step]]
do = "erase"
at = "nvs"
[[step]]
do = "write"
at = "nvs"
template = "nvs.json"
size = 64
[[step]]
do = "write"
at = 0x40000
file = "app.bin"
[[step]]
do = "verify"
[[step]]
do = "run"
[[step]]
do = "wait"
line = "SPI_FAST_FLASH_BOOT"
seconds = 2
[[step]]
do = "write"
at = 0x50000
data = "tested by {operator}"
size = 32
[[step]]
do = "run"
"""


@pytest.mark.parametrize("chip", BUILDS)
def test_a_whole_job(factory: Factory, chip: str) -> None:
    factory.file("nvs.json", '{"serial": "{serial}", "product": "{product}", "mac": "{mac_hex}"}')
    job = WHOLE.replace("CHIP", chip).replace("BUILD", BUILDS[chip].as_posix())
    lines = factory.run(job, "--set", "operator=Kim", chip=chip)
    text = b'{"serial": "A1", "product": "T1", "mac": "240ac4000110"}'
    nvs = factory.held(0x9000, 0x1000)
    assert nvs == text.ljust(0x1000, b"\xff")
    assert factory.held(0x40000, 5000) == APP
    assert factory.held(0x50000, 32) == b"tested by Kim".ljust(32, b"\xff")
    assert factory.table() == {"A1": MAC, "A2": None, "A3": None}
    result = lines[-1]
    assert result["text"].startswith("Passed: A1, 9 steps. The application is running.")
    row = factory.rows()[-1]
    assert row == {name: result["data"].get(name) for name in row}
    assert [each["state"] for each in factory.rows()] == ["started", "passed"]
    expected = {"mac": MAC, "chip": chip, "serial": "A1", "operator": "Kim", "flash_id": "ef4014"}
    assert {name: row[name] for name in expected} == expected
    assert (row["flash_size"], row["job"], row["error"]) == (0x100000, "thermostat", None)
    assert row["job_sha256"] == sha256(job.encode()).hexdigest()
    steps = row["steps"]
    assert len(steps) == 9
    assert steps[1] == {
        "do": "erase nvs",
        "seconds": steps[1]["seconds"],
        "address": 0x9000,
        "size": steps[1]["size"],
    }
    assert steps[3]["parts"] == [
        {"name": "app.bin", "address": 0x40000, "size": 5000, "sha256": sha256(APP).hexdigest()}
    ]
    assert steps[3]["unchecked"] == []
    assert {part["name"] for part in steps[4]["parts"]} >= {"app.bin", "nvs.json"}
    assert "SPI_FAST_FLASH_BOOT" in steps[6]["line"]
    assert sum(line["event"] == "Opened" for line in lines) == 1  # one connection


def test_each_board_gets_its_own_number_and_a_repetition_the_same(factory: Factory) -> None:
    job = REPORT + SERIAL
    for mac, serial in ((MAC, "A1"), (OTHER, "A2"), (MAC, "A1"), (OTHER, "A2")):
        assert factory.run(job, mac=mac)[-1]["data"]["serial"] == serial
        assert factory.held(0x20000, 16, mac) == serial.encode().ljust(16, b"\xff")
    assert factory.table() == {"A1": MAC, "A2": OTHER, "A3": None}
    assert len({row["run"] for row in factory.rows()}) == 4


def test_a_board_that_fails_keeps_its_number_and_is_listed(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*words: Any, **options: Any) -> None:
        raise VerifyError("the flash differs", ranges=((0, 1),))

    job = REPORT + SERIAL
    with monkeypatch.context() as patch:
        patch.setattr(steps_module, "write_flash", fail)
        assert factory.run(job, code=7)[-1]["code"] == "verify"
    first, last = factory.rows()
    assert (first["state"], first["mac"], first["serial"], first["steps"]) == (
        "started",
        MAC,
        "A1",
        [],
    )
    assert (last["state"], last["error"], last["message"]) == (
        "failed",
        "verify",
        "the flash differs",
    )
    assert factory.run(job, mac=OTHER)[-1]["data"]["serial"] == "A2"
    unfinished = factory.run(job, "--unfinished")[-1]
    assert unfinished["data"]["unfinished"] == [{"mac": MAC, "serial": "A1"}]
    assert unfinished["text"] == f"mac={MAC}  serial=A1"
    assert factory.run(job)[-1]["data"]["serial"] == "A1"
    assert factory.run(job, "--unfinished")[-1]["data"]["unfinished"] == []


def test_power_lost_between_the_row_and_the_first_write(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends without any of its own cleaning up, as at a power loss."""
    real = TextReport.write

    def write(report: TextReport, row: Any) -> None:
        if row["state"] == "started":
            real(report, row)
        raise PowerLoss

    job = REPORT + SERIAL
    with monkeypatch.context() as patch:
        patch.setattr(TextReport, "write", write)
        with pytest.raises(PowerLoss):
            factory.run(job)
    factory.capsys.readouterr()
    assert not factory.touched()
    assert [(row["state"], row["serial"]) for row in factory.rows()] == [("started", "A1")]
    assert factory.run(job, mac=OTHER)[-1]["data"]["serial"] == "A2"
    assert factory.run(job)[-1]["data"]["serial"] == "A1"
    assert factory.held(0x20000, 2) == b"A1"


SWEEP = (
    REPORT
    + """
[[step]]
do = "erase"
at = 0x30000
size = 0x1000
[[step]]
do = "write"
at = 0x40000
file = "app.bin"
"""
    + SERIAL
)


def lose_power(patch: pytest.MonkeyPatch, at: float) -> list[int]:
    """The program ends when it sends its request number ``at``, and none of its own cleaning up is done; returns the
    number of requests so far."""
    real, count = VirtualTransport.write, [0]

    def write(transport: VirtualTransport, data: bytes, deadline: float) -> None:
        count[0] += 1
        if count[0] > at:
            raise PowerLoss
        real(transport, data, deadline)

    patch.setattr(VirtualTransport, "write", write)
    patch.setattr(JobRun, "fail", lambda run, error: None)
    return count


def lose_power_once(factory: Factory, at: float) -> str:
    """A job that loses power, then one on another board, then the same command again; returns how far the first came."""
    for path in [*factory.folder.glob("*.flash"), factory.folder / "report.jsonl"]:
        path.unlink(missing_ok=True)
    factory.serials("A1", "A2")
    with pytest.MonkeyPatch.context() as patch:
        lose_power(patch, at)
        with pytest.raises(PowerLoss):
            factory.run(SWEEP)
    factory.capsys.readouterr()
    rows, assigned = factory.rows(), factory.table()["A1"] == MAC
    written = factory.touched()
    assert not written or rows, "flash was written before the report had a row"
    assert not rows or assigned, "the report has a row of a board without a serial number"
    assert {row["state"] for row in rows} <= {"started"}
    serials = {mac: factory.run(SWEEP, mac=mac)[-1]["data"]["serial"] for mac in (OTHER, MAC)}
    assert serials == ({MAC: "A1", OTHER: "A2"} if assigned else {OTHER: "A1", MAC: "A2"})
    for mac, serial in serials.items():
        assert factory.held(0x20000, 16, mac) == serial.encode().ljust(16, b"\xff")
        assert factory.held(0x40000, 5000, mac) == APP
    assert [row["state"] for row in factory.rows()[len(rows) :]] == ["started", "passed"] * 2
    return "written" if written else "row" if rows else "assigned" if assigned else "connecting"


def test_power_lost_at_any_request_and_the_same_command_again(factory: Factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count = lose_power(patch, float("inf"))
        factory.run(SWEEP)
    reached = {lose_power_once(factory, at) for at in range(1, count[0], count[0] // 7)}
    assert reached >= {"connecting", "row", "written"}


@pytest.mark.soak
def test_power_lost_at_every_request_and_the_same_command_again(factory: Factory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        count = lose_power(patch, float("inf"))
        factory.run(SWEEP)
    reached = Counter(lose_power_once(factory, at) for at in range(1, count[0]))
    print(dict(reached))
    assert set(reached) >= {"connecting", "row", "written"}


def test_a_job_that_is_run_again_after_the_board_was_lost_has_one_row(tmp_path: Path) -> None:
    """``Context.run_operation`` calls ``work`` again, with a new device."""
    text = f'[report]\nfile = "report.jsonl"\n{SERIAL.replace("{serial}", "x")}'
    run = JobRun(parse_job(text.encode(), str(tmp_path / "x")))
    port = f"virtual:esp32c3?size=1MB&profile=instant&flash={(tmp_path / 'flash').as_posix()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "Parts", fail_once(run_module.Parts))
        for lost in (True, False):
            with connect(port) as device:
                if lost:
                    with pytest.raises(TransportLost):
                        run.work(device)
                else:
                    run.work(device)
    run.finish()
    lines = (tmp_path / "report.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["started", "passed"]


def fail_once(real: type) -> Callable[..., Any]:
    """As ``real``, but the first call ends as if the cable was pulled."""
    left = [TransportLost("the cable was pulled")]

    def call(*words: Any) -> Any:
        if left:
            raise left.pop()
        return real(*words)

    return call


def test_the_row_is_in_the_report_before_the_first_byte_is_written(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], dict[str, str | None], bool]] = []

    def watch(*words: Any, **options: Any) -> Any:
        seen.append(([row["state"] for row in factory.rows()], factory.table(), factory.touched()))
        return write_flash(*words, **options)

    monkeypatch.setattr(steps_module, "write_flash", watch)
    factory.run(REPORT + SERIAL)
    assert seen == [(["started"], {"A1": MAC, "A2": None, "A3": None}, False)]


def test_rows_of_a_csv_file_and_a_report_as_csv(factory: Factory) -> None:
    factory.file("boards.csv", f"mac,serial,file\n{MAC},B7,app\n{OTHER},B8,missing\n")
    job = """
        [boards]
        file = "boards.csv"
        [report]
        file = "report.csv"
        fields = ["serial"]
        [[step]]
        do = "write"
        at = 0x20000
        file = "{file}.bin"
    """
    factory.run(job)
    assert factory.held(0x20000, 5000) == APP
    failed = factory.run(job, mac=OTHER, code=6)[-1]
    assert (failed["code"], factory.touched(OTHER)) == ("file-read", False)
    unknown = factory.run(job, mac="24:0a:c4:00:01:12", code=6)[-1]
    assert unknown["code"] == "board-unknown"
    with (factory.folder / "report.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], row["mac"], row["serial"], row["error"]) for row in rows] == [
        ("started", MAC, "B7", ""),
        ("passed", MAC, "B7", ""),
        ("failed", OTHER, "B8", "file-read"),
        ("failed", "24:0a:c4:00:01:12", "", "board-unknown"),
    ]


def test_a_report_and_the_rows_of_boards_in_one_database(factory: Factory) -> None:
    job = REPORT.replace("report.jsonl", "boards.db") + SERIAL
    factory.run(job)
    connection = sqlite3.connect(factory.folder / "boards.db")
    rows = connection.execute("SELECT state, mac, serial FROM runs").fetchall()
    connection.close()
    assert rows == [("passed", MAC, "A1")]


def test_no_free_number_is_an_error_before_the_board_is_written(factory: Factory) -> None:
    factory.serials("A1")
    factory.run(REPORT + SERIAL)
    failed = factory.run(REPORT + SERIAL, mac=OTHER, code=6)[-1]
    assert (failed["code"], factory.touched(OTHER)) == ("no-free-row", False)
    assert [row["state"] for row in factory.rows()] == ["started", "passed", "failed"]


WRITE = '[[step]]\ndo = "write"\nat = 0x20000\n'
BEFORE = [
    ("job-file", '[[step]]\ndo = "wriet"'),
    ("file-read", WRITE + 'file = "missing.bin"'),
    ("file-read", WRITE + 'template = "missing.txt"\nsize = 9'),
    ("file-read", '[[step]]\ndo = "flash"\npath = "missing"'),
    ("build-unclear", '[[step]]\ndo = "flash"\npath = "app.bin"'),
    ("file-read", '[boards]\nfile = "missing.csv"\n' + WRITE + 'file = "app.bin"'),
    ("file-read", '[boards]\nfile = "missing.db"\n' + WRITE + 'file = "app.bin"'),
    ("boards-file", '[boards]\nfile = "empty.csv"\n' + WRITE + 'file = "app.bin"'),
    ("database-damaged", '[boards]\nfile = "damaged.db"\n' + WRITE + 'file = "app.bin"'),
    ("boards-file", '[boards]\nfile = "boards.db"\ntable = "x"\n' + WRITE + 'file = "app.bin"'),
    ("job-variable", WRITE + 'data = "{serial}"\nsize = 9'),
    (
        "job-variable",
        '[report]\nfile = "r.csv"\nfields = ["operator"]\n' + WRITE + 'file = "app.bin"',
    ),
    (
        "job-variable",
        '[variables]\nserial = "1"\n[boards]\nfile = "boards.db"\n' + WRITE + 'file = "app.bin"',
    ),
    ("file-write", '[report]\nfile = "missing/r.csv"\n' + WRITE + 'file = "app.bin"'),
    ("report-columns", '[report]\nfile = "damaged.csv"\n' + WRITE + 'file = "app.bin"'),
]


@pytest.mark.parametrize(("code", "job"), BEFORE)
def test_a_mistake_is_reported_before_the_port_is_opened(
    factory: Factory, code: str, job: str
) -> None:
    factory.file("empty.csv", "")
    factory.file("damaged.db", "text" * 1000)
    factory.file("damaged.csv", "text")
    before = sorted(path.name for path in factory.folder.iterdir())
    path = factory.file("job.toml", job)
    assert main(["--json", "-p", "/no/such/port", "job", str(path)]) in (2, 6)
    lines = [json.loads(line) for line in factory.capsys.readouterr().out.splitlines()]
    assert lines[-1]["code"] == code
    assert all(line["event"] in ("Note", "Error") for line in lines)
    assert sorted(path.name for path in factory.folder.iterdir()) == sorted([*before, "job.toml"])


ON_BOARD = [
    ("partition-unknown", 6, '[[step]]\ndo = "erase"\nat = "nothing"\n'),
    ("past-flash-end", 8, '[[step]]\ndo = "write"\nat = 0xff000\nfile = "app.bin"\n'),
    ("past-flash-end", 2, '[[step]]\ndo = "verify"\nat = 0xff000\nfile = "app.bin"\n'),
    ("unaligned", 2, '[[step]]\ndo = "erase"\nat = 0x10\nsize = 16\n'),
    ("partition-too-small", 6, '[[step]]\ndo = "write"\nat = "nvs"\ndata = "x"\nsize = 0x8000\n'),
    ("job-template", 6, '[[step]]\ndo = "write"\nat = 0x20000\ndata = "{mac}"\nsize = 4\n'),
    (
        "job-template",
        6,
        '[[step]]\ndo = "write"\nat = 0x20000\ntemplate = "app.bin"\nsize = 9000\n',
    ),
    ("wrong-chip-image", 8, f'[[step]]\ndo = "flash"\npath = "{BUILDS["esp32"].as_posix()}"\n'),
]


@pytest.mark.parametrize(("code", "exit_code", "last"), ON_BOARD)
def test_what_the_last_step_cannot_do_is_reported_before_the_first_write(
    factory: Factory, code: str, exit_code: int, last: str
) -> None:
    build = f'[[step]]\ndo = "flash"\npath = "{BUILDS["esp32c3"].as_posix()}"\n'
    failed = factory.run(REPORT + build + last, code=exit_code)[-1]
    assert failed["code"] == code
    assert not factory.touched()
    assert [(row["state"], row["error"]) for row in factory.rows()] == [("failed", code)]


def test_another_chip_than_the_job_s_is_refused(factory: Factory) -> None:
    failed = factory.run('chip = "esp32"\n' + WRITE + 'file = "app.bin"', code=4)[-1]
    assert (failed["code"], factory.touched()) == ("wrong-chip", False)
    assert failed["hint"].startswith(
        "The job is for esp32: connect such a board, or correct chip in"
    )


@pytest.mark.parametrize(
    ("at", "size", "warned"), [(0x21000, 16, True), (0x21400, 16, False), (0x1FFF0, 32, True)]
)
def test_a_step_that_replaces_data_of_an_earlier_step_is_reported(
    factory: Factory, at: int, size: int, warned: bool
) -> None:
    text = f'[[step]]\ndo = "write"\nat = {at}\ndata = "text"\nsize = {size}\n'
    lines = factory.run(WRITE + 'file = "app.bin"\n' + text)
    texts = [line["text"] for line in lines if line.get("code") == "step-replaces"]
    assert len(texts) == int(warned)
    assert all("of app.bin, which an earlier step writes" in each for each in texts)


def test_a_failed_connection_is_in_the_report(factory: Factory) -> None:
    path = factory.file(
        "job.toml",
        '[report]\nfile = "report.jsonl"\nfields = ["operator"]\n' + WRITE + 'file = "app.bin"',
    )
    port = "virtual:esp32c3?circuit=none&boot=app"
    words = ["-p", port, "--connect-attempts", "1", "job", str(path), "--set", "operator=Kim"]
    assert main(words) == 4
    (row,) = factory.rows()
    assert row["operator"] == "Kim"
    assert (row["state"], row["mac"], row["steps"]) == ("failed", None, [])
    assert row["port"] == port
    assert row["error"] == "held-in-reset"


def test_a_dry_run_assigns_nothing_writes_nothing_and_reports_nothing(factory: Factory) -> None:
    lines = factory.run(REPORT + SERIAL, "--dry-run")
    assert lines[-1]["text"] == "Nothing was done (--dry-run). The board was reset."
    assert "  1. write a text of up to 16 bytes to 0x20000" in [line.get("text") for line in lines]
    assert not factory.touched()
    assert factory.table() == {"A1": None, "A2": None, "A3": None}
    assert not (factory.folder / "report.jsonl").exists()


def test_the_steps_are_shown_without_a_board(factory: Factory) -> None:
    path = factory.file("job.toml", REPORT + SERIAL)
    assert main(["-p", "/no/such/port", "job", str(path), "--show"]) == 0
    out = factory.capsys.readouterr().out.splitlines()
    assert out == [
        "job job: 1 step",
        "  1. write a text of up to 16 bytes to 0x20000",
        "Nothing was done (--show).",
    ]


def test_a_report_that_cannot_be_written_at_the_end_is_not_a_success(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = TextReport.write

    def write(report: TextReport, row: Any) -> None:
        if row["state"] != "started":
            write_file("/dev/full/no", b"")
        real(report, row)

    monkeypatch.setattr(TextReport, "write", write)
    lines = factory.run(REPORT + SERIAL, code=6)
    assert lines[-1]["code"] == "file-write"
    assert not any(line["event"] == "Result" for line in lines)
    assert [row["state"] for row in factory.rows()] == ["started"]


def test_a_run_that_is_interrupted_is_in_the_report(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*words: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(steps_module, "write_flash", stop)
    factory.run(REPORT + SERIAL, code=130)
    assert [(row["state"], row["error"]) for row in factory.rows()] == [
        ("started", None),
        ("failed", "interrupted"),
    ]


RUN = '[[step]]\ndo = "run"\n'


def test_a_line_that_does_not_come_is_an_error_with_the_last_line(factory: Factory) -> None:
    wait = '[[step]]\ndo = "wait"\nline = "never printed"\nseconds = 1.5\n'
    failed = factory.run(REPORT + SERIAL + RUN + wait, code=5)[-1]
    assert failed["code"] == "no-line"
    assert failed["message"] == "the application printed no line with 'never printed' within 1.5 s"
    assert failed["hint"] == "Its last line was: invalid header: 0xffffffff"
    assert failed["details"]["last_line"] == "invalid header: 0xffffffff"
    row = factory.rows()[-1]
    assert (row["state"], row["error"], len(row["steps"])) == ("failed", "no-line", 2)


def test_a_line_that_is_named_as_a_failure_ends_the_wait(factory: Factory) -> None:
    wait = '[[step]]\ndo = "wait"\nline = "never printed"\nfail = "BOOT"\nseconds = 1000\n'
    failed = factory.run(RUN + wait, code=5)[-1]
    assert failed["code"] == "fail-line"
    assert "SPI_FAST_FLASH_BOOT" in failed["message"]


@pytest.mark.parametrize(("chip", "kind"), [("esp32c3", "usb-jtag"), ("esp32s3", "usb-otg")])
def test_steps_after_the_application_over_native_usb(
    factory: Factory, chip: str, kind: str
) -> None:
    wait = '[[step]]\ndo = "wait"\nline = "FLASH_BOOT"\nseconds = 2\n'
    job = (
        SERIAL.replace("{serial}", "{chip}") + RUN + wait + RUN + wait + '[[step]]\ndo = "verify"\n'
    )
    factory.run(job, chip=chip, query=f"&kind={kind}")
    assert factory.held(0x20000, 7) == chip.encode()


def test_a_port_that_cannot_reset_refuses_steps_after_the_application_before_the_first_write() -> (
    None
):
    job = parse_job(f'{SERIAL.replace("{serial}", "x")}{RUN}[[step]]\ndo = "verify"'.encode(), "x")
    with connect("virtual:esp32c3?size=1MB&profile=instant") as device:
        device.reenter = None
        with pytest.raises(DeviceError) as caught:
            JobRun(job).work(device)
        assert caught.value.code == "cannot-reset"
        assert device.flash_md5(0x20000, 16) == device.flash_md5(0x30000, 16)


def test_the_library_runs_a_job(tmp_path: Path) -> None:
    wait = '[[step]]\ndo = "wait"\nline = "FLASH_BOOT"\n'
    text = f'[[step]]\ndo = "erase"\nall = true\n{SERIAL}{RUN}{wait}[[step]]\ndo = "verify"\n'
    events: list[Event] = []
    run = JobRun(
        parse_job(text.encode(), str(tmp_path / "x")),
        variables={"serial": "A1"},
        report=events.append,
    )
    with connect("virtual:esp32c3?size=1MB&profile=instant") as device:
        run.work(device)
        assert b"".join(device.read_flash(0x20000, 2)) == b"A1"
    run.finish()
    assert run.row["state"] == "passed"
    assert [event.text for event in events if isinstance(event, Note)][1].startswith(
        "step 2 of 5: write"
    )


def test_a_verify_step_compares_what_is_still_there_of_earlier_steps(factory: Factory) -> None:
    write = '[[step]]\ndo = "write"\nat = {}\nfile = "app.bin"\n'
    erase = '[[step]]\ndo = "erase"\nat = 0x20000\nsize = 0x1000\n'
    job = write.format("0x20000") + write.format("0x21000") + erase + '[[step]]\ndo = "verify"\n'
    parts = factory.run(job)[-1]["data"]["steps"][-1]["parts"]
    assert [(part["address"], part["size"]) for part in parts] == [(0x21000, 5000)]


def test_a_verify_step_finds_what_differs(factory: Factory) -> None:
    failed = factory.run('[[step]]\ndo = "verify"\nat = 0x20000\nfile = "app.bin"\n', code=7)[-1]
    assert failed["code"] == "verify"


def test_after_a_long_pause_the_loader_is_checked(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chip that its watchdog resets while the program waits for the table: the code is the one that has
    ``Context.run_operation`` connect again."""
    monkeypatch.setattr(run_module, "LONG_PAUSE_S", -1.0)
    factory.run(REPORT + SERIAL)
    assert factory.held(0x20000, 2) == b"A1"

    def sync(loader: Loader, attempts: int | None = None, **more: Any) -> int:
        raise NoReply("no answer")

    real = run_module.check_alive

    def check(device: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Loader, "sync", sync)
            real(device)

    monkeypatch.setattr(run_module, "check_alive", check)
    failed = factory.run(REPORT + SERIAL, mac=OTHER, code=5)[-1]
    assert (failed["code"], factory.touched(OTHER)) == ("chip-reset", False)


class Output:
    """A transport whose chip prints pieces at times on its clock."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self.pieces, self.clock = list(pieces), 0.0

    def now(self) -> float:
        return self.clock

    def read(self, timeout: float) -> bytes:
        if self.pieces and self.pieces[0][0] <= self.clock + timeout:
            at, data = self.pieces.pop(0)
            self.clock = max(self.clock, at)
            return data
        self.clock += timeout
        return b""


@pytest.mark.parametrize(
    ("pieces", "found", "rest"),
    [
        ([(0.1, b"boot\r\nrea"), (0.2, b"dy 1\r\nmore")], "ready 1", b"more"),
        ([(0.1, b"\x1b[0;32mI (5) ready\x1b[0m\r\n")], "I (5) ready", b""),
        ([(0.1, b"ready> ")], "ready> ", b""),  # a prompt, then silence
        ([(1.9, b"\xff\xfe ready \x00\r\n")], "\ufffd\ufffd ready \\x00", b""),
        ([(0.1, b"\n" * 5000 + b"x" * 9000 + b"\nready\n")], "ready", b""),
    ],
)
def test_a_line_is_found_without_colours_and_across_pieces(pieces, found: str, rest: bytes) -> None:
    import re

    from espwire.jobs.wait import wait_for_line

    wait = WaitFor(re.compile("ready"), None, 2.0)
    assert wait_for_line(Output(*pieces), wait) == (found, rest)  # type: ignore[arg-type]
    (_, data), *later = pieces
    assert wait_for_line(Output(*later), wait, data) == (found, rest)  # type: ignore[arg-type]


def test_a_board_that_prints_without_end_does_not_extend_the_wait() -> None:
    import re

    from espwire.jobs.wait import wait_for_line

    output = Output(*[(at / 10, b"no\nno") for at in range(1000)])
    with pytest.raises(DeviceError) as caught:
        wait_for_line(output, WaitFor(re.compile("ready"), None, 2.0))  # type: ignore[arg-type]
    assert (caught.value.code, output.clock) == ("no-line", 2.0)


@pytest.mark.skipif(sys.platform == "win32", reason="a search cannot be interrupted on Windows")
def test_a_search_that_takes_too_long_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    import re
    import signal

    from espwire.jobs import wait as module

    monkeypatch.setattr(module, "SEARCH_S", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    wait = WaitFor(re.compile("x.*a.*a.*a.*a.*b"), None, 2.0)
    with pytest.raises(DataError, match="more than 0\\.05 s for one line") as caught:
        module.wait_for_line(Output((0.1, b"x" + b"a" * 2000 + b"\n")), wait)  # type: ignore[arg-type]
    assert caught.value.code == "job-file"
    assert signal.getsignal(signal.SIGALRM) == before


@pytest.mark.parametrize("kind", ["db", "csv", "jsonl"])
def test_a_value_that_is_not_utf_8_is_one_error_and_the_report_shows_it(
    factory: Factory, kind: str
) -> None:
    job = f"[report]\nfile = 'report.{kind}'\nfields = ['serial']\n"
    lines = factory.run(job + SERIAL, "--set", "serial=A\udcff", code=6)
    assert (lines[-1]["event"], lines[-1]["code"]) == ("Error", "job-template")
    assert not factory.touched()
    factory.run(job + SERIAL.replace("{serial}", "text"), "--set", "serial=A\udcff")
    report = (factory.folder / f"report.{kind}").read_bytes()
    assert b"passed" in report
    assert rb"A\udcff" in report
