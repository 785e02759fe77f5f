"""The log file: whole lines of plain text, and never another's file overwritten."""

from __future__ import annotations

import errno
import io
from datetime import datetime
from pathlib import Path

import pytest

from espwire.errors import FileError, PortNotFound
from espwire.monitor.log import LONGEST_LINE, LineLog, open_log
from espwire.monitor.text import Tokenizer

NOON = datetime(2026, 11, 22, 12, 0, 0, 5000)


def feed(log: LineLog, data: bytes) -> None:
    log.feed(Tokenizer().feed(data))


def test_only_whole_lines_are_written_and_the_rest_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = open_log(path)
    feed(log, b"one\r\ntw")
    assert path.read_bytes() == b"one\n"
    feed(log, b"o\nthree")
    assert path.read_bytes() == b"one\ntwo\n"
    log.close()
    log.close()
    assert path.read_bytes() == b"one\ntwo\nthree\n"


def test_colours_are_left_out_and_backspace_takes_back(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        feed(log, b"\x1b[0;32mgreen\x1b[0m\r\n>>> abx\b\x1b[Kc\n\bd\b \bx\n")
    assert (tmp_path / "log").read_text() == "green\n>>> abc\nx\n"


def test_a_line_drawn_over_and_over_is_a_line_each(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        feed(log, b"10 %\r20 %\r\n\n")
    assert (tmp_path / "log").read_text() == "10 %\n20 %\n\n"


def test_each_line_has_the_time_it_began(tmp_path: Path) -> None:
    with open_log(tmp_path / "log", stamp=lambda: NOON) as log:
        feed(log, b"one\n")
        log.note("lost")
    stamp = "2026-11-22 12:00:00.005"
    assert (tmp_path / "log").read_text() == f"{stamp} one\n{stamp} --- lost\n"


def test_a_note_ends_the_line_that_was_begun(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        feed(log, b"half")
        log.note("the port is lost")
        feed(log, b"new\n")
    assert (tmp_path / "log").read_text() == "half\n--- the port is lost\nnew\n"


def test_what_is_said_while_it_is_off_is_missing_and_told_so(tmp_path: Path) -> None:
    with open_log(tmp_path / "log") as log:
        feed(log, b"one\n")
        assert not log.toggle()
        feed(log, b"two\n")
        log.note("lost")
        assert log.toggle()
        feed(log, b"three\n")
    assert (tmp_path / "log").read_text() == "one\n--- log off\n--- log on\nthree\n"


def test_a_file_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("precious")
    with pytest.raises(FileError) as caught:
        open_log(tmp_path / "log")
    assert caught.value.code == "file-exists"
    assert "--append" in caught.value.hint
    with open_log(tmp_path / "log", append=True) as log:
        feed(log, b"more\n")
    assert (tmp_path / "log").read_text() == "precious\nmore\n"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    for name in (tmp_path / "no/such/folder", tmp_path, "a\0b"):
        with pytest.raises(FileError):
            open_log(name)


def test_a_line_that_never_ends_is_cut() -> None:
    file = io.BytesIO()
    log = LineLog(file, "log")
    for _ in range(5):
        feed(log, b"x" * (LONGEST_LINE // 2))
    assert len(file.getvalue()) == 2 * (LONGEST_LINE + 1)


class FullDisk(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_kept_to_be_told() -> None:
    log = LineLog(FullDisk(), "log")
    feed(log, b"one\ntwo\n")
    log.close()
    assert log.failure is not None
    assert log.failure.code == "log-broken"
    assert "No space left" in str(log.failure)


@pytest.mark.parametrize("append", [False, True])
def test_a_log_that_was_never_begun_is_not_left_behind_when_the_work_fails(
    tmp_path: Path, append: bool
) -> None:
    path = tmp_path / "new.log"
    with pytest.raises(PortNotFound), open_log(path, append=append):
        raise PortNotFound("no such port")
    assert not path.exists()


def test_an_old_log_is_untouched_when_nothing_is_added(tmp_path: Path) -> None:
    path = tmp_path / "old.log"
    path.write_bytes(b"mid line")
    with pytest.raises(PortNotFound), open_log(path, append=True):
        raise PortNotFound("no such port")
    assert path.read_bytes() == b"mid line"
    with open_log(path, append=True) as log:
        log.note("x")
    assert path.read_bytes() == b"mid line\n--- x\n"
