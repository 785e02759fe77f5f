"""Decoding SFDP areas: real forms, short ones, hostile ones."""

import random

import pytest

from espwire.device.flash_registers import decode_sfdp
from espwire.errors import DeviceError

HEAD = b"SFDP\x06\x01\x00\xff" + bytes.fromhex("00060110 300000ff".replace(" ", ""))
# a basic table in the form of a 16 MiB part: three erase types, pages of 256 bytes, quad enable 4
TABLE = bytes.fromhex(
    "e520f9ff ffffff07 44eb086b 083b42bb feffffff ffff0000 ffff40eb 0c200f52"
    "10d80000 3602a600 82ea14b3 4d32f300 0000007a 75f7a2d5 5c194f4d ffe920a5".replace(" ", "")
)


def reader(area: bytes):
    return lambda address, size: area[address : address + size].ljust(size, b"\xff")


def area(table: bytes, words: int, head: bytes = HEAD) -> bytes:
    made = bytearray(head.ljust(0x30, b"\xff"))
    made[11] = words
    return bytes(made) + table


def test_a_parts_table_is_decoded():
    found = decode_sfdp(reader(area(TABLE, 16)))
    assert (found.size, found.page_size, found.address_bytes, found.erase_4k_opcode) == (
        16 << 20,
        256,
        "3",
        0x20,
    )
    assert [(kind.size, kind.opcode) for kind in found.erase_types] == [
        (4096, 0x20),
        (32768, 0x52),
        (65536, 0xD8),
    ]
    assert found.quad_enable == 4
    assert len(found.basic_words) == 15


def test_an_old_short_table_leaves_open_what_it_does_not_tell():
    found = decode_sfdp(reader(area(TABLE[:36], 9)))
    assert found.size == 16 << 20
    assert (found.page_size, found.quad_enable, found.quad_enable_text) == (None, None, None)


def test_without_a_basic_table_only_the_list_is_reported():
    found = decode_sfdp(
        reader(area(TABLE, 16).replace(b"\x00\x06\x01\x10\x30", b"\x84\x06\x01\x10\x30"))
    )
    assert (found.size, found.tables[0].id) == (None, 0xFF84)


def test_large_parts_state_a_power_of_two():
    table = bytearray(TABLE)
    table[4:8] = (0x80000000 | 32).to_bytes(4, "little")
    assert decode_sfdp(reader(area(bytes(table), 16))).size == 512 << 20
    table[4:8] = b"\xff" * 4
    assert decode_sfdp(reader(area(bytes(table), 16))).size is None


@pytest.mark.parametrize("data", [b"", b"\xff" * 64, bytes(64)])
def test_a_flash_chip_without_sfdp_is_reported(data):
    with pytest.raises(DeviceError) as caught:
        decode_sfdp(reader(data))
    assert caught.value.code == "no-sfdp"


def test_random_areas_end_well_and_soon():
    rng = random.Random(0)
    for _ in range(300):
        asked = 0

        def read(address, size):
            nonlocal asked
            asked += size
            assert 0 <= address <= (1 << 24) - size
            return (
                b"SFDP" + rng.randbytes(4)
                if address == 0
                else bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(size))
            )

        decode_sfdp(read)
        assert asked <= 8 + 16 * 8 + 64
