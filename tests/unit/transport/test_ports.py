"""Which port is meant: what ids tell, the order, filters, and the choice. Every list is made up here."""

from __future__ import annotations

import contextlib
import itertools
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.chips.usb_ids import load_usb_ids
from espwire.errors import PortNotFound, UsageError
from espwire.transport.ports import (
    PortFilter,
    PortIdentity,
    choose,
    find_by_serial,
    find_port,
    is_known,
    likely_board,
    list_ports,
    matches,
    parse_filter,
    rank,
)

JTAG = PortIdentity(
    "/dev/ttyACM0", 0x303A, 0x1001, "24:6F:28:AA:BB:CC", "1-1", "USB JTAG/serial debug unit"
)
OTG = PortIdentity("/dev/ttyACM1", 0x303A, 0x0002, "0", "1-2", "ESP32-S2")
APP = PortIdentity("/dev/ttyACM2", 0x303A, 0x4003, "123456", "1-3", "TinyUSB Device")
CP2105 = PortIdentity("/dev/ttyUSB0", 0x10C4, 0xEA70, "0001", "1-4:1.0", "CP2105")
CH340 = PortIdentity("/dev/ttyUSB1", 0x1A86, 0x7523, "", "1-5", "USB Serial")
MODEM = PortIdentity("/dev/ttyACM3", 0x1199, 0x9071, "X", "1-6", "LTE modem")
BOARD = PortIdentity("/dev/ttyS0", description="ttyS0")
ALL = (BOARD, MODEM, CH340, CP2105, APP, OTG, JTAG)


@pytest.mark.parametrize(
    ("identity", "board"),
    [
        (JTAG, "ESP chip's built-in USB (Serial/JTAG)"),
        (OTG, "ESP32-S2 in download mode (USB OTG)"),
        (APP, "ESP chip running an application with USB (CDC and MSC)"),
        (CP2105, "board with a CP2105 (2 ports)"),
        (CH340, "board with a CH340"),
        (MODEM, "unknown USB device"),
        (BOARD, "not a USB port"),
        (PortIdentity("a", 0x303A, 0x1002), "board with an ESP USB Bridge"),
        (PortIdentity("a", 0x303A, 0x7003), "ESP32-S3-DevKitC-1 running circuitpython"),
        (PortIdentity("a", 0x303A, 0x8123), "product with an id from Espressif"),
        (PortIdentity("a", 0x303A, 0x3000), "Espressif device"),
        (PortIdentity("a", 0x0403, 0x6001), "board with an FT232R"),
    ],
)
def test_the_likely_board_follows_from_the_ids(identity, board):
    assert likely_board(identity) == board


def test_every_chip_with_native_usb_is_known_by_the_ids_of_its_data():
    own = load_usb_ids().espressif
    for name in chip_ids():
        usb = load_chip(name).usb
        if usb.serial_jtag:
            assert usb.serial_jtag_product_id == own.serial_jtag
            assert is_known(PortIdentity("x", usb.vendor_id, usb.serial_jtag_product_id))
        if usb.otg:
            board = likely_board(PortIdentity("x", usb.vendor_id, usb.otg_product_id))
            assert board.startswith(f"{load_chip(name).name} in download mode")


@pytest.mark.parametrize(
    "bridge", load_usb_ids().bridges, ids=lambda bridge: f"{bridge.vid:04X}-{bridge.pid:04X}"
)
def test_a_bridge_is_known_where_its_ids_are_a_serial_port(bridge):
    assert is_known(PortIdentity("x", bridge.vid, bridge.pid)) is bridge.serial


def test_other_usb_and_ports_without_usb_are_not_known():
    assert not is_known(MODEM)
    assert not is_known(BOARD)


def test_the_likeliest_come_first_in_any_order_of_listing():
    expected = (OTG, JTAG, APP, CP2105, CH340, MODEM, BOARD)
    for order in itertools.islice(itertools.permutations(ALL), 0, 5040, 97):
        assert set(rank(order, platform="linux")[:2]) == set(expected[:2])
        assert rank(order, platform="linux")[2:] == expected[2:]


def test_names_decide_between_equals():
    many = [PortIdentity(f"COM{number}", 0x1A86, 0x7523) for number in (10, 9, 2)]
    assert [one.path for one in rank(many, platform="win32")] == ["COM2", "COM9", "COM10"]
    mac = [
        PortIdentity(path, 0x1A86, 0x7523)
        for path in ("/dev/cu.SLAB_USBtoUART", "/dev/cu.usbserial-1")
    ]
    assert rank(mac, platform="darwin")[0].path == "/dev/cu.usbserial-1"
    assert list_ports(lambda: many) == (many[2], many[1], many[0])


@pytest.mark.parametrize(
    "name", ["/dev/cu.Bluetooth-Incoming-Port", "/dev/cu.wlan-debug", "/dev/cu.debug-console"]
)
def test_names_that_are_never_boards_are_excluded_even_with_any_port(name):
    with pytest.raises(PortNotFound) as caught:
        choose([PortIdentity(name)], any_port=True)
    assert f"{name} (never a board)" in caught.value.hint


@pytest.mark.parametrize(
    ("texts", "paths"),
    [
        ([], ["S0", "ACM3", "USB1", "USB0", "ACM2", "ACM1", "ACM0"]),
        (["vid=0x303A"], ["ACM2", "ACM1", "ACM0"]),
        (["vid=12346"], ["ACM2", "ACM1", "ACM0"]),
        (["vid=0x303a", "vid=0x1A86"], ["USB1", "ACM2", "ACM1", "ACM0"]),
        (["vid=0x303A", "pid=4097", "pid=2"], ["ACM1", "ACM0"]),
        (["pid=0x1001", "vid=0x10C4"], []),
        (["name=ttyusb"], ["USB1", "USB0"]),
        (["name=modem"], []),  # descriptions are not searched
        (["NAME=ACM", "serial=24:6f"], ["ACM0"]),
        (["serial=x", "serial=0001"], ["ACM3", "USB0"]),
    ],
)
def test_values_of_one_key_widen_and_keys_narrow(texts, paths):
    port_filter = parse_filter(texts)
    matching = [port for port in ALL if matches(port, port_filter)]
    assert [port.path.removeprefix("/dev/tty") for port in matching] == paths
    assert bool(port_filter) is bool(texts)


@pytest.mark.parametrize(
    "word", ["vid=303A", "vid=zz", "pid=-1", "pid=65536", "foo=1", "vid", "vid=", "name= ", ""]
)
def test_an_invalid_filter_is_rejected(word):
    with pytest.raises(UsageError) as caught:
        parse_filter([word])
    assert caught.value.code == "port-filter"


@given(st.lists(st.text(max_size=12), max_size=4))
def test_any_text_is_a_filter_or_a_usage_error(words):
    with contextlib.suppress(UsageError):
        assert isinstance(parse_filter(words), PortFilter)


@pytest.mark.parametrize("one", [JTAG, OTG, APP, CP2105, CH340])
def test_the_only_known_port_is_chosen(one):
    assert choose([BOARD, MODEM, one]) == one


def test_several_known_ports_are_listed_in_the_error():
    with pytest.raises(UsageError) as caught:
        choose(ALL)
    error = caught.value
    assert (error.code, error.exit_code) == ("several-ports", 2)
    assert error.details["ports"] == [
        "/dev/ttyACM0",
        "/dev/ttyACM1",
        "/dev/ttyACM2",
        "/dev/ttyUSB0",
        "/dev/ttyUSB1",
    ]
    assert "/dev/ttyACM0 (ESP chip's built-in USB (Serial/JTAG), 24:6F:28:AA:BB:CC)" in error.hint
    assert choose(ALL, port_filter=parse_filter(["serial=24:6F"])) == JTAG


def test_the_error_says_why_each_port_was_excluded():
    with pytest.raises(PortNotFound) as caught:
        choose([BOARD, MODEM, CH340], port_filter=parse_filter(["vid=0x303A", "vid=0x1199"]))
    assert caught.value.details["left_out"] == {
        "/dev/ttyUSB1": "does not match the filter",
        "/dev/ttyACM3": "unknown USB device, used only with --any-port",
        "/dev/ttyS0": "does not match the filter",
    }
    with pytest.raises(PortNotFound, match="no serial port found"):
        choose([])


def test_an_unknown_port_needs_any_port():
    for one in (BOARD, MODEM):
        with pytest.raises(PortNotFound):
            choose([one])
        assert choose([one], any_port=True) == one
    with pytest.raises(PortNotFound):  # a matching filter is not enough
        choose([MODEM], port_filter=parse_filter(["vid=0x1199"]))


@given(st.permutations(ALL), st.integers(0, len(ALL)))
def test_an_unknown_port_is_never_chosen(order, size):
    with contextlib.suppress(UsageError, PortNotFound):
        assert is_known(choose(order[:size]))


def test_a_serial_number_finds_its_ports_in_any_spelling():
    for text in ("24:6F:28:AA:BB:CC", "246f28aabbcc", "24-6f-28-aa-bb-cc"):
        assert find_by_serial(text, ALL) == (JTAG,)
    assert find_by_serial("", ALL) == ()


@pytest.mark.skipif(os.name == "nt", reason="symbolic links are for the privileged there")
def test_a_path_is_found_through_a_link_and_need_not_be_listed(tmp_path):
    real = tmp_path / "ttyACM0"
    real.touch()
    link = tmp_path / "by-id"
    link.symlink_to(real)
    listed = PortIdentity(str(real), 0x303A, 0x1001, "24:6F:28:AA:BB:CC")
    assert find_port(str(link), lambda: [listed]).identity == listed
    assert find_port("/dev/none", lambda: [listed]).identity == PortIdentity("/dev/none")
