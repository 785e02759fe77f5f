"""What a write does with the journal of an earlier one that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espwire import connect
from espwire.blob import Blob
from espwire.errors import DataError, FileError
from espwire.events import Event, Warned
from espwire.flash.findings import Policy
from espwire.flash.journal import NOTHING, Journal, Shared, Unfinished
from espwire.flash.write import write_flash
from espwire.sizes import SECTOR
from espwire.virtual.transport import VirtualTransport, open_virtual

AT = 0x20000  # the sector that an earlier write shared with other data
OTHER = b"settings" * 64  # the other data, at its end
CONTENT = b"an old file".ljust(SECTOR - len(OTHER), b"\xff") + OTHER
KEPT = ((AT + SECTOR - len(OTHER), AT + SECTOR),)
SHARED = Shared(AT, CONTENT, KEPT)
FILE = Blob(0x40000, bytes(range(256)) * 32, "new.bin")


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "unfinished/board.json", "board")


def open_chip(
    chip: str = "esp32c3", held: bytes = b"", options: str = "size=1MB"
) -> VirtualTransport:
    transport = open_virtual(f"virtual:{chip}?{options}&profile=instant")
    transport.chip.flash.contents[AT : AT + len(held)] = held
    return transport


def write(
    transport: VirtualTransport,
    journal: Journal,
    blob: Blob = FILE,
    policy: Policy | None = None,
    stub: bool = True,
) -> list[str]:
    """The codes of the warnings."""
    events: list[Event] = []
    device = connect(transport, baud=115200, stub=stub)
    write_flash(device, [blob], policy=policy, journal=journal, report=events.append)
    return [event.code for event in events if isinstance(event, Warned)]


def held(transport: VirtualTransport, address: int = AT, size: int = SECTOR) -> bytes:
    return bytes(transport.chip.flash.contents[address : address + size])


@pytest.mark.parametrize("content", [b"", b"an old", CONTENT])
@pytest.mark.parametrize("under_way", [(), ((AT, AT + SECTOR),)])
def test_another_write_restores_it(journal, content, under_way):
    journal.write(Unfinished(under_way, (SHARED,)))
    transport = open_chip(held=content)
    assert write(transport, journal) == []
    assert held(transport) == CONTENT
    assert held(transport, FILE.address, len(FILE.data)) == FILE.data
    assert not journal.path.exists()


def test_a_sector_that_was_written_since_is_left_alone(journal):
    journal.write(Unfinished((), (SHARED,)))
    since = bytes(SECTOR)
    transport = open_chip(held=since)
    assert write(transport, journal) == ["journal-kept"]
    assert held(transport) == since
    assert not journal.path.exists()
    (aside,) = journal.path.parent.iterdir()
    assert Journal(aside, "board").read().shared == (SHARED,)


def test_a_sector_whose_erase_was_under_way_may_hold_anything(journal):
    journal.write(Unfinished(((AT, AT + SECTOR),), (SHARED,)))
    transport = open_chip(held=bytes(SECTOR))
    assert write(transport, journal) == []
    assert held(transport) == CONTENT


def test_a_file_that_takes_the_sector_keeps_the_other_data(journal):
    journal.write(Unfinished(((AT, AT + SECTOR),), (SHARED,)))
    transport = open_chip(held=bytes(SECTOR))
    assert write(transport, journal, Blob(AT, b"a new file", "new.bin")) == []
    assert held(transport) == b"a new file" + CONTENT[10:]


@pytest.mark.parametrize("policy", [Policy(keep=False), Policy(erase_all=True)])
def test_what_need_not_be_kept_is_not_restored(journal, policy):
    journal.write(Unfinished((), (SHARED,)))
    transport = open_chip()
    write(transport, journal, policy=policy)
    assert held(transport) == b"\xff" * SECTOR
    assert journal.read() == (NOTHING if policy.erase_all else Unfinished((), (SHARED,)))


def test_a_loader_that_cannot_read_leaves_it_in_the_journal(journal):
    journal.write(Unfinished((), (SHARED,)))
    transport = open_chip("esp8266")
    assert write(transport, journal, policy=Policy(keep=False), stub=False) == ["unverified"]
    assert journal.read() == Unfinished((), (SHARED,))


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored | {"board": "another"},
        lambda stored: stored | {"v": 2},
        lambda stored: stored | {"shared": []},
        lambda stored: {},
        lambda stored: [],
    ],
)
def test_a_damaged_journal_stops_the_write(journal, change):
    journal.write(Unfinished((), (SHARED,)))
    journal.path.write_text(json.dumps(change(json.loads(journal.path.read_text("utf-8")))))
    transport = open_chip()
    with pytest.raises(DataError) as caught:
        write(transport, journal)
    assert caught.value.code == "journal-damaged"
    assert held(transport, FILE.address) == b"\xff" * SECTOR


def test_a_journal_that_cannot_be_stored_matters_only_for_shared_sectors(tmp_path):
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file/board.json", "board")
    assert write(open_chip(), journal) == ["no-journal"]
    transport = open_chip(held=b"\xff" * 64 + OTHER)
    with pytest.raises(FileError):
        write(transport, journal, Blob(AT, b"a new file"))
    assert held(transport) == (b"\xff" * 64 + OTHER).ljust(SECTOR, b"\xff")
