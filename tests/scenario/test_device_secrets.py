"""Key bytes appear in no output, trace, packet file, journal or result of the commands that use keys on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_efuse_wire import collect_files, find_spellings
from test_host_key import KEYS, Board, boot_image, build_partitions

from espwire.cli.main import main

KEY = KEYS[32]


class Watched(Board):
    """A board whose flash encryption key is in no port name. ``shown``: all that the commands printed."""

    shown = ""

    def try_line(self, *words: object) -> int:
        """Run a command line on the board; the exit code."""
        url = f"virtual:{self.chip}?{self.query}&flash={self.flash_path.as_posix()}"
        code = main(["-p", url, *map(str, words)])
        out, err = self.capsys.readouterr()
        self.shown += out + err
        return code


@pytest.fixture
def board(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Watched:
    state = tmp_path / "state"
    monkeypatch.setattr("espwire.cli.state.find_state_file", lambda: state / "state.json")
    board = Watched(tmp_path, capsys)
    board.query = board.query.replace(f"&flash-key={KEY.hex()}", "")
    board.file("app.bin", boot_image("esp32c3"))
    return board


def find_leaks(board: Watched) -> list[str]:
    """Spellings of the key in what was printed, and in all files but the key's own."""
    board.path("key.bin").unlink()
    found = find_spellings(KEY, board.shown + collect_files(board.folder))
    board.path("key.bin").write_bytes(KEY)
    raw = (
        data
        for path in board.folder.rglob("*")
        if path.is_file() and path.name != "key.bin"
        for data in [path.read_bytes()]
    )
    return found + ["raw" for data in raw if KEY in data or KEY[::-1] in data]


@pytest.mark.parametrize(
    "options", [(), ("--json",), ("--verbose",), ("--trace",), ("--trace", "--json")]
)
def test_commands_that_use_the_key(board: Watched, options: tuple[str, ...]) -> None:
    key, app = board.path("key.bin"), board.path("app.bin")
    lines: list[tuple[tuple[object, ...], int]] = [
        (("write-flash", "--key", key, "0x10000", app), 0),
        (("write-flash", "--key", key, "0x10000", app, "--dry-run"), 0),
        (("verify-flash", "--key", key, "0x10000", app), 0),
        (("verify-flash", "--diff", "--key", key, "0x10000", board.file("b.bin", app.read_bytes()[::-1])), 7),
        (("read-flash", "--key", key, "0x8000", "0x10000", board.path("copy.bin")), 0),
        (("secure", "signature-info", "--key", key), 6),
        (("secure", "status"), 0),
        (("write-flash", "--key", app, "0x10000", app), 6),
        (("write-flash", "--key", key, "0x10008", app), 2),
        (("read-flash", "--key", key, "0x10000", "0x1000", key), 8),
        (("--chip", "esp32", "write-flash", "--key", key, "0x10000", app), 4),
    ]  # fmt: skip
    for words, code in lines:
        assert board.try_line(*options, *words) == code, (words, board.shown)
    assert list((board.folder / "state").glob("espwire-trace-*"))  # of the last line
    assert find_leaks(board) == []


@pytest.mark.parametrize("failure", ["power", "bug"])
def test_what_a_failure_in_the_middle_leaves(
    board: Watched, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    if failure == "bug":
        monkeypatch.setattr("espwire.flash.write.check_not_blind", lambda *_: 1 / 0)
    else:
        board.query += "&fault=power@400"
    data = board.file("data.bin", boot_image("esp32c3") * 20)
    words = (
        "--no-stub",
        "write-flash",
        "-u",
        "--key",
        board.path("key.bin"),
        "--trace",
        "0x10000",
        data,
    )
    assert board.try_line(*words) == (70 if failure == "bug" else 4), board.shown[-3000:]
    assert list((board.folder / "state").glob("espwire-trace-*"))
    assert failure == "bug" or "> FLASH_DATA" in board.shown, board.shown[-2500:]
    assert find_leaks(board) == []


def test_the_search_finds_a_key_that_is_there(board: Watched) -> None:
    board.file("leak", b"x" + KEY)
    assert "raw" in find_leaks(board)
    assert build_partitions()  # the board has a table, so that the lines above reach the key
