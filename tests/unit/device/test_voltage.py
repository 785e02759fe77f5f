"""The ESP32's override of its flash voltage: the words, and that no other chip has it."""

from __future__ import annotations

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.flash_id import build_voltage_word
from espwire.errors import UsageError


@pytest.mark.parametrize(
    ("voltage", "word"), [("1.8V", 0x80600000), ("1.9V", 0xFE600000), ("OFF", 0x00600000)]
)
def test_the_words_are_those_that_other_tools_write(voltage, word):
    assert build_voltage_word(load_chip("esp32"), voltage) == (0x3FF48074, word)


@pytest.mark.parametrize("chip_id", [name for name in chip_ids() if name != "esp32"])
def test_other_chips_have_no_such_regulator(chip_id):
    with pytest.raises(UsageError, match="cannot be overridden") as caught:
        build_voltage_word(load_chip(chip_id), "1.8V")
    assert caught.value.code == "flash-voltage"


def test_another_voltage_is_refused_with_those_there_are():
    with pytest.raises(UsageError, match=r"3\.3V") as caught:
        build_voltage_word(load_chip("esp32"), "3.3V")
    assert "1.8V, 1.9V, OFF" in caught.value.hint
