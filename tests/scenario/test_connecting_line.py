"""While connecting, one line shows what is tried and when to hold BOOT; the last line says how the board was left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from espwire.cli.main import main
from espwire.cli.output import Output
from espwire.cli.render import Bar
from espwire.events import ChipFound, Connecting, Resetting

ROOT = Path(__file__).resolve().parents[2]
DEMO = str(ROOT / "src/espwire/demo/esp32c3-hello.bin")
DEAF = "virtual:esp32c3?boot=app&circuit=none&profile=instant"  # no reset leads into its bootloader


def test_a_terminal_shows_one_line_that_is_updated_in_place(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    bar = Bar(Output())
    for attempt in (1, 2):
        bar(Connecting(attempt=attempt, attempts=7, how="classic"))
        bar(Resetting(how="classic", into="loader"))
    first, second = (
        "Connecting (reset sequence classic)",
        "Connecting, attempt 2 of 7 (reset sequence classic). Hold BOOT",
    )
    blank = "\r" + " " * len(first) + "\r"
    assert capsys.readouterr().out == first + blank + second[:59]
    bar(ChipFound(chip="ESP32", description="ESP32", revision="", mac=""))
    assert capsys.readouterr().out == "\r" + " " * 59 + "\rFound ESP32.\n"
    bar.close()
    assert capsys.readouterr().out == ""


def test_plain_output_has_the_line_once_after_the_first_attempt_failed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["-p", DEAF, "--no-state", "--connect-attempts", "4", "read-mac"]) != 0
    out = capsys.readouterr().out.splitlines()
    lines = [line for line in out if "Connecting" in line]
    assert len(lines) == 1
    assert lines[0].startswith("Connecting, attempt 2 of 4 (reset sequence ")
    assert lines[0].endswith("). Hold BOOT until the chip is found.")


def test_a_port_that_cannot_reset_asks_for_both_buttons(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "-p",
        DEAF,
        "--no-state",
        "--before",
        "no-reset",
        "--connect-attempts",
        "3",
        "read-mac",
    ]
    assert main(words) != 0
    assert (
        "attempt 2 of 3, without a reset. Hold BOOT and press RESET on the board.\n"
        in capsys.readouterr().out
    )


def test_quiet_shows_nothing_and_json_has_an_event_per_attempt(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["-p", DEAF, "--no-state", "--connect-attempts", "3", "read-mac"]
    assert main(["-q", *words]) != 0
    assert capsys.readouterr().out == ""
    assert main(["--json", *words]) != 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    attempts = [
        (event["attempt"], event["attempts"]) for event in events if event["event"] == "Connecting"
    ]
    assert attempts == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(
    ("more", "ending"),
    [
        ([], "The board was reset."),
        (["--after", "no-reset"], "The board was not reset (--after no-reset)."),
        (["--after", "soft-reset"], "The application was started."),
    ],
)
def test_the_last_line_says_what_was_done_and_how_the_board_was_left(
    more: list[str], ending: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    port = f"virtual:esp32c3?profile=instant&flash={tmp_path / 'flash.bin'}"
    assert main(["-p", port, *more, "write-flash", "0x0", DEMO]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    done = "Done: 1 file, 28,224 bytes written and verified. Stable at 921600 baud."
    assert last == f"{done} {ending}"
    assert main(["-p", port, *more, "read-mac"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == ending


def test_a_port_without_lines_is_not_said_to_have_reset_the_board(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from espwire.virtual.transport import VirtualTransport

    real = VirtualTransport.__init__

    def without_lines(transport: VirtualTransport, *arguments: Any, **keywords: Any) -> None:
        real(transport, *arguments, **keywords)
        transport.info = replace(transport.info, can_reset=False)

    monkeypatch.setattr(VirtualTransport, "__init__", without_lines)
    assert main(["-p", "virtual:esp32c3?profile=instant&boot=download", "flash-id"]) == 0
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "The board was not reset: this port has no reset line."
    )


def test_results_alone_stay_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-q", "-p", "virtual:esp32c3?profile=instant", "read-mac"]) == 0
    assert capsys.readouterr().out == "MAC: 24:0a:c4:00:01:10\n"
    assert main(["--json", "-p", "virtual:esp32c3?profile=instant", "read-mac"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["event"] == "Result"
