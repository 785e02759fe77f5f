"""UF2: what is built parses back; what is broken is told with its block."""

import pytest

from espwire.blob import Blob
from espwire.errors import ImageError, UsageError
from espwire.image.uf2 import BLOCK, build_uf2, is_uf2, parse_uf2

FAMILY = 0x1C5F21B0
DATA = bytes(range(256)) * 5


@pytest.mark.parametrize("md5", [True, False])
@pytest.mark.parametrize("chunk", [None, 4, 256, 452])
def test_blobs_survive_a_round_trip(md5, chunk):
    data = build_uf2([Blob(0x1000, DATA), Blob(0x20000, b"abc")], FAMILY, chunk_size=chunk, md5=md5)
    assert is_uf2(data)
    assert len(data) % BLOCK == 0
    assert parse_uf2(data) == {FAMILY: (Blob(0x1000, DATA), Blob(0x20000, b"abc"))}


def test_a_file_with_missing_blocks_is_an_error():
    whole = build_uf2([Blob(0x1000, DATA), Blob(0x20000, DATA)], FAMILY)
    blocks = [whole[at : at + BLOCK] for at in range(0, len(whole), BLOCK)]
    for missing, number in ((0, 0), (1, 1), (4, 1), (5, 2)):
        with pytest.raises(ImageError) as caught:
            parse_uf2(b"".join(blocks[:missing] + blocks[missing + 1 :]), "a.uf2")
        assert caught.value.code == "image-uf2-size"
        assert f"block {number} of 3 is missing" in str(caught.value)
    with pytest.raises(ImageError, match="block 1 of 4294967295 is missing"):
        parse_uf2(change(24, b"\xff\xff\xff\xff"))
    assert parse_uf2(b"".join(reversed(blocks))) == parse_uf2(whole)


def test_numbering_restarts_with_each_blob():
    data = build_uf2([Blob(0, DATA), Blob(0x4000, DATA)], FAMILY)
    numbers = [
        int.from_bytes(data[at + 20 : at + 24], "little") for at in range(0, len(data), BLOCK)
    ]
    assert numbers == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("chunk", "md5"), [(456, True), (480, False), (480, True), (0, False), (-4, True), (6, True)]
)
def test_a_payload_that_does_not_fit_a_block_is_refused(chunk, md5):
    with pytest.raises(UsageError) as caught:
        build_uf2([Blob(0, DATA)], FAMILY, chunk_size=chunk, md5=md5)
    assert caught.value.code == "merge-chunk-size"


def test_the_largest_payload_without_md5_is_476_bytes():
    assert len(build_uf2([Blob(0, bytes(476))], FAMILY, chunk_size=476, md5=False)) == BLOCK


def test_blocks_that_are_not_for_flash_are_skipped():
    data = bytearray(build_uf2([Blob(0, b"one"), Blob(0x1000, b"two")], FAMILY))
    data[8] |= 1
    assert parse_uf2(bytes(data)) == {FAMILY: (Blob(0x1000, b"two"),)}


def change(at, value):
    data = bytearray(build_uf2([Blob(0, DATA)], FAMILY))
    data[at : at + len(value)] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "image-uf2-size"),
        (build_uf2([Blob(0, DATA)], FAMILY)[:-1], "image-uf2-size"),
        (change(BLOCK, b"\0"), "image-uf2-block"),
        (change(BLOCK - 1, b"\0"), "image-uf2-block"),
        (change(16, b"\xff\xff"), "image-uf2-block"),
        (change(20, b"\x09"), "image-uf2-block"),
        (change(40, b"\xff"), "image-uf2-md5"),
        (change(16, b"\x08"), "image-uf2-md5"),
        (build_uf2([Blob(0, DATA), Blob(0x100, DATA)], FAMILY), "image-uf2-overlap"),
        (
            build_uf2([Blob(at * 0x1000 * 2, b"x") for at in range(5000)], FAMILY, md5=False),
            "image-uf2-block",
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(data, code):
    with pytest.raises(ImageError) as caught:
        parse_uf2(data, "a.uf2")
    assert caught.value.code == code
    assert "a.uf2" in str(caught.value)
