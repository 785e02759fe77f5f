"""The same `esptool.py write_flash` calls through esptool 5.6.0 and through us, over old content: the same flash after.

We write only what differs, so what flash holds before matters. Each program runs with its own stub, or without one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from both_programs import run_ours
from line_files import make_files
from line_generator import Drawer, write_over
from test_command_lines import Comparison, compare, line

from espwire.cli.context import Context
from espwire.cli.esptool.program import build_program
from espwire.cli.main import main

CI_CALLS, FULL_CALLS = 40, 300


def run_as_esptool(words: list[str]) -> int:
    return main(words, Context(build_program("esptool.py")))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    make_files(folder)
    return folder


def compare_calls(count: int, seed: int, esptool: str, place: Path, files: Path) -> Comparison:
    drawer = Drawer(seed)
    lines = (write_over(drawer) for _ in range(count))
    result = compare(lines, esptool, place, files, run_as_esptool)
    print(
        f"{count} calls: " + ", ".join(f"{n} {kind}" for kind, n in sorted(result.counts.items()))
    )
    return result


def check(result: Comparison, count: int) -> None:
    assert not result.found, "\n".join(result.found)
    assert result.counts["accepted by both"] * 10 >= count * 7
    assert result.counts["refused by both"] * 40 >= count


def test_both_leave_the_same_flash(esptool: str, files: Path, tmp_path: Path) -> None:
    check(compare_calls(CI_CALLS, 15, esptool, tmp_path, files), CI_CALLS)


@pytest.mark.soak
def test_full_size(esptool: str, files: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("ESPWIRE_SEED", "1500"))
    check(compare_calls(FULL_CALLS, seed, esptool, tmp_path, files), FULL_CALLS)


def test_a_difference_is_noticed(
    esptool: str, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neighbours that are kept, as under the name espwire."""
    call = line(
        "esp32c3", "write-flash 0x10234 odd5.bin", stub=True, preset=((0x10000, "odd5.bin"),)
    )
    result = compare([call], esptool, tmp_path, files, main)
    assert result.counts["different"] == 1
    assert "flash differs from 0x10000" in result.found[0]


def test_the_peers_lines_are_printed_for_what_was_in_flash(files: Path, tmp_path: Path) -> None:
    call = line(
        "esp32c3", "write-flash 0x10000 large.bin", stub=True, preset=((0x10000, "large.bin"),)
    )
    end = run_ours(call, tmp_path, files, run_as_esptool)
    assert end.accepted
    assert "Wrote 25600 bytes at 0x00010000 in " in end.text
    assert "Hash of data verified." in end.text
