"""``read-flash`` continues after an interruption: what is stored of it counts only if the flash still holds it."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import backup_runs
import pytest
from backup_runs import Case, make_flash, open_flash, repeat

from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.errors import DataError, FileError, ToolError
from espwire.events import Event, Note, Progress, Report, Warned
from espwire.flash import read as read_module
from espwire.flash.read import list_blocks, read_to_file
from espwire.sizes import SECTOR
from espwire.virtual.transport import VirtualTransport, open_virtual

SIZE = 0x100000
START, END = 0x7800, 0x48800  # from the middle of a block to the middle of another
CASE = Case("esp32c3", SIZE, 3, 5)
FLASH = make_flash(CASE)


def read(transport: VirtualTransport, path: Path, *events: list[Event]) -> None:
    def report(event: Event) -> None:
        for seen in events:
            seen.append(event)

    with connect(transport, baud=921600) as device:
        read_to_file(device, START, END - START, path, report=report)


def read_interrupted(case: Case, path: Path) -> tuple[bool, int]:
    """Whether what was read is what the flash holds in the end, and the number of interruptions."""
    rng = random.Random(case.seed)

    def work(device: Device, report: Report) -> None:
        if case.tamper:
            backup_runs._tamper(device, Path(f"{path}.partial"), rng)
        read_to_file(device, START, END - START, path, report=report)

    flash, interrupted = repeat(case, open_flash(case, FLASH), rng, work)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return path.read_bytes() == flash[START:END], interrupted


def stop_half_way(path: Path) -> None:
    """A run that ends after half of it was read."""
    transport = open_flash(CASE, FLASH)
    watch = backup_runs.Interruption(transport, random.Random(1), 1)
    watch.at, watch.share = float("inf"), 0.5
    with pytest.raises(ToolError), connect(transport, baud=921600) as device:
        read_to_file(device, START, END - START, path, report=watch)
    assert [file.name for file in path.parent.iterdir()] == [f"{path.name}.partial"]


@pytest.mark.parametrize("tamper", [False, True])
def test_an_interrupted_read_continues(tmp_path, tamper):
    case = Case("esp32c3", SIZE, 3, 5, tamper=tamper)
    assert read_interrupted(case, tmp_path / "copy.bin") == (True, 3)


def test_what_is_stored_is_used_only_if_the_flash_still_holds_it(tmp_path, monkeypatch):
    """With that check switched off, the content is wrong."""
    monkeypatch.setattr(read_module, "has_content", lambda device, start, data: True)
    case = Case("esp32c3", SIZE, 3, 5, tamper=True)
    assert read_interrupted(case, tmp_path / "copy.bin") == (False, 3)


def test_only_what_is_missing_is_read_again(tmp_path):
    path, events = tmp_path / "copy.bin", list[Event]()
    stop_half_way(path)
    read(open_flash(CASE, FLASH), path, events)
    assert path.read_bytes() == FLASH[START:END]
    (note,) = (e.text for e in events if isinstance(e, Note) and "still in flash" in e.text)
    resumed = int(note.split(": ")[1].split(" ")[0].replace(",", ""))
    assert 0x10000 <= resumed < END - START
    first = next(event for event in events if isinstance(event, Progress))
    assert (first.done, first.total) == (0, END - START - resumed)


def test_another_range_of_the_same_flash_uses_the_blocks_that_fit(tmp_path):
    path = tmp_path / "copy.bin"
    stop_half_way(path)
    with connect(open_flash(CASE, FLASH), baud=921600) as device:
        read_to_file(device, 0, 0x30000, path)
    assert path.read_bytes() == FLASH[:0x30000]


@pytest.mark.parametrize("query", ["mac=24:6f:28:00:00:01", "size=2MB&mac=24:6f:28:aa:bb:cc"])
def test_what_was_read_of_another_board_or_flash_is_not_continued(tmp_path, query):
    path = tmp_path / "copy.bin"
    stop_half_way(path)
    stored = Path(f"{path}.partial").read_bytes()
    size = "" if "size" in query else "size=1MB&"
    with pytest.raises(DataError, match="belongs to another board") as caught:
        read(open_virtual(f"virtual:esp32c3?{size}{query}"), path)
    assert caught.value.code == "partial-of-other-board"
    assert not path.exists()
    assert Path(f"{path}.partial").read_bytes() == stored


@pytest.mark.skipif(sys.platform == "win32", reason="no limit for the size of files")
def test_a_full_disk_is_one_error_and_the_next_run_continues(tmp_path):
    import resource

    path, events = tmp_path / "copy.bin", list[Event]()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(FileError) as caught:
            read(open_flash(CASE, FLASH), path, events)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (caught.value.code, "Free disk space" in caught.value.hint) == ("file-write", True)
    assert [event.code for event in events if isinstance(event, Warned)] == ["read-incomplete"]
    assert [file.name for file in tmp_path.iterdir()] == ["copy.bin.partial"]
    read(open_flash(CASE, FLASH), path, events)
    assert path.read_bytes() == FLASH[START:END]
    assert any(isinstance(event, Note) and "still in flash" in event.text for event in events)


def test_blocks_end_where_64_kib_end():
    assert list_blocks(0x10000, 0x20000) == [(0x10000, 0x20000)]
    assert list_blocks(0x7800, 0x20001) == [
        (0x7800, 0x10000),
        (0x10000, 0x20000),
        (0x20000, 0x20001),
    ]


@pytest.mark.parametrize("why", ["small", "a pipe", "esptool"])
def test_without_a_partial_file(tmp_path, why, monkeypatch, capfd):
    """``FILE.partial`` cannot be created: it would be an error."""
    flash = tmp_path / "chip.flash"
    flash.write_bytes(FLASH)
    port = f"virtual:esp32c3?size=1MB&flash={flash.as_posix()}&profile=instant"
    path = "/dev/stdout" if why == "a pipe" else str(tmp_path / "copy.bin")
    if why != "a pipe":
        Path(f"{path}.partial").mkdir()
    size = SECTOR if why == "small" else 0x20000
    words = ["-p", port, "-b", "921600", "read-flash", "0", str(size), path]
    if why == "esptool":
        from espwire.cli.esptool.program import main as esptool

        assert esptool(words) == 0
    else:
        assert main(words) == 0
    if why != "a pipe":
        assert Path(path).read_bytes() == FLASH[:size]
