"""Log lines on the screen: their level and tag, filters, colours by level, and what is never held back."""

from __future__ import annotations

from typing import Any

import pytest

from espwire.errors import UsageError
from espwire.monitor.console import FILE, IDLE_CALLS, Console
from espwire.monitor.lines import LONGEST_HEAD, LogHead, parse_filter, parse_head

RED, YELLOW, GREEN, PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"


@pytest.mark.parametrize(
    ("line", "head"),
    [
        ("I (123) wifi: up", ("I", "wifi")),
        ("E (00:00:00.106) esp_netif_lwip: lost", ("E", "esp_netif_lwip")),
        ("W (2026-11-30 12:00:00.000) a.b/c: x", ("W", "a.b/c")),
        ("D wifi: log version 2 without a time", ("D", "wifi")),
        ("[   123][E][WiFiGeneric.cpp:12] begin(): no", ("E", "WiFiGeneric.cpp")),
        ("[123][V][a.c] x", ("V", "a.c")),
        ("I am a sentence: with a colon", None),
        ("Info: none", None),
        ("(123) wifi: x", None),
        ("[12:34] chat", None),
        ("", None),
    ],
)
def test_level_and_tag(line: str, head: tuple[str, str] | None) -> None:
    assert parse_head(line) == (None if head is None else LogHead(*head))


def show(
    screen: Any, data: bytes, rules: str | None = None, size: int = 1000, **options: Any
) -> str:
    console = Console(screen, **options)
    console.gate.filter = None if rules is None else parse_filter(rules)
    for at in range(0, len(data), size):
        console.feed(data[at : at + size])
    return str(screen.text)


LOG = b"""I (1) wifi: up\r\nE (00:00:00.106) wifi: lost\r\nD (3) i2c: byte\r\nplain text\r\nW i2c: slow\r\n"""


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_lines_are_coloured_by_level_on_the_host(screen: Any, size: int) -> None:
    assert show(screen, LOG, size=size) == (
        f"{GREEN}I (1) wifi: up{PLAIN}\n{RED}E (00:00:00.106) wifi: lost{PLAIN}\n"
        f"D (3) i2c: byte\nplain text\n{YELLOW}W i2c: slow{PLAIN}\n"
    )


def test_the_chip_s_own_colours_stay(screen: Any) -> None:
    line = b"\x1b[0;33mE (1) a: b\x1b[0m\r\n"
    assert show(screen, line) == line.decode().replace("\r", "")


def test_a_file_gets_no_colours(screen: Any) -> None:
    assert show(screen, LOG, passes=FILE) == LOG.decode().replace("\r", "")


@pytest.mark.parametrize("size", [1, 5, 1000])
@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("*:V", [0, 1, 2, 3, 4]),
        ("*:N", [3]),
        ("wifi:E", [1, 2, 3, 4]),
        ("wifi:N *:D", [2, 3, 4]),
        ("*:W, wifi:i", [0, 1, 3, 4]),
    ],
)
def test_filters_know_every_form(screen: Any, rules: str, kept: list[int], size: int) -> None:
    lines = LOG.decode().replace("\r", "").splitlines(keepends=True)
    shown = show(screen, LOG, rules, size, passes=FILE)
    assert shown == "".join(lines[n] for n in kept)


@pytest.mark.parametrize("rules", ["wifi", "wifi:Q", ":E", "a:E b"])
def test_a_wrong_filter_is_an_error(rules: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(rules)
    assert caught.value.code == "bad-filter"


def test_text_that_is_no_log_line_is_shown_at_once(screen: Any) -> None:
    assert show(screen, b">>> ", "*:E") == ">>> "


def test_what_may_become_a_log_line_waits_a_moment_only(screen: Any) -> None:
    console = Console(screen)
    console.feed(b"I")
    assert screen.text == ""
    for _ in range(IDLE_CALLS):
        console.idle()
    assert screen.text == "I"
    console.feed(b" think\r\nE (1) a: b\r\n")
    assert screen.text == f"I think\n{RED}E (1) a: b{PLAIN}\n"


@pytest.mark.parametrize("piece", [b"\x1b[0m", b"\x08", b"\x1b[1C"])
def test_a_beginning_without_text_does_not_wait_for_ever(screen: Any, piece: bytes) -> None:
    shown = show(screen, piece * 300)
    assert len(shown) >= len(piece) * 300 - len(piece) * LONGEST_HEAD
    assert show(screen, b"\nI (1) wifi: up\n").endswith("\n\x1b[32mI (1) wifi: up\x1b[0m\n")


def test_the_end_shows_what_waits(screen: Any) -> None:
    console = Console(screen)
    console.feed(b"I (1")
    console.cut()
    assert screen.text == "I (1"


def test_a_paused_screen_misses_text_and_says_how_much(screen: Any) -> None:
    console = Console(screen, passes=FILE)
    console.feed(b"one\r\n")
    assert "paused" in console.toggle_pause()
    console.feed(b"two\r\n")
    assert console.toggle_pause() == "output resumed; 4 characters were not shown"
    console.feed(b"three\r\n")
    assert screen.text == "one\nthree\n"
