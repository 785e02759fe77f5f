"""Waits for a line of the application's output."""

from __future__ import annotations

import re
from typing import NamedTuple

from espwire.errors import DeviceError
from espwire.monitor.text import Kind, Tokenizer
from espwire.text import shorten
from espwire.transport.base import Transport

LONGEST_LINE = 2000  # characters; the rest of a longer line is not examined
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
        else "It printed nothing: check the program, and the baud rate of the step run.",
        code="no-line",
        last_line=shown,
    )


def _fits(line: str, wait: WaitFor) -> bool:
    """:raises DeviceError: code ``fail-line``"""
    if wait.fail is not None and wait.fail.search(line):
        raise DeviceError(
            f"the application printed: {shorten(line)}",
            hint="The job names this line as a failure: check the board.",
            code="fail-line",
            line=line,
        )
    return wait.line.search(line) is not None
