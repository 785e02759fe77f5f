"""Splits text into words as a POSIX shell does, in time proportional to its length.

``shlex.split`` gives the same words, but takes quadratic time for a long one.
"""

from __future__ import annotations

import re

# possessive repetition (++): nothing is tried twice, so a text without its closing quote costs no more than one with it
_PIECE = re.compile(
    r"""(?P<space>[ \t\r\n]++)|(?P<plain>[^ \t\r\n'"\\]++)|'(?P<single>[^']*+)'"""
    r"""|"(?P<double>(?:[^"\\]++|\\.)*+)"|\\(?P<escaped>.)""",
    re.DOTALL,
)
_IN_QUOTES = re.compile(r'\\(["\\])')


def split_words(text: str) -> list[str]:
    """The words of ``text``; quotes and backslashes as in a POSIX shell, without variables and comments.

    :raises ValueError: a quotation is not closed, or nothing follows a backslash

    >>> split_words("a 'b c' d\\\\ e")
    ['a', 'b c', 'd e']
    """
    words: list[str] = []
    pieces: list[str] = []
    inside = False  # an empty pair of quotes is a word, too
    at = 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise ValueError("nothing follows the last backslash" if text[at] == "\\" else "a quotation is not closed")
        at = match.end()
        if match.lastgroup == "space":
            if inside:
                words.append("".join(pieces))
            pieces, inside = [], False
            continue
        piece = match[match.lastgroup or 0]
        pieces.append(_IN_QUOTES.sub(r"\1", piece) if match.lastgroup == "double" else piece)
        inside = True
    if inside:
        words.append("".join(pieces))
    return words
