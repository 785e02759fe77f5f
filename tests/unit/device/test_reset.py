"""Leaving: which reset into the application a port gets, and in what state the lines are before and after."""

from __future__ import annotations

import os

import pytest

from espwire.chips.registry import load_chip
from espwire.device.reset import find_hard_reset, leave
from espwire.device.reset_sequences import SEQUENCES
from espwire.errors import TransportLost, UsageError
from espwire.events import Note, Resetting, Warned
from espwire.settings import Settings
from espwire.transport.base import TransportInfo

UART = TransportInfo(name="x", kind="uart")
BRIDGE = TransportInfo(name="x", kind="uart", vid=0x10C4, pid=0xEA64)
JTAG = TransportInfo(name="x", kind="usb-jtag", vid=0x303A, pid=0x1001)
OTG = TransportInfo(name="x", kind="usb-otg", vid=0x303A, pid=0x0002)


def test_each_kind_of_port_gets_its_own_pulse():
    assert [find_hard_reset(info)[0] for info in (UART, BRIDGE, JTAG, OTG)] == [
        "hard",
        "hard_flow_control",
        "hard_usb",
        "hard_usb",
    ]
    steps = find_hard_reset(BRIDGE)[1]
    assert steps[: len(SEQUENCES["hard_flow_control"])] == SEQUENCES["hard_flow_control"]
    assert os.name != "posix" or steps == SEQUENCES["hard_flow_control"]


def test_a_custom_pulse_replaces_it():
    assert find_hard_reset(JTAG, "R1|W0.1|R0") == ("custom", SEQUENCES["hard"])
    with pytest.raises(UsageError):
        find_hard_reset(UART, "R2")


def test_dtr_is_released_before_the_pulse_and_both_lines_after_it(scripted):
    loader, transport = scripted()
    transport.info = UART
    leave(loader, load_chip("esp32"), "hard-reset", lambda event: None)
    assert transport.lines == [(False, False), (None, True), (None, False)]


def test_a_bridge_that_needs_dtr_keeps_it(scripted):
    loader, transport = scripted()
    transport.info = BRIDGE
    leave(loader, load_chip("esp32"), "hard-reset", lambda event: None)
    assert transport.lines[:4] == [(False, None), (None, True), (True, None), (None, False)]


def test_a_custom_pulse_comes_from_the_settings(scripted):
    loader, transport = scripted()
    loader.settings = Settings(custom_hard_reset_sequence="U1,1|U0,0")
    events = []
    leave(loader, load_chip("esp32"), "hard-reset", events.append)
    assert transport.lines[-2:] == [(True, True), (False, False)]
    assert events == [Resetting(how="custom", into="application")]


@pytest.mark.parametrize("after", ["no-reset", "no-reset-stub"])
def test_nothing_is_pulled_where_nothing_is_wanted(scripted, after):
    loader, transport = scripted()
    leave(loader, load_chip("esp32"), after, lambda event: None)
    assert (transport.lines, transport.sent) == ([], [])


def test_a_port_without_lines_says_that_the_button_must_be_pressed(scripted):
    loader, transport = scripted()
    transport.info = TransportInfo(name="x", kind="tcp", can_reset=False)
    events = []
    leave(loader, load_chip("esp32"), "hard-reset", events.append)
    assert transport.lines == []
    assert [type(event) for event in events] == [Note]


def lose_at_reset(transport):
    change = transport.set_lines

    def set_lines(*, dtr=None, rts=None):
        change(dtr=dtr, rts=rts)
        if rts:
            raise TransportLost("x is gone")

    transport.set_lines = set_lines


def test_a_native_port_that_goes_away_and_cannot_be_followed_is_a_warning(scripted):
    loader, transport = scripted(chip="esp32c3")
    transport.info = JTAG
    lose_at_reset(transport)
    events = []
    leave(loader, load_chip("esp32c3"), "hard-reset", events.append)
    assert [event.code for event in events if isinstance(event, Warned)] == ["port-not-back"]


def test_a_bridge_that_goes_away_is_an_error(scripted):
    loader, transport = scripted()
    transport.info = UART
    lose_at_reset(transport)
    with pytest.raises(TransportLost):
        leave(loader, load_chip("esp32"), "hard-reset", lambda event: None)
    assert transport.lines[-1] == (False, False)
