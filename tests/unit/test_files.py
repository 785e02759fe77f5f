"""Output files are whole or absent; input files are bounded."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys

import pytest

from espwire import files
from espwire.errors import FileError
from espwire.files import (
    OutputFile,
    make_private_folder,
    open_output,
    read_file,
    write_file,
    write_files,
    write_folder,
)


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
    target, transport = tmp_path / "real.bin", tmp_path / "link.bin"
    target.write_bytes(b"old")
    target.chmod(0o600)
    transport.symlink_to(target)
    write_file(transport, b"new")
    assert transport.is_symlink()
    assert target.read_bytes() == b"new"
    if os.name == "posix":
        assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_device_is_written_to_directly():
    write_file(os.devnull, b"gone")
    if os.name == "posix":
        assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


@pytest.mark.parametrize("name", ["new/", "new/.", "new/..", ".", "..", ""])
def test_a_folder_s_name_is_no_output(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="folder"):
        write_file(name, b"data")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="links are for the privileged there")
def test_a_link_to_nothing_is_an_error_that_names_both(tmp_path):
    (tmp_path / "link").symlink_to("nothing")
    with pytest.raises(FileError, match=r"link.*nothing") as caught:
        write_file(tmp_path / "link", b"data")
    assert caught.value.code == "dangling-link"
    assert os.listdir(tmp_path) == ["link"]


def test_a_write_protected_file_stays(tmp_path, monkeypatch):
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out").chmod(0o444)
    if os.access(tmp_path / "out", os.W_OK):  # the privileged may write anything
        monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(FileError, match="write-protected"):
        write_file(tmp_path / "out", b"new")
    assert (tmp_path / "out").read_bytes() == b"old"


def test_a_long_name_in_any_script_has_room_for_the_temporary_one(tmp_path):
    for sign, count in (("a", 255), ("ж", 127), ("字", 85), ("😀", 63)):
        write_file(tmp_path / (sign * count), b"data")
        assert (tmp_path / (sign * count)).read_bytes() == b"data"


@pytest.mark.skipif(os.name == "nt", reason="permissions are of POSIX")
def test_what_replaces_a_private_file_was_never_open_to_others(tmp_path):
    (tmp_path / "out").write_bytes(b"old")
    (tmp_path / "out").chmod(0o600)
    with open_output(tmp_path / "out") as file:
        file.write(b"new")
        (place,) = set(os.listdir(tmp_path)) - {"out"}
        assert stat.S_IMODE((tmp_path / place).stat().st_mode) == 0o600


@pytest.mark.skipif(os.name == "nt", reason="permissions are of POSIX")
def test_private_folders_are_private_all_the_way(tmp_path):
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path / "a" / "b")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [
        0o700,
        0o700,
    ]


def test_a_folder_that_fails_leaves_no_parents(tmp_path, monkeypatch):
    with pytest.raises(FileError):
        write_folder(tmp_path / "a" / "b" / "c", {"good": b"x", "no/such/folder": b"y"})
    assert os.listdir(tmp_path) == []
    write_folder(f"{tmp_path}/a/b/c/", {"good": b"x"})
    assert (tmp_path / "a/b/c/good").read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="a root folder without a drive")
def test_the_root_is_not_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"^/ exists and"):
        write_folder("/", {"a": b"x"})
    assert os.listdir(tmp_path) == []


def test_what_an_interrupted_removal_left_goes_when_the_process_exits(tmp_path):
    with files.unfinished(tmp_path / "out") as place:
        pass
    (tmp_path / os.path.basename(place)).write_bytes(b"left")
    files._unfinished[place] = os.getpid()
    files._unfinished[str(tmp_path / "of-a-parent")] = os.getpid() + 1
    (tmp_path / "of-a-parent").write_bytes(b"stays")
    files._remove_all()
    files._unfinished.clear()
    assert os.listdir(tmp_path) == ["of-a-parent"]


class Stop(BaseException):
    """As a signal raises it."""


def interrupt_at(step, work):
    """Run ``work``, interrupted before the given instruction of files.py; whether it came that far."""
    left = step

    def trace(frame, event, argument):
        nonlocal left
        if frame.f_code.co_filename != files.__file__:
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        if event == "opcode":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Stop
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        with contextlib.suppress(Stop):  # Python ignores it where it closes a generator
            work()
    finally:
        sys.settrace(before)
    return left < 0


# what to do, what is there then, every how manyth instruction
JOBS = {
    "one file": (lambda folder: write_file(folder / "out", b"new"), {"out": b"new"}, 1),
    "a private file": (
        lambda folder: write_file(folder / "out", b"new", private=True),
        {"out": b"new"},
        5,
    ),
    "two files": (
        lambda folder: write_files([(folder / "out", b"new"), (folder / "second", b"two")]),
        {"out": b"new", "second": b"two"},
        5,
    ),
}


UNTIDY = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)  # files that are not closed: what matters is on the disk


@UNTIDY
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("old", [None, b"old"])
def test_an_interruption_at_any_instruction_leaves_files_old_or_new(tmp_path, name, old):
    job, new, stride = JOBS[name]
    step, goes_on = 0, True
    while goes_on:
        for each in tmp_path.iterdir():
            each.unlink()
        if old is not None:
            (tmp_path / "out").write_bytes(old)
        goes_on = interrupt_at(step, lambda: job(tmp_path))
        files._remove_all()  # as when the process exits
        files._unfinished.clear()
        for each in os.listdir(tmp_path):
            assert (tmp_path / each).read_bytes() in (new[each], old), step
        step += stride
    assert {each: (tmp_path / each).read_bytes() for each in os.listdir(tmp_path)} == new
    assert step > 300


@UNTIDY
def test_an_interruption_at_any_instruction_leaves_a_folder_whole_or_absent(tmp_path):
    step, goes_on = 0, True
    while goes_on:
        folder = tmp_path / str(step)
        goes_on = interrupt_at(step, lambda: write_folder(folder, {"a": b"1", "b": b"2"}))  # noqa: B023
        files._remove_all()
        files._unfinished.clear()
        assert not folder.exists() or sorted(os.listdir(folder)) == ["a", "b"]
        assert all(name.isdecimal() for name in os.listdir(tmp_path)), step
        step += 1
    assert step > 200


PEM = b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    "key",
    [
        PEM,
        b"#" * 5000 + PEM,
        bytes.fromhex("300d020100300506032b65700401aa"),  # PKCS #8
        *(bytes(range(7, 7 + size)) for size in (16, 24, 32, 64)),
    ],
)
def test_no_output_replaces_a_key(tmp_path, key):
    from espwire.errors import SafetyStop
    from espwire.monitor.log import open_log

    path = tmp_path / "key.pem"
    path.write_bytes(key)
    for write in (
        lambda: write_file(path, b"firmware"),
        lambda: write_files([(path, b"firmware")]),
        lambda: open_log(path, append=True),
    ):
        with pytest.raises(SafetyStop) as caught:
            write()
        assert caught.value.code == "overwrite-key"
        assert path.read_bytes() == key
    assert [each.name for each in tmp_path.iterdir()] == ["key.pem"]
    write_file(path, b"firmware", replace_key=True)
    assert path.read_bytes() == b"firmware"


@pytest.mark.parametrize(
    "data", [bytes(32), b"0x00000000 0x00000001 0x00000000\n", bytes(0x20000) + PEM, b"0" * 200]
)
def test_what_is_not_a_key_is_replaced(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    write_file(path, b"firmware")
    assert path.read_bytes() == b"firmware"
