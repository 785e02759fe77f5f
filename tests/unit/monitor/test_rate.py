"""The baud rate is found from what arrives: a virtual chip's boot text, and an application at another rate."""

from __future__ import annotations

import random

import pytest

from espwire.monitor.rate import RATES, RateFinder

TEXT = b"I (123) wifi: connected to the access point, channel 6\r\n"


class Line:
    """A UART: text at its own rate, noise at any other."""

    def __init__(self, rate: int) -> None:
        self.rate, self.noise = rate, random.Random(1)

    def read(self, rate: int) -> bytes:
        return TEXT if rate == self.rate else self.noise.randbytes(20)


def listen(finder: RateFinder, line: Line, reads: int = 60) -> int:
    for _ in range(reads):
        finder.feed(line.read(finder.rate))
    return finder.confirmed


@pytest.mark.parametrize("rate", RATES)
def test_every_common_rate_is_found(rate: int) -> None:
    finder = RateFinder()
    assert listen(finder, Line(rate)) == rate
    assert not finder.failed


def test_the_boot_text_of_an_esp8266_and_its_application_are_followed() -> None:
    finder = RateFinder()
    assert listen(finder, Line(115200)) == 115200
    for _ in range(3):
        assert listen(finder, Line(74880), 4) == 74880  # after one window, 74880 is next
        assert listen(finder, Line(115200), 4) == 115200  # a rate that is known is first


def test_text_in_another_language_is_text() -> None:
    finder = RateFinder()
    for piece in ("Привет, мир! 你好 Grüße. ".encode() * 20,) * 5:
        assert finder.feed(piece) is None
    assert finder.confirmed == 115200


def test_some_noise_at_a_reset_changes_nothing() -> None:
    finder = RateFinder()
    listen(finder, Line(115200))
    assert finder.feed(b"\xff\xfe\x80\x00") is None
    assert finder.feed(TEXT) is None


def test_a_rate_that_is_not_common_is_told() -> None:
    finder = RateFinder()
    assert listen(finder, Line(12345), 200) == 0
    assert finder.failed


def test_an_adapter_without_a_rate_gets_the_next() -> None:
    finder = RateFinder()
    rate = None
    while rate is None:
        rate = finder.feed(random.Random(1).randbytes(30))
    assert rate == 74880
    assert finder.reject() == RATES[2]


def test_a_reset_of_a_chip_that_boots_at_74880_changes_the_rate_before_it() -> None:
    finder = RateFinder()
    listen(finder, Line(115200))
    assert finder.expect_boot() is None
    listen(finder, Line(74880))
    assert finder.expect_boot() is None  # it is there already
    listen(finder, Line(115200))
    assert finder.expect_boot() == 74880
    assert listen(finder, Line(74880), 4) == 74880
