"""Plans of burns: what is refused, the order, what becomes final, and what carries them out."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from espwire.efuse.burn import burn, rehearse
from espwire.efuse.keys import Key, request_keys
from espwire.efuse.model import Block
from espwire.efuse.plan import BurnPlan, plan_burn
from espwire.efuse.planner import Planner
from espwire.efuse.requests import (
    request_bits,
    request_custom_mac,
    request_data,
    request_fields,
    request_flash_voltage,
    request_read_locks,
    request_write_locks,
)
from espwire.efuse.store import VirtualStore
from espwire.errors import DeviceError, ToolError, UsageError

KEY = bytes(range(1, 33))
Want = Callable[[Planner], object]


def plan(store: VirtualStore, *wants: Want) -> BurnPlan:
    planner = Planner(store.read())
    for want in wants:
        want(planner)
    return plan_burn(planner)


def do(store: VirtualStore, *wants: Want) -> BurnPlan:
    made = plan(store, *wants)
    rehearse(made)
    burn(made, store)
    return made


def refuse(store: VirtualStore, want: Want, code: str) -> ToolError:
    before = list(store.burned)
    with pytest.raises(ToolError) as caught:
        do(store, want)
    assert caught.value.code == code
    assert store.burned == before
    return caught.value


def xts(block: str = "BLOCK_KEY0", data: bytes = KEY, purpose: str = "XTS_AES_128_KEY") -> Want:
    return lambda planner: request_keys(planner, [Key(block, data, purpose)])


def test_a_key_is_reversed_hidden_and_locked_after_it_was_burned() -> None:
    store = VirtualStore("esp32c3")
    made = do(store, xts())
    assert store.burned[4].to_bytes(32, "little") == KEY[::-1]
    state = store.read()
    assert state.value_of("KEY_PURPOSE_0") == 4
    assert state.value_of("RD_DIS") == 1
    assert state.value_of("WR_DIS") == 1 << 8 | 1 << 23
    assert state.blocks[4] == 0
    assert [step.block for step in made.steps] == [4, 0, 0]
    assert made.steps[1].bits == 4 << 88
    assert made.unreadable == ("BLOCK_KEY0",)
    assert set(made.locked) == {"KEY_PURPOSE_0", "BLOCK_KEY0"}
    assert [change.name for change in made.changes if change.secret] == ["BLOCK_KEY0"]


@pytest.mark.parametrize("name", ["IO_LDO_1P8", "OCODE"])
def test_calibration_that_the_chip_does_not_have_is_not_burned(name: str) -> None:
    refuse(
        VirtualStore("esp32h21"),
        lambda planner: request_fields(planner, [(name, "1")]),
        "efuse-factory",
    )


def test_a_refused_purpose_is_named_as_the_line_would_leave_it() -> None:
    store = VirtualStore("esp32c61")

    def want(planner: Planner) -> None:
        request_fields(planner, [("KEY_PURPOSE_3", "SECURE_BOOT_DIGEST2")])
        request_keys(planner, [Key("BLOCK_KEY3", KEY, "USER")])

    error = refuse(store, want, "efuse-purpose")
    assert "another command gives it the purpose SECURE_BOOT_DIGEST2" in str(error)


def test_the_same_key_again_is_finished_with_purpose_and_locks() -> None:
    store = VirtualStore("esp32c3")
    store.program(store.data.blocks[4], int.from_bytes(KEY[::-1], "little"))
    made = do(store, xts())
    assert [step.block for step in made.steps] == [0, 0]
    assert store.read().value_of("KEY_PURPOSE_0") == 4
    other = VirtualStore("esp32c3")
    other.program(other.data.blocks[4], 1)
    refuse(other, xts(), "efuse-clear-bits")


def test_a_long_key_takes_the_next_free_block_that_nobody_names() -> None:
    store = VirtualStore("esp32s3")
    long = KEY + KEY[::-1]
    both = [Key("BLOCK_KEY0", long, "XTS_AES_256_KEY"), Key("BLOCK_KEY1", KEY, "USER")]
    do(store, lambda planner: request_keys(planner, both))
    state = store.read()
    assert [state.value_of(f"KEY_PURPOSE_{i}") for i in range(4)] == [2, 0, 3, 0]
    error = refuse(
        VirtualStore("esp32s3"), xts("BLOCK_KEY4", long, "XTS_AES_256_KEY"), "efuse-slot"
    )
    assert "BLOCK_KEY5" in str(error)


def test_a_key_that_must_be_hidden_is_refused_once_rd_dis_is_locked() -> None:
    store = VirtualStore("esp32c3")
    do(store, lambda planner: request_write_locks(planner, ["RD_DIS"]))
    refuse(store, xts(), "efuse-rd-dis-locked")


@pytest.mark.parametrize(
    ("want", "kind"),
    [
        (xts(data=KEY + b"\0"), UsageError),
        (xts(data=KEY[:16]), UsageError),
        (xts(block="BLOCK3"), UsageError),
        (xts(purpose="NO_SUCH"), UsageError),
        (lambda p: request_fields(p, [("NO_SUCH", "1")]), UsageError),
        (lambda p: request_fields(p, [("DIS_ICACHE", "0")]), UsageError),
        (lambda p: request_fields(p, [("WDT_DELAY_SEL", "4")]), DeviceError),
        (lambda p: request_fields(p, [("MAC", "aa:bb:cc:dd:ee:ff")]), DeviceError),
        (lambda p: request_fields(p, [("BLOCK_USR_DATA", "0x11")]), UsageError),
        (lambda p: request_bits(p, "BLOCK3", [256]), UsageError),
        (lambda p: request_data(p, "BLOCK3", KEY[:5]), UsageError),
        (lambda p: request_data(p, "BLOCK3", KEY, offset=1), UsageError),
        (lambda p: request_read_locks(p, ["BLOCK_KEY0"]), DeviceError),
        (lambda p: request_flash_voltage(p, "1.8V"), DeviceError),
    ],
)
def test_what_cannot_be_burned_is_refused(want: Want, kind: type[ToolError]) -> None:
    with pytest.raises(kind) as caught:
        plan(VirtualStore("esp32c3"), want)
    assert caught.value.hint


def test_bits_are_never_cleared_and_locked_fields_never_burned() -> None:
    store = VirtualStore("esp32c3")
    do(store, lambda planner: request_fields(planner, [("WDT_DELAY_SEL", "1")]))
    refuse(store, lambda p: request_fields(p, [("WDT_DELAY_SEL", "2")]), "efuse-clear-bits")
    do(store, lambda planner: request_write_locks(planner, ["DIS_ICACHE"]))
    refuse(store, lambda p: request_fields(p, [("DIS_USB_JTAG", "1")]), "efuse-locked")
    refuse(store, lambda p: request_bits(p, "BLOCK0", [40]), "efuse-locked")


def test_a_counter_without_a_value_takes_the_next_one_until_it_is_used_up() -> None:
    store = VirtualStore("esp32c3")
    for value in (1, 3, 7):
        do(store, lambda planner: request_fields(planner, [("SPI_BOOT_CRYPT_CNT", None)]))
        assert store.read().value_of("SPI_BOOT_CRYPT_CNT") == value
    refuse(store, lambda p: request_fields(p, [("SPI_BOOT_CRYPT_CNT", None)]), "efuse-spent")


def test_a_coded_block_takes_one_burn_and_the_plan_lists_what_is_final() -> None:
    store = VirtualStore("esp32c3")
    made = do(store, lambda planner: request_fields(planner, [("BLK_VERSION_MAJOR", "1")]))
    assert "OPTIONAL_UNIQUE_ID" in made.final
    error = refuse(store, lambda p: request_bits(p, "BLOCK2", [0]), "efuse-second-burn")
    assert "BLK_VERSION_MAJOR" in error.hint
    assert not plan(store, lambda p: request_bits(p, "BLOCK2", [128])).steps


def test_commands_of_one_line_share_the_only_burn_of_a_block() -> None:
    store = VirtualStore("esp32c3")
    do(
        store,
        lambda planner: request_bits(planner, "BLOCK3", [0]),
        lambda planner: request_custom_mac(planner, bytes.fromhex("aacdef010203")),
    )
    assert store.burned[3] == 1 | int.from_bytes(bytes.fromhex("aacdef010203"), "little") << 200


def test_the_custom_mac_of_the_esp32_has_a_crc_and_a_version() -> None:
    store = VirtualStore("esp32")
    store.burned[0] = 1 << 192  # 3/4 coding: the address and its version are in different chunks
    do(store, lambda planner: request_custom_mac(planner, bytes.fromhex("aacdef010203")))
    state = store.read()
    assert (state.value_of("CUSTOM_MAC_CRC"), state.value_of("MAC_VERSION")) == (0x56, 1)


def test_the_c2_fits_a_digest_and_a_short_key_into_one_burn() -> None:
    store = VirtualStore("esp32c2")
    short = "XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS"
    keys = [Key("BLOCK_KEY0", KEY[:16], short), Key("BLOCK_KEY0", KEY, "SECURE_BOOT_DIGEST")]
    made = do(store, lambda planner: request_keys(planner, keys))
    assert store.burned[3].to_bytes(32, "little") == KEY[:16][::-1] + KEY[:16]
    state = store.read()
    assert (state.value_of("RD_DIS"), state.value_of("XTS_KEY_LENGTH_256")) == (1, 0)
    assert made.unreadable == ("BLOCK_KEY0", "BLOCK_KEY0_LOW_128")
    refuse(store, xts(data=KEY[::-1], purpose="SECURE_BOOT_DIGEST"), "efuse-clear-bits")


def test_the_flash_voltage_goes_from_off_to_3_3_volts_and_never_back() -> None:
    store = VirtualStore("esp32s3")
    for voltage, bits in (("OFF", (1, 0, 0)), ("1.8V", (1, 1, 0)), ("3.3V", (1, 1, 1))):
        do(store, lambda planner, v=voltage: request_flash_voltage(planner, v))
        state = store.read()
        names = ("VDD_SPI_FORCE", "VDD_SPI_XPD", "VDD_SPI_TIEH")
        assert tuple(state.value_of(name) for name in names) == bits
    refuse(store, lambda planner: request_flash_voltage(planner, "1.8V"), "efuse-clear-bits")


def test_enabling_secure_boot_waits_for_everything_else_in_block_0() -> None:
    made = plan(
        VirtualStore("esp32c3"),
        lambda p: request_fields(p, [("SECURE_BOOT_EN", "1"), ("DIS_ICACHE", "1")]),
        xts(purpose="SECURE_BOOT_DIGEST0"),
    )
    assert [step.block for step in made.steps] == [4, 0, 0]
    assert made.steps[-1].bits & 1 << 116
    assert not made.steps[1].bits & 1 << 116


class LossyStore(VirtualStore):
    """Loses the first bit of every burn of one block, a limited number of times."""

    def __init__(self, losses: int) -> None:
        super().__init__("esp32c3")
        self.losses = losses

    def program(self, block: Block, bits: int) -> None:
        if block.id == 0 and self.losses:
            self.losses -= 1
            bits &= bits - 1
        super().program(block, bits)


def test_bits_that_did_not_burn_are_burned_again() -> None:
    store = LossyStore(losses=2)
    made = plan(store, lambda p: request_fields(p, [("DIS_ICACHE", "1"), ("WDT_DELAY_SEL", "3")]))
    assert burn(made, store).value_of("DIS_ICACHE") == 1


def test_after_three_attempts_later_steps_are_left_out() -> None:
    store = LossyStore(losses=100)
    made = plan(
        store,
        lambda p: request_fields(p, [("DIS_ICACHE", "1"), ("SECURE_BOOT_EN", "1")]),
    )
    with pytest.raises(
        DeviceError, match="did not burn in 3 attempts; 1 later steps were"
    ) as caught:
        burn(made, store)
    assert caught.value.code == "efuse-not-burned"
    assert store.read().value_of("SECURE_BOOT_EN") == 0


def test_a_plan_for_another_state_is_refused_and_an_interrupted_one_continues() -> None:
    store = VirtualStore("esp32c3")
    made = plan(store, xts())
    store.program(store.data.blocks[4], made.steps[0].bits)
    assert burn(made, store).value_of("RD_DIS") == 1
    other = VirtualStore("esp32c3")
    other.program(other.data.blocks[3], 1)
    with pytest.raises(DeviceError) as caught:
        burn(made, other)
    assert caught.value.code == "efuse-changed"


def test_the_coding_scheme_that_nobody_can_burn_is_refused() -> None:
    store = VirtualStore("esp32")
    refuse(store, lambda p: request_fields(p, [("CODING_SCHEME", "2")]), "efuse-coding")
    do(store, lambda p: request_fields(p, [("CODING_SCHEME", "1")]))
    assert store.read().scheme(store.data.blocks[1]) == "three_quarter"
    store.burned[0] ^= 3 << 192
    refuse(store, lambda p: request_bits(p, "BLOCK1", [0]), "efuse-coding")


def test_with_3_4_coding_each_chunk_of_six_bytes_takes_one_burn() -> None:
    store = VirtualStore("esp32")
    store.burned[0] = 1 << 192
    do(store, lambda p: request_bits(p, "BLOCK3", [0]))
    refuse(store, lambda p: request_bits(p, "BLOCK3", [47]), "efuse-second-burn")
    do(store, lambda p: request_bits(p, "BLOCK3", [48]))
    assert store.burned[3] == 1 | 1 << 48
