"""The token of an espwire:// URL is not printed, logged or put into file names."""

from __future__ import annotations

import json
from pathlib import Path

from espwire.cli.main import main

TOKEN = "0123456789abcdef"
URL = f"espwire://127.0.0.1:1?token={TOKEN}"


def test_the_token_of_a_port_is_nowhere_in_the_output(capsys) -> None:
    assert main(["-p", URL, "--json", "chip-info"]) == 3
    said = capsys.readouterr()
    event = json.loads(said.out.splitlines()[-1])
    assert event["device"] == "espwire://127.0.0.1:1?token=***"
    assert main(["-p", URL, "chip-info"]) == 3
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err


def test_the_token_is_not_in_the_logs_of_several_boards(
    capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main(["-p", f"{URL},{URL}x", "--json", "chip-info"]) != 0
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    for path in tmp_path.rglob("*"):
        assert TOKEN not in path.name
        assert path.is_dir() or TOKEN not in path.read_text("utf-8", "replace")
