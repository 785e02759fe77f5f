"""Which line changes of clients are resets, and into what: the sequences of real programs, and what is none."""

from __future__ import annotations

import pytest

from espwire.device.reset_sequences import SEQUENCES, parse_sequence
from espwire.serve.resets import FORGET_S, ResetDetector, ResetRequest

LOADER, APPLICATION = ResetRequest("loader"), ResetRequest("application")


def play(text: str, *, usb: bool = False, round_trip: float = 0.0, start=(False, False)):
    """What a client's sequence is recognized as, at each step that completes something.

    A step for both lines is sent as two requests, DTR first, as pyserial's and espwire's clients do.
    """
    detector, now, found = ResetDetector(native_usb=usb), 100.0, []
    detector.lines = start
    for number, step in enumerate(parse_sequence(text)):
        now += step.wait
        for lines in ({"dtr": step.dtr}, {"rts": step.rts}):
            if next(iter(lines.values())) is not None:
                now += round_trip
                if request := detector.feed(now, **lines):
                    found.append((number, request))
    return found


# the sequence as the program sends it, how many steps it has, what it is
CLIENTS = {
    "esptool": ("D0|R1|W0.1|D1|R0|W0.05|D0", 6, LOADER),
    "esptool, long": ("D0|R1|W0.1|D1|R0|W0.55|D0", 6, ResetRequest("loader", long=True)),
    "esptool.py 2 on Linux": ("D0|R1|W0.1|D1|R0|W0.05|D0", 6, LOADER),
    "esptool-js": ("D0|R1|W0.1|D1|R0|W0.05|D0", 6, LOADER),
    "hard reset": ("R1|W0.1|R0", 2, APPLICATION),
    "hard reset, DTR first": ("D0|R1|W0.2|R0|W0.2", 3, APPLICATION),
    "key of a serial monitor": ("D0|R1|W0.005|R0", 3, APPLICATION),
}


@pytest.mark.parametrize("round_trip", [0.0, 0.05, 0.3])
@pytest.mark.parametrize("client", CLIENTS)
def test_a_clients_sequence_is_recognised_when_it_is_complete(client, round_trip):
    text, last, expected = CLIENTS[client]
    found = play(text, round_trip=round_trip)
    if round_trip >= 0.3 and expected.into == "loader":
        expected = ResetRequest("loader", long=True)  # only the network's delay; does no harm
    assert found == [(last, expected)]


@pytest.mark.parametrize("name", ["classic", "classic_long", "tight", "tight_long"])
@pytest.mark.parametrize("start", [(False, False), (True, True), (True, False)])
def test_our_own_sequences_enter_the_loader_whatever_the_lines_were(name, start):
    text = build(name)
    found = play(text, start=start)
    assert [request.into for _, request in found] == ["loader"]


@pytest.mark.parametrize("name", ["hard", "hard_usb"])
@pytest.mark.parametrize("usb", [False, True])
def test_a_hard_reset_starts_the_application_on_every_port(name, usb):
    found = play(build(name), usb=usb)
    assert [request.into for _, request in found] == ["application"]


def test_the_sequence_of_native_usb_means_the_loader_only_there():
    assert [r.into for _, r in play(build("usb_jtag"), usb=True)] == ["loader"]
    assert [r.into for _, r in play(build("usb_jtag"), usb=False)] == ["application"]
    assert [r.into for _, r in play(build("classic"), usb=True)] == ["loader"]


@pytest.mark.parametrize(
    "text",
    [
        "D1|R1",  # pyserial opens a port
        "R1|D1",  # the other way round
        "U1,1|W1|U0,0",  # opens and closes
        "R1|D1|W0.1|D0|R0",  # the same one by one: RTS is on alone, but nobody requests that
        "D1|R1|W0.1|D0|R0",
        "D1|R1|W0.1|R0|D0",
        "D1",
        "D1|W0.1|D0",
        "R1",  # holds the chip in reset: passed on
        "D0|R0",
        "D1|R1|R0|R1|R0|D0",  # RTS for flow control, with DTR on
    ],
)
def test_opening_closing_and_single_lines_are_no_resets(text):
    assert play(text) == []


@pytest.mark.parametrize("cut", range(1, 6))
def test_only_a_whole_sequence_counts(cut):
    steps = CLIENTS["esptool"][0].split("|")
    assert play("|".join(steps[:cut])) == []


def test_what_is_long_ago_is_not_the_beginning_of_a_sequence():
    assert play(f"R1|W{FORGET_S + 0.1}|R0") == []
    assert play(f"R1|W{FORGET_S - 0.1}|R0") == [(2, APPLICATION)]


def test_a_recognised_sequence_does_not_begin_another():
    assert play("R1|W0.1|R0|W0.1|D0|R0") == [(2, APPLICATION)]
    twice = "R1|W0.1|R0|W0.1|R1|W0.1|R0"
    assert [request for _, request in play(twice)] == [APPLICATION, APPLICATION]


def build(name: str) -> str:
    from espwire.device.reset_sequences import build_text

    text = build_text(SEQUENCES[name])
    assert parse_sequence(text) == SEQUENCES[name]
    return text
