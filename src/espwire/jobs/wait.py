"""Waits for a line of the application's output."""

from __future__ import annotations

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from espwire.errors import DeviceError
from espwire.jobs.keys import build_mistake
from espwire.monitor.text import Kind, Tokenizer
from espwire.text import shorten
from espwire.transport.base import Transport

LONGEST_LINE = 2000  # characters; the rest of a longer line is not examined
SEARCH_S = 2.0  # for a regular expression in one line
PAUSE_S = 0.2  # of silence, after which a line without an end is examined, such as a prompt


class WaitFor(NamedTuple):
    """What to wait for: a line with ``line`` in it, up to ``seconds``. A line with ``fail`` in it ends the wait."""

    line: re.Pattern[str]
    fail: re.Pattern[str] | None
    seconds: float


def wait_for_line(transport: Transport, wait: WaitFor, received: bytes = b"") -> tuple[str, bytes]:
    """The first line that fits, without colours, and what was received behind it.

    :param received: output that was received before
    :raises DeviceError: codes ``no-line``, ``fail-line``
    """
    tokens = Tokenizer()
    line, last = "", ""
    end = transport.now() + wait.seconds
    data = received
    while True:
        for at in range(len(data)):
            for token in tokens.feed(data[at : at + 1]):
                if token.kind is Kind.TEXT:
                    line = (line + token.text)[:LONGEST_LINE]
                elif token.kind is Kind.NEWLINE:
                    if _fits(line, wait):
                        return line, data[at + 1 :]
                    line, last = "", line or last
        left = end - transport.now()
        if left <= 0:
            if line and _fits(line, wait):
                return line, b""
            break
        data = transport.read(min(left, PAUSE_S))
        if not data and line and _fits(line, wait):
            return line, b""
    shown = line or last
    raise DeviceError(
        f"the application printed no line with {shorten(wait.line.pattern)!r} within {wait.seconds:g} s",
        hint=f"Its last line was: {shorten(shown)}"
        if shown
        else "It printed nothing: check the program, and the baud rate of its output.",
        code="no-line",
        last_line=shown,
    )


def repeats_a_repetition(pattern: str) -> bool:
    """Whether a group with a repetition or a choice in it is repeated, as in ``(a+)+``: a search may take forever."""
    groups = [False]  # whether each open group has a repetition or a choice in it
    closed = False  # the same for the group that ended with the last token
    before = ""
    for token in _TOKENS.findall(pattern):
        repeats = token in ("*", "+") or (token[0] == "{" and len(token) > 1)
        if repeats and closed:
            return True
        closed = False
        if token == "(":
            groups.append(False)
        elif token == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
        elif repeats or token == "|" or (token == "?" and before != "("):
            groups[-1] = True
        before = token
    return False


# an escape, a set, a repetition with a varying count, or another character
_TOKENS = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*,\d*\}|.", re.DOTALL)


class _SearchTooLongError(Exception):
    """The time for a search is over."""


@contextmanager
def _limited(pattern: str) -> Iterator[None]:
    """End a search that takes too long: ``re`` handles signals while it searches, in the main thread, not on Windows.

    :raises DataError: code ``job-file``
    """
    if sys.platform != "win32" and threading.current_thread() is threading.main_thread():

        def stop(*_: object) -> None:
            raise _SearchTooLongError

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, SEARCH_S)
        try:
            yield
        except _SearchTooLongError:
            raise build_mistake(
                f"the regular expression {shorten(pattern)!r} takes more than {SEARCH_S:g} s for one line",
                "Use fewer repetitions in it.",
            ) from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    else:
        yield


def _search(pattern: re.Pattern[str], line: str) -> bool:
    with _limited(pattern.pattern):
        return pattern.search(line) is not None


def _fits(line: str, wait: WaitFor) -> bool:
    """:raises DeviceError: code ``fail-line``"""
    if wait.fail is not None and _search(wait.fail, line):
        raise DeviceError(
            f"the application printed: {shorten(line)}",
            hint="This line was named as a failure: check the program and the board.",
            code="fail-line",
            line=line,
        )
    return _search(wait.line, line)
