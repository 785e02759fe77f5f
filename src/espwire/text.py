"""Makes text from files, chips and arguments harmless: the one definition of what may reach a terminal as it is.

Control characters (C0, C1, ESC), bidirectional overrides, line separators and all else that ``str.isprintable`` rejects
become visible escapes: ``\x1b``, ``\u202e``. A byte that is not UTF-8 and was decoded with ``surrogateescape``
becomes ``\xce``, so a name can be shown, copied and recognised.

Splits text into words as a POSIX shell does, in time proportional to its length.

``shlex.split`` gives the same words, but takes quadratic time for a long one.
"""

from __future__ import annotations

import re

FIRST_BYTE, LAST_BYTE = 0xDC80, 0xDCFF  # surrogates that stand for bytes 0x80 to 0xFF


def escape(text: str, keep: str = "") -> str:
    """``text`` with every character that is not printable written as an escape, except those in ``keep``.

    >>> escape("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else _spell(ord(sign)) for sign in text
    )


def escape_lines(text: str) -> str:
    """``text`` of several lines, for a terminal: line feeds and tabs stay, everything else as in ``escape``."""
    return (
        text if text.isprintable() else "\n".join(escape(line, "\t") for line in text.split("\n"))
    )


def shorten(text: str, most: int = 60) -> str:
    """``text`` for a message: escaped, and cut where it is longer than ``most`` characters.

    >>> shorten("9" * 10_000, 4)
    '9999… (10,000 characters)'
    """
    return (
        escape(text) if len(text) <= most else f"{escape(text[:most])}… ({len(text):,} characters)"
    )


def _spell(number: int) -> str:
    if FIRST_BYTE <= number <= LAST_BYTE:
        number -= 0xDC00
    return (
        f"\\x{number:02x}"
        if number < 0x100
        else f"\\u{number:04x}"
        if number < 0x10000
        else f"\\U{number:08x}"
    )


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
            raise ValueError(
                "nothing follows the last backslash"
                if text[at] == "\\"
                else "a quotation is not closed"
            )
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
