"""Getting in by the lines: which sequence works on which circuit, by timing alone; how long it takes; what is left.

The chips start in their applications. No sequence knows the circuit, and no circuit the sequence.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.reset_sequences import (
    SEQUENCES,
    TRY_ORDER_POSIX,
    Step,
    find_hold,
    find_reset_low,
    parse_sequence,
    play,
)
from espwire.errors import (
    Cancelled,
    ConnectError,
    PortNotFound,
    TransportLost,
    UsageError,
    WrongBootMode,
)
from espwire.events import Note, Resetting, Warned
from espwire.settings import RetryPolicy, Settings, Timing
from espwire.transport.base import CancelToken
from espwire.virtual.chip import State
from espwire.virtual.transport import open_virtual
from espwire.virtual.usb_bus import VirtualBus

CHIPS = chip_ids()
CIRCUITS = ("transistor", "direct", "usb-jtag", "none")
UART_CIRCUITS = ("transistor", "direct")
# sequence → circuits on which it leads into the loader; on the others, all the chip does is run (or restart) its program
INTO_LOADER = {
    "classic": UART_CIRCUITS,
    "classic_long": UART_CIRCUITS,
    "tight": UART_CIRCUITS,
    "tight_long": UART_CIRCUITS,
    "usb_jtag": ("usb-jtag",),
    "hard": (),
    "hard_usb": (),
    # made for bridges, which come with two transistors: both lines asserted must be no reset
    "hard_flow_control": ("direct",),
}
INTO_APP = {
    "hard": ("transistor", "direct", "usb-jtag"),
    "hard_usb": ("transistor", "direct", "usb-jtag"),
    "hard_flow_control": ("transistor", "usb-jtag"),
}
# (sequence, circuit) → each step that must come before the next one: swapping the two must fail, swapping others not
ORDER_MATTERS = {
    ("classic", "transistor"): {1, 2, 4, 5},
    ("classic", "direct"): {1, 4, 5},
    ("classic_long", "transistor"): {1, 2, 4, 5},
    ("classic_long", "direct"): {1, 4, 5},
    ("tight", "transistor"): {1, 2, 3, 4, 5},
    ("tight", "direct"): {3, 4, 5},
    ("tight_long", "transistor"): {1, 2, 3, 4, 5},
    ("tight_long", "direct"): {3, 4, 5},
    ("usb_jtag", "usb-jtag"): {6},
}
SHORT, LONG = ("classic", "tight"), ("classic_long", "tight_long")


def state_after(chip, circuit, steps, query="boot=app"):
    transport = open_virtual(f"virtual:{chip}?profile=instant&size=256KB&circuit={circuit}&{query}")
    transport.sleep(0.01)
    play(transport, steps)
    transport.sleep(1.0)  # also the largest capacitor here is full by then
    return transport.chip.state


def swapped(steps, at):
    return (*steps[:at], steps[at + 1], steps[at], *steps[at + 2 :])


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_sequence_enters_download_mode_on_the_circuits_it_is_meant_for_and_on_no_other(
    chip, name
):
    found = {circuit: state_after(chip, circuit, SEQUENCES[name]) for circuit in CIRCUITS}
    wanted = {
        circuit: State.LOADER if circuit in INTO_LOADER[name] else State.APP for circuit in CIRCUITS
    }
    assert found == wanted


@pytest.mark.parametrize("name", INTO_APP)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_hard_reset_leads_from_the_loader_into_the_application(chip, name):
    for circuit in INTO_APP[name]:
        transport = open_virtual(
            f"virtual:{chip}?profile=instant&size=256KB&circuit={circuit}&boot=app"
        )
        play(transport, SEQUENCES["usb_jtag" if circuit == "usb-jtag" else "classic"])
        transport.sleep(0.1)
        assert transport.chip.state is State.LOADER
        play(transport, SEQUENCES[name])
        transport.sleep(0.1)
        assert transport.chip.state is State.APP, circuit


@pytest.mark.parametrize(("name", "circuit"), ORDER_MATTERS)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_sequence_with_two_steps_swapped_fails_where_their_order_matters(chip, name, circuit):
    steps = SEQUENCES[name]
    failed = {
        at
        for at in range(len(steps) - 1)
        if state_after(chip, circuit, swapped(steps, at)) is not State.LOADER
    }
    assert failed == ORDER_MATTERS[name, circuit] != set()


@pytest.mark.parametrize("circuit", UART_CIRCUITS)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_large_capacitor_needs_the_long_sequences(chip, circuit):
    for rc, works in ((0.01, SHORT + LONG), (0.2, LONG), (0.7, ())):
        states = {
            name: state_after(chip, circuit, SEQUENCES[name], f"boot=app&rc={rc}")
            for name in TRY_ORDER_POSIX
        }
        assert states == {
            name: State.LOADER if name in works else State.APP for name in TRY_ORDER_POSIX
        }, rc


@pytest.mark.parametrize("circuit", UART_CIRCUITS)
def test_a_pulse_that_is_too_short_for_the_capacitor_resets_nothing(circuit):
    for wait, state in (("0.002", State.APP), ("0.02", State.LOADER)):
        assert (
            state_after("esp32", circuit, parse_sequence(f"D0|R1|W{wait}|D1|R0|W0.05|D0")) is state
        )


@pytest.mark.parametrize("name", TRY_ORDER_POSIX)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_driver_that_changes_one_line_at_a_time_needs_a_capacitor_that_covers_the_gap(chip, name):
    slow = "boot=app&quirk=one-by-one&line-delay=0.001"
    for circuit in UART_CIRCUITS:
        assert state_after(chip, circuit, SEQUENCES[name], slow) is State.LOADER
    # without one, two transistors show the boot pin high in the moment between; direct wires never do
    assert state_after(chip, "transistor", SEQUENCES[name], slow + "&rc=0") is State.APP
    assert state_after(chip, "direct", SEQUENCES[name], slow + "&rc=0") is State.LOADER
    at_once = State.LOADER if name.startswith("tight") else State.APP
    assert (
        state_after(chip, "transistor", SEQUENCES[name], "boot=app&rc=0&line-delay=0.001")
        is at_once
    )


@pytest.mark.parametrize("circuit", UART_CIRCUITS)
@pytest.mark.parametrize("name", TRY_ORDER_POSIX)
def test_lines_that_the_driver_asserts_on_opening_do_no_harm(circuit, name):
    assert (
        state_after("esp32c3", circuit, SEQUENCES[name], "boot=app&quirk=open-asserts")
        is State.LOADER
    )


def test_direct_wires_with_both_lines_asserted_hold_the_chip_in_reset():
    for circuit, state in (("direct", State.RESET), ("transistor", State.APP)):
        transport = open_virtual(f"virtual:esp32?circuit={circuit}&boot=app&quirk=open-asserts")
        transport.sleep(0.1)
        assert transport.chip.state is state


# --- pins ---


@pytest.mark.parametrize(
    ("chip", "pins", "said"),
    [
        ("esp8266", "15:1", "boot mode:(5,6)"),
        ("esp8266", "2:0", "boot mode:(0,6)"),
        ("esp8266", "0:1", "boot mode:(3,6)"),
        ("esp8266", "0:1,15:1", "boot mode:(7,6)"),
        ("esp32", "2:1", "boot:0xb (HSPI_FLASH_BOOT)"),
        ("esp32", "0:1", "boot:0x13 (SPI_FAST_FLASH_BOOT)"),
        ("esp32", "0:1,12:1", "boot:0x33 (SPI_FAST_FLASH_BOOT)"),
        ("esp32c3", "8:0", "boot:0x0 (USB_BOOT)"),
        ("esp32c3", "9:1", "boot:0xd (SPI_FAST_FLASH_BOOT)"),
        ("esp32c5", "27:0", "boot:0x0 (DOWNLOAD(UART0/SDIO_FEI_FEO))"),
        ("esp32s3", "0:1", "boot:0x8 (SPI_FAST_FLASH_BOOT)"),
    ],
)
def test_a_strapping_pin_at_the_wrong_level_gives_the_wrong_mode_and_its_value(chip, pins, said):
    transport = open_virtual(f"virtual:{chip}?profile=instant&boot=app&pins={pins}")
    transport.set_baud(transport.chip.text_baud)
    play(transport, SEQUENCES["classic"])
    heard, end = b"", transport.now() + 0.1
    while transport.now() < end:
        heard += transport.read(end - transport.now())
    assert said in heard.decode("latin-1")
    assert transport.chip.state is not State.LOADER
    transport.set_baud(115200)
    with pytest.raises(ConnectError):
        connect(transport, stub=False)


@pytest.mark.parametrize("chip", [name for name in CHIPS if load_chip(name).strapping.address])
def test_the_strap_register_holds_what_the_pins_said(chip):
    at = load_chip(chip).strapping
    for sequence, boot_bit in (("classic", 0), ("hard", 1)):
        transport = open_virtual(f"virtual:{chip}?boot=app")
        play(transport, SEQUENCES[sequence])
        transport.sleep(0.1)
        bit = at.bits.get("boot", at.bits.get(f"gpio{at.boot_gpio}"))
        assert transport.chip.registers.words[at.address] >> bit & 1 == boot_bit


def test_without_wires_only_the_buttons_lead_into_the_loader():
    transport = open_virtual("virtual:esp32c3?circuit=none&boot=app")
    with pytest.raises(ConnectError):
        connect(transport, stub=False)
    chip, t = transport.chip, transport.now()
    chip.press(t, boot=True, reset=True)
    transport.sleep(0.2)
    chip.press(transport.now(), reset=False)
    transport.sleep(0.2)
    chip.press(transport.now(), boot=False)
    assert connect(transport, before="no-reset", stub=False).chip.id == "esp32c3"


# --- connecting ---


class Notebook:
    def __init__(self, best=None):
        self.best, self.noted, self.seen = best, {}, {}

    def best_sequence(self, key):
        return self.best

    def note_sequence(self, key, name):
        self.noted[key] = name

    def note_device(self, mac, key):
        self.seen[mac] = key


def tried(events):
    return [
        event.how for event in events if isinstance(event, Resetting) and event.into == "loader"
    ]


def stated(case):
    """The figure of docs/guide/connecting.md."""
    text = Path(__file__).parents[2].joinpath("docs/guide/connecting.md").read_text("utf-8")
    return float(re.search(rf"^\| {re.escape(case)}[^|]*\| ([\d.]+) s \|$", text, re.MULTILINE)[1])


@pytest.mark.parametrize("circuit", UART_CIRCUITS)
@pytest.mark.parametrize("chip", CHIPS)
def test_with_the_remembered_sequence_connecting_takes_a_third_of_a_second(chip, circuit):
    for best in SHORT:
        transport, events = open_virtual(f"virtual:{chip}?circuit={circuit}&boot=app"), []
        connect(transport, history=Notebook(best), report=events.append, stub=False)
        assert tried(events) == [best]
        assert transport.now() <= stated("the remembered sequence works") == 0.35


def test_what_is_remembered_changes_order_and_time_but_no_result():
    results = []
    for best in (None, *TRY_ORDER_POSIX, "usb_jtag", "no such thing"):
        memory, events = Notebook(best), []
        transport = open_virtual("virtual:esp32?rc=0.2&boot=app")
        device = connect(transport, history=memory, report=events.append, stub=False)
        results.append((device.mac, device.description, device.revision))
        assert tried(events)[-1] in LONG
        assert tried(events)[0] == (best if best in TRY_ORDER_POSIX else TRY_ORDER_POSIX[0])
        assert memory.noted == ({} if best in LONG else {transport.info.name: tried(events)[-1]})
        assert memory.seen == {device.mac: transport.info.name}
    assert len(set(results)) == 1


def test_the_worst_cases_take_no_longer_than_is_stated():
    quiet = open_virtual("virtual:esp32?circuit=none")
    quiet.chip.state = State.GONE
    with pytest.raises(ConnectError):
        connect(quiet, stub=False)
    assert 0.8 * stated("nothing ever answers") < quiet.now() <= stated("nothing ever answers")

    for kind, where in (("usb-jtag", "esp32c3"), ("usb-otg", "esp32s2")):
        bus = VirtualBus()
        port = bus.add(f"{where}?kind={kind}&circuit=none")
        bus.devices[0].chip.state = State.GONE
        with pytest.raises(ConnectError):
            connect(port, stub=False)
        assert 0.8 * stated("the same on native") < bus.now <= stated("the same on native")


@pytest.mark.parametrize(
    ("case", "query", "needs"),
    [
        ("only the last sequence, `classic_long`", "rc=0.3", "classic_long"),
        ("only the last sequence of an OTG port", "kind=usb-otg", "usb_jtag"),
    ],
)
def test_a_chip_that_needs_the_last_sequence_is_reached_in_the_stated_time(case, query, needs):
    transport, events = open_virtual(f"virtual:esp32s2?boot=app&{query}"), []
    chip, set_lines = transport.chip, transport.set_lines
    chip.state = State.GONE  # it says nothing that would tell that a reset went wrong

    def one_line_only(*, dtr=None, rts=None):
        if tried(events)[-1] == needs:
            set_lines(dtr=dtr, rts=rts)

    transport.set_lines = one_line_only
    connect(transport, report=events.append, stub=False)
    assert tried(events)[-1] == needs
    assert len(set(tried(events))) == len(tried(events)) == (5 if needs == "usb_jtag" else 4)
    assert 0.8 * stated(case) < transport.now() <= stated(case)


def test_a_chip_that_says_that_it_starts_its_application_is_not_waited_for():
    transport, events, began = open_virtual("virtual:esp32?boot=app&pins=0:1"), [], []

    def report(event):
        events.append(event)
        if isinstance(event, Resetting):
            began.append(transport.now())

    with pytest.raises(WrongBootMode):
        connect(transport, report=report, stub=False)
    assert tried(events) == [*TRY_ORDER_POSIX, *TRY_ORDER_POSIX[:3]]
    assert began[1] - began[0] < 0.35


def test_the_hold_is_a_setting():
    patient = Settings(timing=Timing(reset_delay=0.3), retry=RetryPolicy(connect_attempts=1))
    assert (
        connect(open_virtual("virtual:esp32?rc=0.2&boot=app"), settings=patient, stub=False).chip.id
        == "esp32"
    )
    with pytest.raises(ConnectError):
        connect(
            open_virtual("virtual:esp32?rc=0.2&boot=app"),
            settings=Settings(retry=RetryPolicy(connect_attempts=1)),
            stub=False,
        )


CLASSIC = "D0|R1|W0.1|D1|R0|W0.05|D0"


@pytest.mark.parametrize(
    "how", [CLASSIC, "classic", SEQUENCES["classic"], "U0,1|W0.1|U1,0|W0.05|U0,0"]
)
def test_a_sequence_of_the_callers_is_the_only_one_that_is_played(how):
    events, memory = [], Notebook("tight")
    connect("virtual:esp32?boot=app", reset=how, report=events.append, history=memory, stub=False)
    assert tried(events) == ["custom"]
    assert not memory.noted


def test_custom_sequences_come_from_the_settings():
    settings = Settings(custom_reset_sequence=CLASSIC, custom_hard_reset_sequence="U0,1|W0.1|U0,0")
    events = []
    with connect(
        "virtual:esp32?boot=app", settings=settings, report=events.append, stub=False
    ) as device:
        device.leave("hard-reset")
        device.transport.sleep(0.2)
        assert device.transport.chip.state is State.APP
    assert [event.how for event in events if isinstance(event, Resetting)] == ["custom", "custom"]
    wrong = Settings(custom_reset_sequence="R1|W0.1|R0", retry=RetryPolicy(connect_attempts=2))
    with pytest.raises(WrongBootMode):
        connect("virtual:esp32?boot=app", settings=wrong, stub=False)
    with pytest.raises(UsageError) as caught:
        connect("virtual:esp32", settings=Settings(custom_reset_sequence="D0|X"), stub=False)
    assert caught.value.code == "reset-sequence"


# --- lines are left released ---


class Watched:
    """A link that remembers its lines, and fails when told to."""

    def __init__(self, query="boot=app", fail_at=None, error=None):
        self.transport = open_virtual(f"virtual:esp32?{query}")
        self.dtr = self.rts = False
        self.changes, self.fail_at, self.error = 0, fail_at, error

    def __getattr__(self, name):
        return getattr(self.transport, name)

    def set_lines(self, *, dtr=None, rts=None):
        self.dtr = self.dtr if dtr is None else dtr
        self.rts = self.rts if rts is None else rts
        self.transport.set_lines(dtr=dtr, rts=rts)
        self.changes += 1

    def sleep(self, seconds):
        if self.changes == self.fail_at:
            self.fail_at = None
            raise self.error
        self.transport.sleep(seconds)


@pytest.mark.parametrize("name", ["classic", "tight", "usb_jtag", "hard"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), Cancelled("stop"), TransportLost("gone")])
def test_both_lines_are_released_whatever_ends_a_sequence(name, error):
    waits = 0
    for at in range(1, len(SEQUENCES[name])):
        transport = Watched(fail_at=at, error=error)
        try:
            play(transport, SEQUENCES[name])
        except type(error):
            waits += 1
        assert (transport.dtr, transport.rts) == (False, False)
    assert waits == sum(bool(step.wait) for step in SEQUENCES[name])


def test_both_lines_are_released_after_failures_and_after_work():
    transport = Watched("boot=app&pins=0:1")
    with pytest.raises(WrongBootMode):
        connect(transport, stub=False)
    assert (transport.dtr, transport.rts) == (False, False)
    transport = Watched()
    connect(transport, stub=False).leave("hard-reset")
    assert (transport.dtr, transport.rts) == (False, False)
    assert transport.changes > 8


def test_a_cancelled_sequence_releases_the_lines_of_a_virtual_link_too():
    token = CancelToken()
    transport = open_virtual("virtual:esp32?boot=app&circuit=direct", token)
    transport.set_lines(dtr=True, rts=True)
    token.cancel()
    with pytest.raises(Cancelled):
        play(transport, (Step(rts=True), Step(wait=0.1)))
    assert not transport.chip.board.en_low


def test_a_dtr_that_another_program_left_asserted_does_not_spoil_the_hard_reset():
    for circuit in UART_CIRCUITS:
        with connect(f"virtual:esp32?circuit={circuit}", stub=False) as device:
            device.transport.set_lines(dtr=True, rts=False)
            device.leave("hard-reset")
            device.transport.sleep(0.2)
            assert device.transport.chip.state is State.APP


def low_of(transport):
    """Seconds for which the last reset pulled the enable pin: watches the lines from now on."""
    set_lines, lows = transport.set_lines, []

    def watch(*, dtr=None, rts=None):
        set_lines(dtr=dtr, rts=rts)
        if rts is not None:
            lows.append((transport.now(), rts))

    transport.set_lines = watch
    return lambda: round(lows[-1][0] - [at for at, on in lows if on][-1], 3)


@pytest.mark.parametrize(
    ("query", "more", "low"),
    [
        ("", {}, 0.02),
        ("rc=0.2", {}, 0.1),  # only a long sequence got in
        ("boot=download", {"before": "no-reset"}, 0.1),
        (
            "boot=download&circuit=none",
            {},
            0.1,
        ),  # it was in its loader before: nothing says that it was reset
        ("", {"reset": "D0|R1|W0.3|D1|R0|W0.05|D0"}, 0.3),
        ("", {"reset": "D0|R1|W0.01|D1|R0|W0.05|D0"}, 0.02),
        ("", {"stub": True}, 0.02),
    ],
)
def test_the_reset_at_the_end_is_as_long_as_the_one_that_worked(query, more, low):
    transport = open_virtual(f"virtual:esp32?size=1MB&boot=app&{query}")
    with connect(transport, **({"stub": False} | more)) as device:
        measured = low_of(transport)
        device.leave("hard-reset")
        transport.sleep(1.0)
        assert measured() == low
        assert "circuit=none" in query or transport.chip.state is State.APP


def test_on_the_esp8266_too_whose_boot_text_has_another_rate():
    transport = open_virtual("virtual:esp8266?size=1MB&boot=app")
    with connect(transport, stub=False) as device:
        measured = low_of(transport)
        device.leave("hard-reset")
        transport.sleep(0.2)
        assert (measured(), transport.chip.state) == (0.02, State.APP)


def held_of(transport):
    """(when the enable pin was released, when the boot pin was) of each change; watches from now on."""
    set_lines, seen = transport.set_lines, []

    def watch(*, dtr=None, rts=None):
        set_lines(dtr=dtr, rts=rts)
        seen.append((transport.now(), dtr, rts))

    transport.set_lines = watch

    def held():
        low = max(at for at, (_, _, rts) in enumerate(seen) if rts)
        free = next(at for at, dtr, rts in seen[low:] if rts is False)
        return round(next(at for at, dtr, _ in seen[low:] if dtr is False and at > free) - free, 4)

    return held


@pytest.mark.parametrize("circuit", UART_CIRCUITS)
@pytest.mark.parametrize("chip", CHIPS)
def test_the_boot_pin_is_let_go_when_the_chip_says_that_it_has_looked(chip, circuit):
    transport = open_virtual(f"virtual:{chip}?boot=app&circuit={circuit}")
    held = held_of(transport)
    with connect(transport, stub=False) as device:
        assert device.chip.id == chip
        silent = load_chip(chip).uart.boot_log_baud_26mhz is not None  # text at another rate
        assert (held() == 0.05) is silent
        assert silent or 0.01 < held() < 0.05


def test_a_long_hold_ends_early_too():
    class Remembered:
        def best_sequence(self, key):
            return "tight_long"

        def note_sequence(self, key, name):
            raise AssertionError(name)

        note_device = note_sequence

    transport = open_virtual("virtual:esp32?boot=app&rc=0.2")
    held, memory = held_of(transport), Remembered()
    memory.note_device = lambda mac, key: None
    with connect(transport, history=memory, stub=False):
        assert 0.1 < held() < 0.4


def cut(transport, at):
    """Have the link lose what comes from the ``at``-th byte of each boot text on."""
    read = transport.read

    def less(timeout):
        data = read(timeout)
        return (
            data[:at] if b"ets " in data or b"rst:" in data else b"" if b"waiting" in data else data
        )

    transport.read = less


@pytest.mark.parametrize("query", ["", "latency=0.03"])
def test_without_the_whole_text_it_is_held_as_long_as_ever(query):
    transport = open_virtual(f"virtual:esp32?boot=app&{query}")
    held = held_of(transport)
    cut(transport, 20)
    with connect(transport, stub=False):
        assert held() == 0.05


@pytest.mark.parametrize(
    "more",
    [
        {"reset": "classic"},
        {"settings": Settings(custom_reset_sequence="D0|R1|W0.1|D1|R0|W0.05|D0")},
    ],
)
def test_a_sequence_of_ones_own_is_played_as_it_is(more):
    transport = open_virtual("virtual:esp32?boot=app")
    held = held_of(transport)
    with connect(transport, **({"stub": False} | more)):
        assert held() == 0.05


def test_text_of_an_earlier_start_that_comes_late_only_costs_an_attempt():
    """It says that the chip waits, before the chip has looked at its pin: the second time nobody listens to it."""
    transport = open_virtual("virtual:esp32?boot=app&circuit=transistor&rc=0.01")
    read, late = transport.read, []
    text = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0))\r\nwaiting for download\r\n"

    def lie(timeout):
        if timeout > 0.04 and len(late) < 9:
            late.append(transport.now())
            return text
        return read(timeout)

    transport.read = lie
    events = []
    with connect(transport, report=events.append, stub=False) as device:
        assert device.chip.id == "esp32"
    assert sum(isinstance(event, Resetting) for event in events) == 2


def test_the_hold_is_found_in_every_sequence():
    found = {name: find_hold(steps) for name, steps in SEQUENCES.items()}
    assert {name: at for name, at in found.items() if at is not None} == {
        "classic": 5, "classic_long": 5, "tight": 5, "tight_long": 5,
    }  # fmt: skip
    assert find_reset_low(SEQUENCES["tight_long"]) == find_reset_low(SEQUENCES["hard"]) == 0.1
    assert find_reset_low(SEQUENCES["classic"]) == 0.02
    assert find_reset_low(parse_sequence("D1|W0.5|D0")) == 0


# --- native USB ---


NATIVE = [
    (chip, kind)
    for chip in CHIPS
    for kind, has in (
        ("usb-jtag", load_chip(chip).usb.serial_jtag),
        ("usb-otg", load_chip(chip).usb.otg),
    )
    if has
]


@pytest.mark.parametrize(("chip", "kind"), NATIVE)
def test_a_port_that_changes_its_name_with_each_reset_is_followed(chip, kind):
    bus, events = VirtualBus(seed=3), []
    port = bus.add(f"{chip}?profile=instant&kind={kind}&boot=app")
    memory = Notebook()
    with connect(port, report=events.append, history=memory, stub=False) as device:
        assert device.transport.info.name != port.identity.path
        assert device.attach_flash().size == 0x400000
        inside = device.transport.info.name
        device.leave("hard-reset")
        assert device.transport.info.name != inside
        assert device.transport.chip.state is State.APP
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any(inside in text for text in notes)
    assert not [event for event in events if isinstance(event, Warned)]
    assert list(memory.seen.values()) == [port.identity.key]


def test_a_device_that_stays_away_after_the_last_reset_is_a_warning():
    bus, events = VirtualBus(seed=1), []
    port = bus.add("esp32c3?profile=instant&kind=usb-jtag")
    with connect(port, report=events.append, stub=False) as device:
        bus.away = (60.0, 60.0)
        began = bus.now
        device.leave("hard-reset")
        assert 3.0 <= bus.now - began < 4.0
    assert [event.code for event in events if isinstance(event, Warned)] == ["port-not-back"]


def test_a_device_that_stays_away_on_the_way_into_the_loader_is_an_error():
    bus = VirtualBus(away=(60.0, 60.0))
    port = bus.add("esp32c3?kind=usb-jtag&boot=app")
    with pytest.raises(PortNotFound, match="did not come back") as caught:
        connect(port, stub=False)
    assert caught.value.code == "port-not-back"


def test_a_port_that_is_not_there_yet_is_opened_as_often_as_the_settings_say():
    bus = VirtualBus()
    port = bus.add("esp32c3")
    for attempts, back_after in ((30, 1.0), (0, 8.0)):
        bus.lose(port.identity.path, back_after=back_after)
        with connect(
            port, settings=Settings(retry=RetryPolicy(open_attempts=attempts)), stub=False
        ) as device:
            assert device.chip.id == "esp32c3"
    bus.lose(port.identity.path, back_after=5.0)
    began = bus.now
    with pytest.raises(PortNotFound, match="not found"):
        connect(port, settings=Settings(retry=RetryPolicy(open_attempts=5)), stub=False)
    assert 0.3 < bus.now - began < 0.6


@pytest.mark.parametrize("chip", ["esp32s2", "esp32s3"])
@pytest.mark.parametrize("by_button", [True, False])
def test_on_an_otg_port_the_watchdog_is_used_only_where_the_boot_button_led_into_the_loader(
    chip, by_button
):
    events = []
    query = "" if by_button else "&boot=app"
    before = "no-reset" if by_button else "default-reset"
    with connect(
        f"virtual:{chip}?kind=usb-otg{query}", before=before, report=events.append, stub=False
    ) as device:
        if not by_button:  # a program asked for the loader: the flag is set
            force = device.chip.reset.force_download
            device.transport.chip.registers.words[force.address] = 1 << force.bit
        device.leave("hard-reset")
    assert events[-1].how == ("watchdog" if by_button else "hard_usb")


@pytest.mark.parametrize("stub", [True, False])
@pytest.mark.parametrize("latency", ["0", "0.03"])
def test_a_watchdog_that_a_stub_or_the_rom_starts_resets_the_virtual_chip(stub, latency):
    """On a slow link the chip resets in the middle of the sequence, which is what was asked for."""
    with connect(f"virtual:esp32c3?size=1MB&latency={latency}", stub=stub) as device:
        chip = device.transport.chip
        assert (chip.program is not None) is stub
        boots = chip.boots
        device.leave("watchdog-reset")
        device.transport.sleep(2.0)
        assert (chip.boots, chip.state) == (boots + 1, State.APP)
