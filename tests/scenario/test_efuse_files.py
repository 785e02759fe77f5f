"""Files of virtual eFuses: programs that use one at the same time, tokens, and plans that were changed."""

from __future__ import annotations

import json
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


def edit_plan(**changes: object) -> None:
    content = json.loads(Path("plan").read_text())
    Path("plan").write_text(json.dumps(content | changes))


def test_a_plan_without_its_states_does_not_count_as_burned(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("--plan", "plan", "burn-bit", "BLOCK3", "5") == 0
    states = json.loads(Path("plan").read_text())["states"]
    edit_plan(states=[known[:1] for known in states])
    assert run("--do-not-confirm", "burn", "--plan", "plan") == 6
    assert "[efuse-plan]" in capsys.readouterr().err
    edit_plan(states=states)
    assert run("--do-not-confirm", "burn", "--plan", "plan") == 0
    assert burned(3) == 1 << 5
    assert run("--do-not-confirm", "burn", "--plan", "plan") == 0
    assert "already burned" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["burn-bit", "--help"], ["burn-bit", "BLOCK3", "5", "--help"]])
def test_a_plan_that_only_prints_help_is_refused(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--plan", "plan", "burn-bit", "BLOCK3", "5") == 0
    edit_plan(commands=[command])
    capsys.readouterr()
    assert run("--do-not-confirm", "burn", "--plan", "plan") == 2
    assert capsys.readouterr().out == ""
    assert not Path(FILE).exists() or not any(open_file(FILE, CHIP).burned)


def test_a_plan_that_is_nested_too_deeply_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("plan").write_text("[" * 400_000)
    assert run("--do-not-confirm", "burn", "--plan", "plan") == 6
    assert "[efuse-plan]" in capsys.readouterr().err


def test_a_plan_needs_the_value_of_a_counter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--plan", "plan", "burn-efuse", "SECURE_VERSION") == 5
    assert "[efuse-next-value]" in capsys.readouterr().err
    assert run("--plan", "plan", "burn-efuse", "SECURE_VERSION", "1") == 0


@pytest.mark.parametrize("bits", [256, 32])
def test_a_plan_stores_no_key_that_is_given_for_a_custom_field(
    bits: int, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("table").write_text(f"MINE, EFUSE_BLK4, 0, {bits}, text\n")
    value = "0x" + "a5" * (bits // 8)
    line = ["--extend-efuse-table", "table", "--plan", "plan", "burn-efuse", "MINE", value]
    assert run(*line) == 5
    output = capsys.readouterr()
    assert "[efuse-typed-key]" in output.err
    assert "a5a5" not in output.out
    assert not Path("plan").exists()
    Path("table").write_text("MINE, EFUSE_BLK3, 0, 32, text\n")
    assert run(*line[:-1], "0xa5a5a5a5") == 0


def test_a_plan_stores_no_key_that_is_given_as_bits(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--plan", "plan", "burn-bit", "BLOCK_KEY0", "1", "3") == 5
    assert "[efuse-typed-key]" in capsys.readouterr().err
    assert not Path("plan").exists()


@pytest.mark.parametrize("block", ["EFUSE_BLK" + "9" * 5000, "EFUSE_BLK\u0663", "EFUSE_BLK99"])
def test_a_custom_table_with_an_impossible_block_is_refused(
    block: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("table").write_text(f"MINE, {block}, 0, 1, text\n", "utf-8")
    assert run("--extend-efuse-table", "table", "summary") == 6
    error = capsys.readouterr().err
    assert "[efuse-table]" in error
    assert len(error) < 300


def test_an_error_of_one_block_is_not_reported_for_the_others() -> None:
    from espwire.efuse.check import find_errors

    for number in (1, 2, 3):
        store = VirtualStore("esp32")
        store.burned[0] |= 1 << store.read().layout.field("CODING_SCHEME").start
        store.set_error(store.data.blocks[number], 1)
        assert [error.block for error in find_errors(store.read())] == [number]
