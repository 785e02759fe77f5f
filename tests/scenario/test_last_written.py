"""What the last write left in flash saves time in the next one, and is never trusted."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.events import Event, Warned
from espwire.flash import survey
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal
from espwire.flash.last_written import LastWritten, digest_sectors
from espwire.flash.model import Plan
from espwire.flash.write import write_flash
from espwire.sizes import SECTOR
from espwire.virtual.transport import VirtualTransport, open_virtual

BASE, SECTORS = 0x10000, 100
OLD = random.Random(1).randbytes(SECTORS * SECTOR)
SAMPLED = 13  # every so many sectors


def change(data: bytes, *sectors: int) -> bytes:
    out = bytearray(data)
    for sector in sectors:
        out[sector * SECTOR + 5] ^= 1
    return bytes(out)


NEW = change(OLD, 30, 70)


class Board:
    """A virtual chip that holds ``flash``, and its record."""

    def __init__(self, folder: Path, flash: bytes, *, last: bytes | None) -> None:
        self.transport: VirtualTransport = open_virtual(
            "virtual:esp32c3?size=1MB&profile=typ&seed=4"
        )
        self.transport.chip.flash.contents[BASE : BASE + len(flash)] = flash
        self.journal, self.events = (
            Journal(folder / "unfinished/board.json", "board"),
            list[Event](),
        )
        if last is not None:
            self.last.write(digest_sectors(BASE, last))

    @property
    def last(self) -> LastWritten:
        return self.journal.last_written

    def write(self, data: bytes, policy: Policy | None = None) -> Plan:
        device = connect(self.transport, baud=921600, stub=True)
        return write_flash(
            device,
            [Blob(BASE, data)],
            policy=policy,
            journal=self.journal,
            report=self.events.append,
        )

    def restart(self) -> Board:
        """The same board later."""
        return Board(self.journal.path.parent.parent, self.flash, last=None)

    @property
    def flash(self) -> bytes:
        return bytes(self.transport.chip.flash.contents[BASE : BASE + len(OLD)])

    @property
    def warned(self) -> list[str]:
        return [event.code for event in self.events if isinstance(event, Warned)]


def seconds(board: Board) -> float:
    began = board.transport.now()
    board.write(NEW)
    assert board.flash == NEW
    return board.transport.now() - began


def test_the_next_write_is_faster(tmp_path):
    known = seconds(Board(tmp_path / "a", OLD, last=OLD))
    unknown = seconds(Board(tmp_path / "b", OLD, last=None))
    assert known < unknown - 0.09


def test_a_write_is_remembered(tmp_path):
    board = Board(tmp_path, b"", last=None)
    board.write(OLD)
    assert board.last.read() == digest_sectors(BASE, OLD)
    later = board.restart()
    assert later.write(NEW).written == 2 * SECTOR
    assert later.last.read() == digest_sectors(BASE, NEW)
    assert later.warned == []


@pytest.mark.parametrize("sectors", [(31,), (31, 71, 72), (0, SAMPLED)])
def test_flash_that_was_changed_since_is_put_right(tmp_path, sectors):
    board = Board(tmp_path, change(OLD, *sectors), last=OLD)
    plan = board.write(NEW)
    assert board.flash == NEW
    noticed_by_a_sample = 0 in sectors
    assert plan.written == (4 * SECTOR if noticed_by_a_sample else 2 * SECTOR)
    assert board.warned == ([] if noticed_by_a_sample else ["rewrite"])


def test_the_proof_is_needed(tmp_path, monkeypatch):
    """With the MD5 of the whole range switched off, a change since the last write stays."""
    board = Board(tmp_path, change(OLD, 31), last=OLD)
    monkeypatch.setattr("espwire.flash.write.has_content", lambda *_, **__: True)
    board.write(NEW)
    assert board.flash != NEW


def test_the_record_is_gone_while_flash_changes(tmp_path, monkeypatch):
    board = Board(tmp_path, OLD, last=OLD)

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("espwire.device.backends.stub.StubBackend.write", fail)
    with pytest.raises(KeyboardInterrupt):
        board.write(NEW)
    assert board.last.read() == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"v": 9}',
        b'{"v": 1, "board": "board", "runs": [[1, "AAAAAAAAAAA="]]}',
        b'{"v": 1, "board": "board", "runs": [[Infinity, "AAAAAAAAAAA="]]}',
    ],
)
def test_a_damaged_record_is_ignored(tmp_path, content):
    board = Board(tmp_path, OLD, last=None)
    board.last.path.parent.mkdir(parents=True, exist_ok=True)
    board.last.path.write_bytes(content)
    assert board.last.read() == {}
    assert board.write(NEW).written == 2 * SECTOR
    assert board.flash == NEW


def test_the_record_of_another_board_is_ignored(tmp_path):
    board = Board(tmp_path, OLD, last=OLD)
    assert LastWritten(board.last.path, "other").read() == {}


def test_a_record_that_cannot_be_stored_costs_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    record = LastWritten(tmp_path / "file/board.written", "board")
    record.write({BASE: bytes(8)})
    record.forget()
    assert record.read() == {}


def test_without_comparison_there_is_no_hint(tmp_path):
    board = Board(tmp_path, change(OLD, 31), last=OLD)
    assert board.write(NEW, Policy(diff=False)).written == len(NEW)
    assert board.flash == NEW
    assert survey.SAMPLES == 8


@pytest.mark.parametrize("changed", [(), (60,)])
def test_blank_sectors_that_the_last_write_did_not_cover_are_compared(tmp_path, changed):
    half = SECTORS // 2 * SECTOR
    data = OLD[:half].ljust(len(OLD), b"\xff")
    board = Board(tmp_path, change(data, *changed), last=OLD[:half])
    assert board.write(data).written == len(changed) * SECTOR
    assert board.flash == data
    assert board.warned == []
