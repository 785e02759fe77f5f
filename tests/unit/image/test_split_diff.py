"""Cutting up merged files, and comparing two: nothing is lost, nothing is missed."""

import pytest

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import ImageError
from espwire.image.codec import build, create_image
from espwire.image.diff import count_changed, diff_images, find_differing_sectors
from espwire.image.hex import build_hex
from espwire.image.merge import MergeOptions, merge_blobs
from espwire.image.model import Segment
from espwire.image.partition_table import Partition, PartitionTable, build_table
from espwire.image.read_any import read_any
from espwire.image.split import flatten, split_image

S2 = load_chip("esp32s2")
BOOT = build(create_image([Segment(0x3FFE6100, b"boot" * 99)], 0x3FFE6100, chip=S2))
APP = build(create_image([Segment(0x3F000020, b"app!" * 999)], 0x3F000020, chip=S2))
ROWS = (
    Partition("nvs", 1, 2, 0x9000, 0x4000),
    Partition("a/b", 0, 0x10, 0x10000, 0x10000),
    Partition("A.B", 0, 0x11, 0x20000, 0x10000),
    Partition("a_b", 1, 0x82, 0x30000, 0x10000),
)
TABLE = build_table(PartitionTable(ROWS))
PARTS = (
    (0x1000, BOOT),
    (0x8000, TABLE),
    (0x9000, b"nvs" + b"\xff" * 9 + b"!"),
    (0x10000, APP),
    (0x20000, APP + b"\xff" * 40 + b"tail"),
    (0x30000, b"files"),
    (0x45000, b"behind all partitions"),
)


def merged(kind="raw", parts=PARTS, **given):
    return merge_blobs(
        [Blob(at, data, "x") for at, data in parts], S2, MergeOptions(format=kind, **given)
    ).data


@pytest.mark.parametrize("kind", ["raw", "hex", "uf2"])
def test_merging_the_blobs_gives_the_file_again(kind):
    parts = split_image(merged(kind))
    again = merge_blobs([Blob(part.address, part.data, part.name) for part in parts], S2).data
    assert again == merged()


def test_blobs_have_the_names_of_their_partitions():
    names = {part.name: part.address for part in split_image(merged())}
    assert names == {
        "bootloader.bin": 0x1000,
        "partition-table.bin": 0x8000,
        "nvs.bin": 0x9000,
        "a_b-0x10000.bin": 0x10000,
        "A.B.bin": 0x20000,
        "a_b-0x30000.bin": 0x30000,
        "data-0x45000.bin": 0x45000,
    }


def test_file_names_are_unique_and_not_reserved():
    names = ("a", "A", "a-0x10000", "CON", "lpt1.x", "../b", "con1")
    rows = tuple(Partition(name, 1, 6, 0x10000 * (n + 1), 0x10000) for n, name in enumerate(names))
    parts = [
        (0x8000, build_table(PartitionTable(rows))),
        *((row.offset, row.name.encode()) for row in rows),
    ]
    found = {part.name: part.data for part in split_image(merged(parts=parts))}
    del found["partition-table.bin"]
    assert list(found) == [
        "a-0x10000-0x10000.bin",
        "A-0x20000.bin",
        "a-0x10000.bin",
        "_CON.bin",
        "_lpt1.x.bin",
        "_b.bin",
        "con1.bin",
    ]
    assert [data.rstrip(b"\xff").decode() for data in found.values()] == list(names)


def test_an_image_is_cut_to_its_own_size_and_what_follows_it_is_kept():
    parts = {part.name: part.data for part in split_image(merged())}
    assert parts["bootloader.bin"] == BOOT
    assert parts["a_b-0x10000.bin"] == APP
    assert parts["A.B.bin"].startswith(APP + b"\xff" * 40 + b"tail")


def test_a_file_that_begins_with_the_boot_loader_is_put_where_the_chip_has_it():
    data = merged(target_offset=0x1000)
    assert data.startswith(BOOT)
    for given in (None, 0x1000):
        assert [part.address for part in split_image(data, target_offset=given)][:2] == [
            0x1000,
            0x8000,
        ]


def test_a_file_without_a_table_cannot_be_split():
    with pytest.raises(ImageError) as caught:
        split_image(APP)
    assert caught.value.code == "split-no-table"


def test_hex_that_spans_gigabytes_is_an_error():
    with pytest.raises(ImageError) as caught:
        flatten(read_any(build_hex([Blob(0, b"a"), Blob(0xF0000000, b"b")])))
    assert caught.value.code == "image-too-wide"


def test_equal_files_are_the_same_whatever_their_format():
    found = diff_images(merged(target_offset=0x1000), merged("hex"))
    assert not found.same  # raw files have no addresses: this one begins 0x1000 lower
    found = diff_images(merged("hex"), merged("uf2"))
    assert found.same
    assert (found.fields, found.sectors) == ((), ())


def test_a_changed_application_is_shown_by_segment_and_by_sector():
    other = build(
        create_image([Segment(0x3F000020, b"app!" * 500 + b"App!" * 499)], 0x3F000020, chip=S2)
    )
    found = diff_images(APP, other)
    assert [(one.number, one.changed, one.same) for one in found.segments] == [(0, 499, False)]
    assert {one.field for one in found.fields} == {"checksum", "SHA-256"}
    assert found.sectors == ((0, 0x1000),)
    assert (found.changed_sectors, found.sector_count) == (1, 1)


def test_an_item_that_only_one_file_has_is_a_difference():
    less = merged(parts=PARTS[:4])
    found = diff_images(less, merged())
    assert ("missing", "there") in {(one.old, one.new) for one in found.fields}
    assert found.sectors[-1][1] == 0x46000


def test_a_changed_partition_is_shown_by_name():
    table = build_table(PartitionTable((Partition("nvs", 1, 2, 0x9000, 0x5000), *ROWS[1:])))
    found = diff_images(merged(), merged(parts=((0x1000, BOOT), (0x8000, table), *PARTS[2:])))
    assert [one.field for one in found.fields] == ["nvs"]
    assert found.sectors == ((0x8000, 0x9000),)


def test_files_that_are_no_firmware_are_compared_by_sector():
    old, new = bytes(0x3000), bytes(0x1000) + b"\1" + bytes(0x1FFF) + b"more"
    assert list(find_differing_sectors(old, new)) == [(0x1000, 0x2000), (0x3000, 0x4000)]
    assert diff_images(old, new).sectors == ((0x1000, 0x2000), (0x3000, 0x4000))


def test_changed_bytes_are_counted():
    assert count_changed(b"abcd", b"abXdYZ") == 3
    assert count_changed(b"", b"") == 0


@pytest.mark.parametrize("start", [1 << 28, 1 << 32, 1 << 64])
def test_a_start_beyond_any_flash_is_refused_before_memory_is_filled(start):
    with pytest.raises(ImageError) as caught:
        split_image(merged(), target_offset=start)
    assert caught.value.code == "image-too-wide"
