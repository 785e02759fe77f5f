"""Processes the chip's output for the monitor: text for the screen, lines for the log, explanations. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from espwire.chips.model import Chip
from espwire.monitor.boot import BootWatcher, NoiseWatcher
from espwire.monitor.log import LineLog
from espwire.monitor.text import Kind, Token, Tokenizer

TERMINAL = frozenset(Kind)  # kinds of tokens for a terminal
FILE = frozenset({Kind.TEXT, Kind.NEWLINE, Kind.RETURN, Kind.BACK})


class Screen(Protocol):
    """Displays the chip's output and the monitor's notes."""

    def show(self, text: str) -> None:
        """Print text of the chip; it is safe for a terminal."""

    def pass_on(self, data: bytes) -> None:
        """Write bytes of the chip unchanged."""

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        """Print a line of the monitor. ``mid_line``: the cursor is inside a line. ``urgent``: also with --quiet."""


class Console:
    """Passes the chip's output to screen and log.

    :param log: gets complete lines
    :param raw: pass bytes unchanged
    :param passes: kinds of tokens for the screen
    :param stamp: returns the time to put before each line on the screen; None: no times
    :param chip: the chip, if known, for better explanations
    :param baud: the baud rate, if the port has one; enables the detection of a wrong one
    """

    def __init__(
        self,
        screen: Screen,
        *,
        log: LineLog | None = None,
        raw: bool = False,
        passes: frozenset[Kind] = TERMINAL,
        stamp: Callable[[], datetime] | None = None,
        chip: Chip | None = None,
        baud: int | None = None,
    ) -> None:
        self.screen, self.log, self.baud = screen, log, baud
        self._raw, self._passes, self._stamp = raw, passes, stamp
        self._tokenizer = Tokenizer()
        self._boot, self._noise = BootWatcher(chip), NoiseWatcher()
        self._mid_line = False  # the cursor is behind text of the chip
        self._fresh = True  # the next character starts a line
        self._styled = False
        self._log_failed = False

    def feed(self, data: bytes) -> None:
        """Process output of the chip."""
        if self._raw:
            self.screen.pass_on(data)
            self._mid_line = not data.endswith(b"\n")
        self._take(self._tokenizer.feed(data))

    def cut(self) -> None:
        """End the output so far, after a lost connection."""
        self._take(self._tokenizer.finish())
        self._tokenizer = Tokenizer()
        self._boot.clear()
        self._fresh = True

    def note(self, text: str, *, urgent: bool = False, log: bool = False) -> None:
        """Print a line of the monitor, also in the log if ``log``."""
        self.screen.note(text, mid_line=self._mid_line, urgent=urgent)
        self._mid_line = False
        if log and self.log is not None:
            self.log.note(text)

    def close(self) -> None:
        """Reset the terminal's colour and end the line."""
        if Kind.STYLE in self._passes and self._styled:
            self.screen.show("\x1b[0m")
        if self._mid_line and Kind.MOVE in self._passes:
            self.screen.show("\n")

    def _take(self, tokens: list[Token]) -> None:
        if self.log is not None:
            self.log.feed(tokens)
        shown: list[str] = []
        for token in tokens:
            if not self._raw:
                self._render(token, shown)
            explanation = self._boot.feed(token)
            if explanation is not None:
                self._flush(shown)
                self.note(explanation)
        self._flush(shown)
        if self.baud is not None and self._noise.feed(tokens):
            self.note(
                f"mostly unreadable at {self.baud} baud: try another --baud"
                + ("" if self.baud == 74880 else ", 74880 for the boot text of an ESP8266")
            )
        if self.log is not None and self.log.failure is not None and not self._log_failed:
            self._log_failed = True
            self.note(str(self.log.failure), urgent=True)

    def _render(self, token: Token, shown: list[str]) -> None:
        if token.kind not in self._passes:
            return
        if self._fresh and self._stamp is not None and token.kind is not Kind.RETURN:
            shown.append(f"{self._stamp().isoformat(' ', 'milliseconds')[11:]} ")
        shown.append(token.text)
        self._styled = self._styled or token.kind is Kind.STYLE
        self._fresh = token.kind in (Kind.NEWLINE, Kind.RETURN)
        self._mid_line = token.kind is not Kind.NEWLINE

    def _flush(self, shown: list[str]) -> None:
        if shown:
            self.screen.show("".join(shown))
            shown.clear()
