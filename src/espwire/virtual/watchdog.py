"""The two watchdogs that can reset a chip behind its loader's back, register by register. Resetting is chip.py's.

The registers, keys and bits are facts of the chip; how long the watchdogs wait after a boot is not: see the two
constants. A UART loader has them off; over USB-Serial/JTAG they run on, and a client must turn both off.
"""

from __future__ import annotations

from espwire.chips.model import Reset, Watchdog

# Approximate, chosen: no public source gives the ROM's settings. Long enough to connect, too short to flash.
RTC_TIMEOUT_S = 9.0
SUPER_TIMEOUT_S = 12.0
SLOW_CLOCK_HZ = 136_000  # what the RTC watchdog counts; nominal RC oscillator of the later chips
ENABLE = 1 << 31
FEED_BEFORE_PROTECT = (
    4  # the register that feeds the RTC watchdog lies right before its write protection
)


class Watchdogs:
    """State of both watchdogs; ``deadline`` is when one of them will reset the chip."""

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
        """The earlier of both, or None when neither runs."""
        running = [due for due in (self._rtc_deadline, self._super_deadline) if due is not None]
        return min(running, default=None)

    @property
    def rtc_is_next(self) -> bool:
        """Whether the RTC watchdog is the one that bites first."""
        return self._rtc_deadline is not None and self._rtc_deadline == self.deadline

    def restart(self, t: float, *, running: bool) -> None:
        """As after a reset at ``t``: both off, or both counting."""
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
        """The word; ``covers`` is true for it."""
        return self._words[address]

    def write(self, t: float, address: int, value: int) -> None:
        """A write at ``t``; configuration counts only while the key stands in the write-protection register."""
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
