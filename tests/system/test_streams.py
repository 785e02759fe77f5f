"""Pipes and devices in place of files: complete, in place, and never waited for without end."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pipes with names are of POSIX", allow_module_level=True)

from espwire import streams
from espwire.cli.argfile import expand
from espwire.cli.config_files import read_files
from espwire.cli.main import main
from espwire.errors import FileError, UsageError
from espwire.files import open_output, read_file, write_file
from espwire.monitor import log
from espwire.monitor.log import open_log
from espwire.monitor.text import Kind

LARGE = bytes(range(256)) * 1024  # four times what a pipe holds


@pytest.fixture
def pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(streams, "OPEN_S", 0.1)
    monkeypatch.setattr(streams, "SILENCE_S", 0.2)
    monkeypatch.setattr(streams, "STEP_S", 0.005)
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@contextmanager
def beside(work: Callable[[], object]) -> Iterator[None]:
    """Somebody at the other end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    yield
    thread.join(10)
    assert not thread.is_alive()


def test_an_input_pipe_gives_all_that_is_written_to_it(pipe: Path) -> None:
    with beside(lambda: pipe.write_bytes(LARGE)):
        assert read_file(pipe) == LARGE


def test_a_slow_writer_is_waited_for(pipe: Path) -> None:
    def write() -> None:
        with pipe.open("wb", buffering=0) as file:
            for piece in (b"a", b"b", b"c"):
                time.sleep(0.02)
                file.write(piece)

    with beside(write):
        assert read_file(pipe) == b"abc"


@pytest.mark.parametrize(
    "read",
    [
        read_file,
        lambda path: expand([f"@{path}"]),
        lambda path: open_output(path).__enter__() and None,
        lambda path: main(["image-info", str(path)]) and read_file(path),
    ],
)
def test_a_pipe_that_nobody_opens_is_one_error_soon(
    pipe: Path, read: Callable[[Path], object]
) -> None:
    began = time.monotonic()
    with pytest.raises(FileError) as caught:
        read(pipe)
    assert caught.value.code in ("no-writer", "no-reader")
    assert time.monotonic() - began < 5


def test_a_settings_file_that_is_a_pipe_is_one_error(pipe: Path) -> None:
    with pytest.raises(UsageError, match="no program writes to the pipe"):
        read_files({}, f"{pipe}")


def test_a_writer_that_writes_nothing_is_given_up(pipe: Path) -> None:
    descriptor = os.open(pipe, os.O_RDWR)
    with pytest.raises(FileError) as caught:
        read_file(pipe)
    assert caught.value.code == "silent-input"
    os.close(descriptor)


def test_a_reader_that_takes_nothing_is_given_up(pipe: Path) -> None:
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with pytest.raises(FileError) as caught:
        write_file(pipe, LARGE)
    assert caught.value.code == "stuck-output"
    os.close(descriptor)


def test_a_pipe_gets_nothing_of_an_output_that_fails(pipe: Path) -> None:
    def stop_half_way() -> None:
        with open_output(pipe) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    got = []
    with beside(lambda: got.append(pipe.read_bytes())), pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert got == [b""]


@pytest.mark.parametrize("name", ["/dev/null", "/dev/zero"])
def test_a_device_takes_the_output(name: str) -> None:
    write_file(name, b"gone")


def test_a_device_without_end_is_too_large() -> None:
    with pytest.raises(FileError) as caught:
        read_file("/dev/zero", limit=0x1000)
    assert caught.value.code == "file-too-large"


def test_a_socket_is_no_output(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        with pytest.raises(FileError, match="not a file"):
            write_file(tmp_path / "socket", b"x")


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="no names for open files here")
def test_the_standard_streams_and_the_shell_s_pipes_have_their_descriptors(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    read, write = os.pipe()
    try:
        for name, expected in (
            ("/dev/stdin", 0),
            ("/dev/stdout", 1),
            ("/proc/self/fd/2", 2),
            (f"/dev/fd/{read}", read),
            (tmp_path / "link", 1),
            (tmp_path / "1", None),
            ("/dev/null", None),
        ):
            assert streams.find_descriptor(name) == expected
        os.write(write, b"from the shell")
        os.close(write)
        assert read_file(f"/dev/fd/{read}") == b"from the shell"
    finally:
        os.close(read)


def test_a_log_goes_to_a_pipe_line_by_line(pipe: Path) -> None:
    descriptor = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    with open_log(pipe) as made:
        made.feed([(Kind.TEXT, "hello"), (Kind.NEWLINE, "\n"), (Kind.TEXT, "begun")])
        assert os.read(descriptor, 100) == b"hello\n"
    assert os.read(descriptor, 100) == b"begun\n"
    os.close(descriptor)


@pytest.mark.parametrize("append", [False, True])
def test_a_log_to_a_pipe_without_a_reader_is_an_error(pipe: Path, append: bool) -> None:
    with pytest.raises(FileError) as caught:
        open_log(pipe, append=append)
    assert caught.value.code == "no-reader"


def test_a_log_whose_reader_is_stuck_ends_and_the_monitor_goes_on(
    pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "STUCK_S", 0.02)
    descriptor = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    made = open_log(pipe)
    made.feed([(Kind.TEXT, "x" * len(LARGE)), (Kind.NEWLINE, "\n")])
    assert made.failure is not None
    assert made.failure.code == "log-broken"
    made.close()
    os.close(descriptor)


@pytest.mark.parametrize("append", [False, True])
def test_a_log_follows_no_dangling_link_and_makes_no_folder(tmp_path: Path, append: bool) -> None:
    (tmp_path / "link").symlink_to("nothing")
    for name in ("link", "new/"):
        with pytest.raises(FileError):
            open_log(f"{tmp_path}/{name}", append=append)
    assert [path.name for path in tmp_path.iterdir()] == ["link"]
