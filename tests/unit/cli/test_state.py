"""What is remembered between runs, and that a bad file costs a warning and nothing more."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.cli import state as state_module
from espwire.cli.state import (
    FILE_LIMIT,
    MAX_ENTRIES,
    MAX_LENGTH,
    State,
    find_remembered,
    find_state_file,
)
from espwire.events import Warned
from espwire.files import lock
from espwire.transport.ports import PortIdentity

KEY, MAC = "10C4:EA60:0001", "24:0a:c4:00:01:10"


class Book:
    """A state file, and what was reported."""

    def __init__(self, path):
        self.path, self.events = path, []

    def state(self):
        return State(self.path, self.events.append)

    @property
    def codes(self):
        assert all(isinstance(event, Warned) for event in self.events)
        return [event.code for event in self.events]


@pytest.fixture
def book(tmp_path):
    return Book(tmp_path / "deep" / "folder" / "state.json")


def test_what_is_noted_is_there_in_the_next_run(book):
    first = book.state()
    assert (first.best_sequence(KEY), first.find_device(MAC)) == (None, None)
    assert not book.path.exists()
    first.note_sequence(KEY, "tight")
    first.note_device(MAC.upper().replace(":", "-"), KEY)
    second = book.state()
    assert (second.best_sequence(KEY), second.find_device(MAC)) == ("tight", KEY)
    second.note_sequence(KEY, "classic")
    assert book.state().best_sequence(KEY) == "classic"
    assert json.loads(book.path.read_text("utf-8"))["v"] == 1
    assert {path.name for path in book.path.parent.iterdir()} == {"state.json", "state.lock"}
    assert book.codes == []


def test_without_state_nothing_is_read_or_written(book):
    book.state().note_sequence(KEY, "tight")
    text = book.path.read_bytes()
    none = State(None, book.events.append)
    none.note_sequence(KEY, "classic")
    none.note_device(MAC, KEY)
    assert (none.best_sequence(KEY), none.find_device(MAC)) == (None, None)
    assert book.path.read_bytes() == text


def test_noting_what_is_known_writes_nothing(book):
    book.state().note_sequence(KEY, "tight")
    before = book.path.stat().st_mtime_ns, book.path.stat().st_ino
    book.state().note_sequence(KEY, "tight")
    assert (book.path.stat().st_mtime_ns, book.path.stat().st_ino) == before


def test_two_runs_at_once_lose_nothing_of_each_other(book):
    one, two = book.state(), book.state()
    assert one.best_sequence("a") is two.best_sequence("a") is None
    one.note_sequence("a", "tight")
    two.note_sequence("b", "classic")
    assert (book.state().best_sequence("a"), book.state().best_sequence("b")) == (
        "tight",
        "classic",
    )


def test_the_file_stays_small_and_keeps_the_newest(book):
    state = book.state()
    for number in range(MAX_ENTRIES + 50):
        state.note_sequence(f"key {number}", "tight")
    state.note_sequence("key 60", "classic")  # noted anew: the newest now
    state.note_sequence("x" * (MAX_LENGTH + 1), "tight")
    state.note_sequence("y", "z" * (MAX_LENGTH + 1))
    state.note_sequence("", "tight")
    found = json.loads(book.path.read_text("utf-8"))["sequences"]
    assert len(found) == MAX_ENTRIES
    assert next(iter(found)) == "key 50"
    assert list(found)[-1] == "key 60"
    assert 4 * MAX_ENTRIES * MAX_LENGTH < FILE_LIMIT


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"7",
        b'{"v": 0}',
        b'{"v": "1"}',
        b"[" * 100_000,
        b" " * (FILE_LIMIT + 1),
    ],
)
def test_a_broken_file_is_a_warning_and_is_replaced(book, content):
    book.path.parent.mkdir(parents=True)
    book.path.write_bytes(content)
    state = book.state()
    assert state.best_sequence(KEY) is None
    assert state.find_device(MAC) is None
    assert book.codes == ["state-unreadable"]
    state.note_sequence(KEY, "tight")
    book.events.clear()
    assert book.state().best_sequence(KEY) == "tight"
    assert book.codes == []


def test_a_file_of_a_later_version_is_left_alone(book):
    book.path.parent.mkdir(parents=True)
    book.path.write_text('{"v": 2, "sequences": []}', "utf-8")
    state = book.state()
    assert state.best_sequence(KEY) is None
    state.note_sequence(KEY, "tight")
    assert book.path.read_text("utf-8") == '{"v": 2, "sequences": []}'
    assert book.codes == ["state-unreadable"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_no_content_of_a_table_is_an_error(tmp_path_factory, tables):
    book = Book(tmp_path_factory.mktemp("state") / "state.json")
    book.path.write_text(json.dumps({"v": 1, "sequences": tables, "devices": tables}), "utf-8")
    state = book.state()
    assert state.best_sequence(KEY) is None or isinstance(state.best_sequence(KEY), str)
    state.note_device(MAC, KEY)
    assert book.state().find_device(MAC) == KEY
    assert book.codes == []


def test_a_place_that_cannot_be_written_is_one_warning(tmp_path):
    (tmp_path / "file").write_text("in the way", "utf-8")
    book = Book(tmp_path / "file" / "state.json")
    state = book.state()
    state.note_sequence(KEY, "tight")
    state.note_sequence(KEY, "classic")
    state.note_device(MAC, KEY)
    assert book.codes == ["state-unwritable"]


def test_the_place_is_the_user_s_state_folder(tmp_path_factory):
    place = find_state_file()
    assert place.name == "state.json"
    assert "espwire" in place.parts[-2]
    if os.name == "posix":  # Windows does not ask the environment
        assert tmp_path_factory.getbasetemp() in place.parents


def test_a_mac_leads_to_the_port_that_has_its_key_now(book):
    state = book.state()
    bridge = PortIdentity("/dev/ttyUSB3", 0x10C4, 0xEA60, "0001")
    state.note_device(MAC, bridge.key)
    other = PortIdentity("/dev/ttyUSB0", 0x10C4, 0xEA60, "0002")
    assert find_remembered(state, MAC.replace(":", ""), (other, bridge)) == bridge
    assert find_remembered(state, MAC, (other,)) is None
    assert find_remembered(state, "00:00:00:00:00:01", (bridge,)) is None


NOTE = """
import sys
from pathlib import Path
from espwire.cli.state import State
def stop(event):
    sys.exit(str(event))
sys.stdin.readline()
for number in range(int(sys.argv[2])):
    State(Path(sys.argv[1]), stop).note_sequence(f"{sys.argv[3]}{number}", "tight")
"""


@pytest.mark.skipif(os.name == "nt", reason="starting processes takes too long there")
def test_processes_that_note_at_once_lose_nothing(book):
    line = [sys.executable, "-c", NOTE, str(book.path), "25"]
    others = [subprocess.Popen([*line, name], stdin=subprocess.PIPE, text=True) for name in "ab"]
    for other in others:
        other.stdin.write("\n")
        other.stdin.flush()
    for other in others:
        other.stdin.close()
        assert other.wait(30) == 0
    noted = json.loads(book.path.read_text("utf-8"))["sequences"]
    assert noted == {f"{name}{number}": "tight" for name in "ab" for number in range(25)}


def test_a_lock_that_somebody_keeps_costs_a_warning(book, monkeypatch):
    monkeypatch.setattr(state_module, "LOCK_S", 0.02)
    book.state().note_sequence("a", "tight")
    descriptor = os.open(book.path.with_suffix(".lock"), os.O_RDWR)
    assert lock(descriptor)
    before = book.path.read_bytes()
    book.state().note_sequence("b", "tight")
    os.close(descriptor)
    assert book.codes == ["state-unwritable"]
    assert book.path.read_bytes() == before
    book.state().note_sequence("b", "tight")
    assert book.state().best_sequence("b") == "tight"


@pytest.mark.skipif(os.name == "nt", reason="permissions are of POSIX")
def test_what_is_private_is_created_private_and_made_so(book):
    before = os.umask(0)
    try:
        book.state().note_sequence("a", "tight")
        modes = {
            path.name: stat.S_IMODE(path.stat().st_mode) for path in book.path.parent.iterdir()
        }
        assert modes == {"state.json": 0o600, "state.lock": 0o600}
        assert stat.S_IMODE(book.path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(book.path.parent.parent.stat().st_mode) == 0o700
        book.path.chmod(0o644)  # as earlier versions made it
        book.state().note_sequence("b", "tight")
        assert stat.S_IMODE(book.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.skipif(os.name == "nt", reason="pipes with names are of POSIX")
@pytest.mark.parametrize("name", ["state.json", "state.lock"])
def test_a_pipe_in_its_place_is_neither_waited_for_nor_written(book, name):
    book.path.parent.mkdir(parents=True)
    os.mkfifo(book.path.parent / name)
    state = book.state()
    assert state.best_sequence("a") is None
    state.note_sequence("a", "tight")
    if name == "state.json":
        assert book.codes == ["state-unreadable"]
    assert stat.S_ISFIFO(os.lstat(book.path.parent / name).st_mode)


@pytest.mark.skipif(os.name == "nt", reason="links are for the privileged there")
def test_a_link_in_place_of_the_lock_is_not_followed(book, tmp_path):
    book.path.parent.mkdir(parents=True)
    book.path.with_suffix(".lock").symlink_to(tmp_path / "victim")
    book.state().note_sequence("a", "tight")
    assert book.codes == ["state-unwritable"]
    assert not (tmp_path / "victim").exists()
