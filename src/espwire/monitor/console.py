"""Processes the chip's output for the monitor: text for the screen, lines for the log, explanations. Sans-I/O."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from espwire.chips.model import Chip
from espwire.monitor.boot import BootWatcher, RefusalWatcher
from espwire.monitor.core_dump import CoreDump, DumpCollector
from espwire.monitor.crash import CrashDecoder
from espwire.monitor.frames import STUB, DefmtFrames
from espwire.monitor.lines import LineGate
from espwire.monitor.log import LineLog
from espwire.monitor.rate import NoiseWatcher
from espwire.monitor.text import Kind, Token, Tokenizer

if TYPE_CHECKING:
    from espwire.symbols.symbol_set import SymbolSet

TERMINAL = frozenset(Kind)  # kinds of tokens for a terminal
LONGEST_LINE = 4096  # characters; a longer line is not decoded
IDLE_CALLS = 5  # calls of idle without output between them: 0.1 s
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
    :param symbols: resolves addresses
    :param no_symbols: a note below the first crash whose addresses nothing resolves
    :param save_dump: stores a core dump; returns a text for the user
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
        symbols: SymbolSet | None = None,
        no_symbols: str = "",
        save_dump: Callable[[CoreDump], str] | None = None,
    ) -> None:
        self.screen, self.log, self.baud = screen, log, baud
        self.paused = False
        self.gate = LineGate(colours=Kind.STYLE in passes)
        self.stub_waits = False  # a GDB stub has stopped the program
        self._raw, self._passes, self._stamp = raw, passes, stamp
        self._tokenizer = Tokenizer()
        self._boot, self._refusals = BootWatcher(chip), RefusalWatcher()
        self._noise = NoiseWatcher()
        self._frames = DefmtFrames()
        self._crash = CrashDecoder(symbols, no_symbols=no_symbols)
        self._dump = DumpCollector()
        self._save_dump = save_dump
        self._line = ""
        self._silent = 0  # calls of idle since the last output
        self._missed = 0  # characters that were not shown while paused
        self._mid_line = False  # the cursor is behind text of the chip
        self._fresh = True  # the next character starts a line
        self._styled = False
        self._log_failed = False

    def feed(self, data: bytes) -> None:
        """Process output of the chip."""
        self._silent = 0
        if self._raw:
            self._pass_on(data)
        before = self._frames.count
        data = self._frames.feed(data)
        if before == 0 and self._frames.count:
            self.note(
                "frames of defmt in the output are left out: a tool that has the ELF file decodes them, "
                "such as espflash (monitor --log-format defmt)"
            )
        self._take(self._tokenizer.feed(data))

    def idle(self) -> None:
        """Nothing came for a moment: after some of them, show what was held back."""
        self._silent += 1
        if self._silent != IDLE_CALLS:
            return
        if self._frames.holds:
            self._take(self._tokenizer.feed(self._frames.flush()))
        self._show_held()

    def cut(self) -> None:
        """End the output so far, after a lost connection."""
        held = self._frames.flush()
        self._take([*self._tokenizer.feed(held), *self._tokenizer.finish()])
        self._show_held()
        self._tokenizer = Tokenizer()
        self._boot.clear()
        self.gate.end_line()
        self._line = ""
        notes = [(text, True) for text in self._crash.finish()]
        notes += self._store(self._dump.finish("the output ends before it does"))
        self.gate.muted = False
        for text, urgent in notes:
            self.note(text, urgent=urgent, log=True)
        self._fresh = True

    def note(self, text: str, *, urgent: bool = False, log: bool = False) -> None:
        """Print a line of the monitor, also in the log if ``log``."""
        self.screen.note(text, mid_line=self._mid_line, urgent=urgent)
        self._mid_line = False
        if log and self.log is not None:
            self.log.note(text)

    def toggle_pause(self) -> str:
        """Stop the output on the screen, or resume it; the log goes on. Returns a text for the user."""
        self.paused = not self.paused
        missed, self._missed = self._missed, 0
        if self.paused:
            return "output paused; Ctrl-T Ctrl-Y resumes it" + (
                "; the log goes on" if self.log is not None and self.log.on else ""
            )
        return f"output resumed; {missed:,} characters were not shown"

    def close(self) -> None:
        """Reset the terminal's colour and end the line."""
        if Kind.STYLE in self._passes and self._styled:
            self.screen.show("\x1b[0m")
        if self._mid_line and Kind.MOVE in self._passes:
            self.screen.show("\n")

    def _take(self, tokens: list[Token]) -> None:
        shown: list[str] = []
        logged = 0
        for n, token in enumerate(tokens, 1):
            if not self._raw:
                for passed in self.gate.feed(token):
                    self._render(passed, shown)
            notes = self._watch(token)
            if notes:
                self._write_log(tokens[logged:n])
                self._flush(shown)
                logged = n
                for text, urgent in notes:
                    self.note(text, urgent=urgent, log=urgent)
        self._write_log(tokens[logged:])
        self._flush(shown)
        if self.baud is not None and self._noise.feed(tokens):
            self.note(
                f"mostly unreadable at {self.baud} baud: try another --baud, or --baud auto"
                + (
                    ""
                    if self.baud == 74880
                    else "; an ESP8266, and an ESP32-C2 with a 26 MHz crystal, boot at 74880"
                )
            )
        if self.log is not None and self.log.failure is not None and not self._log_failed:
            self._log_failed = True
            self.note(str(self.log.failure), urgent=True)

    def _write_log(self, tokens: list[Token]) -> None:
        if self.log is not None:
            self.log.feed(tokens)

    def _watch(self, token: Token) -> list[tuple[str, bool]]:
        """Notes to print below the line that the token ends, and whether they are important."""
        if token.kind is Kind.TEXT:
            if len(self._line) < LONGEST_LINE:
                self._line += token.text
            return []
        if token.kind is not Kind.NEWLINE and not (token.kind is Kind.RETURN and self._line):
            return []
        line, self._line = self._line, ""
        notes: list[tuple[str, bool]] = []
        if text := self._boot.feed(line):
            notes.append((text, False))
        if text := self._refusals.feed(line):
            notes.append((text, True))
        if token.kind is Kind.RETURN:
            return notes
        if len(line) >= LONGEST_LINE:
            self._crash.clear()  # a part of it is missing
            return notes
        if self._dump.active or "CORE DUMP START" in line:
            return [*notes, *self._watch_dump(line)]
        if not self._crash.can_skip(line):
            notes += [(text, True) for text in self._crash.feed(line)]
        if "$T" in line or "gdb stub" in line:
            self._watch_stub(line, notes)
        return notes

    def _watch_dump(self, line: str) -> list[tuple[str, bool]]:
        started = not self._dump.active
        found = self._dump.feed(line)
        self.gate.muted = self._dump.active
        if started and self._dump.active:
            return [("receiving a core dump; its lines are not shown", True)]
        return self._store(found)

    def _store(self, dump: CoreDump | None) -> list[tuple[str, bool]]:
        if dump is None or self._save_dump is None:
            return []
        return [(self._save_dump(dump), True)]

    def _watch_stub(self, line: str, notes: list[tuple[str, bool]]) -> None:
        if STUB.search(line) and not self.stub_waits:
            self.stub_waits = True
            notes.append(
                ("the program has stopped in its GDB stub: Ctrl-T Ctrl-G starts GDB", True)
            )

    def _render(self, token: Token, shown: list[str]) -> None:
        if token.kind not in self._passes:
            return
        if self.paused:
            self._missed += len(token.text)
            return
        if self._fresh and self._stamp is not None and token.kind is not Kind.RETURN:
            shown.append(f"{self._stamp().isoformat(' ', 'milliseconds')[11:]} ")
        shown.append(token.text)
        self._styled = self._styled or token.kind is Kind.STYLE
        self._fresh = token.kind in (Kind.NEWLINE, Kind.RETURN)
        self._mid_line = token.kind is not Kind.NEWLINE

    def _show_held(self) -> None:
        """Show the beginning of a line that waits for more."""
        shown: list[str] = []
        if self.gate.holds:
            for token in self.gate.flush():
                self._render(token, shown)
        self._flush(shown)

    def _pass_on(self, data: bytes) -> None:
        if self.paused:
            self._missed += len(data)
        else:
            self.screen.pass_on(data)
            self._mid_line = not data.endswith(b"\n")

    def _flush(self, shown: list[str]) -> None:
        if shown:
            self.screen.show("".join(shown))
            shown.clear()
