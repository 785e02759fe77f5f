"""The two watchdogs that can reset a chip while its loader runs, register by register.

Registers, keys and bits are data of the chip; the timeouts after a boot are not known, see the two constants. Both are
off in a UART loader; over USB-Serial/JTAG they keep running, and a client must turn both off.
"""

from __future__ import annotations

from espwire.chips.model import Reset, Watchdog

# Chosen, since no public source has the ROM's settings: long enough to connect, too short to flash.
RTC_TIMEOUT_S = 9.0
SUPER_TIMEOUT_S = 12.0
SLOW_CLOCK_HZ = 136_000  # clock of the RTC watchdog: nominal RC oscillator of the later chips
ENABLE = 1 << 31
FEED_BEFORE_PROTECT = 4  # distance of the feed register from the write-protection register


class Watchdogs:
    """State of both watchdogs; ``deadline`` is when the next of them resets the chip."""

    def __init__(self, reset: Reset, rtc: Watchdog | None = None) -> None:
        self._rtc, self._super = reset.watchdog or rtc, reset.super_watchdog
        self._words: dict[int, int] = {}
        if self._rtc is not None:
            feed = self._rtc.write_protect - FEED_BEFORE_PROTECT
            self._words |= dict.fromkeys(
                (self._rtc.config0, self._rtc.config1, feed, self._rtc.write_protect), 0
            )
        if self._super is not None:
            self._words |= dict.fromkeys((self._super.config, self._super.write_protect), 0)
        self._rtc_deadline: float | None = None
        self._super_deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        """The earlier deadline; None if neither is running."""
        running = [due for due in (self._rtc_deadline, self._super_deadline) if due is not None]
        return min(running, default=None)

    @property
    def rtc_is_next(self) -> bool:
        """Whether the RTC watchdog is the next to reset the chip."""
        return self._rtc_deadline is not None and self._rtc_deadline == self.deadline

    def restart(self, t: float, *, running: bool) -> None:
        """A reset at ``t``: both are off, or both are running."""
        self._words = dict.fromkeys(self._words, 0)
        self._rtc_deadline = self._super_deadline = None
        if running and self._rtc is not None:
            self._words[self._rtc.config0] = ENABLE
            self._words[self._rtc.config1] = int(RTC_TIMEOUT_S * SLOW_CLOCK_HZ)
            self._rtc_deadline = t + RTC_TIMEOUT_S
        if running and self._super is not None:
            self._super_deadline = t + SUPER_TIMEOUT_S

    def covers(self, address: int) -> bool:
        """Whether the address is one of these registers."""
        return address in self._words

    def read(self, address: int) -> int:
        """The register's value; ``covers`` must be true for it."""
        return self._words[address]

    def write(self, t: float, address: int, value: int) -> None:
        """A write at ``t``; configuration is accepted only while the write-protection register holds the key."""
        rtc, swd = self._rtc, self._super
        if rtc is not None and address in (
            rtc.config0,
            rtc.config1,
            rtc.write_protect - FEED_BEFORE_PROTECT,
        ):
            if self._words[rtc.write_protect] == rtc.key:
                if address != rtc.write_protect - FEED_BEFORE_PROTECT:
                    self._words[address] = value
                on = self._words[rtc.config0] & ENABLE
                self._rtc_deadline = t + self._words[rtc.config1] / SLOW_CLOCK_HZ if on else None
        elif swd is not None and address == swd.config:
            if self._words[swd.write_protect] == swd.key:
                self._words[address] = value
                if value >> swd.auto_feed_bit & 1:
                    self._super_deadline = None
        else:
            self._words[address] = value
