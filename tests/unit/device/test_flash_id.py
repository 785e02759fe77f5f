"""Flash ids and sizes by the tables."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.device.flash_id import (
    describe_flash,
    embedded_flash_pins,
    find_flash_size,
    is_plausible,
)
from espwire.device.identity import Identity, Registers


@pytest.mark.parametrize(
    ("jedec", "size", "plausible"),
    [
        (0x1640C8, 0x400000, True),  # recorded
        (0x1840EF, 0x1000000, True),
        (0x2040EF, 0x4000000, True),  # an odd part: 64 MB, code 0x20
        (0x3525C2, 0x200000, True),
        (0x4125BF, 0x200000, True),
        (0x01451F, 0x100000, True),  # the size is in the type byte
        (0x164020, 0x400000, True),
        (0x304020, None, False),
        (0xFFFFFF, None, False),
        (0x000000, None, False),
        (0xFFFF3F, None, False),
        (0x1640AA, 0x400000, False),  # nobody knows this maker
    ],
)
def test_size_and_plausibility_of_an_id(jedec, size, plausible):
    assert find_flash_size(jedec) == size
    assert is_plausible(jedec) is plausible


def test_an_id_is_taken_apart():
    info = describe_flash(0x1640C8)
    assert (info.manufacturer, info.device, info.size, info.maker_name) == (
        0xC8,
        0x4016,
        0x400000,
        "GigaDevice",
    )
    assert describe_flash(0x1640C8, 0x200000).size == 0x200000


@pytest.mark.parametrize(
    ("package", "pins"), [(1, 0), (2, 17 << 0 | 8 << 6 | 11 << 12 | 16 << 18 | 7 << 24)]
)
def test_an_esp32_with_flash_inside_is_attached_by_the_pins_of_its_efuses(package, pins):
    words = {0x3FF5A014: 17 | 8 << 5 | 11 << 10 | 16 << 15, 0x3FF5A00C: package << 9 | 7 << 4}
    chip = load_chip("esp32")
    assert (
        embedded_flash_pins(chip, Identity(chip, Registers(lambda address: words.get(address, 0))))
        == pins
    )
