"""Reset sequences and connection facts against the data that they were taken from."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.device import baud, connect, flash_id, loader, reset_sequences, security
from espwire.device import detect as detection
from espwire.device.enter_bootloader import adapter_key, plan_sequences
from espwire.device.reset_sequences import (
    SEQUENCES,
    TRY_ORDER_POSIX,
    Step,
    find_or_parse,
    find_reset_low,
    find_sequence,
    parse_sequence,
    sequence_names,
)
from espwire.errors import UsageError
from espwire.protocol import reply_matcher
from espwire.settings import Settings, Timing
from espwire.transport.base import TransportInfo
from espwire.transport.ports import PortIdentity

PROTOCOL = tomllib.loads(
    files("espwire.chips").joinpath("data", "protocol.toml").read_text("utf-8")
)


def as_step(step):
    if "wait_s" in step:
        return Step(wait=step["wait_s"])
    return Step(**step.get("both", {key: value for key, value in step.items() if key != "both"}))


def test_every_sequence_is_the_one_of_the_data():
    assert {
        s["name"]: tuple(map(as_step, s["steps"])) for s in PROTOCOL["reset"]["sequence"]
    } == SEQUENCES
    assert [
        PROTOCOL["reset"][name]
        for name in ("enable_low_s", "remote_enable_low_s", "long_enable_low_s")
    ] == [
        reset_sequences.SHORT_LOW_S,
        reset_sequences.REMOTE_LOW_S,
        reset_sequences.LONG_LOW_S,
    ]
    assert tuple(PROTOCOL["reset"]["try_order_posix"]) == reset_sequences.TRY_ORDER_POSIX
    assert tuple(PROTOCOL["reset"]["try_order_other"]) == reset_sequences.TRY_ORDER_OTHER


def test_numbers_in_code_are_those_of_the_data():
    detect = PROTOCOL["detect"]
    assert {int(k): v for k, v in detect["retired_chip_ids"].items()} == detection.RETIRED_CHIP_IDS
    assert detect["magic_address"] == connect.MAGIC_ADDRESS
    assert tuple(f["name"] for f in PROTOCOL["security_info"]["flags"]) == security.FLAG_NAMES
    assert PROTOCOL["sync"]["replies"] == reply_matcher.SYNC_REPLIES
    assert PROTOCOL["retries"]["pause_between_syncs_s"] == loader.PAUSE_BETWEEN_SYNCS
    xmc = PROTOCOL["flash_start_up"]["xmc"]
    assert (
        tuple((f["type"], f["size_min"], f["size_max"]) for f in xmc["families"])
        == flash_id.XMC_FAMILIES
    )
    assert PROTOCOL["link"]["rom_baud"] == baud.ROM_BAUD


def test_native_usb_gets_its_own_sequence_and_only_that():
    info = TransportInfo(name="x", kind="uart", vid=0x303A, pid=0x1001)
    assert sequence_names(info, "default-reset") == ("usb_jtag",)
    assert sequence_names(TransportInfo(name="x", kind="usb-jtag"), "default-reset") == (
        "usb_jtag",
    )
    assert sequence_names(TransportInfo(name="x", kind="uart"), "usb-reset") == ("usb_jtag",)


def test_nothing_is_pulled_where_nothing_is_wanted_or_there():
    assert sequence_names(TransportInfo(name="x", kind="uart"), "no-reset") == ()
    assert sequence_names(TransportInfo(name="x", kind="uart"), "no-reset-no-sync") == ()
    assert (
        sequence_names(TransportInfo(name="x", kind="tcp", can_reset=False), "default-reset") == ()
    )


def test_a_bridge_with_flow_control_keeps_its_last_dtr():
    bridge = TransportInfo(name="x", kind="uart", vid=0x10C4, pid=0xEA64)
    plain = TransportInfo(name="x", kind="uart")
    assert find_sequence("classic", bridge) == find_sequence("classic", plain)[:-1]
    assert find_sequence("usb_jtag", bridge) == SEQUENCES["usb_jtag"]


UART = TransportInfo(name="x", kind="uart")


def test_the_hold_of_each_sequence_is_the_setting_and_half_a_second_more_in_the_long_ones():
    for name in TRY_ORDER_POSIX:
        assert find_sequence(name, UART) == SEQUENCES[name]
        other = [step.wait for step in find_sequence(name, UART, 0.2) if step.wait]
        assert other == pytest.approx([0.1, 0.7] if name.endswith("_long") else [0.02, 0.2])
    assert find_sequence("usb_jtag", UART, 0.2) == SEQUENCES["usb_jtag"]


def test_a_network_may_shorten_the_low_level_so_it_is_longer_there():
    remote = replace(UART, remote=True)
    for name, low in (("tight", 0.05), ("classic", 0.05), ("tight_long", 0.1)):
        assert find_reset_low(find_sequence(name, remote)) == low


@pytest.mark.parametrize("name", SEQUENCES)
def test_every_sequence_can_be_written_in_the_small_language(name):
    def word(step):
        if step.wait:
            return f"W{step.wait}"
        if step.dtr is not None and step.rts is not None:
            return f"U{step.dtr:d},{step.rts:d}"
        return f"D{step.dtr:d}" if step.dtr is not None else f"R{step.rts:d}"

    assert parse_sequence("|".join(map(word, SEQUENCES[name]))) == SEQUENCES[name]


def test_the_small_language_takes_any_case_and_blanks():
    assert parse_sequence(" d0 | R1|w.5| u1 , 0 |W1e-1") == (
        Step(dtr=False),
        Step(rts=True),
        Step(wait=0.5),
        Step(True, False),
        Step(wait=0.1),
    )


@pytest.mark.parametrize(
    ("text", "number", "position"),
    [
        ("", 1, 0),
        ("D0|", 2, 3),
        ("D2", 1, 0),
        ("D0|R1|W0.1|X1", 4, 11),
        ("D0|Wsoon", 2, 3),
        ("W-1", 1, 0),
        ("Wnan", 1, 0),
        ("W61", 1, 0),
        ("U1", 1, 0),
        ("U1,2", 1, 0),
        ("R1;W0.1", 1, 0),
        ("classic|D0", 1, 0),
    ],
)
def test_what_is_not_in_the_small_language_is_refused_with_its_place(text, number, position):
    with pytest.raises(UsageError, match=f"step {number} .*character {position + 1}") as caught:
        parse_sequence(text)
    assert (caught.value.code, caught.value.details["position"]) == ("reset-sequence", position)


@given(st.text(alphabet="DRUW01,.|e- ", max_size=20))
def test_any_text_is_steps_or_a_usage_error(text):
    try:
        steps = parse_sequence(text)
    except UsageError:
        return
    assert len(steps) == text.count("|") + 1
    assert all(0 <= step.wait <= 60 for step in steps)


def test_a_sequence_goes_by_its_name_too():
    assert find_or_parse("tight-long", UART) == SEQUENCES["tight_long"]
    assert find_or_parse("R1|W0.1|R0", UART) == SEQUENCES["hard"]


def names(sequences):
    return tuple(sequence.name for sequence in sequences)


def test_the_remembered_way_comes_first_and_no_way_is_lost():
    order = sequence_names(UART, "default-reset")
    assert order == (
        reset_sequences.TRY_ORDER_POSIX if os.name == "posix" else reset_sequences.TRY_ORDER_OTHER
    )
    assert names(plan_sequences(UART, "default-reset", Settings())) == order
    again = names(plan_sequences(UART, "default-reset", Settings(), remembered="classic_long"))
    assert again[0] == "classic_long"
    assert sorted(again) == sorted(order)
    assert names(plan_sequences(UART, "default-reset", Settings(), remembered="hard")) == order
    assert names(plan_sequences(UART, "usb-reset", Settings(), remembered="classic")) == (
        "usb_jtag",
    )


def test_a_custom_sequence_is_the_only_way_where_resets_are_wanted_at_all():
    settings = Settings(custom_reset_sequence="R1|W0.1|R0", timing=Timing(reset_delay=0.1))
    (sequence,) = plan_sequences(UART, "default-reset", settings)
    assert sequence.steps == SEQUENCES["hard"]
    assert names(plan_sequences(UART, "usb-reset", settings)) == ("usb_jtag",)
    assert plan_sequences(UART, "no-reset", settings) == ()
    (sequence,) = plan_sequences(UART, "default-reset", settings, reset="classic")
    assert sequence.steps[-2].wait == 0.1
    deaf = TransportInfo(name="x", kind="tcp", can_reset=False)
    assert plan_sequences(deaf, "default-reset", settings, reset="classic") == ()


def test_an_adapter_is_remembered_by_the_same_key_that_its_port_has():
    for vid, pid, serial in ((0x10C4, 0xEA60, "0001"), (0x1A86, 0x7523, ""), (None, None, "")):
        identity = PortIdentity(path="/dev/ttyUSB0", vid=vid, pid=pid, serial=serial)
        info = TransportInfo(name="/dev/ttyUSB0", kind="uart", vid=vid, pid=pid, serial=serial)
        assert adapter_key(info) == identity.key
