"""A virtual chip's flash file: a regular file of the right size or a new one, for one chip at a time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from espwire import files
from espwire.errors import DataError, FileError, UsageError
from espwire.virtual import flash_file
from espwire.virtual.config import names_file, parse_options
from espwire.virtual.flash_file import open_flash_file
from espwire.virtual.transport import open_virtual

SIZE = 0x40000
BLANK = b"\xff" * SIZE
HOLD = """
import sys
from pathlib import Path
from espwire.virtual.flash_file import open_flash_file
held = open_flash_file(Path(sys.argv[1]), int(sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_new_file_is_blank_and_alone_in_its_folder(tmp_path: Path) -> None:
    open_flash_file(tmp_path / "flash.bin", SIZE).close()
    assert listing(tmp_path) == {"flash.bin": BLANK}


def test_a_file_called_like_an_old_temporary_name_is_untouched(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "flash.bin.new").symlink_to("victim")
    open_flash_file(tmp_path / "flash.bin", SIZE).close()
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert (tmp_path / "flash.bin.new").is_symlink()


@pytest.mark.parametrize("content", [b"", b"x", b"\xff" * (SIZE - 1), b"\xff" * (SIZE + 1)])
def test_a_file_of_another_size_stays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "flash.bin").write_bytes(content)
    with pytest.raises(DataError) as caught:
        open_flash_file(tmp_path / "flash.bin", SIZE)
    assert caught.value.code == "flash-file-size"
    assert listing(tmp_path) == {"flash.bin": content}


def test_a_link_is_not_followed_even_to_a_suitable_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(BLANK)
    (tmp_path / "flash.bin").symlink_to("real")
    with pytest.raises(FileError, match="symbolic link") as caught:
        open_flash_file(tmp_path / "flash.bin", SIZE)
    assert caught.value.code == "flash-file"


def test_two_chips_of_a_process_cannot_share_a_file(tmp_path: Path) -> None:
    url = f"virtual:esp32c3?size=256KB&flash={(tmp_path / 'flash.bin').as_posix()}"
    first = open_virtual(url)
    with pytest.raises(FileError) as caught:
        open_virtual(url)
    assert caught.value.code == "flash-file-busy"
    first.close()
    open_virtual(url).close()


def test_two_processes_cannot_share_a_file_and_a_killed_one_holds_none(tmp_path: Path) -> None:
    path = tmp_path / "flash.bin"
    line = [sys.executable, "-c", HOLD, str(path), str(SIZE)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == b"held"
        with pytest.raises(FileError) as caught:
            open_flash_file(path, SIZE)
        assert caught.value.code == "flash-file-busy"
        other.kill()
    open_flash_file(path, SIZE).close()


def test_a_chip_that_is_closed_frees_its_file_even_if_a_piece_is_still_held(tmp_path: Path) -> None:
    first = open_flash_file(tmp_path / "flash.bin", SIZE)
    piece = memoryview(first.map)
    first.close()
    open_flash_file(tmp_path / "flash.bin", SIZE).close()
    assert bytes(piece[:4]) == b"\xff" * 4


def test_an_output_does_not_replace_the_flash_of_a_chip_that_runs(tmp_path: Path) -> None:
    from espwire.files import write_file

    held = open_flash_file(tmp_path / "flash.bin", SIZE)
    with pytest.raises(FileError) as caught:
        write_file(tmp_path / "flash.bin", b"new")
    assert caught.value.code == "file-locked"
    held.close()
    assert listing(tmp_path) == {"flash.bin": BLANK}
    write_file(tmp_path / "flash.bin", b"new")
    assert listing(tmp_path) == {"flash.bin": b"new"}


def test_a_file_that_appears_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flash.bin"
    transport = os.link

    def late(*arguments: object, **keywords: object) -> None:
        path.write_bytes(b"somebody else's")
        transport(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(DataError):
        open_flash_file(path, SIZE)
    assert listing(tmp_path) == {"flash.bin": b"somebody else's"}


def test_a_file_system_without_hard_links_works_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.EPERM, "no")

    monkeypatch.setattr(os, "link", refuse)
    open_flash_file(tmp_path / "flash.bin", SIZE).close()
    assert listing(tmp_path) == {"flash.bin": BLANK}


def test_a_file_with_holes_on_a_full_disk_is_refused_before_it_crashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, start: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "flash.bin").touch()
    os.truncate(tmp_path / "flash.bin", SIZE)
    monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
    with pytest.raises(FileError, match="No space"):
        open_flash_file(tmp_path / "flash.bin", SIZE)


def test_a_file_system_without_locks_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert files.lock(descriptor)
    os.close(descriptor)


def test_a_file_that_is_replaced_meanwhile_is_detected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "flash.bin"
    path.write_bytes(BLANK)
    lock = flash_file.lock

    def late(descriptor: int) -> bool:
        path.unlink()
        path.write_bytes(BLANK)
        return lock(descriptor)

    monkeypatch.setattr(flash_file, "lock", late)
    with pytest.raises(FileError, match="was replaced"):
        open_flash_file(path, SIZE)


@pytest.mark.parametrize("text", ["", ".", "..", "dir/", "a/..", "/"])
def test_a_folder_is_refused_as_flash_file(text: str) -> None:
    with pytest.raises(UsageError, match="does not name a file"):
        parse_options(f"virtual:esp32c3?flash={text}")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("virtual:esp32?flash=x", True),
        (" VIRTUAL:esp32?size=4MB&flash=", True),
        ("virtual://esp32?%66lash=x", True),
        ("virtual:esp32?flash", True),
        ("virtual:esp32", False),
        ("virtual:esp32?mac=" + quote("flash=x"), False),
        ("virtual:esp32?flash-encryption=1", False),
        ("/dev/flash=x", False),
        ("socket://flash=x", False),
    ],
)
def test_a_port_that_writes_a_file_is_recognised(url: str, expected: bool) -> None:
    assert names_file(url) is expected
