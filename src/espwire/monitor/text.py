"""Splits a chip's output into tokens that are safe to print on a terminal.

Colours (``CSI m``), backspace, carriage return and moves within the line (``CSI C``, ``D``, ``K``) pass; other control
characters become visible escapes such as ``\\x07``. Bytes that are not UTF-8 become the replacement character.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum, auto
from typing import NamedTuple

from espwire.text import escape


class Kind(Enum):
    """The effect of a token on a terminal."""

    TEXT = auto()
    NEWLINE = auto()
    RETURN = auto()  # to the start of the same line
    BACK = auto()
    STYLE = auto()  # colours
    MOVE = auto()  # within the line


class Token(NamedTuple):
    """A piece of the chip's output; ``text`` is what to print for it."""

    kind: Kind
    text: str


UNREADABLE = "�"
_PASS = "\u00a0\u200d\t"  # not str.isprintable
_TOKEN = re.compile(
    r"(?P<NEWLINE>\r*\n)|(?P<RETURN>\r+)|(?P<BACK>\x08)|(?P<STYLE>\x1b\[[0-9;:]{0,40}m)|(?P<MOVE>\x1b\[[0-9]{0,4}[CDK])"
    r"|(?P<TEXT>[^\x00-\x08\x0a-\x1f\x7f]+)|(?P<other>[\x00-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]+|.)",
    re.DOTALL,
)
# the end of a chunk that the next chunk may continue
_OPEN_END = re.compile(r"(?:\r|\x1b(?:\[[0-9;:]{0,40})?)\Z")


class Tokenizer:
    """Splits bytes into tokens, in chunks of any size; ``finish`` returns an incomplete end."""

    def __init__(self) -> None:
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> list[Token]:
        """Return the complete tokens."""
        return self._cut(self._decoder.decode(data), final=False)

    def finish(self) -> list[Token]:
        """Return the rest, at the end of the output or after a lost connection."""
        return self._cut(self._decoder.decode(b"", final=True), final=True)

    def _cut(self, text: str, *, final: bool) -> list[Token]:
        text = self._held + text
        self._held = ""
        if not final and (end := _OPEN_END.search(text)):
            self._held, text = text[end.start() :], text[: end.start()]
        return [_token(match) for match in _TOKEN.finditer(text)]


def _token(match: re.Match[str]) -> Token:
    name, text = match.lastgroup, match.group()
    match name:
        case "NEWLINE":
            return Token(Kind.NEWLINE, "\n")
        case "RETURN":
            return Token(Kind.RETURN, "\r")
        case "BACK" | "STYLE" | "MOVE":
            return Token(Kind[name], text)
    return Token(Kind.TEXT, escape(text, _PASS))
