"""A served port: what reaches the transport, and when, in simulated time."""

from __future__ import annotations

import pytest

from espwire.device.reset_sequences import RESET_DELAY_S, SHORT_LOW_S
from espwire.errors import PortNotFound, TransportError, TransportLost
from espwire.serve import port as served
from espwire.serve.port import TransportPort
from espwire.settings import Settings
from espwire.transport import telnet
from espwire.transport.base import TransportInfo

TIGHT = [
    *((0.0, False, False), (0.0, True, True), (0.0, False, True), (SHORT_LOW_S, True, False)),
    *[(round(SHORT_LOW_S + RESET_DELAY_S, 3), False, False)] * 2,
]
HARD = [(0.0, False, True), (0.1, False, False)]


class Clock:
    """The only clock of a test."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class FakeTransport:
    """Notes what is done to it. ``refuses``: baud rates; ``gone``: every call fails."""

    def __init__(self, clock, kind="uart", **info):
        self.info = TransportInfo(name="/dev/fake", kind=kind, **info)
        self.clock, self.lines, self.written, self.input = clock, [], [], b""
        self.baud, self.refuses, self.gone, self.closed = 0, (), False, False
        self.now, self.state = clock.monotonic, [None, None]

    def _check(self):
        if self.gone:
            raise TransportLost("it is gone")

    def set_lines(self, *, dtr=None, rts=None):
        self._check()
        self.state = [self.state[0] if dtr is None else dtr, self.state[1] if rts is None else rts]
        self.lines.append((self.clock.now, *self.state))

    def set_baud(self, baud):
        self._check()
        if baud in self.refuses:
            raise TransportError(f"no {baud} baud", code="baud-refused")
        self.written.append(("baud", baud))

    def drain(self):
        self._check()
        self.written.append("drained")

    def write(self, data, deadline):
        self._check()
        self.written.append(data)

    def read(self, timeout):
        self._check()
        data, self.input = self.input, b""
        return data

    def discard_input(self):
        self.read(0)

    def sleep(self, seconds):
        self.clock.now += seconds

    def close(self):
        self.closed = True


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(served, "time", clock)
    return clock


class Rig:
    """A served port on fake transports."""

    def __init__(self, clock, **info):
        self.clock, self.notes, self.transports = clock, [], []
        self.settings = Settings()
        self.there = True
        self.info = info
        self.port = TransportPort("fake", self.open, settings=self.settings, note=self.notes.append)

    def open(self, baud):
        if not self.there:
            raise PortNotFound("not there")
        self.transports.append(FakeTransport(self.clock, **self.info))
        self.transports[-1].baud = baud
        return self.transports[-1]

    @property
    def transport(self):
        return self.transports[-1]

    def request(self, text, round_trip=0.05):
        """Line requests, each as late as the network makes it: ``D1 R0 0.1``, numbers are waits."""
        for word in text.split():
            if word[0] in "DR":
                self.clock.now += round_trip
                self.port.settle()
                self.port.request_lines(**{"dtr" if word[0] == "D" else "rts": word[1] == "1"})
            else:
                self.clock.now += float(word)

    def times(self):
        """The line changes, from the first on."""
        lines = self.transport.lines
        return [(round(at - lines[0][0], 3), dtr, rts) for at, dtr, rts in lines]


@pytest.mark.parametrize("round_trip", [0.0, 0.05, 0.12])
def test_a_sequence_keeps_its_timing_however_slow_the_network_is(clock, round_trip):
    rig = Rig(clock)
    rig.request("D0 R1 0.1 D1 R0 0.05", round_trip)
    assert rig.transport.lines == []
    rig.request("D0", round_trip)
    assert rig.times() == TIGHT
    assert rig.notes == ["fake: reset into the loader (tight)"]
    rig.transport.lines.clear()
    rig.request("R1 0.1 R0", round_trip)
    assert rig.times() == HARD
    assert rig.notes[1:] == ["fake: reset into the application (hard)"]


def test_a_client_that_holds_the_boot_pin_long_gets_the_long_sequence(clock):
    rig = Rig(clock)
    rig.request("D0 R1 0.1 D1 R0 0.55 D0")
    assert rig.notes == ["fake: reset into the loader (tight_long)"]
    waits = [at for at, *_ in rig.times()]
    assert waits[-1] == pytest.approx(0.1 + 0.55 + 0.4, abs=0.41)


def test_native_usb_gets_its_own_sequence_whatever_the_client_sends(clock):
    rig = Rig(clock, kind="usb-jtag", vid=0x303A, pid=0x1001)
    rig.request("D0 R1 0.1 D1 R0 0.05 D0")
    assert rig.notes == ["fake: reset into the loader (usb_jtag)"]


def test_opening_with_both_lines_on_sets_both_in_one_step(clock):
    rig = Rig(clock)
    rig.request("R1 D1")
    rig.port.settle()
    assert rig.transport.lines == []
    clock.now += served.SETTLE_S
    rig.port.settle()
    assert rig.times() == [(0.0, True, True)]
    rig.port.end()
    assert [line[1:] for line in rig.transport.lines] == [(True, True), (False, False)]
    assert rig.notes == []


def test_a_single_line_is_passed_on_and_before_the_data_that_follow(clock):
    rig = Rig(clock)
    rig.request("D1")
    rig.port.settle(force=True)
    assert rig.times() == [(0.0, True, False)]
    assert (rig.port.dtr, rig.port.rts) == (True, False)
    rig.request("D0 D1 D0 D1")  # back where it was: nothing to do
    rig.port.settle(force=True)
    assert len(rig.transport.lines) == 1


def test_a_rate_is_changed_after_the_data_before_it_and_a_refusal_changes_nothing(clock):
    rig = Rig(clock)
    rig.port.set_baud(460800)
    assert rig.transport.written == ["drained", ("baud", 460800)]
    rig.transport.refuses = (5_000_000,)
    rig.port.set_baud(5_000_000)
    assert rig.port.baud == 460800
    assert rig.transport.written[-1] == ("baud", 460800)
    assert rig.notes == ["fake: no 5000000 baud"]


def test_data_is_written_in_pieces_of_20_ms(clock):
    rig = Rig(clock)
    rig.port.pending = bytes(1000)
    sizes = []
    while rig.port.pending:
        rig.port.write_some()
        sizes.append(len(rig.transport.written[-1]))
    assert sizes == [230, 230, 230, 230, 80]


def test_a_port_that_disappears_is_opened_again_and_the_data_wait(clock):
    rig = Rig(clock)
    rig.port.set_baud(921600)
    rig.transport.gone, rig.there = True, False
    assert rig.port.read() == b""
    assert rig.port.away
    assert rig.transport.closed
    assert rig.port.read_modem_state() == 0
    rig.port.pending = b"data"
    for _ in range(5):
        clock.now += served.REOPEN_S
        rig.port.write_some()
        rig.port.request_lines(dtr=True)
        rig.port.set_baud(115200)
        assert not rig.port.reopen()
    rig.there = True
    clock.now += served.REOPEN_S
    assert rig.port.reopen()
    assert rig.transport.baud == 921600
    assert len(rig.transports) == 2
    assert rig.port.read_modem_state() == telnet.DSR | telnet.DCD
    rig.port.write_some()
    assert rig.transport.written == [b"data"]
    assert rig.notes == [
        "fake: it is gone; waiting for it to come back",
        "fake: back after 1.5 s",
    ]


def test_a_reset_that_takes_native_usb_away_is_no_failure(clock):
    rig = Rig(clock, kind="usb-jtag", vid=0x303A, pid=0x1001)
    rig.transport.sleep = lambda seconds: setattr(rig.transport, "gone", True)
    assert rig.port.play_text("R1|W0.1|R0") == b""
    assert rig.port.away
    clock.now += 1
    assert rig.port.reopen()


def test_missing_abilities_are_answers_and_noted_once(clock):
    rig = Rig(clock)
    port = rig.port
    for _ in range(3):
        assert port.set_break(True) is False
        assert port.set_flow_control(telnet.HARDWARE) == telnet.NO_FLOW_CONTROL
        assert port.set_flow_control(telnet.NO_FLOW_CONTROL) == telnet.NO_FLOW_CONTROL
        assert port.set_format(telnet.SET_DATA_SIZE, 7) == 8
        assert port.set_format(telnet.SET_PARITY, 2) == 1
    assert rig.notes == [
        "fake: this port does not support break signals",
        "fake: this port does not support flow control",
    ]


def test_a_port_without_lines_notes_that_it_cannot_reset(clock):
    rig = Rig(clock, can_reset=False)
    rig.request("R1 R0 0.1 R1 R0")
    assert len(rig.notes) == 1
    assert rig.transport.lines == []


@pytest.mark.parametrize("text", ["", "X1", "D1|W11", "W3|W3|W3|W2", "D1|" * 300, "U1|"])
def test_a_sequence_that_makes_no_sense_is_refused_and_not_played(clock, text):
    rig = Rig(clock)
    assert rig.port.play_text(text).startswith(b"bad-request\0")
    assert rig.transport.lines == []


def test_a_sequence_that_came_as_a_whole_is_played_as_it_is(clock):
    rig = Rig(clock)
    assert rig.port.play_text("U0,1|W0.2|U1,0|W0.3|D0") == b""
    assert rig.times() == [(0.0, False, True), (0.2, True, False), (0.5, False, False)]
    rig.port.end()
    assert len(rig.transport.lines) == 3
