"""Watchdogs reset a program that neither feeds nor stops them, and respect their write protection."""

from __future__ import annotations

import pytest
from tests.unit.virtual.soc.machines import Machine

ENABLE = 1 << 31
TICK = 1 << 16  # of the timer group's prescaler: one clock of the bus


class Guarded(Machine):
    """A machine with the watchdogs of the timer group and the RTC."""

    def __init__(self, chip: str) -> None:
        super().__init__(chip)
        self.timer = self.host.chip.chip.soc.timer_watchdog
        self.rtc = self.host.chip.chip.reset.watchdog or self.host.chip.chip.soc.rtc_watchdog
        self.boots = self.host.chip.boots

    def arm(self, seconds: float, *, unlock: bool = True) -> None:
        facts = self.timer
        if unlock:
            self.store(facts.write_protect, facts.key)
        self.store(facts.prescale, 40 * TICK)  # a microsecond of the 40 MHz crystal
        self.store(facts.hold, round(seconds * 1e6))
        self.store(facts.config, ENABLE)

    def arm_rtc(self, ticks: int, *, unlock: bool = True) -> None:
        if unlock:
            self.store(self.rtc.write_protect, self.rtc.key)
        self.store(self.rtc.config1, ticks)
        self.store(self.rtc.config0, ENABLE)

    def has_reset(self) -> bool:
        return self.host.chip.boots > self.boots


@pytest.fixture(params=["esp32", "esp32c3"])
def guarded(request):
    return Guarded(request.param)


def test_who_does_not_feed_is_reset(guarded):
    guarded.arm(0.01)
    guarded.wait(0.008)
    assert not guarded.has_reset()
    guarded.wait(0.3)
    assert guarded.has_reset()
    assert guarded.host.chip.runner.ended.how == "watchdog"


def test_who_feeds_goes_on_until_it_stops_feeding(guarded):
    guarded.arm(0.01)
    for _ in range(10):
        guarded.wait(0.006)
        guarded.store(guarded.timer.feed, 1)
    assert not guarded.has_reset()
    guarded.wait(0.3)
    assert guarded.has_reset()


def test_who_switches_it_off_goes_on(guarded):
    guarded.arm(0.01)
    guarded.store(guarded.timer.config, 0)
    guarded.wait(1.0)
    assert not guarded.has_reset()


def test_without_the_key_it_is_neither_armed_nor_fed_nor_stopped(guarded):
    guarded.arm(0.01, unlock=False)
    guarded.wait(0.3)
    assert not guarded.has_reset()
    guarded.arm(0.01)
    guarded.store(guarded.timer.write_protect, 0)
    guarded.store(guarded.timer.config, 0)
    guarded.wait(0.006)
    guarded.store(guarded.timer.feed, 1)
    guarded.wait(0.3)
    assert guarded.has_reset()


def test_the_rtc_s_watchdog_bites_too(guarded):
    guarded.arm_rtc(1360)  # 10 ms of the slow clock
    guarded.wait(0.005)
    assert not guarded.has_reset()
    guarded.wait(0.3)
    assert guarded.has_reset()


def test_the_rtc_s_watchdog_is_fed_and_stopped_with_its_key_only(guarded):
    guarded.arm_rtc(1360, unlock=False)
    guarded.wait(0.3)
    assert not guarded.has_reset()
    guarded.arm_rtc(1360)
    for _ in range(5):
        guarded.wait(0.006)
        guarded.store(guarded.rtc.write_protect - 4, ENABLE)
    assert not guarded.has_reset()
    guarded.store(guarded.rtc.config0, 0)
    guarded.wait(0.3)
    assert not guarded.has_reset()
