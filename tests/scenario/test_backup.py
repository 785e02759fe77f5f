"""``backup`` and ``restore`` on virtual chips: interrupted and repeated, on the wrong board, with every refusal."""

from __future__ import annotations

import json
import random
import sys
import zipfile
from pathlib import Path
from typing import Any

import backup_runs
import pytest
from backup_runs import NVS, Case, back_up, make_flash, open_flash, restore
from needed_writes import Change, watch_changes

from espwire.cli.main import main
from espwire.device import flash_id
from espwire.device.connect import connect
from espwire.errors import FileError, SafetyStop, ToolError
from espwire.events import Event, Note, Warned
from espwire.flash import read as read_module
from espwire.flash.backup import backup_flash, restore_flash
from espwire.flash.findings import Policy
from espwire.image.backup_file import read_backup
from espwire.image.header import find_header_size
from espwire.sizes import SECTOR

SIZE, MAC = 0x100000, "24:6f:28:aa:bb:cc"
CASE = Case("esp32c3", SIZE, 0, 1)
FLASH = make_flash(CASE)


class Board:
    """A virtual chip whose flash is a file, and command lines on it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.flash, self.zip = folder / "board.flash", folder / "board.zip"
        self.flash.write_bytes(FLASH)

    def run(
        self,
        *words: str,
        code: int = 0,
        mac: str = MAC,
        query: str = "size=1MB",
        chip: str = "esp32c3",
    ) -> str:
        """Standard output and standard error of a run that ends with ``code``."""
        port = f"virtual:{chip}?flash={self.flash.as_posix()}&mac={mac}&{query}"
        got = main(["-p", port, *words])
        out, err = self.capsys.readouterr()
        assert got == code, (got, out, err)
        return out + err

    def result(self, *words: str) -> dict[str, Any]:
        """The data of the last JSON line."""
        data: dict[str, Any] = json.loads(self.run("--json", *words).splitlines()[-1])["data"]
        return data


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    return Board(tmp_path, capsys)


@pytest.fixture
def saved(board: Board) -> Board:
    """A board with a backup."""
    with connect(open_flash(CASE, FLASH), baud=921600) as device:
        backup_flash(device, board.zip)
    return board


def test_a_backup_and_its_restore_as_commands(board: Board) -> None:
    file = str(board.zip)
    data = board.result("-b", "921600", "backup", file)
    assert (data["chip"], data["mac"], data["flash_size"]) == ("esp32c3", MAC, SIZE)
    assert (data["encrypted"], data["bytes_resumed"]) == (False, 0)
    assert data["parts"][2] == {
        "name": "nvs",
        "kind": "data/nvs",
        "address": NVS,
        "size": 0x5000,
        "stored": 0x2000,
        "file": "0x009000-nvs.bin",
    }
    assert read_backup(board.zip).flash == FLASH
    assert sorted(path.name for path in board.folder.glob("board.*")) == [
        "board.flash",
        "board.zip",
    ]
    assert board.result("restore", file)["bytes_written"] == 0
    changed = bytearray(FLASH)
    changed[NVS] ^= 0xFF
    changed[0xE000:0xF000] = bytes(0x1000)
    board.flash.write_bytes(changed)
    out = board.run("restore", file, "--dry-run")
    assert "Nothing was written (--dry-run)" in out
    assert "--keep-gaps" not in out
    assert board.flash.read_bytes() == changed
    data = board.result("restore", file)
    assert (data["bytes_written"], data["verified"], data["skipped"]) == (2 * SECTOR, True, [])
    assert board.flash.read_bytes() == FLASH


def test_a_backup_does_not_replace_a_file(saved: Board) -> None:
    before = saved.zip.read_bytes()
    assert "[backup-exists]" in saved.run("backup", str(saved.zip), code=6)
    assert saved.zip.read_bytes() == before


def test_a_folder_is_not_a_file_for_a_backup(board: Board, tmp_path: Path) -> None:
    text = board.run("backup", str(tmp_path), code=6)
    assert f"{tmp_path} is a folder, not a file [backup-exists]" in text
    assert f"such as {tmp_path / 'backup.zip'}." in text


@pytest.mark.parametrize("tamper", [False, True])
def test_an_interrupted_backup_continues(tmp_path: Path, tamper: bool) -> None:
    case = Case("esp32c3", SIZE, 3, 5, tamper=tamper)
    assert back_up(case, tmp_path / "board.zip") == ("", 3)


def test_an_interrupted_restore_continues(saved: Board) -> None:
    assert restore(Case("esp32c3", SIZE, 3, 6), saved.zip) == ("", 3)


def test_what_is_on_disk_is_used_only_if_the_flash_still_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With that check switched off, the harness notices."""
    monkeypatch.setattr(read_module, "has_content", lambda device, start, data: True)
    case = Case("esp32c3", SIZE, 3, 5, tamper=True)
    assert back_up(case, tmp_path / "board.zip").wrong == "the backup differs from the flash"


def test_only_what_is_missing_is_read_again(tmp_path: Path) -> None:
    path, events = tmp_path / "board.zip", list[Event]()
    transport = open_flash(CASE, FLASH)
    watch = backup_runs.Interruption(transport, random.Random(1), 1)
    watch.at, watch.share = float("inf"), 0.5

    def report(event: Event) -> None:
        events.append(event)
        watch(event)

    with pytest.raises(ToolError), connect(transport, baud=921600) as device:
        backup_flash(device, path, report=report)
    assert [event.code for event in events if isinstance(event, Warned)] == ["read-incomplete"]
    assert not path.exists()
    transport = open_flash(CASE, FLASH)
    changes: list[Change] = []
    watch_changes(transport, changes.append)
    with connect(transport, baud=921600) as device:
        done = backup_flash(device, path, report=events.append)
    assert changes == []
    assert done.resumed >= 0x10000
    assert done.read + done.resumed == sum(
        bool(FLASH[at : at + 0x10000].strip(b"\xff")) << 16 for at in range(0, SIZE, 0x10000)
    )
    assert any(isinstance(event, Note) and "still in flash" in event.text for event in events)


def test_a_partial_backup_of_another_board_is_not_continued(board: Board) -> None:
    partial = Path(f"{board.zip}.partial")
    partial.write_bytes(b"espwire partial read\n{}\n")
    assert "[partial-of-other-board]" in board.run("backup", str(board.zip), code=6)
    assert "[backup-partial]" in board.run("restore", str(partial), code=6)
    assert partial.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
def test_a_disk_that_fills_up_leaves_no_backup_and_the_next_run_continues(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "board.zip"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with (
            pytest.raises(FileError) as caught,
            connect(open_flash(CASE, FLASH), baud=921600) as device,
        ):
            backup_flash(device, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == "file-write"
    assert "Free disk space" in caught.value.hint
    assert [file.name for file in tmp_path.iterdir()] == ["board.zip.partial"]
    with connect(open_flash(CASE, FLASH), baud=921600) as device:
        assert backup_flash(device, path).resumed >= 0x10000
    assert read_backup(path).flash == FLASH


OTHER = "24:6f:28:00:00:01"


def test_another_board_needs_consent_and_what_is_bound_to_the_old_one_can_be_left_out(
    saved: Board,
) -> None:
    file, own = str(saved.zip), b"\xa5" * 0x5000
    blank = bytearray(b"\xff" * SIZE)
    blank[NVS : NVS + len(own)] = own
    saved.flash.write_bytes(blank)
    refused = saved.run("restore", file, code=8, mac=OTHER)
    assert "[other-chip]" in refused
    assert f"its MAC address is {MAC}, this is {OTHER}" in refused
    assert saved.flash.read_bytes() == blank
    assert "[unknown-part]" in saved.run("restore", file, "--skip", "nvm", code=2)
    allow = ("restore", file, "--allow", "other-chip", "--dry-run")
    assert "nvs, phy_init: holds data bound to the board" in saved.run(*allow, mac=OTHER)
    out = saved.run(*allow[:-1], "--skip", "nvs", "--skip", "phy_init", "-b", "921600", mac=OTHER)
    assert "holds data bound" not in out
    wanted = bytearray(FLASH)
    wanted[NVS : NVS + 0x5000] = own
    wanted[0xE000:0xF000] = b"\xff" * 0x1000
    assert saved.flash.read_bytes() == wanted


def test_a_backup_of_another_chip_is_always_refused(saved: Board) -> None:
    words = ("restore", str(saved.zip), "--allow", "other-chip")
    assert "[wrong-chip-backup]" in saved.run(*words, code=8, chip="esp32")


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("header", "the header of its bootloader states 2MB"),
        ("table", "its partition table ends at 0x190000"),
        ("data", "it has data up to 0x200000"),
        ("nothing", ""),
    ],
)
def test_a_smaller_flash_is_refused_unless_everything_fits(
    what: str, text: str, tmp_path: Path
) -> None:
    small = Case("esp32c3", SIZE, 0, 1)
    large = Case("esp32c3", 2 * SIZE, 0, 1)
    flash = bytearray(make_flash(small) + b"\xff" * SIZE)
    if what == "header":
        flash[:0x8000] = make_flash(large)[:0x8000]
    elif what == "table":
        flash[0x8000:0x9000] = make_flash(large)[0x8000:0x9000]
    elif what == "data":
        flash[-1] = 0
    path = tmp_path / "board.zip"
    with connect(open_flash(large, bytes(flash)), baud=921600) as device:
        backup_flash(device, path)
    transport = open_flash(small, b"\xff" * SIZE)
    with connect(transport, baud=921600) as device:
        # a consent is named only where it helps
        code = "backup-too-large" if text else "backup-flash-size"
        with pytest.raises(SafetyStop, match=text or "the backup is of 2MB of flash") as caught:
            restore_flash(device, path)
        assert caught.value.code == code
        assert ("--allow other-chip" in caught.value.hint) == (not text)
        policy = Policy(consents=frozenset({"other-chip"}))
        if text:
            with pytest.raises(SafetyStop, match=text) as caught:
                restore_flash(device, path, policy=policy)
            assert caught.value.code == "backup-too-large"
            assert transport.chip.flash.contents == b"\xff" * SIZE
        else:
            restore_flash(device, path, policy=policy)
            assert transport.chip.flash.contents == flash[:SIZE]


def test_a_restore_does_not_change_the_header(tmp_path: Path) -> None:
    """The header states 1 MB; the flash has 2 MB."""
    case = Case("esp32c3", 2 * SIZE, 0, 1)
    flash = make_flash(CASE) + b"\xff" * SIZE
    with connect(open_flash(case, flash), baud=921600) as device:
        backup_flash(device, tmp_path / "board.zip")
    transport = open_flash(case, b"\xff" * case.size)
    with connect(transport, baud=921600) as device:
        assert find_header_size(device.chip, flash[3] & 0xF0) == SIZE
        restore_flash(device, tmp_path / "board.zip")
    assert transport.chip.flash.contents == flash


class TestEncryption:
    QUERY = "size=1MB&flash-encryption=1"

    def test_a_backup_is_marked_and_restored_as_it_is_to_the_same_chip_only(
        self, saved: Board
    ) -> None:
        file = str(saved.folder / "encrypted.zip")
        fast = ("-b", "921600")
        out = saved.run(*fast, "backup", file, query=self.QUERY)
        assert "It is encrypted, and can only be restored to this chip." in out
        assert json.loads(zipfile.ZipFile(file).read("manifest.json"))["encrypted"] is True
        saved.flash.write_bytes(b"\xff" * SIZE)
        words = ("restore", file, "--allow", "other-chip")
        refused = saved.run(*words, code=8, mac=OTHER, query=self.QUERY)
        assert "[backup-encryption]" in refused
        assert "[backup-encryption]" in saved.run(*words, code=8)
        assert "[backup-encryption]" in saved.run(
            "restore", str(saved.zip), code=8, query=self.QUERY
        )
        assert saved.flash.read_bytes() == b"\xff" * SIZE
        locked = f"{self.QUERY}&manual-encrypt-disabled=1"
        assert "restored and verified" in saved.run(*fast, "restore", file, query=locked)
        assert saved.flash.read_bytes() == FLASH

    @pytest.mark.parametrize("words", [["backup"], ["restore"]])
    def test_secure_download_mode_is_refused_at_once(self, saved: Board, words: list[str]) -> None:
        file = saved.zip if words == ["restore"] else saved.folder / "new.zip"
        query = "size=1MB&secure-download=1"
        assert "[secure-download-mode]" in saved.run(*words, str(file), code=5, query=query)
        assert not (saved.folder / "new.zip").exists()
        assert not (saved.folder / "new.zip.partial").exists()


def test_a_loader_that_cannot_read_is_refused(board: Board) -> None:
    words = ("--no-stub", "backup", str(board.zip))
    assert "[cannot-read-flash]" in board.run(*words, code=5, chip="esp8266")
    assert not list(board.folder.glob("board.zip*"))


def test_a_flash_that_the_loader_cannot_reach_is_not_backed_up(board: Board) -> None:
    board.flash.unlink()
    words = ("--no-stub", "backup", str(board.zip))
    assert "[beyond-16mb]" in board.run(*words, code=5, chip="esp32", query="size=32MB")
    assert not list(board.folder.glob("board.zip*"))


def test_without_partition_table_the_calibration_of_the_esp8266_is_a_part_and_bound_to_the_board(
    board: Board,
) -> None:
    board.flash.write_bytes(b"\xff" * (SIZE - 0x5000) + bytes(0x1000) + b"\xff" * 0x4000)
    file = str(board.zip)
    board.run("backup", file, chip="esp8266")
    assert [(part.name, part.address, part.stored) for part in read_backup(file).parts] == [
        ("flash", 0, 0),
        ("rf-calibration", SIZE - 0x5000, 0x1000),
    ]
    words = ("restore", file, "--allow", "other-chip", "--dry-run")
    out = board.run(*words, chip="esp8266", mac=OTHER)
    assert "rf-calibration: holds data bound to the board" in out


def test_a_flash_of_unknown_size_is_not_backed_up(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash_id, "read_flash_id", lambda *arguments: 0x0040EF)
    assert "[flash-size-unknown]" in board.run("backup", str(board.zip), code=2)
    assert not list(board.folder.glob("board.zip*"))


def test_the_rom_backs_up_and_restores_too(tmp_path: Path) -> None:
    case = Case("esp32", 0x100000, 0, 3)
    flash = b"\xff" * 0x1000 + make_flash(case)[0x1000:0x12000]
    flash = flash.ljust(case.size, b"\xff")
    path, transport = tmp_path / "board.zip", open_flash(case, flash)
    with connect(transport, baud=921600, stub=False) as device:
        done = backup_flash(device, path)
        assert done.read == 0x20000
        transport.chip.flash.contents[0x9000:0xA000] = bytes(0x1000)
        assert restore_flash(device, path).plan.written == 0x5000  # the ROM compares up to 64 KiB
    assert transport.chip.flash.contents == flash
