"""Baud rates for data: any rate that the port supports, requested at or below 115200; and an implausible crystal."""

from __future__ import annotations

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.device.double_read import read_word
from espwire.device.identity import measured_mhz
from espwire.errors import DeviceError
from espwire.events import Opened, Warned
from espwire.protocol.dialect import BaudRule
from espwire.transport.url import open_transport

ODD = (9600, 57600, 74880, 250000, 1500000, 2000000)


def open_device(chip, query="", **keywords):
    transport = open_transport(f"virtual:{chip}?profile=instant&{query}")
    return connect(transport, **({"stub": False} | keywords))


@pytest.mark.parametrize("baud", ODD)
@pytest.mark.parametrize(
    "chip", [chip for chip in chip_ids() if load_chip(chip).rom.baud is not BaudRule.NONE]
)
def test_any_rate_is_reached_from_115200_or_less(chip, baud):
    events = []
    with open_device(chip, baud=baud, report=events.append) as device:
        assert device.loader.baud == device.transport.wire.host_baud == baud
        assert device.loader.read_reg(device.chip.identity.magic_address) is not None
        if device.chip.crystal.method == "uart_divider":
            assert device.crystal_mhz in (26, 40, 48)
    assert next(e for e in events if isinstance(e, Opened)).baud == min(baud, 115200)
    assert [e.code for e in events if isinstance(e, Warned)] == []


MEASURED = [chip for chip in chip_ids() if load_chip(chip).crystal.method == "uart_divider"]


def with_measurement(device, mhz, monkeypatch):
    """The divider in the chip's UART as if its clock were of ``mhz``."""
    chip = device.chip
    divider = round(mhz * 1e6 * chip.crystal.clock_multiple / device.loader.baud)
    assert abs(measured_mhz(chip, device.loader.baud, divider) - mhz) < 0.2
    address = chip.uart.clock_divider_address
    monkeypatch.setattr(
        "espwire.device.device.read_word",
        lambda loader, at: divider if at == address else read_word(loader, at),
    )
    device.divider = None  # as it was read when connecting


@pytest.mark.parametrize("chip", MEASURED)
@pytest.mark.parametrize(
    ("mhz", "odd"), [(40.0, False), (40.7, False), (26.0, False), (36.5, True), (12.0, True)]
)
def test_a_crystal_that_no_board_has_is_told_once(chip, mhz, odd, monkeypatch):
    events = []
    with open_device(chip, report=events.append) as device:
        with_measurement(device, mhz, monkeypatch)
        assert device.crystal_mhz == device.crystal_mhz
        assert device.crystal_mhz in (26, 40, 48)
    assert [e.code for e in events if isinstance(e, Warned)] == (["crystal-odd"] if odd else [])


@pytest.mark.parametrize("chip", ["esp32c2", "esp32c5"])
def test_a_rate_that_hangs_on_a_nonsense_crystal_is_refused_before_anything_is_sent(
    chip, monkeypatch
):
    with open_device(chip) as device:
        with_measurement(device, 12.0, monkeypatch)
        trips = device.loader.trips
        with pytest.raises(DeviceError) as caught:
            device.change_baud(921600)
        assert caught.value.code == "clock-measurement"
        assert device.loader.baud == 115200
        assert device.loader.trips == trips
        with_measurement(device, 40.0, monkeypatch)


def test_connecting_stays_at_the_slow_rate_then(monkeypatch):
    monkeypatch.setattr("espwire.device.device.measured_mhz", lambda chip, baud, divider: 12.0)
    events = []
    with open_device("esp32c2", baud=921600, report=events.append) as device:
        assert device.loader.baud == 115200
    assert [e.code for e in events if isinstance(e, Warned)] == ["crystal-odd", "clock-measurement"]


def test_native_usb_has_no_rate_to_measure_by():
    events = []
    with open_device("esp32c5", "kind=usb-jtag", report=events.append) as device:
        assert isinstance(device, Device)
        assert device.crystal_mhz in (40, 48, 26)
    assert not [e for e in events if isinstance(e, Warned) and e.code == "crystal-odd"]


def test_a_rate_that_the_stub_cannot_set_is_named_and_the_present_one_stays():
    events = []
    with open_device("esp8266", baud=100_000_000, stub=True, report=events.append) as device:
        assert device.loader.baud == 115200
        assert device.attach_flash().size == 1 << 22
    (warning,) = [event for event in events if isinstance(event, Warned)]
    assert warning.code == "baud-refused"
    assert warning.text.endswith("loader refuses 100000000 baud: staying at 115200 baud")
