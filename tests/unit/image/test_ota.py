"""OTA data: which slot boots, and that every write on the way to another leaves one that boots."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.errors import TableError
from espwire.image.ota import (
    OTA_DATA_SIZE,
    SECTOR,
    OtaData,
    OtaEntry,
    OtaState,
    apply_change,
    build_sector,
    compute_crc,
    find_boot,
    find_ota_slots,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_csv import parse_csv

SLOTS = "".join(f"app{n},app,ota_{n},,64K\n" for n in range(3))
WITH_FACTORY = parse_csv(
    "otadata,data,ota,,0x2000\nmain,app,factory,,64K\n" + SLOTS + "check,app,test,,64K\n"
)
WITHOUT_FACTORY = parse_csv("otadata,data,ota,,0x2000\n" + SLOTS)
BLANK = OtaData((OtaEntry(), OtaEntry()))


def entry(sequence: int, state: int = OtaState.UNDEFINED) -> OtaEntry:
    return OtaEntry(sequence, state, compute_crc(sequence))


def booted(table, *entries: OtaEntry) -> str:
    status = find_boot(table, OtaData(entries))  # type: ignore[arg-type]
    assert status.boots is not None
    return status.boots.name


def build(data: OtaData) -> bytes:
    return b"".join(map(build_sector, data.entries))


def test_the_crc_is_that_of_real_otadata() -> None:
    # Arduino's boot_app0.bin: sequence 1, and what a first update writes: sequence 2
    assert build_sector(entry(1))[:4] + build_sector(entry(1))[28:32] == bytes.fromhex(
        "01000000 9a984347"
    )
    assert compute_crc(2) == 0x55F63774


def test_entries_parse_back() -> None:
    data = build_sector(entry(7, OtaState.VALID)) + build_sector(OtaEntry(8, 3, 1))
    assert len(data) == OTA_DATA_SIZE
    assert parse_ota_data(data).entries == (entry(7, OtaState.VALID), OtaEntry(8, 3, 1))
    with pytest.raises(TableError) as caught:
        parse_ota_data(data[:-1])
    assert caught.value.code == "ota-data-size"


def test_blank_data_boots_factory_or_else_the_first_slot() -> None:
    assert booted(WITH_FACTORY, OtaEntry(), OtaEntry()) == "main"
    assert booted(WITHOUT_FACTORY, OtaEntry(), OtaEntry()) == "app0"


def test_the_higher_sequence_counts_and_slots_take_turns() -> None:
    assert booted(WITH_FACTORY, entry(1), OtaEntry()) == "app0"
    assert booted(WITH_FACTORY, entry(1), entry(2)) == "app1"
    assert booted(WITH_FACTORY, entry(3), entry(2)) == "app2"
    assert booted(WITH_FACTORY, entry(3), entry(4)) == "app0"


def test_entries_with_a_wrong_crc_or_a_rejected_application_are_ignored() -> None:
    assert booted(WITH_FACTORY, entry(1), OtaEntry(2, OtaState.VALID, 0)) == "app0"
    assert booted(WITH_FACTORY, entry(1), entry(2, OtaState.ABORTED)) == "app0"
    assert booted(WITH_FACTORY, entry(1, OtaState.INVALID), entry(2, OtaState.ABORTED)) == "main"
    status = find_boot(WITH_FACTORY, OtaData((entry(1), entry(2, OtaState.ABORTED))))
    assert status.notes == ("sector 1: its application was rejected (aborted)",)


def test_an_unconfirmed_application_is_noted() -> None:
    status = find_boot(WITH_FACTORY, OtaData((entry(1, OtaState.PENDING_VERIFY), OtaEntry())))
    assert "rollback" in status.notes[0]


def test_without_otadata_the_table_decides() -> None:
    table = parse_csv("check,app,test,,64K\n")
    assert find_boot(table, None).boots == table.partitions[0]
    assert find_boot(parse_csv("nvs,data,nvs,,12K"), None).boots is None


def test_slots_count_up_to_the_first_that_is_missing() -> None:
    table = parse_csv("a,app,ota_1,,64K\nb,app,ota_0,,64K\nd,app,ota_3,,64K\n")
    assert [row.name for row in find_ota_slots(table)] == ["b", "a"]


def test_switching_to_what_boots_changes_nothing() -> None:
    assert plan_switch(WITH_FACTORY, OtaData((entry(2), OtaEntry())), "app1").nothing


@pytest.mark.parametrize("name", ["main", "factory"])
def test_factory_erases_the_sector_that_counts_last(name: str) -> None:
    data = OtaData((entry(5), entry(4)))
    change = plan_switch(WITH_FACTORY, data, name)
    assert change.erase == (1, 0)
    assert booted(WITH_FACTORY, entry(5), OtaEntry()) == booted(WITH_FACTORY, *data.entries)
    assert parse_ota_data(apply_change(build(data), change)) == BLANK
    assert plan_switch(WITH_FACTORY, BLANK, name).nothing


@pytest.mark.parametrize("name", ["nonsense", "check", "otadata", "ota_3", "3"])
def test_a_slot_that_cannot_be_selected_is_an_error(name: str) -> None:
    with pytest.raises(TableError) as caught:
        plan_switch(WITH_FACTORY, BLANK, name)
    assert caught.value.code == "ota-slot"
    assert caught.value.hint == "It can select: app0, app1, app2, main."


def test_a_full_counter_is_an_error() -> None:
    with pytest.raises(TableError) as caught:
        plan_switch(WITH_FACTORY, OtaData((entry(0xFFFFFFFE), OtaEntry())), "app0")
    assert caught.value.code == "ota-sequence"


ENTRIES = st.one_of(
    st.just(OtaEntry()),
    st.builds(entry, st.integers(1, 0xFFFFFF00), st.sampled_from([*OtaState, 77])),
    st.builds(OtaEntry, st.integers(0, 0xFFFFFFFF), st.integers(0, 5), st.integers(0, 0xFFFFFFFF)),
)


@given(ENTRIES, ENTRIES, st.sampled_from(["app0", "ota_1", "2", "main"]), st.integers(0, SECTOR))
def test_after_any_switch_the_slot_boots_and_at_every_moment_before_the_old_one(
    first: OtaEntry, second: OtaEntry, name: str, kept: int
) -> None:
    data = OtaData((first, second))
    before = find_boot(WITH_FACTORY, data).boots
    change = plan_switch(WITH_FACTORY, data, name)
    after = find_boot(WITH_FACTORY, parse_ota_data(apply_change(build(data), change)))
    assert after.boots == change.slot
    flash = bytearray(build_sector(first) + build_sector(second))
    for index in (*change.erase, *([change.write] if change.write is not None else [])):
        flash[index * SECTOR : (index + 1) * SECTOR] = b"\xff" * SECTOR
        assert find_boot(WITH_FACTORY, parse_ota_data(bytes(flash))).boots in (before, change.slot)
    if change.write is not None and change.entry is not None and kept < 32:
        flash[change.write * SECTOR : change.write * SECTOR + kept] = build_sector(change.entry)[
            :kept
        ]
        assert find_boot(WITH_FACTORY, parse_ota_data(bytes(flash))).boots in (before, change.slot)


def test_the_wrong_order_would_be_noticed() -> None:
    """The proof that the test above can fail: erasing the sector that counts first boots a third slot in between."""
    data = OtaData((entry(5), entry(4)))  # app1 boots; sector 1 still names app0
    wrong = OtaData((OtaEntry(), data.entries[1]))
    before, between = find_boot(WITH_FACTORY, data).boots, find_boot(WITH_FACTORY, wrong).boots
    assert (before.name, between.name) == ("app1", "app0")  # type: ignore[union-attr]
