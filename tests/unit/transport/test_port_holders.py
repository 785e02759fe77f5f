"""Who holds a port, by a /proc made of files."""

from __future__ import annotations

import os

import pytest

from espwire.transport.open_errors import Holder, find_holder, find_holders

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="symbolic links are for the privileged there"
)


@pytest.fixture
def proc(tmp_path):
    """Makes processes: ``proc(pid, name, files…)``."""

    def make(pid, name, *files):
        folder = tmp_path / "proc" / str(pid)
        (folder / "fd").mkdir(parents=True)
        if name is not None:
            (folder / "comm").write_text(name + "\n")
        for number, target in enumerate(files):
            (folder / "fd" / str(number)).symlink_to(target)

    make.root = tmp_path / "proc"
    return make


def test_the_holder_is_told_with_its_name(proc):
    port = os.path.realpath("/dev/ttyUSB-none")
    proc(7, "bash", "/dev/null", "socket:[17]")
    proc(42, "picocom", "/dev/null", port)
    proc(41, "minicom", "/dev/other")
    (proc.root / "self").mkdir()
    assert find_holder(port, proc=proc.root) == Holder(42, "picocom")
    assert find_holder("/dev/free", proc=proc.root) is None
    assert find_holders([port, "/dev/other", "/dev/free"], proc=proc.root) == {
        port: Holder(42, "picocom"),
        "/dev/other": Holder(41, "minicom"),
    }


def test_a_link_to_the_port_is_followed(proc, tmp_path):
    port = tmp_path / "ttyACM0"
    port.touch()
    (tmp_path / "by-id").symlink_to(port)
    proc(9, "screen", os.path.realpath(port))
    assert find_holder(str(tmp_path / "by-id"), proc=proc.root) == Holder(9, "screen")


def test_of_two_holders_the_older_is_told(proc):
    proc(100, "young", "/dev/x")
    proc(11, "old", "/dev/x")
    assert find_holder("/dev/x", proc=proc.root) == Holder(11, "old")


def test_a_process_that_goes_or_hides_is_no_error(proc, tmp_path):
    proc(5, None, "/dev/x")
    (proc.root / "6").mkdir()
    assert find_holder("/dev/x", proc=proc.root) == Holder(5, "")
    assert find_holder("/dev/x", proc=tmp_path / "none") is None
    assert find_holders([], proc=proc.root) == {}


def test_a_name_cannot_drive_the_terminal(proc):
    proc(5, "\x1b[31mred" + "x" * 100, "/dev/x")
    holder = find_holder("/dev/x", proc=proc.root)
    assert holder is not None
    assert holder.name.isprintable()
    assert len(holder.name) <= 64
