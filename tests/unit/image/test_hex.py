"""Intel HEX and raw binary input."""

from __future__ import annotations

import contextlib
import time

import bincopy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.blob import Blob
from espwire.errors import HexError
from espwire.image.hex import parse_hex

# the classic example of the format's description: 16 bytes at 0x0100, then the end
GOLDEN = b":10010000214601360121470136007EFE09D2190140\r\n:00000001FF\r\n"
GOLDEN_DATA = bytes.fromhex("214601360121470136007efe09d21901")


def record(kind: int, address: int, data: bytes) -> bytes:
    body = bytes([len(data), address >> 8 & 255, address & 255, kind]) + data
    return b":" + (body + bytes([-sum(body) & 255])).hex().upper().encode() + b"\n"


END = record(1, 0, b"")


def test_the_textbook_record_is_read():
    assert parse_hex(GOLDEN) == (Blob(0x100, GOLDEN_DATA),)


def test_base_records_move_the_address():
    linear = record(4, 0, b"\x00\x01") + record(0, 0x2000, b"abcd") + END
    assert parse_hex(linear) == (Blob(0x12000, b"abcd"),)
    segment = record(2, 0, b"\x12\x00") + record(0, 0x0010, b"abcd") + END
    assert parse_hex(segment) == (Blob(0x12010, b"abcd"),)
    assert parse_hex(record(5, 0, b"\0\0\0\0") + linear) == (Blob(0x12000, b"abcd"),)


def test_gaps_split_the_file_except_inside_one_sector():
    text = (
        record(0, 0x1000, b"ab")
        + record(0, 0x1010, b"cd")
        + record(0, 0x2000, b"ef")
        + record(0, 0x5000, b"gh")
        + END
    )
    parts = parse_hex(text)
    assert [(p.address, len(p.data)) for p in parts] == [(0x1000, 0x12), (0x2000, 2), (0x5000, 2)]
    assert parts[0].data == b"ab" + b"\xff" * 14 + b"cd"


def test_records_may_come_in_any_order():
    text = record(0, 4, b"efgh") + record(0, 0, b"abcd") + END
    assert parse_hex(text) == (Blob(0, b"abcdefgh"),)


@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFFF000), st.binary(min_size=1, max_size=600)),
        min_size=1,
        max_size=5,
        unique_by=lambda p: p[0] >> 16,
    ),
    st.randoms(use_true_random=False),
)
def test_what_bincopy_writes_comes_back_whole(pieces, random):
    file = bincopy.BinFile()
    placed = [((address & 0xFFFF0000) + (address & 0x7FFF), data) for address, data in pieces]
    for address, data in placed:
        file.add_binary(data, address)
    lines = file.as_ihex(address_length_bits=32).encode()
    found = {part.address: part.data for part in parse_hex(lines, join_within=1)}
    assert found == dict(placed)


@pytest.mark.parametrize(
    "line, why",
    [
        (b":10010000214601360121470136007EFE09D2190141", "checksum"),
        (b":0001", "short"),
        (b"10010000", "begin with"),
        (b":02000000010203040506F0", "length"),
        (b":zz000000", "short"),
        (b":zz00000000000", "hexadecimal"),
        (b":" + b"00" * 400, "longer"),
        ("：00000001FF".encode(), "begin"),
        (record(7, 0, b"ab").strip(), "type 7"),
        (record(4, 0, b"a").strip(), "type 4"),
        (record(4, 0, b"").strip(), "type 4"),
    ],
)
def test_a_broken_record_names_its_line(line, why):
    with pytest.raises(HexError, match=f"fw.hex, line 3: .*{why}") as caught:
        parse_hex(record(0, 0, b"ab") + b"\n" + line + b"\n" + END, "fw.hex")
    assert caught.value.details["line"] == 3
    assert caught.value.code == "hex-record"


def test_a_file_without_its_end_is_not_taken():
    with pytest.raises(HexError, match="no end record") as caught:
        parse_hex(record(0, 0, b"ab"))
    assert caught.value.code == "hex-truncated"


def test_data_after_the_end_is_an_error():
    with pytest.raises(HexError, match="line 2: there is data after"):
        parse_hex(END + record(0, 0, b"ab"))


def test_overlapping_data_is_an_error():
    with pytest.raises(HexError, match="twice") as caught:
        parse_hex(record(0, 0, b"abcd") + record(0, 2, b"cd") + END)
    assert caught.value.code == "hex-overlap"


def test_data_past_the_address_space_is_an_error():
    with pytest.raises(HexError, match="32-bit"):
        parse_hex(record(4, 0, b"\xff\xff") + record(0, 0xFFFF, b"ab") + END)


def test_a_wide_address_range_costs_no_memory_and_hostile_order_no_time():
    wide = record(0, 0, b"ab") + record(4, 0, b"\xff\xf0") + record(0, 0, b"cd") + END
    assert [(p.address, len(p.data)) for p in parse_hex(wide)] == [(0, 2), (0xFFF00000, 2)]
    backwards = b"".join(record(0, at, b"x") for at in range(0x7000, 0, -2)) + END
    began = time.process_time()
    parse_hex(backwards)
    assert time.process_time() - began < 5


def test_too_many_address_ranges_are_an_error():
    scattered = []
    for at in range(5000):
        scattered.append(record(4, 0, (at * 0x2000 >> 16).to_bytes(2, "big")))
        scattered.append(record(0, at * 0x2000 & 0xFFFF, b"x"))
    with pytest.raises(HexError, match="more than 4,096 separate address ranges"):
        parse_hex(b"".join(scattered) + END)


@given(
    st.binary(max_size=200) | st.text(alphabet=":0123456789ABCDEF\n", max_size=200).map(str.encode)
)
def test_anything_else_is_a_hex_error(noise):
    for text in (b":" + noise, b":" + noise + END, GOLDEN[:45] + noise):
        with contextlib.suppress(HexError):
            parse_hex(text)


def test_without_an_end_record_a_file_is_read_as_far_as_it_goes_only_if_asked():
    start = GOLDEN[: GOLDEN.index(b":00000001FF")]
    assert parse_hex(start, whole=False) == (Blob(0x100, GOLDEN_DATA),)
    assert parse_hex(GOLDEN + b"anything", whole=False) == (Blob(0x100, GOLDEN_DATA),)
    with pytest.raises(HexError, match="has no end record"):
        parse_hex(start)
