"""Where the flash hangs: what may be asked for on which chip, and the word that SPI_ATTACH carries then."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.flash_id import SHIFTS, build_attach_word, find_pin_doubts, parse_connection
from espwire.errors import UsageError

CUSTOM = {name for name in chip_ids() if load_chip(name).spi.custom_pins}


@pytest.mark.parametrize("chip_id", chip_ids())
def test_pins_are_accepted_where_the_data_has_them(chip_id):
    chip = load_chip(chip_id)
    assert build_attach_word(chip, "SPI") == 0
    if chip_id in CUSTOM:
        assert (
            build_attach_word(chip, (6, 17, 8, 11, 16))
            == 6 | 17 << 6 | 8 << 12 | 16 << 18 | 11 << 24
        )
    else:
        with pytest.raises(UsageError, match="other pins") as caught:
            build_attach_word(chip, (6, 17, 8, 11, 16))
        assert caught.value.code == "spi-connection"
    if chip.spi.hspi_pins:
        assert build_attach_word(chip, "HSPI") == 1
    else:
        with pytest.raises(UsageError, match="HSPI"):
            build_attach_word(chip, "HSPI")


@pytest.mark.parametrize(
    ("chip_id", "good", "bad"),
    [
        ("esp32", (0, 29, 32, 33), (30, 31, 34, 64, -1)),
        ("esp32s2", (0, 21, 26, 46), (22, 25, 47)),
        ("esp32s3", (0, 21, 26, 48), (22, 25, 49)),
        ("esp32c3", (0, 21), (22,)),
    ],
)
def test_each_pin_lies_in_the_chip_s_range(chip_id, good, bad):
    chip = load_chip(chip_id)
    for pin in good:
        assert build_attach_word(chip, (pin, 1, 2, 3, 4)) & 0x3F == pin
    for pin in bad:
        with pytest.raises(UsageError, match=f"GPIO{pin} of"):
            build_attach_word(chip, (1, pin, 2, 3, 4))


def test_the_hold_pin_of_the_esp32s3_has_a_limit_of_its_own():
    chip = load_chip("esp32s3")
    assert build_attach_word(chip, (1, 2, 3, 46, 48)) >> SHIFTS["hd"] == 46
    with pytest.raises(UsageError, match="HD"):
        build_attach_word(chip, (1, 2, 3, 47, 48))


def test_odd_pins_are_doubted_but_not_refused():
    assert find_pin_doubts(load_chip("esp32c3"), (1, 2, 3, 4, 5)) == ()
    assert find_pin_doubts(load_chip("esp32c3"), "SPI") == ()
    twice, usb = find_pin_doubts(load_chip("esp32c3"), (18, 18, 3, 4, 5))
    assert "same pin" in twice
    assert "GPIO18" in usb


@pytest.mark.parametrize("text", ["", "VSPI", "1,2,3,4", "1,2,3,4,5,6", "1,2,x,4,5", "1;2;3;4;5"])
def test_what_is_no_connection_is_told_at_once(text):
    with pytest.raises(UsageError) as caught:
        parse_connection(text)
    assert caught.value.code == "spi-connection"


@given(st.lists(st.integers(0, 29), min_size=5, max_size=5))
def test_five_numbers_come_back_out_of_the_word(pins):
    word = build_attach_word(load_chip("esp32"), parse_connection(",".join(map(str, pins))))
    assert [word >> shift & 0x3F for shift in SHIFTS.values()] == pins
