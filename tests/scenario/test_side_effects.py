"""What a write does beyond its bytes: protected flash chips, partitions that become blank, slots that do not boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from espwire import connect
from espwire.blob import Blob
from espwire.errors import DataError, SafetyStop
from espwire.events import Event, Warned
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal, Unfinished
from espwire.flash.side_effects import cut_gaps
from espwire.flash.write import write_flash
from espwire.image.ota import OtaEntry, build_sector, compute_crc
from espwire.image.partition_csv import parse_csv
from espwire.image.partition_table import build_table
from espwire.virtual.transport import VirtualTransport, open_virtual

APP = (Path(__file__).parents[1] / "data/esp32/esp32-bootloader.bin").read_bytes()
CSV = "nvs,data,nvs,0x9000,0x4000\notadata,data,ota,0xd000,0x2000\napp0,app,ota_0,0x10000,256K\napp1,app,ota_1,,256K\n"
SETTINGS = b"device id 42".ljust(0x4000, b"\xff")


def open_chip(slot: int = 1) -> VirtualTransport:
    """An ESP32 with a partition table, settings, and an application in the selected slot (1 or 2)."""
    transport = open_virtual("virtual:esp32?size=2MB&profile=instant")
    entry = build_sector(OtaEntry(slot, crc=compute_crc(slot)))
    for at, data in (
        (0x8000, build_table(parse_csv(CSV))),
        (0x9000, SETTINGS),
        (0xD000, entry),
        (0x10000 + (slot - 1) * 0x40000, APP),
    ):
        transport.chip.flash.contents[at : at + len(data)] = data
    return transport


def write(
    transport: VirtualTransport, *blobs: Blob, consents: frozenset[str] = frozenset()
) -> list[Warned]:
    events: list[Event] = []
    device = connect(transport, baud=921600, stub=True)
    write_flash(device, blobs, policy=Policy(consents=consents), report=events.append)
    return [event for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x1C, ("0x1c", "write-flash-status --non-volatile 0x00")),
        (0x84, ("0x84", "locked", "WP pin")),
        (0x46, ("0x44", "write-flash-status --non-volatile 0x40")),
    ],
)
def test_a_protected_flash_chip_is_refused_before_the_first_erase(status, words):
    transport = open_chip()
    flash = transport.chip.flash
    flash._kept_status[0] = flash._status[0] = status & 0xFC
    before = bytes(flash.contents)
    with pytest.raises(SafetyStop) as caught:
        write(transport, Blob(0x100000, APP))
    assert caught.value.code == "write-protected"
    for word in words:
        assert word in str(caught.value)
    assert bytes(flash.contents) == before


@pytest.mark.parametrize("status", [0x00, 0x20, 0x40])
def test_other_bits_of_the_status_protect_nothing(status):
    transport = open_chip()
    transport.chip.flash._kept_status[0] = transport.chip.flash._status[0] = status
    write(transport, Blob(0x100000, APP))
    assert transport.chip.flash.contents[0x100000 : 0x100000 + len(APP)] == APP


def test_a_partition_that_becomes_blank_is_named():
    image = bytes(open_chip().chip.flash.contents[0x8000:0x10000])
    merged = bytearray(image)
    merged[0x1000:0x5000] = b"\xff" * 0x4000
    (warning,) = write(open_chip(), Blob(0x8000, bytes(merged), "merged.bin"))
    assert warning.code == "data-erased"
    assert warning.text.startswith("nvs: holds data now")
    assert "--keep-gaps" in warning.text
    transport = open_chip()
    assert write(transport, *cut_gaps([Blob(0x8000, bytes(merged), "merged.bin")])) == []
    assert transport.chip.flash.contents[0x9000:0xD000] == SETTINGS


def test_what_becomes_blank_within_a_partition_is_not_worth_a_word():
    merged = b"new settings".ljust(0x4000, b"\xff")
    assert write(open_chip(), Blob(0x9000, merged)) == []


@pytest.mark.parametrize(("slot", "codes"), [(1, []), (2, ["not-booted"])])
def test_an_application_in_a_slot_that_does_not_boot_is_reported(slot, codes):
    transport = open_chip(slot)
    for _ in range(2):  # also when it is in flash already
        warned = write(
            transport, Blob(0x10000, APP, "app.bin"), consents=frozenset({"wrong-offset"})
        )
        assert [warning.code for warning in warned if warning.code == "not-booted"] == codes
    for warning in warned:
        if warning.code == "not-booted":
            assert "`espwire ota switch app0`" in warning.text
            assert "selects app1" in warning.text


def test_a_journal_that_cannot_be_written_is_a_warning_and_a_damaged_one_an_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    journal = Journal(tmp_path / "file" / "unfinished/x.json", "board")
    events: list[Event] = []
    device = connect(open_chip(), stub=True)
    write_flash(device, [Blob(0x100000, APP)], journal=journal, report=events.append)
    assert [e.code for e in events if isinstance(e, Warned)] == ["no-journal"]
    journal = Journal(tmp_path / "unfinished/x.json", "board")
    journal.write(Unfinished(((0x1000, 0x2000),)))
    whole = journal.path.read_bytes()
    for damaged in (b"", b"[]", b"{}", whole[:-9], whole.replace(b"8192", b"8193")):
        journal.path.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            write_flash(device, [Blob(0x100000, APP)], journal=journal)
        assert (caught.value.code, bool(caught.value.hint)) == ("journal-damaged", True)
    journal.path.write_bytes(whole)
    with pytest.raises(DataError, match="of the board board"):
        Journal(journal.path, "another").read()


def test_gaps_are_whole_sectors():
    data = b"a" * 0x1800 + b"\xff" * 0x2000 + b"b" * 0x800
    cut = cut_gaps([Blob(0x10000, data, "x")])
    assert [(b.address, len(b.data)) for b in cut] == [(0x10000, 0x2000), (0x13000, 0x1000)]
    assert [b.name for b in cut] == ["x, part 1", "x, part 2"]
    assert cut_gaps([Blob(0x10000, b"\xff" * 0x3000)]) == []


def test_a_rom_that_erases_too_much_and_cannot_read_needs_a_consent():
    def write_sector(policy: Policy) -> list[str]:
        transport = open_virtual("virtual:esp8266?size=1MB&profile=instant")
        events: list[Event] = []
        write_flash(
            connect(transport, baud=115200, stub=False),
            [Blob(0x10000, bytes(0x1000))],
            policy=policy,
            report=events.append,
        )
        return [event.code for event in events if isinstance(event, Warned)]

    with pytest.raises(SafetyStop) as caught:
        write_sector(Policy())
    assert caught.value.code == "erases-behind"
    assert caught.value.consents == ("neighbours",)
    assert "0x11000..0x12000" in str(caught.value)
    assert "--no-keep" in str(caught.value)
    for policy in (Policy(keep=False), Policy(consents=frozenset({"neighbours"}))):
        assert "erases-behind" in write_sector(policy)


def test_nothing_is_erased_so_a_protected_flash_chip_is_no_obstacle():
    transport = open_chip()
    write(transport, Blob(0x100000, APP))
    transport.chip.flash._kept_status[0] = transport.chip.flash._status[0] = 0x1C
    assert [w.code for w in write(transport, Blob(0x100000, APP))] == []
