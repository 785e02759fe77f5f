"""Thousands of hostile command lines: one clear error each, no traceback, nothing written. And the harness's proof."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from hostile_lines import Drawer, Line, Place, Tally, judge, run_lines

from espwire import files
from espwire.cli.main import main
from espwire.errors import FileError, ToolError

pytestmark = pytest.mark.slow

DATA = Path(__file__).resolve().parents[1] / "data"
CI_LINES, FULL_LINES, PROOF_LINES = 5_000, 100_000, 400


@pytest.fixture(autouse=True)
def _no_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no server that waits for a signal."""

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    def serve(options: object, **_: object) -> None:
        from espwire.virtual.build import build_chip
        from espwire.virtual.config import VirtualOptions

        assert isinstance(options, VirtualOptions)
        build_chip(options).flash.close()

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *_: 111)
    monkeypatch.setattr("espwire.virtual.server.serve", serve)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path, DATA)


def draw(seed: int, count: int) -> Iterator[Line]:
    drawer = Drawer(seed)
    return islice(iter(drawer.draw, None), count)


def check(tally: Tally, count: int) -> None:
    told = "\n".join(f"{line}\n    → {wrong}" for line, wrong in tally.failures[:20])
    assert not tally.failures, f"{len(tally.failures)} of {count} lines:\n{told}"
    assert sum(tally.codes.values()) == count
    assert tally.codes.keys() >= {0, 2, 3, 5, 6, 8}
    assert len(tally.ids) >= 25  # many kinds of error, not one that hides the others


def test_hostile_lines_end_in_one_clear_error(place: Place) -> None:
    tally = run_lines(draw(1, CI_LINES), place, main)
    print(
        f"{CI_LINES} hostile lines: exit codes {sorted(tally.codes.items())}, {len(tally.ids)} kinds of error"
    )
    check(tally, CI_LINES)


@pytest.mark.soak
def test_full_size(place: Place) -> None:
    seed, began = int(os.environ.get("ESPWIRE_SEED", "1000")), time.monotonic()
    tally = run_lines(draw(seed, FULL_LINES), place, main)
    print(
        f"seed {seed}: {FULL_LINES} lines in {time.monotonic() - began:.0f} s, exit codes {sorted(tally.codes.items())}"
    )
    for code, count in tally.ids.most_common():
        print(f"{count:7} {code}")
    check(tally, FULL_LINES)


class TestTheHarnessNotices:
    """With something switched off, the same lines must show it."""

    def test_a_file_that_is_left_half_written(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("os.unlink", lambda path: None)  # the cleaning up is switched off
        whole = files.OutputFile.write

        def torn(self: files.OutputFile, data: bytes) -> None:
            whole(self, data[:1])
            raise FileError("the disk is full")

        monkeypatch.setattr(files.OutputFile, "write", torn)
        line = Line(("-p", "virtual:esp32c3", "--no-stub", "read-flash", "0", "16", "out.bin"))
        tally = run_lines(iter([line]), place, main)
        assert any("changed" in wrong for _, wrong in tally.failures)

    def test_a_refused_line_that_wrote_to_flash(self, place: Place) -> None:
        def write_then_refuse(words: list[str]) -> int:
            main([word for word in words if word != "--verify"])
            return main(["nonsense"])

        line = Line(
            (
                "-p",
                "virtual:esp32c3?size=256KB&flash=chip.flash",
                "write-flash",
                "0x1000",
                "app.bin",
            )
        )
        tally = run_lines(iter([line]), place, write_then_refuse)
        assert "chip.flash" in tally.failures[0][1]

    def test_an_error_that_nobody_thought_of(
        self, place: Place, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_check(*_: object, **__: object) -> int:
            raise KeyError("x")

        monkeypatch.setattr("espwire.sizes.parse_number", no_check)
        tally = run_lines(draw(2, PROOF_LINES), place, main)
        assert any("exit code 70" in wrong for _, wrong in tally.failures)

    def test_two_errors_a_missing_hint_and_a_success_that_is_none(self) -> None:
        assert judge(2, "", "error: a [x]\nhint: look at it\n", []) == ""
        assert "not one error line" in judge(
            2, "", "error: a [x]\nerror: b [x]\nhint: look at it\n", []
        )
        assert "not one hint" in judge(2, "", "error: a [x]\n", [])
        assert "success" in judge(0, "", "error: a [x]\nhint: look at it\n", [])
        assert "traceback" in judge(2, "", "Traceback\nerror: a [x]\nhint: look at it\n", [])
        assert "exit code 1" in judge(
            ToolError.exit_code, "", "error: a [x]\nhint: look at it\n", []
        )
