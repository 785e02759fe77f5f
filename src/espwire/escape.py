"""Makes text from files, chips and arguments harmless: the one definition of what may reach a terminal as it is.

Control characters (C0, C1, ESC), bidirectional overrides, line separators and all else that ``str.isprintable`` rejects
become visible escapes: ``\\x1b``, ``\\u202e``. A byte that is not UTF-8 and was decoded with ``surrogateescape``
becomes ``\\xce``, so a name can be shown, copied and recognised.
"""

from __future__ import annotations

FIRST_BYTE, LAST_BYTE = 0xDC80, 0xDCFF  # surrogates that stand for bytes 0x80 to 0xFF


def escape(text: str, keep: str = "") -> str:
    """``text`` with every character that is not printable written as an escape, except those in ``keep``.

    >>> escape("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in keep else _spell(ord(sign)) for sign in text)


def escape_lines(text: str) -> str:
    """``text`` of several lines, for a terminal: line feeds and tabs stay, everything else as in ``escape``."""
    return text if text.isprintable() else "\n".join(escape(line, "\t") for line in text.split("\n"))


def shorten(text: str, most: int = 60) -> str:
    """``text`` for a message: escaped, and cut where it is longer than ``most`` characters.

    >>> shorten("9" * 10_000, 4)
    '9999… (10,000 characters)'
    """
    return escape(text) if len(text) <= most else f"{escape(text[:most])}… ({len(text):,} characters)"


def _spell(number: int) -> str:
    if FIRST_BYTE <= number <= LAST_BYTE:
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
