"""Command lines without a device: options, spellings, and every way to fail."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from espwire.chips.registry import chip_ids
from espwire.cli import main as cli
from espwire.cli.app import build
from espwire.cli.command_table import GROUPS, SECTIONS
from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.errors import UsageError

COMMANDS = [name for section in SECTIONS.values() for name in section]


def failure(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The error and the hint that were printed."""
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert len(lines) == 2, err
    assert lines[0].startswith("error: ")
    assert lines[1].startswith("hint: ")
    assert "Traceback" not in out + err
    return lines[0].removeprefix("error: "), lines[1].removeprefix("hint: ")


def test_without_arguments_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "write-flash" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_table_exists_and_has_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--help"]) == 0
    assert "Usage: espwire" in capsys.readouterr().out
    assert main([command.replace("-", "_"), "-h"]) == 0


def test_every_group_of_the_table_has_commands() -> None:
    entries = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
    groups = {name for name, entry in entries.items() if not entry.function}
    chains = {"efuse"}  # a group with a function: its commands may follow each other
    assert groups | chains == GROUPS.keys()
    assert all(entries[name].function for name in chains)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_line_of_the_table_is_that_of_the_command(command: str) -> None:
    root = build()
    with click.Context(root, obj=Context()) as context:
        found = root.get_command(context, command)
    assert found is not None
    line = next(section[command].help for section in SECTIONS.values() if command in section)
    assert (found.help or "").startswith(line)


@pytest.mark.parametrize("line", [["version"], ["--version"], ["-v", "version"]])
def test_the_version(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 0
    assert capsys.readouterr().out.startswith("espwire ")


def test_global_options_stand_before_or_after(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json", "version"]) == main(["version", "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == second
    assert first["data"]["version"]


def test_chips_is_a_table_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chips"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(chip_ids())
    assert main(["chips", "ESP32-C3", "--json"]) == 0
    (chip,) = json.loads(capsys.readouterr().out)["data"]["chips"]
    assert (chip["id"], chip["image_chip_id"], chip["bootloader_offset"]) == ("esp32c3", 5, 0)


def test_a_misspelt_command_is_answered_with_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["wriet-flash"]) == 2
    error, hint = failure(capsys)
    assert error == "unknown command 'wriet-flash' [usage]"
    assert "write-flash" in hint


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--frobnicate"], "--frobnicate"),
        (["--chip", "esp99", "chips"], "esp99"),
        (["--baud", "fast", "version"], "fast"),
        (["--baud", "0", "version"], "0"),
        (["--before", "wish", "version"], "wish"),
        (["chips", "nope"], "nope"),
        (["write-flash"], "missing argument ADDRESS and FILE"),
        (["write-flash", "0x0"], "no file given for address 0x0"),
        (["read-mem", "zero"], "'zero' is not a number"),
        (["write-flash", "0x0", "a.bin", "0x10"], "0x10"),
        (["write-flash", "0x1ffffffff", "a.bin"], "above 0xffffffff"),
        (["read-flash", "0"], "SIZE"),
        (["read-flash", "0", "much", "out"], "'much' is not a number"),
        (["@"], "no file name after '@'"),
        (["virtual", "sevre"], "unknown command 'sevre' of virtual"),
    ],
)
def test_a_line_that_makes_no_sense_is_exit_2(
    line: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line) == 2
    error, hint = failure(capsys)
    assert said in error
    assert error.endswith("[usage]")
    assert hint.endswith((".", "`", "?", "!"))


def test_an_argument_file_that_is_missing_is_exit_6(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["@/no/such/file"]) == 6
    assert failure(capsys)[0].endswith("[file]")


def test_a_device_command_without_a_port_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    from serial.tools import list_ports

    monkeypatch.setattr(list_ports, "comports", list)
    assert main(["read-mac"]) == 3
    error, hint = failure(capsys)
    assert error == "no serial port found [no-port]"
    assert "Connect the board" in hint
    facts = {
        "device": "/dev/ttyS7",
        "vid": None,
        "pid": None,
        "serial_number": None,
        "location": None,
    }
    ports = [SimpleNamespace(**facts, description="n/a", manufacturer=None)]
    monkeypatch.setattr(list_ports, "comports", lambda: ports)
    assert main(["read-mac"]) == 3
    error, hint = failure(capsys)
    assert error == "no board found [no-port]"
    assert "/dev/ttyS7 (not a USB port, used only with --any-port)" in hint


def test_with_json_an_error_is_one_line_on_standard_output(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--json", "chips", "nope"]) == 2
    out, err = capsys.readouterr()
    assert err == ""
    event: dict[str, Any] = json.loads(out)
    assert {key: event[key] for key in ("v", "event", "code", "exit_code", "details")} == {
        "v": 1,
        "event": "Error",
        "code": "usage",
        "exit_code": 2,
        "details": {},
    }
    assert "'nope'" in event["message"]
    assert event["hint"]


def make_the_version_raise(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*arguments: object) -> None:
        raise error

    monkeypatch.setattr(Context, "result", fail)


def test_an_unforeseen_exception_is_a_bug_and_exit_70(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_the_version_raise(monkeypatch, RuntimeError("what\nnow"))
    assert main(["version", "-v"]) == 70
    error, hint = failure(capsys)
    assert error == "RuntimeError: what now; this is a bug in espwire [bug]"
    assert "--trace" in hint
    assert main(["version", "--trace"]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    make_the_version_raise(monkeypatch, KeyboardInterrupt())
    assert main(["version", "-v"]) == 130
    assert failure(capsys)[0] == "stopped by Ctrl-C [cancelled]"


@pytest.mark.parametrize("length", [1, 2])
def test_an_error_that_is_its_own_cause_is_reported_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], length: int
) -> None:
    errors = [UsageError("what now") for _ in range(length)]
    for error, cause in zip(errors, [*errors[1:], errors[0]], strict=True):
        error.__cause__ = cause
    make_the_version_raise(monkeypatch, errors[0])
    assert main(["version", "-v"]) == 2
    assert failure(capsys)[0] == "what now [usage]"


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["\x1b[31mred\x07"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_the_fast_path_says_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["version"])
    slow = capsys.readouterr().out
    for word in ("version", "--version"):
        monkeypatch.setattr("sys.argv", ["espwire", word])
        with pytest.raises(SystemExit) as end:
            cli.run()
        assert not end.value.code
        assert capsys.readouterr().out == slow
