"""Partition tables: rows ↔ bytes ↔ CSV, compared with what ESP-IDF's own tool made, and every rule broken once."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import espwire
from espwire.errors import TableError
from espwire.image import partition_table as module
from espwire.image.partition_csv import TableOffsets, build_csv, parse_csv
from espwire.image.partition_table import (
    SUBTYPES,
    Partition,
    PartitionTable,
    TableRules,
    build_table,
    check_table,
    find_partition,
    parse_table,
    require_sound,
)

DATA = Path(__file__).parents[2] / "data"
FACTS = tomllib.loads((Path(espwire.__file__).parent / "chips/data/image.toml").read_text("utf-8"))[
    "partition_table"
]
NVS = Partition("nvs", 1, 2, 0x9000, 0x4000)
APP = Partition("app", 0, 0x10, 0x10000, 0x100000)
PAIRS = ("two-slots", "everything", "most-rows")


def codes(*rows: Partition, rules: TableRules | None = None, fatal: bool = True) -> list[str]:
    return [
        problem.code
        for problem in check_table(PartitionTable(rows), rules)
        if problem.fatal == fatal
    ]


@pytest.mark.parametrize("name", PAIRS)
def test_csv_becomes_the_bytes_that_esp_idf_makes_of_it(name: str) -> None:
    table = parse_csv(
        (DATA / f"partitions/{name}.csv").read_text("utf-8"), TableOffsets(bootloader_offset=0)
    )
    require_sound(table)
    assert build_table(table) == (DATA / f"partitions/{name}.bin").read_bytes()


@pytest.mark.parametrize("name", PAIRS)
def test_bytes_become_the_csv_that_esp_idf_makes_of_them(name: str) -> None:
    table = parse_table((DATA / f"partitions/{name}.bin").read_bytes())
    assert table.md5_valid
    assert build_csv(table) == (DATA / f"partitions/{name}.back.csv").read_text("utf-8")


def test_tables_of_real_firmware_are_sound_and_build_back() -> None:
    for data in (
        (DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes(),
        (DATA / "esp32c3/micropython-head.bin").read_bytes()[0x8000:],
        (DATA / "esp32s2/micropython-head.bin").read_bytes()[0x7000:],
    ):
        table = parse_table(data.ljust(0xC00, b"\xff"))
        assert table.md5_valid
        require_sound(table)
        assert build_table(table) == data[:0xC00].ljust(0xC00, b"\xff")


def test_the_names_and_numbers_are_those_of_the_facts() -> None:
    assert FACTS["types"] == module.TYPES
    for name, known in FACTS["subtypes"].items():
        assert SUBTYPES[module.TYPES[name]] == known
    assert {name: 1 << bit for name, bit in FACTS["flags"].items()} == module.FLAGS
    assert (FACTS["offset"], FACTS["bytes"], FACTS["used_bytes"]) == (
        module.TABLE_OFFSET,
        module.TABLE_SIZE,
        module.USED_SIZE,
    )
    assert FACTS["custom_types"] == [module.FIRST_CUSTOM_TYPE, module.LAST_CUSTOM_TYPE]


def test_blank_offsets_follow_the_row_before_and_the_type_s_alignment() -> None:
    table = parse_csv(
        "a,data,nvs,,0x3000\nb,app,ota_0,,1M\nc,0x40,,,4K\n", TableOffsets(table_offset=0x9000)
    )
    assert [row.offset for row in table.partitions] == [0xA000, 0x10000, 0x110000]
    assert table.partitions[2].subtype == module.UNDEFINED


def test_a_negative_size_is_where_the_partition_ends() -> None:
    assert parse_csv("a,data,fat,0x10000,-1M").partitions[0].size == 0xF0000
    with pytest.raises(TableError) as caught:
        parse_csv("a,data,fat,0x10000,-0x10000")
    assert caught.value.code == "csv-row"


def test_a_byte_order_mark_comments_and_blank_lines_are_no_rows() -> None:
    table = parse_csv(
        "\ufeff# hello\n\n  # more\n nvs , data , nvs , 0x9000 , 16K , encrypted : readonly \n"
    )
    assert table.partitions == (Partition("nvs", 1, 2, 0x9000, 0x4000, 3),)
    assert table.lines == (4,)


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("a,nonsense,nvs,,4K", "csv-row", "type 'nonsense'"),
        ("a,data,nonsense,,4K", "csv-row", "subtype 'nonsense'"),
        ("a,app,,,4K", "csv-row", "the subtype is missing"),
        ("a,256,1,,4K", "csv-row", "type '256'"),
        ("a,data,nvs,x,4K", "csv-row", "offset 'x'"),
        ("a,data,nvs,,four", "csv-row", "size 'four'"),
        ("a,data,nvs,,", "csv-row", "the size is missing"),
        ("a,data,nvs,,4K,secret", "csv-row", "flag 'secret'"),
        ("a,data,nvs,,4K,,more", "csv-row", "7 columns"),
        ("$A,data,nvs,,4K", "csv-row", "variables"),
        ("a" * 2000, "csv-row", "too long"),
        ("a" * 17 + ",data,nvs,,4K", "partition-name", "15 bytes"),
        ("a\x1b[2J,data,nvs,,4K", "partition-name", "unprintable characters"),
        ("b,bootloader,primary,N/A,N/A", "csv-row", "offset of this bootloader is unknown"),
        ("b,bootloader,ota,,", "csv-row", "size of this bootloader"),
    ],
)
def test_the_error_for_a_bad_row_names_the_line(line: str, code: str, told: str) -> None:
    with pytest.raises(TableError) as caught:
        parse_csv(f"# one\nnvs,data,nvs,,0x4000\n{line}\n", name="t.csv")
    assert caught.value.code == code
    assert str(caught.value).startswith("t.csv, line 3: ")
    assert told in str(caught.value)


def test_csv_without_a_row_is_an_error() -> None:
    with pytest.raises(TableError) as caught:
        parse_csv("# nothing\n")
    assert caught.value.code == "table-empty"


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (Partition("x", 0, 0x10, 0x11000, 0x1000), "partition-unaligned"),
        (Partition("x", 1, 2, 0x9004, 0x3000), "partition-unaligned"),
        (Partition("x", 0, 0x10, 0x10000, 0x1001), "partition-unaligned"),
        (Partition("x", 1, 0x81, 0x3F0000, 0x20000), "past-flash-end"),
        (Partition("x", 1, 0x81, 0x8000, 0x1000), "partition-below-table"),
        (Partition("x", 1, 0, 0x9000, 0x1000), "otadata-size"),
        (Partition("x", 1, 0x90, 0x9000, 0x3000), "otadata-size"),
        (Partition("x", 1, 3, 0x9000, 0x3000, 2), "partition-readonly"),
        (Partition("x", 1, 2, 0x9000, 0x2000), "nvs-size"),
    ],
)
def test_each_rule_for_one_row_has_its_own_code(row: Partition, code: str) -> None:
    assert codes(row, rules=TableRules(flash_size=0x400000)) == [code]


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (Partition("x", 5, 1, 0x9000, 0x1000), "partition-type"),
        (Partition("x", 1, 0x81, 0x9000, 0), "partition-empty"),
        (Partition("", 1, 0x81, 0x9000, 0x1000), "partition-name"),
        (Partition("x" * 16, 1, 0x81, 0x9000, 0x1000), "partition-name"),
        (Partition("app", 1, 0x81, 0x9000, 0x1000), "partition-misnamed"),
        (Partition("nvs", 1, 0x81, 0x9000, 0x1000), "partition-misnamed"),
    ],
)
def test_what_esp_idf_takes_and_is_odd_is_a_warning(row: Partition, code: str) -> None:
    assert not codes(row)
    assert codes(row, fatal=False) == [code]


def test_rules_between_rows() -> None:
    assert codes(NVS, Partition("b", 1, 0x81, 0xC000, 0x1000)) == ["partition-overlap"]
    assert codes(NVS, Partition("nvs", 1, 2, 0x20000, 0x4000)) == ["partition-duplicate"]
    ota = Partition("o", 1, 0, 0x9000, 0x2000)
    assert codes(ota, Partition("p", 1, 0, 0xB000, 0x2000)) == ["partition-twice"]
    assert not codes(NVS, APP)
    far = Partition("far", 1, 0x81, 0xFFFFF000, 0x2000)
    assert codes(far) == ["partition-range"]
    assert codes(fatal=False) == ["table-empty"]


def test_an_overlap_is_found_behind_a_partition_that_lies_between() -> None:
    rows = (Partition("a", 1, 0x81, 0x9000, 0x7000), Partition("b", 1, 0x81, 0xA000, 0x1000))
    assert "partition-overlap" in codes(*rows, Partition("c", 1, 0x81, 0xF000, 0x1000))
    assert len(codes(*rows, Partition("c", 1, 0x81, 0xF000, 0x1000))) == 2


def test_secure_boot_v1_wants_whole_64_kib() -> None:
    small = Partition("a", 0, 0x10, 0x10000, 0x11000)
    assert not codes(small)
    assert codes(small, rules=TableRules(secure_boot_v1=True)) == ["partition-unaligned"]


def test_the_first_fatal_problem_is_raised_with_line_hint_and_all_the_others() -> None:
    table = parse_csv("a,app,ota_0,0x11000,1M\nb,data,ota,0x9000,4K\n")
    with pytest.raises(TableError) as caught:
        require_sound(table, name="t.csv")
    assert str(caught.value).startswith("t.csv: line 1 (a): offset 0x11000")
    assert [problem["code"] for problem in caught.value.details["problems"]] == [
        "partition-unaligned",
        "otadata-size",
    ]


def test_anything_but_a_table_is_an_error() -> None:
    good = build_table(PartitionTable((NVS,)))
    for data, code, told in (
        (b"", "no-partition-table", "is empty"),
        (b"\xff" * 0xC00, "no-partition-table", "is blank"),
        (b"MZ" + good, "no-partition-table", "does not begin with a partition"),
        (good[:32], "table-truncated", "after 1 rows"),
        (good[:40], "table-truncated", "after 1 rows"),
        (good[:32] + b"zz" + good[34:], "table-row", "row 2 at 0x20"),
        (good[:64] + good[:32] + good[96:], "table-row", "follows the MD5"),
        (good[:32] * 96, "table-truncated", "after 96 rows"),
    ):
        with pytest.raises(TableError) as caught:
            parse_table(data)
        assert (caught.value.code, told in str(caught.value)) == (code, True), caught.value


def test_a_wrong_md5_is_read_and_then_a_problem() -> None:
    data = bytearray(build_table(PartitionTable((NVS,))))
    data[8] ^= 1
    table = parse_table(bytes(data))
    assert table.md5_valid is False
    assert [problem.code for problem in check_table(table)] == ["table-md5"]
    assert parse_table(build_table(table, md5=False)).md5_valid is None


def test_the_md5_row_is_that_of_all_rows_before() -> None:
    data = build_table(PartitionTable((NVS, APP)))
    assert data[64:80] == b"\xeb\xeb" + b"\xff" * 14
    assert data[80:96] == hashlib.md5(data[:64], usedforsecurity=False).digest()


def test_what_the_bytes_cannot_hold_is_refused() -> None:
    for rows, code in (
        ([Partition(f"p{n}", 1, 6, 0x1000 * n, 1) for n in range(95)], "table-too-long"),
        ([Partition("x" * 17, 1, 6, 0, 1)], "partition-name"),
        ([Partition("x", 1, 6, 1 << 32, 1)], "partition-range"),
    ):
        with pytest.raises(TableError) as caught:
            build_table(PartitionTable(tuple(rows)))
        assert caught.value.code == code


def test_a_name_that_would_break_a_line_of_csv_is_refused() -> None:
    for name in ("a,b", "a\nb", "#a", " a"):
        with pytest.raises(TableError) as caught:
            build_csv(PartitionTable((Partition(name, 1, 2, 0x9000, 0x3000),)))
        assert caught.value.code == "partition-name"


def test_a_partition_is_found_by_name_or_the_known_ones_are_listed() -> None:
    table = PartitionTable((NVS, APP))
    assert find_partition(table, "app") == APP
    with pytest.raises(TableError) as caught:
        find_partition(table, "appp")
    assert (caught.value.code, caught.value.hint) == (
        "partition-unknown",
        "The table has: nvs, app.",
    )


ROWS = st.lists(
    st.builds(
        Partition,
        st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=15),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 0xFFFFFFFF),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=20,
)


@given(ROWS, st.booleans())
def test_any_table_builds_and_parses_back(rows: list[Partition], md5: bool) -> None:
    table = PartitionTable(tuple(rows), True if md5 else None)
    assert parse_table(build_table(table, md5=md5)) == table


@given(ROWS)
def test_csv_of_ordinary_rows_comes_back_the_same(rows: list[Partition]) -> None:
    plain = [row for row in rows if row.type not in (2, 3)]
    if plain:
        table = PartitionTable(tuple(plain))
        assert parse_csv(build_csv(table)).partitions == table.partitions


@given(st.binary(max_size=4096), st.integers(0, 200), st.integers(0, 255))
def test_damaged_tables_raise_nothing_but_table_errors(tail: bytes, at: int, value: int) -> None:
    data = bytearray((DATA / "esp32c5/marauder_c5_partitions.bin").read_bytes())
    data[at] = value
    for damaged in (bytes(data), tail, b"\xaa\x50" + tail, bytes(data[: at * 16]) + tail):
        try:
            check_table(parse_table(damaged), TableRules(flash_size=0x400000))
        except TableError:
            continue


@given(st.text(max_size=300), st.text(alphabet="abn,#:-0x19KM\n$ ", max_size=200))
def test_any_text_is_a_table_or_a_table_error(anything: str, near: str) -> None:
    for text in (anything, near, f"a,data,nvs,{near}", f"b,bootloader,{near}"):
        try:
            check_table(parse_csv(text))
        except TableError:
            continue
