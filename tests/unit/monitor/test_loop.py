"""The loop with a port, a keyboard and a screen made of lists: keys, resets, a device that goes and comes back."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import pytest

from espwire.errors import PortBusy, PortNotFound, TransportError, TransportLost
from espwire.monitor.console import Console
from espwire.monitor.keys import MonitorCommand
from espwire.monitor.log import LineLog
from espwire.monitor.loop import Monitor, MonitorOptions, application_steps, loader_steps
from espwire.transport.base import TransportInfo

UART = TransportInfo(name="/dev/ttyUSB0", kind="uart")
ZERO = b""


class ListLink:
    """Says what it is given, one item a read; an exception is raised; then the link is silent."""

    def __init__(self, says: Sequence[bytes | Exception], info: TransportInfo = UART) -> None:
        self.info, self.says = info, list(says)
        self.written = b""
        self.lines: list[tuple[bool | None, bool | None]] = []
        self.closed = False
        self.stuck = False
        self.clock = 0.0

    def read(self, timeout: float) -> bytes:
        if not timeout or not self.says:
            return b""
        said = self.says.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    def write(self, data: bytes, deadline: float) -> None:
        if self.stuck:
            raise TransportLost("it takes no more bytes", code="write-timeout")
        self.written += data

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        self.lines.append((dtr, rts))

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def close(self) -> None:
        self.closed = True

    def drain(self) -> None: ...
    def discard_input(self) -> None: ...
    def set_baud(self, baud: int) -> None: ...


class ListPort:
    """Opens links, or raises what it has instead, in turn; comes back after some looks."""

    def __init__(self, *opens: ListLink | Exception, away: int = 0) -> None:
        self.opens, self.away = list(opens), away
        self.bauds: list[int] = []

    def open(self, *, baud: int = 0, cancel: object = None) -> Any:
        self.bauds.append(baud)
        found = self.opens.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    def wait_back(self, seconds: float, *, cancel: object = None) -> ListPort:
        if self.away:
            self.away -= 1
            raise PortNotFound("not yet")
        return self


class ListKeyboard:
    """Types one item each time it is asked; then the terminal is gone."""

    def __init__(self, *typed: bytes) -> None:
        self.typed = list(typed)

    def read(self) -> bytes | None:
        return self.typed.pop(0) if self.typed else None


def run(
    screen: Any, port: ListPort, *typed: bytes, log: LineLog | None = None, **options: Any
) -> MonitorCommand:
    console = Console(screen, log=log)
    monitor = Monitor(
        port,
        console,
        keyboard=ListKeyboard(*typed),
        options=MonitorOptions(**options),
        pause=lambda _: None,
    )
    return monitor.run()


def test_what_is_typed_goes_to_the_chip_and_what_it_says_to_the_screen(screen: Any) -> None:
    transport = ListLink([b"hello\r\n", b"you\r\n"])
    assert run(screen, ListPort(transport), b"ab", b"c\r", b"\x1d") is MonitorCommand.QUIT
    assert transport.written == b"abc\r"
    assert "hello\nyou\n" in screen.text
    assert transport.closed
    assert transport.lines == []  # nothing was asked for


def test_ctrl_c_ends_and_after_the_menu_key_goes_to_the_chip(screen: Any) -> None:
    transport = ListLink([])
    assert run(screen, ListPort(transport), b"\x14\x03", b"\x03") is MonitorCommand.INTERRUPT
    assert transport.written == b"\x03"


def test_a_keyboard_that_is_gone_ends_it(screen: Any) -> None:
    assert run(screen, ListPort(ListLink([]))) is MonitorCommand.QUIT


def test_any_baud_is_asked_for_and_greeted_with(screen: Any) -> None:
    port = ListPort(ListLink([]))
    run(screen, port, baud=74880)
    assert port.bauds == [74880]
    assert screen.notes[0].startswith("/dev/ttyUSB0 at 74880 baud; Ctrl-] quits")


def test_reset_keys_play_the_lines(screen: Any) -> None:
    transport = ListLink([])
    run(screen, ListPort(transport), b"\x14\x12", b"\x1d")
    assert transport.lines == [(None, True), (None, False)]
    transport = ListLink([])
    run(screen, ListPort(transport), b"\x14\x10", b"\x1d")
    assert (True, False) in transport.lines or (True, None) in transport.lines
    assert screen.notes[-1] == "reset into the loader"


def test_reset_at_the_start_and_dtr_are_done_when_asked(screen: Any) -> None:
    transport = ListLink([])
    run(screen, ListPort(transport), reset=True, dtr=True)
    assert transport.lines == [(True, None), (None, True), (None, False), (True, None)]


def test_a_port_without_lines_says_what_to_press(screen: Any) -> None:
    transport = ListLink(
        [], TransportInfo(name="socket://x:1", kind="tcp", can_reset=False, can_change_baud=False)
    )
    run(screen, ListPort(transport), b"\x14\x12", b"\x1d")
    assert "reset button" in screen.notes[-1]
    assert transport.lines == []


def test_a_device_that_goes_is_followed_and_the_log_stays_whole(screen: Any) -> None:
    first = ListLink([b"one\r\nha", TransportLost("/dev/ttyUSB0 is gone")])
    second = ListLink([b"two\r\n"], TransportInfo(name="/dev/ttyUSB1", kind="uart"))
    file = io.BytesIO()
    log = LineLog(file, "log")
    port = ListPort(first, PortNotFound("not quite"), second, away=3)
    assert run(screen, port, *[ZERO] * 12, b"x", b"\x1d", log=log) is MonitorCommand.QUIT
    assert first.closed
    assert second.closed
    assert second.written == b"x"
    lost = "/dev/ttyUSB0 is gone; waiting for it to come back"
    assert screen.urgent == [lost, "/dev/ttyUSB1 is back"]
    assert file.getvalue().decode() == f"one\nha\n--- {lost}\n--- /dev/ttyUSB1 is back\ntwo\n"


def test_a_device_that_fails_again_and_again_is_told_once(screen: Any) -> None:
    lost = [ListLink([TransportLost("it fails")]) for _ in range(30)]
    good = ListLink([b"here\r\n", TransportLost("it is gone")])
    port = ListPort(*lost, good, ListLink([]))
    run(screen, port, *[ZERO] * 200, b"\x1d")
    assert [note for note in screen.notes if "it " in note or "back" in note] == [
        "it fails; waiting for it to come back",
        "/dev/ttyUSB0 is back",
        "it fails; waiting for it to come back, again and again; this is not repeated",
        "it is gone; waiting for it to come back",
        "/dev/ttyUSB0 is back",
    ]
    assert "here\n" in screen.text


def test_keys_work_while_the_device_is_away(screen: Any) -> None:
    transport = ListLink([TransportLost("gone")])
    assert (
        run(screen, ListPort(transport, away=99), b"", b"typed to nobody", b"\x14\x12", b"\x1d")
        is MonitorCommand.QUIT
    )
    assert screen.notes[-1] == "the port is disconnected: cannot reset the chip"


def test_what_keeps_a_port_from_being_opened_again_is_told_once(screen: Any) -> None:
    busy = [PortBusy("another program uses it") for _ in range(40)]
    run(screen, ListPort(ListLink([TransportLost("gone")]), *busy), *[ZERO] * 40)
    assert len([text for text in screen.urgent if "another program" in text]) == 1


def test_a_reset_at_which_the_device_goes_is_a_loss_like_any_other(screen: Any) -> None:
    class Shy(ListLink):
        def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
            raise TransportLost("it re-enumerates")

    second = ListLink([b"here\r\n"])
    run(screen, ListPort(Shy([]), second), ZERO, ZERO, ZERO, b"\x1d", reset=True)
    assert "here\n" in screen.text
    assert second.lines == []  # one reset was asked for


def test_a_port_that_takes_nothing_is_no_loss(screen: Any) -> None:
    transport = ListLink([b"alive\r\n"] * 3)
    transport.stuck = True
    run(screen, ListPort(transport), b"x", ZERO, b"\x1d")
    assert "accepts no data" in screen.notes[1]
    assert screen.urgent == []


def test_a_port_that_cannot_be_opened_at_the_start_is_an_error(screen: Any) -> None:
    with pytest.raises(PortNotFound):
        run(screen, ListPort(PortNotFound("there is none")))


def test_log_key_without_a_log_and_unknown_keys_are_answered(screen: Any) -> None:
    run(screen, ListPort(ListLink([])), b"\x14\x0c", b"\x14z", b"\x14\x08", b"\x1d")
    assert "--log FILE" in screen.notes[1]
    assert "unknown key" in screen.notes[2]
    assert "Ctrl-T Ctrl-P" in screen.notes[3]


def test_the_log_key_turns_it_off_and_on(screen: Any) -> None:
    file = io.BytesIO()
    transport = ListLink([b"one\n", b"two\n", b"three\n"])
    run(screen, ListPort(transport), b"\x14\x0c", b"\x14\x0c", b"\x1d", log=LineLog(file, "log"))
    assert file.getvalue() == b"one\n--- log off\n--- log on\nthree\n"


def test_an_unreadable_output_is_reported_once_and_then_the_rate_that_is_found(
    screen: Any,
) -> None:
    text, noise = b"I (123) wifi: connected to the access point\n" * 2, b"\xff" * 30
    transport = ListLink([text, *[noise] * 40, text])
    run(screen, ListPort(transport), *[b""] * 45, b"\x1d", find_rate=True)
    wrong = "unreadable at every common baud rate: give the right one with --baud"
    first, *_ = screen.notes[1:]
    assert first == "115200 baud"
    assert screen.notes.count(wrong) == 1
    assert screen.notes[-1].endswith(" baud")


def test_resets_suit_the_port() -> None:
    usb = TransportInfo(name="x", kind="usb-jtag")
    bridge = TransportInfo(name="x", kind="uart", vid=0x10C4, pid=0xEA64)
    assert application_steps(usb) != application_steps(UART) != application_steps(bridge)
    assert loader_steps(usb) != loader_steps(UART)


def test_the_terminal_is_restored_before_the_port_is_closed(screen: Any) -> None:
    transport = ListLink([])
    order: list[bool] = []
    Monitor(
        ListPort(transport),
        Console(screen),
        keyboard=ListKeyboard(b"\x1d"),
        release=lambda: order.append(transport.closed),
    ).run()
    assert order == [False]
    assert transport.closed


def test_it_reads_on_until_the_chip_is_quiet(screen: Any) -> None:
    transport = ListLink([b"one\n", b"two\n", b"three\n"])
    assert run(screen, ListPort(transport), b"\x1d") is MonitorCommand.QUIT
    assert screen.text.endswith("one\ntwo\nthree\n")


def test_a_chip_s_own_usb_may_be_asleep(screen: Any) -> None:
    info = TransportInfo(name="/dev/ttyACM0", kind="usb-jtag")
    port = ListPort(ListLink([TransportLost("/dev/ttyACM0 is gone")], info), away=9)
    run(screen, port, b"", b"\x1d")
    assert "its application may sleep" in screen.urgent[0]


def test_the_filter_key_goes_through_the_levels(screen: Any) -> None:
    run(screen, ListPort(ListLink([])), *[b"\x14v"] * 4, b"\x1d")
    assert screen.notes[1:] == [
        "log lines: *:I",
        "log lines: *:W",
        "log lines: *:E",
        "log lines: all",
    ]


@pytest.mark.parametrize(
    ("key", "options", "ended"),
    [
        (b"\x14f", {"can_flash": True}, MonitorCommand.FLASH),
        (b"\x14g", {"can_debug": True}, MonitorCommand.GDB),
        (b"\x14f", {}, MonitorCommand.QUIT),
        (b"\x14g", {}, MonitorCommand.QUIT),
    ],
)
def test_flashing_and_gdb_leave_the_port(
    screen: Any, key: bytes, options: dict[str, Any], ended: MonitorCommand
) -> None:
    transport = ListLink([])
    assert run(screen, ListPort(transport), key, b"\x1d", **options) is ended
    assert transport.closed


def test_a_rate_that_the_adapter_does_not_have_is_passed_over(screen: Any) -> None:
    class Picky(ListLink):
        rates: list[int]

        def set_baud(self, baud: int) -> None:
            self.rates.append(baud)
            if baud == 74880:
                raise TransportError("no such rate")

    transport = Picky([b"\x80\xfe" * 20, b"I (1) a: b\r\n" * 8])
    transport.rates = []
    run(screen, ListPort(transport), b"", b"", b"\x1d", find_rate=True)
    assert transport.rates == [74880, 921600]
    assert "921600 baud" in screen.notes


def test_a_port_that_is_missing_after_flashing_is_waited_for(screen: Any) -> None:
    gone, back = PortNotFound("port /dev/ttyUSB0 not found"), ListLink([b"hello\r\n"])
    port = ListPort(gone, back, away=2)
    assert run(screen, port, b"", b"", b"", b"", b"\x1d", waits=True) is MonitorCommand.QUIT
    assert "port /dev/ttyUSB0 not found; waiting for it to come back" in screen.text
    assert "hello" in screen.text
    with pytest.raises(PortNotFound):
        run(screen, ListPort(PortNotFound("port /dev/ttyUSB0 not found")))


@pytest.mark.parametrize("key", [b"\x14f", b"\x14g"])
def test_a_disconnected_board_is_neither_flashed_nor_debugged(screen: Any, key: bytes) -> None:
    port = ListPort(ListLink([TransportLost("it was disconnected")]), away=5)
    ended = run(screen, port, key, b"", b"\x1d", can_flash=True, can_debug=True)
    assert ended is MonitorCommand.QUIT
    assert "the port is disconnected: wait until it is back" in screen.text
