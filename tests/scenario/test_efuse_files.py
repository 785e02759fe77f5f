"""Files of virtual eFuses: programs that use one at the same time, tokens, and plans that were changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.efuse.store import VirtualStore, open_file
from espwire.errors import FileError
from espwire.files import locked_file

CHIP, FILE = "esp32c3", "fuses"
TOKEN = "EFSR:esp32c3:000:::::::::::::eLh3fw"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(bytes(range(1, 33)))
    return tmp_path


def run(*words: str) -> int:
    return main(["efuse", "-c", CHIP, "--path-efuse-file", FILE, *words])


def burned(block: int) -> int:
    return open_file(FILE, CHIP).burned[block]


def test_a_file_that_another_program_has_burned_is_not_overwritten(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def burn_too(context: object) -> None:
        assert run("--do-not-confirm", "burn-bit", "BLOCK3", "9") == 0

    monkeypatch.setattr("espwire.cli.efuse_plan_text.confirm_burn", burn_too)
    assert run("burn-bit", "BLOCK0", "40") == 6
    assert "[efuse-file-changed]" in capsys.readouterr().err
    assert burned(3) == 1 << 9
    assert burned(0) == 0
    assert {path.name for path in folder.iterdir()} == {FILE, "key"}


def test_programs_that_burn_one_file_at_once_lose_no_bits() -> None:
    VirtualStore(CHIP, path=FILE).save()
    line = [sys.executable, "-m", "espwire", "efuse", "-c", CHIP, "--path-efuse-file", FILE]
    programs = [
        subprocess.Popen([*line, "--do-not-confirm", "burn-bit", "BLOCK0", str(40 + bit)])
        for bit in range(3)
    ]
    done = [program.wait(60) == 0 for program in programs]
    assert any(done)
    assert [bool(burned(0) >> 40 + bit & 1) for bit in range(3)] == done


def test_the_lock_of_a_file_excludes_and_leaves_nothing(folder: Path) -> None:
    with locked_file(FILE):
        with pytest.raises(FileError) as caught, locked_file(FILE, 0.05):
            pass
        assert caught.value.code == "file-locked"
    with locked_file(FILE, 0.05):
        pass
    assert [path.name for path in folder.iterdir()] == ["key"]


@pytest.mark.parametrize("command", ["dump", "summary", "burn-bit BLOCK3 1"])
def test_a_token_replaces_no_file(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(FILE).write_bytes(b"other content")
    assert run("--do-not-confirm", "--token", TOKEN, *command.split()) == 6
    assert "[file-exists]" in capsys.readouterr().err
    assert Path(FILE).read_bytes() == b"other content"
    Path(FILE).unlink()
    assert run("--do-not-confirm", "--token", TOKEN, *command.split()) == 0
    assert len(Path(FILE).read_bytes()) == 512


@pytest.mark.parametrize("key", [bytes(range(32)), b"#" * 5000 + b"-----BEGIN PRIVATE KEY-----\n"])
@pytest.mark.parametrize(
    "line",
    ["summary --file key", "dump --format joint --file-name key", "--plan key burn-bit BLOCK3 1"],
)
def test_no_output_of_the_efuse_commands_replaces_a_key(
    key: bytes, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("key").write_bytes(key)
    assert run(*line.split()) == 8
    assert "[overwrite-key]" in capsys.readouterr().err
    assert Path("key").read_bytes() == key
