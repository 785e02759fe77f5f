"""Reset circuits line by line, EN over time, buttons, and the options that select them."""

from __future__ import annotations

import pytest

from espwire.chips.registry import load_chip
from espwire.errors import UsageError
from espwire.virtual.board import CIRCUITS, MIN_RESET_S, Board
from espwire.virtual.boot import find_boot_text, read_straps
from espwire.virtual.config import parse_options
from espwire.virtual.scheduler import EventQueue
from espwire.virtual.transport import open_virtual

OFF, DTR, RTS, BOTH = (False, False), (True, False), (False, True), (True, True)


@pytest.mark.parametrize(
    ("name", "pulled"),
    [
        ("direct", {OFF: (0, 0), DTR: (0, 1), RTS: (1, 0), BOTH: (1, 1)}),
        ("transistor", {OFF: (0, 0), DTR: (0, 1), RTS: (1, 0), BOTH: (0, 0)}),
        (
            "usb-jtag",
            {OFF: (0, 0), DTR: (0, 1), RTS: (1, 1), BOTH: (0, 1)},
        ),  # the mark stays while RTS is asserted
        ("none", {OFF: (0, 0), DTR: (0, 0), RTS: (0, 0), BOTH: (0, 0)}),
    ],
)
def test_pins_pulled_by_each_state_of_the_lines(name, pulled):
    board, _, _ = make_board(name)
    for (dtr, rts), pins in pulled.items():
        board.set_lines(dtr=dtr, rts=rts)
        assert (board.en_low, board.boot_low) == pins, (dtr, rts)
    board.set_lines(dtr=False, rts=False)
    assert not board.boot_low


def make_board(circuit="direct", rc=0.002):
    queue, events = EventQueue(), []
    board = Board(
        CIRCUITS[circuit],
        queue,
        rc=rc,
        hold=lambda: events.append(("hold", queue.now)),
        start=lambda: events.append(("start", queue.now)),
        usb_reset=lambda: events.append(("usb", queue.now)),
    )
    return board, queue, events


def test_en_must_be_low_for_a_while_and_takes_a_while_to_rise():
    board, queue, events = make_board(rc=0.2)
    board.set_lines(dtr=False, rts=True)
    queue.run_until(0.1)
    board.set_lines(dtr=False, rts=False)
    queue.run_until(1.0)
    assert events == [("hold", MIN_RESET_S), ("start", pytest.approx(0.3))]


def test_a_second_pulse_before_en_has_risen_prolongs_the_first():
    board, queue, events = make_board(rc=0.2)
    for at, rts in ((0.0, True), (0.1, False), (0.2, True), (0.3, False)):
        queue.run_until(at)
        board.set_lines(dtr=False, rts=rts)
    queue.run_until(1.0)
    assert [what for what, _ in events] == ["hold", "hold", "start"]
    assert events[-1][1] == pytest.approx(0.5)


def test_usb_resets_at_once_and_holds_nothing():
    board, queue, events = make_board("usb-jtag")
    for lines in (RTS, RTS, BOTH, RTS, OFF):
        board.set_lines(dtr=lines[0], rts=lines[1])
    queue.run_until(1.0)
    assert events == [("usb", 0.0), ("usb", 0.0)]


def test_a_button_holds_the_chip_whatever_the_lines_do():
    board, queue, events = make_board("transistor")
    board.set_buttons(reset=True)
    queue.run_until(0.1)
    board.set_lines(dtr=False, rts=True)
    board.set_lines(dtr=False, rts=False)
    queue.run_until(0.2)
    assert [what for what, _ in events] == ["hold"]
    board.set_buttons(boot=True)
    assert board.boot_low
    board.set_buttons(reset=False)
    queue.run_until(0.3)
    assert [what for what, _ in events] == ["hold", "start"]


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp8266"])
def test_the_boot_pin_can_be_stuck_at_either_level(chip):
    facts = load_chip(chip)
    gpio, text = facts.strapping.boot_gpio, find_boot_text(facts)
    for pulled in (False, True):
        assert read_straps(facts, text, boot_low=pulled, pins={gpio: False}).mode == "download"
        assert read_straps(facts, text, boot_low=pulled, pins={gpio: True}).mode == "app"
        assert read_straps(facts, text, boot_low=pulled, pins={}).mode == (
            "download" if pulled else "app"
        )


def test_further_pins_count_for_the_application_only_on_the_chip_that_has_two_of_them():
    for chip, pins, mode in (
        ("esp8266", {15: True}, "wrong"),
        ("esp32", {2: True}, "app"),
        ("esp32c3", {8: False}, "app"),
    ):
        facts = load_chip(chip)
        assert read_straps(facts, find_boot_text(facts), boot_low=False, pins=pins).mode == mode


@pytest.mark.parametrize(
    "query",
    [
        "circuit=pigeon",
        "rc=soon",
        "rc=-1",
        "pins=15",
        "pins=x:1",
        "pins=15:2",
        "quirk=slow",
        "line-delay=99",
    ],
)
def test_options_that_make_no_sense_are_refused(query):
    with pytest.raises(UsageError):
        parse_options(f"virtual:esp32?{query}")


def test_options_of_the_circuit():
    found = parse_options(
        "virtual:esp32?circuit=direct&rc=0.1&pins=gpio15:1,2:0&quirk=one-by-one,open-asserts"
    )
    assert (found.circuit, found.rc, found.pins) == ("direct", 0.1, {15: True, 2: False})
    assert found.quirk == {"one-by-one", "open-asserts"}


def test_a_slow_driver_takes_its_time_for_each_line():
    for query, seconds in (("", 0.0), ("line-delay=0.002", 0.002), ("quirk=one-by-one", 0.002)):
        transport = open_virtual(f"virtual:esp32?{query}")
        transport.set_lines(dtr=True, rts=True)
        assert transport.now() == pytest.approx(seconds)
