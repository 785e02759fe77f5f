"""Tables that are odd in one place: the other rows stay usable, CSV in other encodings is named, otadata by IDF's rule."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from espwire.errors import TableError
from espwire.image.ota import (
    OtaData,
    OtaEntry,
    OtaState,
    choose_slot,
    compute_crc,
    find_boot,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_csv import build_csv, decode_csv, guess_encoding, parse_csv
from espwire.image.partition_table import (
    ROW,
    Partition,
    PartitionTable,
    build_table,
    check_table,
    find_partition,
    parse_table,
    require_sound,
)

CASES = Path(__file__).parents[2] / "data/cases"
NVS = Partition("nvs", 1, 2, 0x9000, 0x6000)
FACTORY = Partition("factory", 0, 0, 0x10000, 0x100000)
ODD_NAMES = (
    b"\xce\xc4\xbc\xfe",
    b"\xff\xfe",
    b"a\xe9",
    b"\x80" * 16,
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
)
ESCAPES = (b"\x1b[31mx\x1b]0;t\x07", "\u202etxt.exe".encode(), "\x9b31mx".encode(), b"x\ry\nz")


def build_odd(name: bytes = b"odd", type_: int = 1, subtype: int = 0x82, flags: int = 0) -> bytes:
    row = ROW.pack(b"\xaa\x50", type_, subtype, 0x110000, 0x10000, name, flags)
    return (build_table(PartitionTable((NVS, FACTORY)), md5=False)[:64] + row).ljust(0xC00, b"\xff")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_that_is_not_utf8_hides_no_other_row_and_blocks_only_its_own(name: bytes) -> None:
    data = build_odd(name)
    table = parse_table(data)
    assert find_partition(table, "nvs") == NVS
    assert find_partition(table, "factory") == FACTORY
    odd = table.partitions[2]
    assert odd.label == "".join(chr(byte) if byte < 0x80 else f"\\x{byte:02x}" for byte in name)
    assert (odd.offset, odd.size, odd.name_bytes) == (0x110000, 0x10000, name)
    for word in (odd.label, odd.name):
        with pytest.raises(TableError, match="not UTF-8") as caught:
            find_partition(table, word)
        assert caught.value.code == "partition-flawed"
        assert caught.value.hint == "Use its address, 0x110000, instead."
    assert ("partition-name", False) in [
        (problem.code, problem.fatal) for problem in check_table(table)
    ]
    require_sound(table)  # the bootloader does not look at names
    assert build_table(table, md5=False) == data


@pytest.mark.parametrize("type_", [4, 0x3F, 0xFF])
def test_a_reserved_type_blocks_only_its_own_row(type_: int) -> None:
    table = parse_table(build_odd(type_=type_))
    assert find_partition(table, "factory") == FACTORY
    with pytest.raises(TableError, match="is reserved"):
        find_partition(table, "odd")
    assert table.partitions[2].type_name == str(type_)


@pytest.mark.parametrize(
    ("subtype", "flags", "code"), [(0x55, 0, "partition-subtype"), (0x82, 0x80, "partition-flags")]
)
def test_an_unknown_subtype_or_flag_is_reported_and_usable(
    subtype: int, flags: int, code: str
) -> None:
    data = build_odd(subtype=subtype, flags=flags)
    table = parse_table(data)
    assert find_partition(table, "odd").offset == 0x110000
    assert code in [problem.code for problem in check_table(table)]
    assert build_table(table, md5=False) == data
    assert table.partitions[2].flag_names == (("0x80",) if flags else ())


@pytest.mark.parametrize(
    "data", [build_odd(b"\xce\xc4"), build_odd(b"a\x1bb"), build_odd(flags=0x80)]
)
def test_what_csv_cannot_hold_is_an_error_and_no_loss(data: bytes) -> None:
    with pytest.raises(TableError, match=r"row 3 \(.*CSV cannot represent") as caught:
        build_csv(parse_table(data))
    assert "binary" in caught.value.hint


@pytest.mark.parametrize("name", ESCAPES)
def test_a_name_with_control_characters_can_be_used_as_it_is_shown(name: bytes) -> None:
    table = parse_table(build_odd(name))
    assert table.partitions[2].label.isprintable()
    assert find_partition(table, table.partitions[2].label).offset == 0x110000


def test_the_table_with_a_gbk_name_is_read_whole() -> None:
    table = parse_table((CASES / "gbk_name.bin").read_bytes())
    assert [row.label for row in table.partitions] == ["nvs", "factory", r"\xce\xc4\xbc\xfe"]
    assert table.md5_valid


TEXTS = {
    "gbk": ("GBK", "文件"),
    "utf-16": ("UTF-16", "x"),
    "utf-16-le": ("UTF-16 (little-endian)", "x"),
    "utf-16-be": ("UTF-16 (big-endian)", "é"),
    "utf-32": ("UTF-32", "x"),
    "latin-1": ("Latin-1", "große"),
    "cp1252": ("Windows-1252", "naïve café"),
    "shift_jis": ("Shift-JIS", "テスト"),
}


@pytest.mark.parametrize("codec", TEXTS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_a_csv_in_another_encoding_is_named_with_its_line(codec: str, newline: str) -> None:
    encoding, word = TEXTS[codec]
    lines = [
        "# Name,Type",
        "nvs,data,nvs,0x9000,0x6000",
        f"# {word}",
        "factory,app,factory,0x10000,1M",
        "",
    ]
    with pytest.raises(TableError) as caught:
        decode_csv(newline.join(lines).encode(codec), "t.csv")
    assert caught.value.code == "csv-encoding"
    assert encoding in str(caught.value)
    assert caught.value.details["line"] == (1 if codec.startswith("utf") else 3)
    assert f"t.csv, line {caught.value.details['line']}: " in str(caught.value)


def test_the_gbk_csv_is_reported_as_such() -> None:
    with pytest.raises(TableError, match="line 1: the text is not UTF-8; it looks like GBK"):
        decode_csv((CASES / "gbk.csv").read_bytes())


def test_utf8_with_and_without_a_mark_is_text_and_binary_data_is_not() -> None:
    text = "größe,data,nvs,0x9000,0x6000\n"
    assert decode_csv(text.encode()) == decode_csv(text.encode("utf-8-sig")) == text
    rng = random.Random(5)
    for data in (
        b"",
        b"  \n",
        bytes(range(256)),
        b"\xff\xfe\x00",
        b"\0" * 64,
        rng.randbytes(4096),
        b"\xff" * 64 + b"\0",
    ):
        assert decode_csv(data) is None, data[:8]
    assert guess_encoding(b"\xff\xfe" + b"\x00\xd8" * 8) is None  # a mark, and no UTF-16 after it


# what ESP-IDF's bootloader does, restated from its behaviour: components/bootloader_support, bootloader_utility.c
SLOTS = {n: Partition(f"app{n}", 0, 0x10 + n, 0x10000 * (n + 1), 0x10000) for n in range(4)}
OTADATA = Partition("otadata", 1, 0, 0xE000, 0x2000)


def entry(sequence: int, state: int = OtaState.UNDEFINED) -> OtaEntry:
    return OtaEntry(sequence, state, compute_crc(sequence))


def find_booted(
    *entries: OtaEntry, slots: tuple[int, ...] = (0, 1), factory: bool = False
) -> str | None:
    rows = [OTADATA, *([FACTORY] if factory else []), *(SLOTS[number] for number in slots)]
    boots = find_boot(PartitionTable(tuple(rows)), OtaData(entries)).boots  # type: ignore[arg-type]
    return None if boots is None else boots.name


@pytest.mark.parametrize(
    ("count", "number"), [(1, 0), (2, 1), (3, 0), (4, 3), (5, 0), (6, 3), (7, 3), (16, 15)]
)
def test_sequence_0_selects_the_slot_that_32_bit_arithmetic_gives(count: int, number: int) -> None:
    (wrapped,) = struct.unpack("<I", struct.pack("<i", -1))
    assert choose_slot(0, count) == wrapped % count == number


def test_sequence_0_with_its_crc_is_valid_and_loses_to_any_other() -> None:
    assert find_booted(entry(0), OtaEntry()) == "app1"
    assert find_booted(entry(0), OtaEntry(), slots=(0, 1, 2)) == "app0"
    assert find_booted(entry(0), OtaEntry(), factory=True) == "app1"
    assert find_booted(entry(0), entry(1)) == "app0"
    assert find_booted(OtaEntry(0, crc=0), OtaEntry(), factory=True) == "factory"
    assert (
        find_booted(OtaEntry(0, OtaState.ABORTED, compute_crc(0)), OtaEntry(), factory=True)
        == "factory"
    )


def test_the_erased_sequence_is_invalid_even_with_its_crc() -> None:
    assert find_booted(entry(0xFFFFFFFF), OtaEntry(), factory=True) == "factory"
    assert find_booted(entry(0xFFFFFFFF), entry(2)) == "app1"


def test_of_equal_sequences_the_first_sector_counts() -> None:
    data = OtaData((entry(3), entry(3)))
    assert data.active == 0


def test_the_slots_are_as_many_as_the_rows_whatever_their_numbers() -> None:
    # three rows: sequence 3 selects slot 2, which no row has; the bootloader goes down to slot 1
    assert find_booted(entry(3), OtaEntry(), slots=(0, 1, 3)) == "app1"
    assert find_booted(entry(4), OtaEntry(), slots=(0, 1, 3)) == "app0"
    assert find_booted(entry(1), OtaEntry(), slots=(1, 2), factory=True) == "factory"


def test_the_last_row_of_a_kind_counts() -> None:
    twin = Partition("twin", 0, 0x11, 0x300000, 0x10000)
    status = find_boot(
        PartitionTable((OTADATA, SLOTS[0], SLOTS[1], twin)), OtaData((entry(2), OtaEntry()))
    )
    assert status.boots == twin


def test_an_otadata_partition_of_one_sector_boots_nothing() -> None:
    small = Partition("otadata", 1, 0, 0xE000, 0x1000)
    status = find_boot(PartitionTable((small, FACTORY, SLOTS[0])), OtaData((entry(1), OtaEntry())))
    assert status.boots is None


def test_a_dump_with_sequence_0_boots_app1_and_switches() -> None:
    dump = (CASES / "ota_seq0.bin").read_bytes()
    table, data = parse_table(dump[0x8000:0x8C00]), parse_ota_data(dump[0xE000:0x10000])
    assert find_boot(table, data).boots == table.partitions[3]
    assert plan_switch(table, data, "app1").nothing
    change = plan_switch(table, data, "app0")
    assert (change.write, change.entry) == (1, entry(1))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_switching_leads_to_the_slot_from_every_sequence(count: int) -> None:
    slots = tuple(range(count))
    table = PartitionTable((OTADATA, *(SLOTS[number] for number in slots)))
    for sequence in (0, 1, 2, 3, 7, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0):
        for target in slots:
            data = OtaData((entry(sequence), OtaEntry()))
            change = plan_switch(table, data, f"app{target}")
            entries = data.entries if change.entry is None else (data.entries[0], change.entry)
            assert find_booted(*entries, slots=slots) == f"app{target}", (sequence, target)


def test_csv_names_with_accents_still_parse() -> None:
    assert parse_csv("größe,data,nvs,0x9000,0x6000\n").partitions[0].name == "größe"
