"""The picture of a flash: areas cover it, overlaps and unclaimed content are seen, text and SVG say so."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from espwire.image.flash_map import (
    Area,
    FlashMap,
    build_map,
    draw_text,
    find_filled,
    format_share,
    guess_flash_size,
    map_dump,
)
from espwire.image.flash_map_svg import draw_svg
from espwire.image.ota import OtaEntry, build_sector, compute_crc
from espwire.image.partition_csv import parse_csv
from espwire.image.partition_table import Partition, PartitionTable, build_table

DATA = Path(__file__).parents[2] / "data"
BOOT = (DATA / "esp32/esp32-bootloader.bin").read_bytes()
TABLE = "nvs,data,nvs,,0x4000\notadata,data,ota,,0x2000\napp0,app,ota_0,,1M\napp1,app,ota_1,,1M\nfs,data,fat,,512K\n"


def dump(table: PartitionTable, *pieces: tuple[int, bytes], size: int = 0x400000) -> bytes:
    data = bytearray(b"\xff" * size)
    for at, piece in ((0x1000, BOOT), (0x8000, build_table(table)), *pieces):
        data[at : at + len(piece)] = piece
    return bytes(data)


@pytest.fixture
def flash() -> FlashMap:
    otadata = build_sector(OtaEntry(2, crc=compute_crc(2)))
    pieces = ((0x9000, b"\x01" * 0x1800), (0xD000, otadata), (0x110000, BOOT), (0x3F0000, b"lost"))
    return map_dump(dump(parse_csv(TABLE), *pieces))


def test_areas_cover_all_of_the_flash(flash: FlashMap) -> None:
    assert flash.size == 0x400000
    at = 0
    for area in flash.areas:
        assert area.offset == at
        at = area.end
    assert at == flash.size


def test_what_is_found_is_named(flash: FlashMap) -> None:
    found = {area.name: area for area in flash.areas if area.name}
    assert list(found) == ["bootloader", "partition table", "nvs", "otadata", "app0", "app1", "fs"]
    assert found["nvs"].used == 0x2000
    assert found["app0"].detail == "ota_0, no image"
    assert found["app1"].boots
    assert not found["app0"].boots
    assert found["app1"].used == -(-len(BOOT) // 0x1000) * 0x1000


def test_content_that_nothing_claims_is_seen(flash: FlashMap) -> None:
    last = flash.areas[-1]
    assert (last.kind, last.detail, last.used) == ("free", "not blank", 0x3F1000 - last.offset)


def test_overlaps_are_marked_on_both_and_noted() -> None:
    rows = (Partition("a", 1, 2, 0x9000, 0x8000), Partition("b", 1, 6, 0x10000, 0x4000))
    flash = map_dump(dump(PartitionTable(rows)))
    found = {area.name: area.overlaps for area in flash.areas if area.name}
    assert (found["a"], found["b"]) == (("b",), ("a",))
    assert len(flash.notes) == 1
    assert "OVERLAPS b" in draw_text(flash)
    assert draw_svg(flash).count("url(#clash)") == 2


def test_a_partition_past_the_end_is_noted_and_drawn() -> None:
    rows = (Partition("a", 1, 6, 0x9000, 0x4000), Partition("far", 1, 6, 0x300000, 0x200000))
    flash = map_dump(dump(PartitionTable(rows)), flash_size=0x400000)
    assert "the flash at 0x400000" in flash.notes[0]
    ElementTree.fromstring(draw_svg(flash))


def test_content_past_the_end_of_the_flash_is_noted_and_does_not_count() -> None:
    picture = map_dump(b"x" * 0x9000, flash_size=0x8000)
    assert picture.notes == ("the content ends at 0x9000, past the end of the flash at 0x8000",)
    assert (picture.filled, picture.filled_bytes) == (((0, 0x8000),), 0x8000)


def test_the_strip_shows_filled_blank_shared_and_free_ranges(flash: FlashMap) -> None:
    lines = draw_text(flash, "x.bin").splitlines()
    assert lines[0] == "x.bin: 4MB of flash, 16KB per character"
    strip = "".join(line.split(" ", 1)[1] for line in lines[1:5])
    assert len(strip) == 256
    assert strip.startswith(
        "AA++"
    )  # 16 KiB with boot loader alone, then with table and nvs, then nvs and otadata
    assert "".join(sorted(set(strip))) == "+?AFefg·"
    assert strip[0x3F0000 // 0x4000] == "?"


def test_colours_are_added_only_when_asked_for(flash: FlashMap) -> None:
    assert "\x1b" not in draw_text(flash)
    assert "\x1b[38;5;" in draw_text(flash, colour=True)


def test_the_svg_is_well_formed_and_every_row_has_room(flash: FlashMap) -> None:
    rows = tuple(Partition(f"p{n}<&>", 1, 6, 0x10000 + n * 0x1000, 0x1000) for n in range(60))
    for picture in (flash, map_dump(dump(PartitionTable(rows), size=0x1000000))):
        root = ElementTree.fromstring(draw_svg(picture, 'a "title" <&>'))
        height = float(root.attrib["height"])
        name = "{http://www.w3.org/2000/svg}text"
        rows_at = sorted(float(e.attrib["y"]) for e in root.iter(name) if e.attrib["x"] == "312.0")
        assert len(rows_at) == len(picture.areas)
        assert all(below - above >= 25.9 for above, below in pairwise(rows_at))
        assert rows_at[-1] < height


SVG = "{http://www.w3.org/2000/svg}"


def test_no_line_is_drawn_over_partitions_that_are_lower_than_it() -> None:
    """60 filled partitions of 4 KiB in 16 MiB: with a white line on top of each they would all look blank."""
    rows = tuple(Partition(f"p{n}", 1, 6, 0x10000 + n * 0x1000, 0x1000) for n in range(60))
    picture = map_dump(dump(PartitionTable(rows), size=0x1000000))
    lines = [
        e
        for e in ElementTree.fromstring(draw_svg(picture)).iter(f"{SVG}path")
        if e.get("stroke") == "#ffffff"
    ]
    assert lines == []
    rows = (Partition("a", 0, 0, 0x10000, 0x100000), Partition("b", 0, 16, 0x110000, 0x100000))
    picture = map_dump(dump(PartitionTable(rows)))
    lines = [
        e
        for e in ElementTree.fromstring(draw_svg(picture)).iter(f"{SVG}path")
        if e.get("stroke") == "#ffffff"
    ]
    assert len(lines) >= 1


def test_wide_characters_do_not_overlap_the_next_column() -> None:
    rows = tuple(
        Partition(sign * 15, 0x40, 0, 0x10000 * (n + 1), 0x10000) for n, sign in enumerate("WMmi")
    )
    root = ElementTree.fromstring(draw_svg(map_dump(dump(PartitionTable(rows))), "W" * 200))
    shown = [element.text or "" for element in root.iter(f"{SVG}text")]
    names = [text for text in shown if text[:2] in ("WW", "MM", "mm", "ii")]
    assert [len(name) for name in names[1:]] == [10, 10, 10, 15]
    assert names[0].endswith("W…: 4MB")
    assert len(names[0]) < 60


def test_notes_that_have_no_room_are_counted() -> None:
    rows = tuple(Partition("same", 1, 6, 0x10000 * (n + 1), 0x10000) for n in range(12))
    root = ElementTree.fromstring(draw_svg(map_dump(dump(PartitionTable(rows)))))
    assert "and 3 more" in [element.text for element in root.iter(f"{SVG}text")]


def test_text_from_a_file_can_drive_neither_terminal_nor_svg() -> None:
    rows = (Partition("a\x1b[2J", 1, 6, 0x9000, 0x1000), Partition("<b>", 1, 6, 0xA000, 0x1000))
    flash = map_dump(dump(PartitionTable(rows)))
    assert "\x1b" not in draw_text(flash)
    assert "<b>" not in draw_svg(flash)


def test_an_image_that_states_an_impossible_size_ends_with_the_flash() -> None:
    contents = [Area("bootloader", "", 0x1000, 0x36324000, "DAMAGED")]
    (gap, area) = build_map(0x100000, ((0x1000, 0x2000),), contents=contents).areas
    assert (gap.kind, area.end) == ("free", 0x100000)
    assert area.detail == "DAMAGED, its image exceeds the flash"


def test_nothing_at_all_is_one_free_area() -> None:
    flash = map_dump(b"\xff" * 0x1000)
    assert [(area.kind, area.size) for area in flash.areas] == [("free", 0x40000)]
    assert flash.filled == ()
    assert map_dump(b"").size == 0x40000


def test_filled_ranges_are_sectors_joined() -> None:
    data = b"\xff" * 0x1000 + b"x" * 0x1001 + b"\xff" * 0x2000 + b"y"
    assert find_filled(data) == ((0x1000, 0x3000), (0x4000, 0x4002))


def test_sizes_and_shares() -> None:
    assert [guess_flash_size(end) for end in (0, 0x40001, 0x400000)] == [0x40000, 0x80000, 0x400000]
    assert [format_share(part, 1000) for part in (0, 1, 500, 999, 1000)] == [
        "0 %",
        "1 %",
        "50 %",
        "99 %",
        "100 %",
    ]
