"""Keys typed in the monitor and the actions they cause."""

from __future__ import annotations

import pytest

from espwire.monitor.keys import EOL, Action, Keys, MonitorCommand, Send


@pytest.mark.parametrize(
    ("typed", "actions"),
    [
        (b"abc", [Send(b"abc")]),
        (b"\x1d", [MonitorCommand.QUIT]),
        (b"\x03", [MonitorCommand.INTERRUPT]),
        (b"ab\x1dcd", [Send(b"ab"), MonitorCommand.QUIT, Send(b"cd")]),
        (b"\x14\x12", [MonitorCommand.RESET]),
        (b"\x14r", [MonitorCommand.RESET]),
        (b"\x14R", [MonitorCommand.RESET]),
        (b"\x14\x10", [MonitorCommand.LOADER]),
        (b"\x14\x0c", [MonitorCommand.LOG]),
        (b"\x14\x08", [MonitorCommand.HELP]),
        (b"\x14\x7f", [MonitorCommand.HELP]),
        (b"\x14?", [MonitorCommand.HELP]),
        (b"\x14\x14", [Send(b"\x14")]),
        (b"\x14\x1d", [Send(b"\x1d")]),
        (b"\x14\x03", [Send(b"\x03")]),
        (b"\x14z", [MonitorCommand.UNKNOWN]),
        (b"\x14\x80", [MonitorCommand.UNKNOWN]),
        (b"\x12\x1a\x1c", [Send(b"\x12\x1a\x1c")]),
        (b"\x1b[A", [Send(b"\x1b[A")]),
        ("ä€".encode(), [Send("ä€".encode())]),
    ],
)
def test_a_key_does_what_the_help_says(typed: bytes, actions: list[Action]) -> None:
    assert Keys().feed(typed) == actions


def test_the_menu_key_and_the_next_may_come_apart() -> None:
    keys = Keys()
    assert keys.feed(b"x\x14") == [Send(b"x")]
    assert keys.feed(b"\x12y") == [MonitorCommand.RESET, Send(b"y")]


@pytest.mark.parametrize(("name", "wanted"), [("cr", b"a\r"), ("lf", b"a\n"), ("crlf", b"a\r\n")])
def test_enter_sends_what_was_chosen(name: str, wanted: bytes) -> None:
    assert Keys(eol=EOL[name]).feed(b"a\r") == [Send(wanted)]
