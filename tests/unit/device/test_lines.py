"""Reset sequences and connection facts against the data that they were taken from."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from espwire.device import connect, flash_id, lines, loader, security
from espwire.device.lines import SEQUENCES, Step, find_sequence, sequence_names
from espwire.link.base import LinkInfo

PROTOCOL = tomllib.loads(files("espwire.chips").joinpath("data", "protocol.toml").read_text("utf-8"))


def as_step(step):
    if "wait_s" in step:
        return Step(wait=step["wait_s"])
    return Step(**step.get("both", {key: value for key, value in step.items() if key != "both"}))


def test_every_sequence_is_the_one_of_the_data():
    assert {s["name"]: tuple(map(as_step, s["steps"])) for s in PROTOCOL["reset"]["sequence"]} == SEQUENCES
    assert tuple(PROTOCOL["reset"]["try_order_posix"]) == lines.TRY_ORDER_POSIX
    assert tuple(PROTOCOL["reset"]["try_order_other"]) == lines.TRY_ORDER_OTHER


def test_numbers_in_code_are_those_of_the_data():
    detect = PROTOCOL["detect"]
    assert {int(k): v for k, v in detect["retired_chip_ids"].items()} == connect.RETIRED_CHIP_IDS
    assert detect["magic_address"] == connect.MAGIC_ADDRESS
    assert tuple(f["name"] for f in PROTOCOL["security_info"]["flags"]) == security.FLAG_NAMES
    assert PROTOCOL["sync"]["replies"] == loader.SYNC_ANSWERS
    assert PROTOCOL["retries"]["pause_between_syncs_s"] == loader.PAUSE_BETWEEN_SYNCS
    xmc = PROTOCOL["flash_start_up"]["xmc"]
    assert tuple((f["type"], f["size_min"], f["size_max"]) for f in xmc["families"]) == flash_id.XMC_FAMILIES
    assert PROTOCOL["link"]["rom_baud"] == connect.ROM_BAUD


def test_native_usb_gets_its_own_sequence_and_only_that():
    info = LinkInfo(name="x", kind="uart", vid=0x303A, pid=0x1001)
    assert sequence_names(info, "default-reset") == ("usb_jtag",)
    assert sequence_names(LinkInfo(name="x", kind="usb-jtag"), "default-reset") == ("usb_jtag",)
    assert sequence_names(LinkInfo(name="x", kind="uart"), "usb-reset") == ("usb_jtag",)


def test_nothing_is_pulled_where_nothing_is_wanted_or_there():
    assert sequence_names(LinkInfo(name="x", kind="uart"), "no-reset") == ()
    assert sequence_names(LinkInfo(name="x", kind="uart"), "no-reset-no-sync") == ()
    assert sequence_names(LinkInfo(name="x", kind="tcp", can_reset=False), "default-reset") == ()


def test_a_bridge_with_flow_control_keeps_its_last_dtr():
    bridge = LinkInfo(name="x", kind="uart", vid=0x10C4, pid=0xEA64)
    plain = LinkInfo(name="x", kind="uart")
    assert find_sequence("classic", bridge) == find_sequence("classic", plain)[:-1]
    assert find_sequence("usb_jtag", bridge) == SEQUENCES["usb_jtag"]
