"""The eFuse tables, and what they mean in a state."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.efuse.coding import encode
from espwire.efuse.meaning import describe
from espwire.efuse.model import Field
from espwire.efuse.store import VirtualStore, store_from_token
from espwire.efuse.tables import Layout, find_layout, fuse_chip_ids, load_fuses, parse_fuse_chip
from espwire.efuse.token import Token, build_token, parse_token
from espwire.errors import DataError, UsageError


def names(layout: Layout) -> set[str]:
    return {field.name for field in layout.fields}


def test_there_are_14_chips_and_linux_means_the_s3() -> None:
    assert len(fuse_chip_ids()) == 14
    assert parse_fuse_chip("ESP32-C3") == "esp32c3"
    assert parse_fuse_chip("linux") == "esp32s3"
    with pytest.raises(UsageError, match="ESP8266 has no eFuses that can be burned"):
        parse_fuse_chip("esp8266")


@pytest.mark.parametrize("chip", fuse_chip_ids())
def test_the_tables_have_the_counts_that_they_state(chip: str) -> None:
    for table in load_fuses(chip).table:
        assert len(table.fields) + len(table.calculated) in (
            table.field_count,
            table.field_count + len(table.calculated),
        )
        assert len(table.hidden) == table.hidden_count


@pytest.mark.parametrize("chip", fuse_chip_ids())
def test_no_two_blocks_share_a_lock_and_locks_exist(chip: str) -> None:
    layout = find_layout(chip, 0)
    write, read = layout.field("WR_DIS").bits, layout.field("RD_DIS").bits
    for field in (*layout.fields, *layout.hidden):
        assert field.wr_dis is None or field.wr_dis < write, field.name
        assert all(lock < read for lock in field.rd_dis), field.name


def test_the_revision_selects_the_table() -> None:
    older, newer = names(find_layout("esp32h2", 101)), names(find_layout("esp32h2", 102))
    assert older - newer == {"ECDSA_FORCE_USE_HARDWARE_K"}
    first, third = names(find_layout("esp32p4", 200)), names(find_layout("esp32p4", 300))
    assert "KEY_PURPOSE_0_H" in third - first
    assert len(third - first) > 20


def test_a_state_takes_the_table_of_the_revision_in_its_own_bits() -> None:
    state = store_from_token(parse_token("EFSR:esp32p4:301:::::::::::::O1qKmg")).read()
    assert state.revision == 301
    assert state.layout.find("KEY_PURPOSE_0_H") is not None


def test_names_of_older_versions_and_other_cases_are_found() -> None:
    layout = find_layout("esp32c3", 0)
    assert layout.field("mac_factory") is layout.field("MAC")
    assert layout.block("block4") is layout.block("BLOCK_KEY0")
    with pytest.raises(UsageError, match="has no eFuse 'SECURE_BOT_EN'") as caught:
        layout.field("SECURE_BOT_EN")
    assert "SECURE_BOOT_EN" in caught.value.hint
    with pytest.raises(UsageError, match="calculated from other fields") as caught:
        layout.field("WAFER_VERSION_MINOR")
    assert caught.value.hint == "Burn WAFER_VERSION_MINOR_LO and WAFER_VERSION_MINOR_HI."


def test_reed_solomon_and_three_quarter_coding_match_the_test_vectors() -> None:
    coded = encode(bytes(range(32)), "reed_solomon")
    words = [int.from_bytes(coded[i : i + 4], "little") for i in range(32, 44, 4)]
    assert words == [0x0D474CA0, 0x03B2FC3F, 0x13F4E9DA]
    coded = encode(bytes(range(24)), "three_quarter")
    words = [int.from_bytes(coded[i : i + 4], "little") for i in range(0, 32, 4)]
    assert words[:3] == [0x03020100, 0x1E010504, 0x09080706]
    assert words[-1] == 0x41011716
    crc = load_chip("esp32").mac.crc8
    assert crc is not None
    assert crc.compute(bytes.fromhex("aabbccddeeff")) == 0x12


def test_a_token_round_trips_and_a_wrong_crc_is_an_error() -> None:
    data = load_fuses("esp32c3")
    blocks = tuple(index << 3 for index in range(len(data.blocks)))
    token = Token("EFSR", "esp32c3", 4, blocks)
    text = build_token(token, [4 * block.words for block in data.blocks])
    assert parse_token(text) == token
    assert build_token(Token("EFSR", "esp32c3", 0, (0,) * 11), [24] * 11) == (
        "EFSR:esp32c3:000:::::::::::::eLh3fw"
    )
    for wrong in (text[:-1], text.replace("esp32c3", "esp32c6"), "EFSR:esp32c3", "", text + "A"):
        with pytest.raises(DataError) as caught:
            parse_token(wrong)
        assert caught.value.code == "efuse-token"


def test_labels_numbers_and_purposes() -> None:
    store = VirtualStore("esp32c3")
    store.burned[0] = 1 << 82 | 1 << 80 | 9 << 88 | 15 << 92
    state = store.read()
    values = {
        name: describe(state, state.layout.field(name))
        for name in ("SPI_BOOT_CRYPT_CNT", "WDT_DELAY_SEL", "KEY_PURPOSE_0", "KEY_PURPOSE_1")
    }
    assert values == {
        "SPI_BOOT_CRYPT_CNT": "Enable",
        "WDT_DELAY_SEL": "80000",
        "KEY_PURPOSE_0": "SECURE_BOOT_DIGEST0",
        "KEY_PURPOSE_1": "FORBIDDEN_STATE",
    }


def test_a_purpose_of_the_p4_has_a_fifth_bit_elsewhere() -> None:
    store = store_from_token(parse_token("EFSR:esp32p4:301:::::::::::::O1qKmg"))
    high = store.read().layout.field("KEY_PURPOSE_0_H")
    store.burned[0] |= high.mask | 1 << store.read().layout.field("KEY_PURPOSE_0").start
    state = store.read()
    assert describe(state, state.layout.field("KEY_PURPOSE_0")) == "ECDSA_KEY_P384_L"


def test_three_quarter_coding_shortens_the_key_blocks_of_the_esp32() -> None:
    store = VirtualStore("esp32")
    store.burned[0] = 1 << 192
    state = store.read()
    field = state.layout.field("BLOCK1")
    assert isinstance(field, Field)
    assert (state.bits(field), state.size(state.data.blocks[1])) == (192, 192)
    assert [len(state.words(block)) for block in state.data.blocks] == [7, 6, 6, 6]


@pytest.mark.parametrize("chip", fuse_chip_ids())
def test_the_anti_rollback_version_is_where_the_chip_s_data_says(chip: str) -> None:
    place = load_chip(chip).security.secure_version
    assert place is not None
    for table in load_fuses(chip).table:
        for field in table.fields:
            if field.name == "SECURE_VERSION":
                assert field.block is not None
                block = next(each for each in load_fuses(chip).blocks if each.id == field.block)
                word, shift = divmod(field.start, 32)
                assert (place.address, place.shift) == (block.read + 4 * word, shift)
                assert place.bits == field.bits
