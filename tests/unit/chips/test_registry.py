"""Looking up and loading chips; errors in data files."""

import pytest

from espwire.chips.registry import (
    chip_ids,
    find_by_image_id,
    find_by_magic,
    find_by_uf2_family,
    load_chip,
    parse_chip_id,
)
from espwire.chips.tables import chip_from_toml, read_data_file
from espwire.errors import TableError, UsageError
from espwire.protocol.dialect import BaudRule, EraseRule, Md5Form
from espwire.protocol.opcodes import Op


@pytest.mark.parametrize("name", chip_ids())
def test_every_chip_loads_and_can_be_looked_up_by_its_numbers(name):
    chip = load_chip(name)
    assert chip.id == name
    if chip.identity.image_chip_id is not None:
        assert find_by_image_id(chip.identity.image_chip_id) == name
    for magic in chip.identity.magic_values:
        assert find_by_magic(magic) == name
    if chip.image.uf2_family is not None:
        assert name in find_by_uf2_family(chip.image.uf2_family)


def test_images_without_a_chip_id_are_for_the_esp8266():
    assert find_by_image_id(None) == "esp8266"


@pytest.mark.parametrize("spelling", ["esp32c3", "ESP32-C3", "esp32-c3", "ESP32C3", "esp32_c3"])
def test_a_chip_name_is_accepted_in_any_spelling(spelling):
    assert parse_chip_id(spelling) == "esp32c3"


def test_the_error_for_an_unknown_chip_lists_all_chips():
    with pytest.raises(UsageError) as caught:
        load_chip("esp32c9")
    assert "esp32c61" in caught.value.hint


def test_the_dialects_of_the_roms_differ():
    old, esp32, s2, c2, c5 = (
        load_chip(n).rom for n in ("esp8266", "esp32", "esp32s2", "esp32c2", "esp32c5")
    )
    assert (old.status_bytes, old.begin_words, old.erase) == (2, 4, EraseRule.ESP8266_HEAD_BUG)
    assert (old.md5, old.slow_read, old.attach_bytes, old.can_inflate) == (
        Md5Form.NONE,
        0,
        0,
        False,
    )
    assert (esp32.status_bytes, esp32.begin_words, esp32.md5, esp32.attach_bytes) == (
        4,
        4,
        Md5Form.HEX,
        8,
    )
    assert (s2.begin_words, s2.security_info_bytes, s2.encrypted_write) == (5, 12, True)
    assert (esp32.baud, c2.baud, c5.baud, s2.baud) == (
        BaudRule.ESP32_CALIBRATION,
        BaudRule.ASSUMES_40_MHZ,
        BaudRule.MISTAKEN_CRYSTAL,
        BaudRule.PLAIN,
    )
    assert (c2.secure_baud, s2.secure_baud) == (False, True)
    assert Op.SDC_GEN_END in load_chip("esp32s31").rom.ops
    assert Op.SDC_GEN_END not in s2.ops


def test_the_esp8266_has_the_classic_size_32m_c2():
    assert load_chip("esp8266").flash.sizes["4MB-c2"] == 0x70


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("status_bytes = 4", "", "rom.status_bytes is missing"),
        ("status_bytes = 4", 'status_bytes = "4"', "rom.status_bytes must be of type int, got '4'"),
        ("bootloader_offset", "bootloader_ofset", "flash.bootloader_offset is missing"),
        ("bootloader_offset = 0x0000", "bootloader_offset = true", "must be of type int, got True"),
        (
            "sector_size = 0x1000",
            "sectors = 1\nsector_size = 0x1000",
            "flash.sectors is not a known",
        ),
        ("shift = 21, bits = 3", "shift = 21", "fields.package[0].bits is missing"),
        ("mhz = [40]", "mhz = 40", "crystal.mhz must be a list, got 40"),
        ('"SPI_ATTACH"', '"SPI_ATTAK"', "rom.commands: unknown command 'SPI_ATTAK'"),
        ('"riscv"', '"arm"', "cpu.architecture must be one of 'xtensa', 'riscv', got 'arm'"),
        ('0 = "USER"', 'zero = "USER"', "key_purposes.zero must have a number as its key"),
        ("schema = 1", "schema = 2", "schema is 2, not 1"),
        ("[cpu]", "[cpu", "is not TOML"),
    ],
)
def test_an_error_in_a_data_file_names_file_and_key(old, new, message):
    text = read_data_file("esp32c3.toml")
    assert old in text
    with pytest.raises(TableError) as caught:
        chip_from_toml(text.replace(old, new, 1), "esp32c3.toml")
    assert str(caught.value).startswith("esp32c3.toml")
    assert message in str(caught.value)
    assert caught.value.hint
