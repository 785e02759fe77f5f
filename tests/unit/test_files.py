"""Output files are whole or absent; input files are bounded."""

from __future__ import annotations

import errno
import io
import os
import stat

import pytest

from espwire.errors import FileError
from espwire.files import OutputFile, open_output, read_file, write_file


def test_a_file_appears_whole(tmp_path):
    write_file(tmp_path / "out.bin", b"content")
    assert (tmp_path / "out.bin").read_bytes() == b"content"
    assert os.listdir(tmp_path) == ["out.bin"]


def stop_half_way(path, error):
    with open_output(path) as file:
        file.write(b"half")
        raise error("stop")


@pytest.mark.parametrize("error", [ValueError, OSError, KeyboardInterrupt, FileError])
def test_an_interrupted_file_leaves_nothing_and_the_error_as_it_is(tmp_path, error):
    with pytest.raises(error, match="stop"):
        stop_half_way(tmp_path / "out.bin", error)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_file_leaves_the_old_one(tmp_path):
    (tmp_path / "out.bin").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        stop_half_way(tmp_path / "out.bin", KeyboardInterrupt)
    assert (tmp_path / "out.bin").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["out.bin"]


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_a_file_error():
    with pytest.raises(FileError, match="No space") as caught:
        OutputFile(FullDisk(), "out.bin").write(b"data")
    assert caught.value.code == "file-write"


def test_a_directory_cannot_be_written(tmp_path):
    with pytest.raises(FileError) as caught:
        write_file(tmp_path, b"")
    assert caught.value.code == "file-write"
    with pytest.raises(FileError):
        write_file(tmp_path / "no" / "such" / "folder.bin", b"")
    with pytest.raises(FileError):
        write_file("zero\0byte", b"")


def test_a_large_input_is_refused(tmp_path):
    (tmp_path / "big").write_bytes(b"12345")
    assert read_file(tmp_path / "big", limit=5) == b"12345"
    with pytest.raises(FileError) as caught:
        read_file(tmp_path / "big", limit=4)
    assert caught.value.code == "file-too-large"


@pytest.mark.parametrize("bad", ["missing", "", "zero\0byte"])
def test_what_cannot_be_read_is_a_file_error(tmp_path, bad):
    with pytest.raises(FileError):
        read_file(str(tmp_path / bad) if "\0" not in bad else bad)


def test_mode_and_link_of_an_old_file_are_kept(tmp_path):
    target, link = tmp_path / "real.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    target.chmod(0o600)
    link.symlink_to(target)
    write_file(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    if os.name == "posix":
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_device_is_written_to_directly():
    write_file(os.devnull, b"gone")
    if os.name == "posix":
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
