"""Wrong baud rates: notices one, finds the right one from what a chip sends, and follows it when it changes.

An ESP8266, and an ESP32-C2 with a 26 MHz crystal, print their boot messages at 74880 baud, and most applications print
at another rate. Text at a wrong rate is mostly bytes that are not text, so a few dozen of them are enough to try the
next rate: first those at which text was seen before.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from espwire.monitor.text import UNREADABLE, Token

BOOT_RATE = 74880  # of ROMs that expect a crystal of 40 MHz and get 26 MHz
RATES = (115200, BOOT_RATE, 921600, 460800, 230400, 57600, 38400, 9600, 19200, 1500000, 2000000)
WINDOW = 24  # characters that are examined together
CONFIRMED = 48  # readable characters after which a rate is right
BAD_SHARE = 4  # one unreadable character in so many is too much; at a wrong rate it is every second
NOISE_WINDOW = 96  # characters examined together where only a note is at stake


class RateFinder:
    """The current rate, and the next one to try.

    :param rate: the first one
    """

    def __init__(self, rate: int = RATES[0]) -> None:
        self.rate = rate
        self.confirmed = 0  # the rate at which text was read last; 0: none yet
        self.failed = False  # no rate gave text
        self._known: list[int] = []  # rates that gave text, the latest first
        self._tried: set[int] = set()
        self._restart()

    def feed(self, data: bytes) -> int | None:
        """Take what was received at the current rate; return another rate to change to."""
        text = self._decoder.decode(data)
        self._total += len(text)
        self._bad += sum(
            1
            for char in text
            if char == UNREADABLE or (char < " " and char not in "\t\r\n\x1b\b\a")
        )
        if self._total < WINDOW:
            return None
        wrong = self._bad * BAD_SHARE > self._total
        if not wrong:
            if self._total >= CONFIRMED:
                self._confirm()
            return None
        return self._next()

    def expect_boot(self) -> int | None:
        """The chip is about to be reset: return the rate to change to, if it boots at another one than this."""
        if BOOT_RATE not in self._known or self.rate == BOOT_RATE:
            return None
        self.rate = BOOT_RATE
        self._restart()
        return BOOT_RATE

    def reject(self) -> int | None:
        """The adapter does not support the rate: return the next one; None: none is left."""
        left = [rate for rate in (*self._known, *RATES) if rate not in self._tried | {self.rate}]
        return self._next() if left else None

    def _confirm(self) -> None:
        self.confirmed, self.failed = self.rate, False
        self._tried.clear()
        if self.rate in self._known:
            self._known.remove(self.rate)
        self._known.insert(0, self.rate)
        self._total = self._bad = 0

    def _next(self) -> int:
        self._tried.add(self.rate)
        order = [*self._known, *RATES]
        rate = next((rate for rate in order if rate not in self._tried), None)
        if rate is None:
            self.failed = True
            self._tried = {self.rate}
            rate = next(rate for rate in order if rate != self.rate)
        self.rate = rate
        self._restart()
        return rate

    def _restart(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._total = self._bad = 0


class NoiseWatcher:
    """Detects unreadable text. Reports it once, and again only after readable text."""

    def __init__(self) -> None:
        self._total = self._unreadable = 0
        self._reported = False

    def feed(self, tokens: Iterable[Token]) -> bool:
        """Whether to report noise now."""
        for token in tokens:
            self._total += len(token.text)
            self._unreadable += token.text.count(UNREADABLE)
        if self._total < NOISE_WINDOW:
            return False
        noisy = self._unreadable * BAD_SHARE > self._total
        self._total = self._unreadable = 0
        report, self._reported = noisy and not self._reported, noisy
        return report
