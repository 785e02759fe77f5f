"""What a write does beyond its bytes: protected flash chips, partitions that become blank, slots that do not boot."""

from __future__ import annotations

from pathlib import Path

import pytest

from espwire import connect
from espwire.blob import Blob
from espwire.errors import DataError, SafetyStop
from espwire.events import Event, PlanReady, Warned
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal, Unfinished
from espwire.flash.prepare import cut_gaps
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


NEW_CSV = "nvs,data,nvs,0xf000,0x5000\notadata,data,ota,0x14000,0x2000\napp0,app,ota_0,0x20000,192K\napp1,app,ota_1,0x50000,384K\nlog,data,0x40,0x9000,0x6000\n"


def plan_table(transport: VirtualTransport, csv: str, *blobs: Blob, **policy: bool) -> PlanReady:
    events: list[Event] = []
    device = connect(transport, baud=921600, stub=True)
    table = Blob(0x8000, build_table(parse_csv(csv)), "table.bin")
    write_flash(
        device, [table, *blobs], policy=Policy(**policy), dry_run=True, report=events.append
    )
    (plan,) = [event for event in events if isinstance(event, PlanReady)]
    warned = [event.text for event in events if isinstance(event, Warned)]
    misread = "; ".join(change.text for change in plan.partitions if change.kind == "misread")
    assert [text.partition("; `flash")[0] for text in warned] == ([misread] if misread else [])
    return plan


def test_a_new_partition_table_is_compared_with_the_one_in_flash():
    transport = open_chip(slot=2)
    changes = plan_table(transport, NEW_CSV).partitions
    assert [(change.kind, change.text) for change in changes] == [
        (
            "changed",
            "nvs moves from 0x9000 to 0xf000 without its content and grows from 16KB to 20KB",
        ),
        (
            "changed",
            "otadata moves from 0xd000 to 0x14000 without its content and forgets which application was selected",
        ),
        (
            "changed",
            "app0 moves from 0x10000 to 0x20000 without its content and shrinks from 256KB to 192KB",
        ),
        ("changed", "app1 grows from 256KB to 384KB"),
        ("added", "log at 0x9000 (24KB) is new"),
        ("misread", "log (data/64) gets 0x9000..0xd000, which holds data of nvs (data/nvs)"),
        ("misread", "log (data/64) gets 0xd000..0xf000, which holds data of otadata (data/ota)"),
    ]
    assert changes[0][3:] == (0x9000, 0x4000, 0xF000, 0x5000)
    assert changes[4][3:] == (None, None, 0x9000, 0x6000)
    assert changes[5][3:] == (0x9000, 0x4000, 0x9000, 0x6000)


def test_what_is_written_or_erased_is_not_read_as_something_else():
    transport = open_chip(slot=2)
    log = Blob(0x9000, b"new", "log.bin")
    assert [c.kind for c in plan_table(transport, NEW_CSV, log).partitions].count("misread") == 0
    erased = plan_table(transport, NEW_CSV, erase=((0x9000, 0xD000),))
    assert [c.kind for c in erased.partitions].count("misread") == 0
    erased = plan_table(transport, NEW_CSV, erase=((0xC000, 0xF000),))
    (text,) = [c.text for c in erased.partitions if c.kind == "misread"]
    assert "0x9000..0xd000" in text


@pytest.mark.parametrize(
    ("csv", "texts"),
    [
        (CSV, []),
        (CSV.replace("nvs,data,nvs", "settings,data,nvs"), ["settings was named nvs"]),
        (CSV.replace("nvs,data,nvs", "nvs,data,fat"), [
            "nvs changes from data/nvs to data/fat",
            "nvs (data/fat) gets 0x9000..0xd000, which holds data from when it was data/nvs",
        ]),
        (CSV.replace("app1,app,ota_1,,256K", "app1,app,ota_1,0x60000,256K"), [
            "app1 moves from 0x50000 to 0x60000 without its content",
            "app1 moves to 0x60000 and gets 0x60000..0x90000, which holds data from its old place at 0x50000",
        ]),
        (CSV.replace("app1,app,ota_1,,256K\n", ""), ["app1 at 0x50000 (256KB) vanishes"]),
        (CSV.replace("256K\napp1", "256K,encrypted\napp1"), [
            "app0 changes its flags from none to encrypted"
        ]),
    ],
    ids=["equal", "renamed", "retyped", "moved", "removed", "flags"],
)  # fmt: skip
def test_small_changes_of_a_table(csv, texts):
    transport = open_chip()
    transport.chip.flash.contents[0x70000] = 0
    assert [change.text for change in plan_table(transport, csv).partitions] == texts


def test_a_board_without_a_table_has_nothing_to_compare():
    assert plan_table(open_virtual("virtual:esp32?size=2MB&profile=instant"), CSV).partitions == ()


def test_through_the_rom_the_tables_are_compared_as_well():
    transport = open_virtual("virtual:esp32c3?size=2MB&profile=instant")
    transport.chip.flash.contents[0x8000:0x8C00] = build_table(parse_csv(CSV))
    events: list[Event] = []
    device = connect(transport, baud=921600, stub=False)
    blob = Blob(0x8000, build_table(parse_csv(CSV.replace("0x4000", "0x3000"))), "table.bin")
    write_flash(device, [blob], report=events.append)
    (plan,) = [event for event in events if isinstance(event, PlanReady)]
    assert [c.text for c in plan.partitions] == ["nvs shrinks from 16KB to 12KB"]


def test_a_slot_without_an_application_is_not_said_to_boot():
    transport = open_chip(slot=2)
    transport.chip.flash.contents[0x50000:0x51000] = b"\xff" * 0x1000
    warned = write(transport, Blob(0x10000, APP, "a.bin"), consents=frozenset({"wrong-offset"}))
    assert [w.code for w in warned if w.code == "not-booted"] == []


def test_an_application_inside_a_merged_file_counts():
    merged = bytes(transport_contents(open_chip(slot=2), 0xF000, 0x10000)) + APP
    warned = write(open_chip(slot=2), Blob(0xF000, merged, "merged.bin"))
    assert [w.code for w in warned] == ["not-booted"]


def transport_contents(transport: VirtualTransport, start: int, end: int) -> bytes:
    return bytes(transport.chip.flash.contents[start:end])


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
