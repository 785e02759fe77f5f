"""Commands on several virtual boards at once: a process for each, one failure among them, logs, JSON, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import espwire
from espwire.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/events.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"


def port(folder: Path, number: int, chip: str = "esp32c3", more: str = "") -> str:
    flash = (folder / f"{number}.flash").as_posix()
    mac = f"24:0a:c4:00:02:{number:02x}"
    return f"virtual:{chip}?flash={flash}&profile=instant&mac={mac}{more}"


def test_boards_are_written_and_the_one_that_fails_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = tmp_path / "logs"
    ports = [port(tmp_path, 1), port(tmp_path, 2, "esp32"), port(tmp_path, 3)]
    line = ["--no-state", "--log-dir", str(logs), "-p", ",".join(ports)]
    assert main(["--json", *line, "write-flash", "0", str(DEMO)]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_board: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        VALIDATOR.validate(event)
        by_board[event["device"]].append(event)
    assert set(by_board) == {*ports, ""}
    for own in by_board.values():
        assert [event["seq"] for event in own] == list(range(1, len(own) + 1))
    assert [by_board[each][-1]["event"] for each in ports] == ["Result", "Error", "Result"]
    assert by_board[ports[1]][-1]["code"] == "wrong-offset"
    # the last line is the summary
    assert events[-1]["device"] == ""
    assert (events[-1]["event"], events[-1]["code"]) == ("Error", "boards-failed")
    assert f"1 of 3 boards failed: {ports[1]} (wrong-offset)" in events[-1]["message"]
    boards = events[-1]["details"]["boards"]
    assert [each["state"] for each in boards] == ["passed", "failed", "passed"]
    assert [each["mac"][-2:] for each in boards] == ["01", "02", "03"]
    assert boards[0]["data"]["bytes_written"] == DEMO.stat().st_size
    for number in (1, 3):
        written = (tmp_path / f"{number}.flash").read_bytes()
        assert written.startswith(DEMO.read_bytes())
    text = Path(boards[1]["log"]).read_text("utf-8")
    assert "[wrong-offset]" in text
    assert len(list(logs.iterdir())) == 3


def test_without_a_terminal_each_line_names_its_board(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ports = [port(tmp_path, number) for number in (1, 2)]
    name = str(tmp_path / "part-{mac}.bin")
    line = ["--no-state", "-p", ",".join(ports), "read-flash", "0", "16", name]
    assert main(line) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "Done: 2 of 2 boards passed."
    assert all(line.removeprefix("PASS ").startswith("virtual:esp32c3?") for line in out[:-1])
    assert sorted(path.name for path in tmp_path.glob("part-*")) == [
        "part-240ac4000201.bin",
        "part-240ac4000202.bin",
    ]


def test_ports_from_the_environment_and_a_missing_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = [port(tmp_path, number) for number in (1, 2)]
    monkeypatch.setenv("ESPWIRE_PORT", ",".join(ports))
    missing = str(tmp_path / "missing.bin")
    assert main(["--no-state", "--json", "write-flash", "0", missing]) == 1
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(event["device"] for event in events) == ["", *ports]
    assert [each["code"] for each in events[-1]["details"]["boards"]] == ["file-read"] * 2
    assert events[-1]["hint"] == "Check the path and its permissions."


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_processes_of_all_boards(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    ports = [f"virtual:esp32c3?pace=1&seed={seed}" for seed in (1, 2)]
    target = str(tmp_path / "{port}.bin")
    line = [sys.executable, "-m", "espwire", "--no-state", "--json", "--no-stub"]
    line += ["-p", ",".join(ports), "read-flash", "0", "1M", target]
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        seen: set[str] = set()
        for text in process.stdout:
            event = json.loads(text)
            if event["event"] == "Progress":
                seen.add(event["device"])
            if seen == set(ports):
                break
        process.send_signal(number)
        rest = [json.loads(text) for text in process.stdout]
        assert process.wait(30) == 128 + number
    ends = {event["device"]: event["code"] for event in rest if event["event"] == "Error"}
    if name == "SIGINT":
        assert ends == {ports[0]: "cancelled", ports[1]: "cancelled", "": "cancelled"}
        states = [each["state"] for each in rest[-1]["details"]["boards"]]
        assert states == ["stopped", "stopped"]
    # what is read already is kept, under the name of a partial file
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"virtual-esp32c3-pace-1-seed-{seed}.bin.partial" for seed in (1, 2)
    ]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_watch_works_on_each_board_that_is_plugged_in(tmp_path: Path) -> None:
    """Boards are links to pseudo-terminals; a link that appears is a board that is plugged in."""
    serve = [sys.executable, "-m", "espwire", "virtual", "serve", "esp32c3", "--pty"]
    serve += ["--profile", "instant"]
    links = [tmp_path / "a", tmp_path / "b"]
    line = [sys.executable, "-m", "espwire", "--no-state", "--watch"]
    line += ["-p", ",".join(map(str, links)), "read-mac"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as chip:
        try:
            assert chip.stdout is not None
            path = chip.stdout.readline().removeprefix("listening on ").split()[0]
            links[0].symlink_to(path)
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                ends: list[str] = []
                for text in process.stdout:
                    if text.startswith(("PASS", "FAIL")):
                        ends.append(text)
                        if len(ends) == 1:
                            os.replace(links[0], links[1])
                        elif len(ends) == 2:
                            process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0
        finally:
            chip.kill()
    for link, end in zip(links, ends, strict=True):
        assert end.startswith(f"PASS {link} (ESP32-C3")
    assert text == "Done: 2 of 2 boards passed.\n"
