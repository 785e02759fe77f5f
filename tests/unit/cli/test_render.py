"""Events as lines, JSON and a bar."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from espwire.cli.output import Output
from espwire.cli.render import Bar, JsonLines, Plain, describe, dump, open_renderer
from espwire.events import (
    ChipFound,
    Event,
    Finished,
    Note,
    Opened,
    PlannedStep,
    PlanReady,
    Progress,
    Reporter,
    Resetting,
    Result,
    Thinned,
    Warned,
)

EVENTS: list[Event] = [
    Opened(port="p", baud=115200),
    Resetting(how="classic", into="loader"),
    ChipFound(
        chip="esp32c3", description="ESP32-C3 (QFN32)", revision="v0.4", mac="60:55:f9:00:00:01"
    ),
    PlanReady(steps=("write a",), wire_bytes=2000, seconds=1.5),
    Finished(task="write", name="a", size=1000, seconds=0.5),
    Result(command="read-mac", text="MAC", data={"mac": "x"}),
    Note(text="by the way"),
    Warned(code="odd", text="hm"),
]


def progress(size: int = 10_000, step: int = 100) -> list[Progress]:
    return [
        Progress(task="write", name="a.bin", done=done, total=size, percent=100 * done / size)
        for done in range(0, size + 1, step)
    ]


def test_progress_is_a_line_per_ten_percent(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Plain(Output())
    for event in progress():
        draw(event)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10
    assert lines[0] == "Writing a.bin: 10 % of the job"
    assert lines[-1].startswith("Writing a.bin: 100 %")


def test_progress_of_nothing_is_no_line_and_no_division_by_zero(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Plain(Output())(Progress(task="write", name="", done=0, total=0))
    assert capsys.readouterr().out == ""


def test_no_progress_leaves_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Plain(Output(), progress=False)
    for event in [*progress(), *EVENTS]:
        draw(event)
    out, err = capsys.readouterr()
    assert "%" not in out
    assert "ESP32-C3 (QFN32)" in out
    assert "warning: hm [odd]" in err


def test_quiet_says_results_and_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Plain(Output(), quiet=True)
    for event in [*progress(), *EVENTS]:
        draw(event)
    out, err = capsys.readouterr()
    assert out == "MAC\n"
    assert err == "warning: hm [odd]\n"


def test_every_event_but_progress_has_words() -> None:
    assert all(describe(event, verbose=True) for event in EVENTS)
    assert describe(Resetting(how="classic", into="loader"), verbose=False) is None


def test_json_lines_hold_every_event_with_version_and_sequence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = Reporter(sink=JsonLines(Output()), device="p")
    for event in EVENTS:
        report(event)
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().out.splitlines()
    ]
    assert [line["event"] for line in lines] == [type(event).__name__ for event in EVENTS]
    assert [line["seq"] for line in lines] == list(range(1, len(EVENTS) + 1))
    assert all(line["v"] == 1 and line["device"] == "p" and line["time"] >= 0 for line in lines)


def test_json_progress_is_thinned_but_first_and_last_come(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = Thinned(JsonLines(Output()))
    for event in progress(100_000, 10):
        draw(event)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (lines[0]["done"], lines[-1]["done"]) == (0, 100_000)
    assert len(lines) < 200


def test_json_of_odd_values_is_still_json() -> None:
    assert json.loads(dump({"a": b"\x01", "b": {1, 2}, "c": "\udc80"}))["a"] == "01"


def test_the_renderer_fits_the_output() -> None:
    output = Output()
    common = {"verbose": False, "progress": True}
    assert isinstance(
        open_renderer(output, as_json=True, quiet=False, terminal=True, **common), JsonLines
    )
    assert isinstance(
        open_renderer(output, as_json=False, quiet=False, terminal=True, **common), Bar
    )
    assert isinstance(
        open_renderer(output, as_json=False, quiet=True, terminal=True, **common), Plain
    )
    assert isinstance(
        open_renderer(output, as_json=False, quiet=False, terminal=False, **common), Plain
    )


def test_the_bar_draws_and_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    draw = Bar(Output())
    for event in [*progress(1000, 250), *EVENTS]:
        draw(event)
    draw.close()
    out, _ = capsys.readouterr()
    assert "Wrote a: 1,000 bytes in 0.5 s, 16 kbit/s." in out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_bar_fits_the_terminal_and_shows_the_whole_job(columns, monkeypatch):
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stdout", drawn)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    draw = Bar(Output())
    event = Progress(
        task="write",
        name="firmware of the left board.bin",
        done=10,
        total=20,
        percent=99.9,
        job_done=16_000_000,
        job_total=16 << 20,
        rate=125_000,
        seconds_left=3599.2,
    )
    draw(event)
    draw.close()
    rows = [
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", row) for row in re.split("[\r\n]", drawn.getvalue())
    ]
    last = [row for row in rows if "━" in row][-1]
    assert last.startswith("Writing ")
    assert last.rstrip().endswith(" 99 %  15,625/16,384 KiB  1000 kbit/s  60:00 left")
    assert len(last) <= columns
    assert ("firmware" in last) == (columns >= 80)


class Gone(io.StringIO):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, "gone")


def test_a_reader_who_leaves_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    monkeypatch.setattr("sys.stdout", Gone(errno.EPIPE))
    output = Output()
    output.line("a")
    output.line("b")
    output.finish()


def test_a_full_disk_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from espwire.errors import FileError

    monkeypatch.setattr("sys.stdout", Gone(errno.ENOSPC))
    output = Output()
    output.line("a")
    with pytest.raises(FileError, match="standard output"):
        output.finish()


@pytest.mark.parametrize(
    ("kinds", "head"),
    [
        (["skip", "verify"], "Plan: nothing to write"),
        (["skip"], "Plan: nothing to write"),
        (["skip", "write"], "Plan: 5 bytes to send, about 0.2 s"),
        (["erase"], "Plan: 5 bytes to send, about 0.2 s"),
    ],
)
def test_a_plan_that_changes_nothing_is_called_that(kinds: list[str], head: str) -> None:
    steps = tuple(PlannedStep(kind, 0, 1) for kind in kinds)
    plan = PlanReady(steps=(), wire_bytes=5, seconds=0.2, actions=steps)
    assert describe(plan, verbose=False) == head


@pytest.mark.parametrize(
    "event",
    [
        Warned(code="x", text="a\x1b[2Jb\nc"),
        Note(text="a\x1b[2Jb\nc"),
        PlanReady(steps=("write a\x1b[2Jb\nc",), wire_bytes=0, seconds=0.0),
    ],
)
def test_what_files_and_chips_say_does_not_drive_the_terminal(event):
    text = describe(event, verbose=True)
    assert "a\\x1b[2Jb c" in text
    assert "\x1b" not in text
