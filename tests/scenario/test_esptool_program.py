"""``esptool.py`` and its relatives: exit codes, names in help, and the words that other tools look for in the output."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import espwire
from espwire.cli.command_table import SECTIONS
from espwire.cli.esptool import program as esptool
from espwire.cli.main import main
from espwire.cli.output import wants_colour
from espwire.errors import (
    Cancelled,
    FileError,
    NoReply,
    PortBusy,
    PortNotFound,
    SafetyStop,
    TransportLost,
    UsageError,
    VerifyError,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from elf_writer import Part, Program, write_elf

DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
ROOT = Path(__file__).resolve().parents[2]
VERIFIED = r"^Hash of data verified\."
PAGE = (ROOT / "docs/guide/scripts-and-ides.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (PortNotFound("x"), 2),
        (PortBusy("x"), 2),
        (TransportLost("x"), 1),
        (NoReply("x"), 2),
        (FileError("x"), 2),
        (VerifyError("x"), 2),
        (SafetyStop("x"), 2),
        (Cancelled("x"), 2),
    ],
)
def test_a_failure_has_esptools_exit_code(error: espwire.ToolError, code: int) -> None:
    assert esptool.find_exit_code(error) == code


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ([], 2),
        (["-h"], 0),
        (["--help"], 0),
        (["version"], 0),
        (["--chip", "ESP32-C3", "version"], 0),
        (["no-such-command"], 2),
        (["--no-such-option"], 2),
        (["--chip", "esp99", "version"], 2),
        (["-p", "/dev/no-such-port", "chip-id"], 2),
        (["-p", "virtual:esp32c3", "write-flash", "0"], 2),
        (["-p", "virtual:esp32c3", "write-flash", "0", "no-such-file"], 2),
        (["-p", "virtual:esp32c3", "erase-region", "1", "2"], 2),
        (["-p", "virtual:esp32c3", "verify-flash", "0", str(DEMO)], 2),
        (["-p", "virtual:esp32c3", "read-mac"], 0),
    ],
)
def test_a_command_line_ends_with_esptools_exit_code(
    line: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert esptool.main(line) == code
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    if code and line:
        assert re.search(r"^(error|A fatal error occurred): .+ \[[a-z-]+\]$", said.err, re.M)


def test_json_tells_the_exit_code_that_the_program_ends_with(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["--json", "-p", "virtual:esp32c3", "verify-flash", "0", str(DEMO)]
    for run, expected in ((esptool.main, 2), (main, 7)):
        assert run(line) == expected
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["exit_code"] == expected


def test_help_names_the_program_that_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    for program in ("esptool.py", "esptool"):
        assert esptool.main(["--help"], program) == 0
        text = capsys.readouterr().out
        assert text.startswith(f"Usage: {program} [OPTIONS] COMMAND")
        assert f"  {program} -p /dev/ttyUSB0" in text
        assert "espwire " not in text
    assert esptool.main(["write-flash", "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: esptool.py write-flash")
    assert esptool.main(["write-flash"]) == 2
    assert (
        "hint: For example: `esptool.py write-flash 0x0 bootloader.bin" in capsys.readouterr().err
    )


@pytest.mark.parametrize("run", [main, esptool.main])
def test_help_has_one_line_per_command_and_names_every_option(
    run: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert run(["--help"]) == 0  # type: ignore[operator]
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert len(lines) <= 85
    assert max(map(len, lines)) <= 100
    for section, commands in SECTIONS.items():
        assert section in text
        assert all(
            re.search(rf"^  {name} +{re.escape(entry.help)}$", text, re.MULTILINE)
            for name, entry in commands.items()
        )
    assert "Examples:" in text
    assert run(["--help-all"]) == 0  # type: ignore[operator]
    whole = capsys.readouterr().out
    for name in set(re.findall(r"--[a-z-]+", whole)) - {
        "--quiet",
        "--silent",
        "--verbose",
        "--trace",
        "--help",
    }:
        assert name in text, name


def test_a_misspelt_command_gets_near_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert esptool.main(["write_flahs", "0", "x.bin"]) == 2
    assert "Did you mean `esptool.py write-flash`?" in capsys.readouterr().err


def listed(task: str) -> list[str]:
    """The tokens that the guide lists for a command, as regular expressions."""
    rows = [line.split("|") for line in PAGE.splitlines() if line.startswith("| `")]
    named = [row[1] for row in rows if re.search(rf"(?<![\w-]){task}(?![\w-])", row[2])]
    return [pattern for cell in named for pattern in re.findall(r"`([^`]+)`", cell)]


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3", "esp32s3"])
def test_the_tokens_that_the_guide_lists_are_printed(
    chip: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(os.urandom(40000))
    lines = {
        "write-flash": ["write_flash", "0x10000", str(file)],
        "read-flash": ["read_flash", "0", "0x2000", str(tmp_path / "read.bin")],
        "flash-id": ["flash_id"],
        "read-mac": ["read_mac"],
    }
    seen = 0
    for task, words in lines.items():
        assert esptool.main(["--port", f"virtual:{chip}", *words]) == 0, capsys.readouterr().err
        out = capsys.readouterr().out
        patterns = listed(task) + listed("every command")
        assert len(patterns) >= 9
        for pattern in patterns:
            assert re.search(pattern, out, re.M), f"{task}: {pattern} in {out}"
            seen += 1
    print(f"{chip}: {seen} tokens")


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("get-security-info", ""),
        ("read-flash-status", ""),
        ("write-flash-status", "0"),
        ("read-flash-sfdp", "0 4"),
        ("dump-mem", "0x50000000 16 {out}"),
        ("erase-flash", ""),
        ("erase-region", "0 0x1000"),
        ("merge-bin", "-o {out} 0 {demo}"),
        ("elf2image", "-o {out} {elf}"),
    ],
)
def test_the_tokens_of_other_commands_are_printed(
    task: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    elf = tmp_path / "app.elf"
    elf.write_bytes(write_elf(Program([Part(".dram0.data", 0x3FC80000, b"data" * 4)])))
    line = words.format(out=tmp_path / "out.bin", demo=DEMO, elf=elf).split()
    assert esptool.main(["-c", "esp32c3", "-p", "virtual:esp32c3?size=1MB", task, *line]) == 0, (
        capsys.readouterr().err
    )
    out = capsys.readouterr().out
    patterns = listed(task)
    assert patterns
    for pattern in patterns:
        assert re.search(pattern, out, re.M), f"{task}: {pattern} in {out}"


def test_erasing_all_before_writing_and_a_watchdog_reset_have_their_tokens(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = [
        "--after",
        "watchdog-reset",
        "-p",
        "virtual:esp32c3?size=1MB",
        "write-flash",
        "--erase-all",
        "0",
        str(DEMO),
    ]
    assert esptool.main(line) == 0
    out = capsys.readouterr().out.splitlines()
    assert "Flash memory erased successfully." in out
    assert out[-1] == "Hard resetting with a watchdog..."
    assert esptool.main(["-p", "virtual:esp32c3?size=1MB", "write-flash", "0", str(DEMO)]) == 0
    assert "erased successfully" not in capsys.readouterr().out


def test_the_chip_id_of_an_esp8266_is_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert esptool.main(["-p", "virtual:esp8266", "chip_id"]) == 0
    out = capsys.readouterr().out
    assert all(re.search(pattern, out, re.M) for pattern in listed("chip-id"))


def test_percentages_rise_to_a_hundred_and_hold_an_address(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(os.urandom(100_000))
    assert esptool.main(["-p", "virtual:esp32", "write_flash", "0x10000", str(file)]) == 0
    found = re.findall(
        r"^Writing at 0x([0-9a-f]{8})\.\.\. \((\d+) %\)$", capsys.readouterr().out, re.M
    )
    percents = [int(percent) for _, percent in found]
    addresses = [int(address, 16) for address, _ in found]
    assert len(percents) >= 10
    assert percents == sorted(set(percents))
    assert percents[-1] == 100
    assert addresses == sorted(addresses)
    assert addresses[-1] == 0x10000 + 100_000


def test_a_failure_is_announced_by_the_words_that_ides_wait_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert esptool.main(["-p", "virtual:esp32c3", "verify-flash", "0", str(DEMO)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(
        "A fatal error occurred: Verification failed: the flash differs from "
    )
    assert "Hash of data verified" not in said.out
    assert "Verification successful" not in said.out


def test_image_info_prints_what_scripts_search_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert esptool.main(["image_info", str(DEMO)]) == 0
    out = capsys.readouterr().out
    assert "Detected image type: ESP32-C3" in out.splitlines()
    assert re.search(r"^Entry point: 0x[0-9a-f]{8}$", out, re.M)
    assert re.search(r"^Segments: \d+$", out, re.M)
    assert re.search(r"^Checksum: 0x[0-9a-f]{2} \(valid\)$", out, re.M)
    assert re.search(r"^Validation hash: [0-9a-f]{64} \(valid\)$", out, re.M)


def test_a_damaged_image_is_invalid_in_the_words_that_scripts_search_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = bytearray(DEMO.read_bytes())
    data[100] ^= 1
    path = tmp_path / "damaged.bin"
    path.write_bytes(data)
    assert esptool.main(["image_info", str(path)]) == 2
    out = capsys.readouterr().out
    assert re.search(r"^Checksum: 0x[0-9a-f]{2} \(invalid\)$", out, re.M)
    assert re.search(r"^Validation hash: [0-9a-f]{64} \(invalid\)$", out, re.M)


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3", "esp32s3"])
def test_erasing_reports_success_in_the_words_that_scripts_search_for(
    chip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert esptool.main(["-p", f"virtual:{chip}?size=1MB", "erase_flash"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "Flash memory erased successfully." in out
    assert "Chip erase completed successfully." in out
    assert esptool.main(["-p", f"virtual:{chip}?size=1MB", "erase_region", "0x80000", "ALL"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert "Detected flash size: 1MB" in out
    assert "Flash memory region erased successfully." in out
    assert esptool.main(["-p", f"virtual:{chip}?size=1MB", "erase_flash", "--dry-run"]) == 0
    assert "successfully" not in capsys.readouterr().out


def test_verify_reports_success_in_the_words_that_scripts_search_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    port = f"virtual:esp32c3?flash={(tmp_path / 'flash.bin').as_posix()}"
    assert esptool.main(["-p", port, "write_flash", "0", str(DEMO)]) == 0
    capsys.readouterr()
    assert esptool.main(["-p", port, "verify_flash", "0", str(DEMO)]) == 0
    assert "Verification successful (digest matched)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("flash-id", "Manufacturer:"),
        ("read-mac", "MAC:"),
        ("chip-id", "MAC:"),
        ("get-security-info", "Flags:"),
        ("read-flash-status", "Status:"),
        ("read-mem 0x60008000", "0x60008000 ="),
        ("chip-info", "Crystal:"),
        ("read-flash-sfdp 0 4", "SFDP"),
    ],
)
def test_what_was_asked_for_is_printed_before_the_reset(
    words: str, found: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert esptool.main(["-p", "virtual:esp32c3", *words.split()]) == 0
    out = capsys.readouterr().out
    assert found in out
    assert out.endswith("Leaving...\nHard resetting via RTS pin...\n")


def test_the_reset_is_printed_when_a_command_has_no_result(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert esptool.main(["-p", "virtual:esp32c3", "run"]) == 0
    assert "Leaving..." in capsys.readouterr().out


def test_espwire_itself_keeps_its_own_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-p", "virtual:esp32c3", "read-mac"]) == 0
    out = capsys.readouterr().out
    assert "Chip is" not in out
    assert "Found ESP32-C3" in out


def test_no_token_spoils_json_or_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    assert esptool.main(["--json", "-p", "virtual:esp32c3", "read-mac"]) == 0
    assert all(json.loads(line)["v"] == 1 for line in capsys.readouterr().out.splitlines())
    assert esptool.main(["-s", "-p", "virtual:esp32c3", "read-mac"]) == 0
    assert capsys.readouterr().out.splitlines() == ["MAC: 24:0a:c4:00:01:10"]


def test_the_version_ends_with_the_esptool_that_is_spoken(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for line in (["version"], ["-c", "esp32", "version"]):
        assert esptool.main(line) == 0
        out = capsys.readouterr().out
        assert re.search(r"esptool(?:\.py)? v?([\d.]+)", out)
        assert out.splitlines()[-1] == "5.6.0"
        assert out.startswith(f"espwire {espwire.__version__}")


class Terminal:
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("environment", "terminal", "colour"),
    [
        ({"WT_SESSION": "1"}, True, True),
        ({}, False, False),
        ({"WT_SESSION": "1", "NO_COLOR": "1"}, True, False),
        ({"WT_SESSION": "1", "NO_COLOR": ""}, True, True),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "0"}, False, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"WT_SESSION": "1", "TERM": "dumb"}, True, False),
    ],
)
def test_no_color_and_force_color_are_honoured(
    environment: dict[str, str], terminal: bool, colour: bool
) -> None:
    stream = Terminal() if terminal else open(os.devnull, encoding="utf-8")  # noqa: SIM115
    assert wants_colour(stream, environment) is colour  # type: ignore[arg-type]
    if not terminal:
        stream.close()  # type: ignore[union-attr]


def test_an_error_is_coloured_only_if_that_is_wanted() -> None:
    command = [sys.executable, "-m", "espwire", "no-such-command"]
    plain = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    for extra, coloured in (
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ):
        done = subprocess.run(
            command, capture_output=True, text=True, env=plain | extra, check=False
        )
        assert done.returncode == 2
        assert ("\x1b[" in done.stderr) is coloured
