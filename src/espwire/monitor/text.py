"""From a chip's bytes to tokens of text, in which nothing can drive the terminal but what stays within its line.

Colours (``CSI m``), backspace, carriage return and moves within the line (``CSI C``, ``D``, ``K``) pass; any other
control character becomes a visible escape such as ``\\x07``. Bytes that are no UTF-8 become the replacement character.
"""

from __future__ import annotations

import codecs
import re
from enum import Enum, auto
from typing import NamedTuple

from espwire.text import escape


class Kind(Enum):
    """What a token does on a terminal."""

    TEXT = auto()
    NEWLINE = auto()
    RETURN = auto()  # to the start of the same line
    BACK = auto()
    STYLE = auto()  # colours
    MOVE = auto()  # within the line


class Token(NamedTuple):
    """A piece of what the chip said; ``text`` is what to print for it."""

    kind: Kind
    text: str


STRANGE = "�"
_PASS = "\u00a0\u200d\t"  # str.isprintable says no to these
_TOKEN = re.compile(
    r"(?P<NEWLINE>\r*\n)|(?P<RETURN>\r+)|(?P<BACK>\x08)|(?P<STYLE>\x1b\[[0-9;:]{0,40}m)|(?P<MOVE>\x1b\[[0-9]{0,4}[CDK])"
    r"|(?P<TEXT>[^\x00-\x08\x0a-\x1f\x7f]+)|(?P<other>.)",
    re.DOTALL,
)
# the end of a chunk that the next one may complete
_OPEN_END = re.compile(r"(?:\r|\x1b(?:\[[0-9;:]{0,40})?)\Z")


class Tokenizer:
    """Cuts bytes into tokens, whatever the chunks; ``finish`` gives what was still being waited for."""

    def __init__(self) -> None:
        self._held = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, data: bytes) -> list[Token]:
        """The tokens that are complete now."""
        return self._cut(self._decoder.decode(data), final=False)

    def finish(self) -> list[Token]:
        """The chip says no more, or the line was lost."""
        return self._cut(self._decoder.decode(b"", final=True), final=True)

    def _cut(self, text: str, *, final: bool) -> list[Token]:
        text = self._held + text
        self._held = ""
        if not final and (end := _OPEN_END.search(text)):
            self._held, text = text[end.start() :], text[: end.start()]
        return [_token(match) for match in _TOKEN.finditer(text)]


def _token(match: re.Match[str]) -> Token:
    name, said = match.lastgroup, match.group()
    match name:
        case "NEWLINE":
            return Token(Kind.NEWLINE, "\n")
        case "RETURN":
            return Token(Kind.RETURN, "\r")
        case "BACK" | "STYLE" | "MOVE":
            return Token(Kind[name], said)
    return Token(Kind.TEXT, escape(said, _PASS))
