"""Whole command lines on virtual chips: what they print, what the flash then holds, how they fail."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import espwire
from espwire.cli.context import Context
from espwire.cli.main import main

DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
MAC = "24:6f:28:aa:bb:cc"
WORKS = random.Random(0).randbytes(9000)


class Board:
    """A virtual chip whose flash is a file, and the program run on it."""

    def __init__(
        self,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
        chip: str = "esp32c3",
        **keys: object,
    ) -> None:
        self.flash = folder / f"{chip}.flash"
        self.folder, self.capsys = folder, capsys
        extra = "".join(f"&{key}={value}" for key, value in keys.items())
        self.port = f"virtual:{chip}?flash={self.flash.as_posix()}&size=4MB&mac={MAC}{extra}"

    def run(self, *words: object, code: int = 0) -> str:
        """Standard output of a run that ends with ``code``."""
        got = main(["--port", self.port, *map(str, words)])
        out, self.err = self.capsys.readouterr()
        assert got == code, (got, out, self.err)
        assert "Traceback" not in out + self.err
        return out

    def events(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        """The JSON lines of a run."""
        return [json.loads(line) for line in self.run("--json", *words, code=code).splitlines()]

    def result(self, *words: object) -> dict[str, Any]:
        """The data of the last Result."""
        last = self.events(*words)[-1]
        assert last["event"] == "Result"
        data: dict[str, Any] = last["data"]
        return data

    def file(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path

    def held(self, address: int, size: int) -> bytes:
        return self.flash.read_bytes()[address : address + size]


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    return Board(tmp_path, capsys)


def test_firmware_is_written_verified_and_read_back(board: Board) -> None:
    out = board.run("write-flash", "0x0", DEMO)
    assert "Verified esp32c3-hello.bin" in out
    assert board.held(0, DEMO.stat().st_size) == DEMO.read_bytes()
    assert "Done: flash contains all" in board.run("verify-flash", "0", DEMO)
    copy = board.folder / "copy.bin"
    board.run("read-flash", "0", "0x2000", copy)
    assert copy.read_bytes() == DEMO.read_bytes()[:0x2000]


@pytest.mark.parametrize("option", [["-z"], ["-u"], []])
def test_compressed_or_not_the_flash_is_the_same(board: Board, option: list[str]) -> None:
    board.run("write-flash", *option, "0x10000", board.file("a.bin", WORKS))
    assert board.held(0x10000, len(WORKS)) == WORKS


def test_progress_without_a_terminal_is_a_line_per_ten_percent_and_can_be_left_out(
    board: Board,
) -> None:
    lines = [
        line
        for line in board.run("--no-stub", "write-flash", "0x0", DEMO).splitlines()
        if "% of" in line
    ]
    assert 5 <= len(lines) <= 11
    assert "% of" not in board.run("write-flash", "-p", "0x0", DEMO)
    assert board.run("-q", "write-flash", "0x0", DEMO).count("\n") == 1


def test_several_files_and_intel_hex(board: Board) -> None:
    text = ":020000040001F9\n:0400100001020304E2\n:00000001FF\n"
    file = board.folder / "part.hex"
    file.write_text(text)
    board.run("write-flash", "0x0", file, "0x20000", board.file("b.bin", WORKS))
    assert board.held(0x10010, 4) == bytes([1, 2, 3, 4])
    assert board.held(0x20000, len(WORKS)) == WORKS


def test_arguments_may_come_from_a_file(board: Board) -> None:
    data = board.file("b.bin", WORKS)
    arguments = board.folder / "args"
    arguments.write_text(f"--flash-mode keep\n0x4000 '{data.as_posix()}'\n")
    board.run("write_flash", f"@{arguments}")
    assert board.held(0x4000, len(WORKS)) == WORKS


def test_header_settings_are_patched_in_and_the_hash_is_made_anew(board: Board) -> None:
    from espwire.image.codec import parse

    board.run("write-flash", "-fm", "qio", "-ff", "80m", "-fs", "detect", "0x0", DEMO)
    held = board.held(0, DEMO.stat().st_size)
    assert held[2:4] == bytes([0, 0x2F])
    image = parse(held)
    assert image.checksum_valid
    assert image.digest_valid
    board.run("verify-flash", "0", DEMO, code=7)
    assert "[verify]" in board.err
    board.run("verify-flash", "-fm", "qio", "-ff", "80m", "-fs", "4MB", "0", DEMO)


def test_a_dry_run_shows_the_plan_and_writes_nothing(board: Board) -> None:
    out = board.run("write-flash", "--dry-run", "0x0", DEMO)
    assert "Plan: " in out
    assert "Nothing was written" in out
    assert set(board.held(0, 0x10000)) == {0xFF}


def test_a_difference_is_exit_7_and_told_byte_by_byte(board: Board) -> None:
    board.run("write-flash", "0x1000", board.file("a.bin", WORKS))
    wrong = bytearray(WORKS)
    wrong[5000] ^= 0xFF
    file = board.file("wrong.bin", bytes(wrong))
    board.run("verify-flash", "0x1000", file, code=7)
    assert "[verify]" in board.err
    out = board.run("verify-flash", "--diff", "0x1000", file, code=7)
    assert f"0x{0x1000 + 5000:08x}: flash {WORKS[5000]:02x}, file {wrong[5000]:02x}" in out
    error = board.events("verify-flash", "0x1000", file, code=7)[-1]
    assert (error["event"], error["code"], error["exit_code"]) == ("Error", "verify", 7)
    assert error["details"]["ranges"] == [[0x2000, 0x3000]]


def test_a_region_is_erased_and_the_rest_stays(board: Board) -> None:
    board.run(
        "write-flash", "--allow", "not-an-image", "0x0", board.file("a.bin", WORKS + bytes(0x3000))
    )
    board.run("erase-region", "0x1000", "4k")
    assert set(board.held(0x1000, 0x1000)) == {0xFF}
    assert board.held(0, 0x1000) == WORKS[:0x1000]
    assert board.held(0x2000, 8) == WORKS[0x2000:0x2008]
    board.run("erase-region", "0", "0x123", code=2)


def test_erase_all_goes_first(board: Board) -> None:
    board.run("write-flash", "0x100000", board.file("a.bin", WORKS))
    board.run("write-flash", "-e", "0x0", DEMO)
    assert set(board.held(0x100000, 0x3000)) == {0xFF}
    assert board.held(0, 16) == DEMO.read_bytes()[:16]


def test_mac_flash_and_chip_are_told(board: Board) -> None:
    assert board.run("read_mac").splitlines()[-2] == f"MAC: {MAC}"
    assert board.result("read-mac") == {"mac": MAC, "eui64": None}
    flash = board.result("flash-id")
    assert (flash["size"], flash["maker"]) == (4 << 20, "Winbond")
    info = board.result("chip-info")
    assert (info["chip"], info["mac"], info["crystal_mhz"]) == ("esp32c3", MAC, 40)
    assert info["flash"] == flash
    assert "Secure Boot off" in board.run("chip-info")


def test_every_json_line_has_version_event_and_device(board: Board) -> None:
    events = board.events("write-flash", "0x0", DEMO)
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event["v"] for event in events} == {1}
    assert {event["device"] for event in events} == {board.port}
    assert {"Opened", "ChipFound", "PlanReady", "Progress", "Finished", "Result"} <= {
        e["event"] for e in events
    }


def test_trace_shows_every_packet_on_standard_error(board: Board) -> None:
    board.run("read-mac", "--trace")
    lines = board.err.splitlines()
    assert any("> SYNC" in line for line in lines)
    assert any("< SYNC value=" in line for line in lines)
    assert any("> READ_REG address=0x" in line for line in lines)
    assert all(" ms  " in line for line in lines)


def test_trace_shows_the_start_of_the_stub_and_what_is_streamed(board: Board) -> None:
    Path(board.folder / "a.bin").write_bytes(bytes(5000))
    board.run("write-flash", "--no-compress", "0x10000", str(board.folder / "a.bin"), "--trace")
    sent = [line.split("  > ")[1] for line in board.err.splitlines() if "  > " in line]
    came = [line.split("  < ")[1] for line in board.err.splitlines() if "  < " in line]
    assert sum(line.startswith("MEM_END ") for line in sent) == 1
    assert sum(line.startswith("BATCH ") for line in came) >= 1, "what the stub can do"
    assert sum(line.startswith("WRITE_DATA ") for line in sent) == 3
    assert any(line.startswith("WRITE_DATA ") for line in came), "the reports"


def test_the_wrong_chip_is_exit_4(board: Board) -> None:
    board.run("--chip", "esp32", "read-mac", code=4)
    assert "[wrong-chip]" in board.err


def test_a_port_that_is_not_there_is_exit_3(board: Board) -> None:
    board.port = str(board.folder / "no-such-port")
    board.run("read-mac", code=3)
    assert "[port-not-found]" in board.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["write-flash", "0", "missing.bin"], 6),
        (["write-flash", "0", "."], 6),
        (["write-flash", "0", "{demo}", "0x1000", "{demo}"], 2),
        (["write-flash", "0x3fff000", "{demo}"], None),
        (["write-flash", "-z", "-u", "0", "{demo}"], 2),
        (["write-flash", "-fs", "huge", "0", "{demo}"], 2),
        (["write-flash", "-fm", "wish", "0", "{demo}"], 2),
        (["read-flash", "0x400000", "1", "out.bin"], 2),
        (["read-flash", "0", "16", "/no/such/folder/out.bin"], 6),
        (["erase-region", "0x400000", "0x1000"], None),
    ],
)
def test_bad_input_ends_in_one_clear_error(
    board: Board, words: list[str], code: int | None
) -> None:
    line = [word.format(demo=DEMO) for word in words]
    got = main(["--port", board.port, *line])
    out, err = board.capsys.readouterr()
    assert got == code if code else got in (2, 5, 8)
    assert len([row for row in err.splitlines() if row.startswith("error: ")]) == 1, err
    assert "hint: " in err
    assert "Traceback" not in out + err
    assert not (board.folder / "out.bin").exists()


def test_a_read_that_fails_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path, capsys, "esp8266")
    board.run("--no-stub", "read-flash", "0", "16", tmp_path / "out.bin", code=5)
    assert "hint: The stub can: leave out --no-stub" in board.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["esp8266.flash"]


def test_the_esp8266_is_written_and_its_rom_cannot_verify(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    board = Board(tmp_path, capsys, "esp8266")
    file = board.file("a.bin", WORKS)
    board.run("--no-stub", "write-flash", "--no-keep", "0x0", file)
    assert "warning: " in board.err
    assert board.held(0, len(WORKS)) == WORKS
    board.run("--no-stub", "verify-flash", "0x0", file, code=5)
    assert "[cannot-verify]" in board.err


def test_ctrl_c_closes_the_port_and_is_exit_130(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espwire.virtual.transport import VirtualTransport

    closed: list[bool] = []
    close = VirtualTransport.close

    def note(transport: VirtualTransport) -> None:
        closed.append(True)
        close(transport)

    def interrupt(*arguments: object, **keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(VirtualTransport, "close", note)
    monkeypatch.setattr("espwire.flash.write.execute", interrupt)
    board.run("write-flash", "0x0", DEMO, code=130)
    assert closed
    assert "[cancelled]" in board.err


def test_the_demo_flashes_and_shows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--no-pace"]) == 0
    out = capsys.readouterr().out
    assert "contains exactly the bytes of" in out
    assert "SHA-256 valid" in out
    assert "e9 03" in out
    assert main(["demo", "--no-pace", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["data"]["equal"] is True


def test_connect_attempts_zero_means_no_end() -> None:
    context = Context(options={"connect_attempts": 0})
    assert context.settings().retry.connect_attempts > 10**9
    assert Context(options={"connect_attempts": 3}).settings().retry.connect_attempts == 3


def test_read_mac_fails_clearly_where_the_chip_hides_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hidden = Board(tmp_path, capsys, **{"secure-download": 1})
    out = hidden.run("read-mac", code=5)
    assert "MAC" not in out
    assert "[secure-download-mode]" in hidden.err


def test_a_loader_that_cannot_verify_claims_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ESP8266's ROM: written, said to be unverified; with --verify refused before anything is written."""
    old = Board(tmp_path, capsys, "esp8266")
    out = old.run("--no-stub", "write-flash", "--no-keep", "0x10000", old.file("a.bin", WORKS))
    assert "written, but not verified" in out
    assert "[unverified]" in old.err
    assert old.held(0x10000, len(WORKS)) == WORKS
    old.run("--no-stub", "write-flash", "--verify", "0x20000", old.file("a.bin", WORKS), code=5)
    assert set(old.held(0x20000, 0x3000)) == {0xFF}


def test_verify_is_what_happens_anyway(board: Board) -> None:
    assert (
        board.result("write-flash", "--verify", "0x10000", board.file("a.bin", WORKS))["verified"]
        is True
    )


@pytest.mark.parametrize(
    "line", ["read-flash -fs 4MB 0x200000 4 out.bin", "verify-flash -fs 4MB 0x200000 data.bin"]
)
def test_a_stated_flash_size_does_not_make_the_flash_larger_than_it_is(
    line, tmp_path, monkeypatch, capsys
):
    """Past its end a flash answers with its beginning: that is no success."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.bin").write_bytes(b"\xff" * 4)
    assert main(["-p", "virtual:esp32c3?size=2MB", *line.split()]) == 2
    assert "[past-flash-end]" in capsys.readouterr().err
    assert not (tmp_path / "out.bin").exists()
