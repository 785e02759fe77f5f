"""The watchdog of timer group 0, and the system timer as far as it is read. Both count time, not cycles."""

from __future__ import annotations

from espwire.chips.model import TimerDog
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.uart import NEVER

ENABLE = 1 << 31
SYSTIMER_HZ = 16_000_000
SYSTIMER_UPDATE, SYSTIMER_VALID = 1 << 30, 1 << 29
SYSTIMER_OP, SYSTIMER_HIGH, SYSTIMER_LOW = 0x04, 0x40, 0x44


class TimerWatchdog:
    """Its first stage resets the chip; the ROM has left it off."""

    def __init__(self, facts: TimerDog, clock: Clock, activity: Activity) -> None:
        self.facts, self._clock, self._activity = facts, clock, activity
        addresses = (facts.config, facts.prescale, facts.hold, facts.feed, facts.write_protect)
        self.words = dict.fromkeys(addresses, 0)
        self.deadline = NEVER

    def write(self, address: int, value: int) -> None:
        """Counts only while the key stands in the write protection."""
        self._activity.changed()
        facts, words = self.facts, self.words
        if address == facts.write_protect:
            words[address] = value
        elif words[facts.write_protect] == facts.key:
            if address != facts.feed:
                words[address] = value
            ticks = words[facts.hold] * max(1, words[facts.prescale] >> 16)
            on = words[facts.config] & ENABLE
            self.deadline = self._clock.now + ticks / self._clock.bus_hz if on else NEVER


class SystemTimer:
    """Unit 0: a write of UPDATE takes the value over, which two words give then."""

    def __init__(self, base: int, clock: Clock, activity: Activity) -> None:
        self.base, self._clock, self._activity = base, clock, activity
        self._value = 0

    def write_op(self, value: int) -> None:
        """SYSTIMER_UNIT0_OP."""
        self._activity.changed()
        if value & SYSTIMER_UPDATE:
            self._value = int(self._clock.now * SYSTIMER_HZ)

    def read_op(self) -> int:
        """The value is there at once."""
        return SYSTIMER_VALID

    def read_high(self) -> int:
        """Bits 32 to 51."""
        return self._value >> 32 & 0xFFFFF

    def read_low(self) -> int:
        """The lower 32 bits."""
        return self._value & 0xFFFFFFFF
