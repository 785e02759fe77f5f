"""Log lines on the screen: recognizes their level and tag, filters by them, and colours lines that the chip did not.

Forms: ESP-IDF's ``I (123) tag: text``, with a clock or date instead of milliseconds or without a time (log version 2),
and the Arduino core's ``[   123][I][file.cpp:12] function(): text``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from espwire.errors import UsageError
from espwire.monitor.text import Kind, Token

LEVELS = "NEWIDV"  # none, error, warning, info, debug, verbose
COLOURS = {"E": "\x1b[31m", "W": "\x1b[33m", "I": "\x1b[32m"}
PLAIN = "\x1b[0m"
LONGEST_HEAD = 100  # characters, and tokens; a longer beginning is not that of a log line
_HEAD = re.compile(
    r"(?P<level>[EWIDV]) (?:\((?P<time>[\d:.\- ]+)\) )?(?P<tag>[^\s:()\[\]]{1,60}): "
    r"|\[ *\d+\]\[(?P<arduino>[EWIDV])\]\[(?P<file>[^\]:]{1,60})(?::\d+)?\]"
)
# what may become one of these; a match does not mean that it will
_BEGIN = re.compile(
    r"[EWIDV](?: (?:\((?:[\d:.\- ]+(?:\)(?: (?:[^\s:()\[\]]{1,60}:?)?)?)?)?|[^\s:()\[\]]{1,60}:?)?)?"
    r"|\[(?: *\d*(?:\](?:\[(?:[EWIDV](?:\](?:\[[^\]]{0,70})?)?)?)?)?)?"
)


class LogHead(NamedTuple):
    """The beginning of a log line."""

    level: str
    tag: str


def parse_head(text: str) -> LogHead | None:
    """The level and tag of a log line; None: it is another kind of line.

    >>> parse_head("W (00:00:00.106) wifi: lost")
    LogHead(level='W', tag='wifi')
    """
    hit = _HEAD.match(text)
    if hit is None:
        return None
    return LogHead(hit["level"] or hit["arduino"], hit["tag"] or hit["file"])


class LogFilter:
    """Which log lines are shown: the most verbose level of each tag. Other lines always are.

    :param levels: by tag; ``*`` is for all other tags
    """

    def __init__(self, levels: Mapping[str, str]) -> None:
        self._levels = dict(levels)

    def passes(self, head: LogHead) -> bool:
        """Whether to show a line."""
        most = self._levels.get(head.tag, self._levels.get("*", "V"))
        return LEVELS.index(head.level) <= LEVELS.index(most)

    def __str__(self) -> str:
        return " ".join(f"{tag}:{level}" for tag, level in self._levels.items())


def parse_filter(text: str) -> LogFilter:
    """``wifi:W *:I``: warnings and errors of wifi, all but debug output of the others.

    :raises UsageError: code ``bad-filter``
    """
    levels: dict[str, str] = {}
    for rule in text.replace(",", " ").split():
        tag, _, level = rule.rpartition(":")
        if not tag or level.upper() not in tuple(LEVELS):
            raise UsageError(
                f"{rule!r} is not a filter rule",
                hint="Write TAG:LEVEL with a level of N, E, W, I, D or V, for example: --filter 'wifi:W *:I'.",
                code="bad-filter",
            )
        levels[tag] = level.upper()
    return LogFilter(levels)


class LineGate:
    """Passes tokens of lines to the screen. Holds the beginning of a line until it is known what line it is.

    :param colours: colour lines by their level
    """

    def __init__(self, *, colours: bool = False) -> None:
        self.filter: LogFilter | None = None
        self.muted = False  # drop whole lines, from the next line on
        self._colours = colours
        self._head: list[Token] | None = []  # None: the line has been decided
        self._text = ""
        self._dropped = self._coloured = False

    @property
    def holds(self) -> bool:
        """Whether there is text that waits for more."""
        return bool(self._head)

    def feed(self, token: Token) -> list[Token]:
        """Return what to show now."""
        ends = token.kind in (Kind.NEWLINE, Kind.RETURN)
        if self._head is not None:
            if not (self._colours or self.filter or self.muted):
                if ends:
                    return [token]
                self._head = None
                return [token]
            self._head.append(token)
            if token.kind is Kind.TEXT:
                self._text += token.text
            if not ends and self._may_become_log():
                return []
            shown = self.flush()
            return self._end(shown) if ends else shown
        if ends:
            return self._end([] if self._dropped else [token])
        return [] if self._dropped else [token]

    def flush(self) -> list[Token]:
        """Decide about the held text as far as it is, and return it if it is shown."""
        held, self._head = self._head or [], None
        head = parse_head(self._text)
        self._text = ""
        self._dropped = self.muted or (
            head is not None and self.filter is not None and not self.filter.passes(head)
        )
        if self._dropped:
            return []
        styled = any(token.kind is Kind.STYLE for token in held)
        if self._colours and head is not None and head.level in COLOURS and not styled:
            self._coloured = True
            held.insert(0, Token(Kind.STYLE, COLOURS[head.level]))
        return held

    def end_line(self) -> None:
        """The output was cut: the next token begins a line."""
        self._head, self._text = [], ""
        self._dropped = self._coloured = False

    def _may_become_log(self) -> bool:
        if self.muted or len(self._head or ()) >= LONGEST_HEAD:
            return False
        if not self._text:
            return True  # colours only
        return len(self._text) < LONGEST_HEAD and _BEGIN.fullmatch(self._text) is not None

    def _end(self, shown: list[Token]) -> list[Token]:
        """The line ends: the last token of ``shown`` is its end."""
        if self._coloured:
            shown = [*shown[:-1], Token(Kind.STYLE, PLAIN), *shown[-1:]]
        self.end_line()
        return shown
