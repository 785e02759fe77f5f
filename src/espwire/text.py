"""Text from files, chips and arguments: escapes it for a terminal, and splits it into words.

All output to a terminal goes through ``escape``. Control characters (C0, C1, ESC), bidirectional overrides, line
separators and other characters that ``str.isprintable`` rejects become visible escapes: ``\x1b``, ``\u202e``. A byte
that is not UTF-8 and was decoded with ``surrogateescape`` becomes ``\xce``, so that a name can be recognised and copied.
"""

from __future__ import annotations

import re

FIRST_BYTE, LAST_BYTE = 0xDC80, 0xDCFF  # surrogates for the bytes 0x80 to 0xFF


def escape(text: str, keep: str = "") -> str:
    """Replace every character that is not printable by an escape, except those in ``keep``.

    >>> escape("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() or sign in keep else _spell(ord(sign)) for sign in text
    )


def escape_lines(text: str) -> str:
    """Escape a text of several lines, keeping line feeds and tabs."""
    return (
        text if text.isprintable() else "\n".join(escape(line, "\t") for line in text.split("\n"))
    )


def shorten(text: str, most: int = 60) -> str:
    """Escape a text for a message, and cut it after ``most`` characters.

    >>> shorten("9" * 10_000, 4)
    '9999… (10,000 characters)'
    """
    return (
        escape(text) if len(text) <= most else f"{escape(text[:most])}… ({len(text):,} characters)"
    )


def mac_digits(text: str) -> str:
    """A MAC address as its 12 or 16 hex digits in lower case; empty: it is not one.

    >>> mac_digits("24:0A:C4:00:01:10")
    '240ac4000110'
    """
    digits = text.strip().lower().replace(":", "").replace("-", "")
    return digits if len(digits) in (12, 16) and set(digits) <= set("0123456789abcdef") else ""


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


# possessive repetition (++) never backtracks, so a missing closing quote costs no extra time
_PIECE = (
    r"""(?P<space>[ \t\r\n]++)|(?P<plain>[^ \t\r\n'"\\]++)|'(?P<single>[^']*+)'"""
    r"""|"(?P<double>(?:[^"\\]++|\\.)*+)"|\\(?P<escaped>.)"""
)
_IN_QUOTES = r'\\(["\\])'


def split_words(text: str) -> list[str]:
    """Split ``text`` like a POSIX shell, without variables and comments.

    As ``shlex.split``, but in linear time: ``shlex.split`` takes quadratic time for a long word.

    :raises ValueError: an unclosed quote, or a backslash at the end

    >>> split_words("a 'b c' d\\\\ e")
    ['a', 'b c', 'd e']
    """
    pattern = re.compile(_PIECE, re.DOTALL)
    words: list[str] = []
    pieces: list[str] = []
    inside = False  # an empty pair of quotes is a word, too
    at = 0
    while at < len(text):
        match = pattern.match(text, at)
        if match is None:
            raise ValueError("a backslash at the end" if text[at] == "\\" else "an unclosed quote")
        at = match.end()
        if match.lastgroup == "space":
            if inside:
                words.append("".join(pieces))
            pieces, inside = [], False
            continue
        piece = match[match.lastgroup or 0]
        pieces.append(re.sub(_IN_QUOTES, r"\1", piece) if match.lastgroup == "double" else piece)
        inside = True
    if inside:
        words.append("".join(pieces))
    return words


def hide_token(port: str) -> str:
    """A port's name for output, without the token of an ``espwire://`` URL.

    >>> hide_token("espwire://lab-pc:2217?token=0123456789abcdef")
    'espwire://lab-pc:2217?token=***'
    """
    return re.sub(r"([?&]token=)[^&]*", r"\1***", port) if "token=" in port else port
