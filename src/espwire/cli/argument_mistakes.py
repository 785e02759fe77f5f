"""Explains wrong ADDRESS and FILE arguments: which argument is wrong, and what was probably meant."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from espwire.errors import UsageError
from espwire.sizes import fix_number, parse_number

FRACTION = r"\d[\d.,]*\s*(?:[kKmM](?:i?[bB])?)?"  # 1.5M, 10.000
MAX_SPACES = 8  # in an unquoted path
MAX_WORDS = 256  # of an argument list that is searched for unquoted paths
PAIRS_HINT = "Give pairs of address and file, or NAME=FILE with a partition's name."
# option → values that end up in place of an address if an option is followed by two values
SETTINGS = {
    "--flash-mode": ("qio", "qout", "dio", "dout"),
    "--flash-size": ("detect",),
    "--flash-mode, --flash-freq or --flash-size": ("keep",),
}


def is_partition_name(word: str) -> bool:
    """Whether a word can be a partition's name and is not more likely a mistyped number, file or setting.

    >>> [is_partition_name(word) for word in ("ota_0", "2nd", "0xZZ", "1OOOO", "dout", "a/b", "app.bin")]
    [True, True, False, False, False, False, False]
    >>> [is_partition_name(word) for word in ("10 000", "\uff10x1000", "+0x1000", "$1000", "1.5M", " ")]
    [False, False, False, False, False, False]
    """
    word = re.sub(
        r"\\x[0-9a-fA-F]{2}", "?", word
    )  # a byte that is not text, as `partitions show` prints it
    return bool(
        word.isprintable()
        and 1 <= len(word.encode(errors="replace")) <= 16
        and not word.startswith("-")
        and not any(sign in word for sign in "/\\=")
        and not _is_like_number(word)
        and not _is_like_file(word)
        and _find_setting(word) is None
    )


def _is_like_number(word: str) -> bool:
    from unicodedata import normalize

    plain = normalize("NFKC", word).strip().lstrip("+$#")
    if (
        not plain
        or plain[:2].lower() in ("0x", "ox")
        or is_number(plain)
        or re.fullmatch(FRACTION, plain)
    ):
        return True
    return plain[0].isdecimal() and fix_number(plain) is not None


def _is_like_file(word: str) -> bool:
    from espwire.image.read_any import find_named_format

    return word.lower().endswith((".bin", ".img")) or find_named_format(word) is not None


def _find_setting(word: str) -> str | None:
    return next((option for option, values in SETTINGS.items() if word.lower() in values), None)


def explain_address(word: str, words: Sequence[str]) -> UsageError | None:
    """The error for a word in place of an address; None if it is just not a number.

    :param words: the whole argument list
    """
    if found := find_unquoted(words):
        return found
    if (option := _find_setting(word)) is not None:
        return _stray(
            word, f"it looks like a value of {option}", "Give one value after each option."
        )
    if not _is_like_number(word) and (
        _is_like_file(word) or os.path.sep in word or os.path.exists(word)
    ):
        return _stray(word, "it looks like a file", PAIRS_HINT)
    if len(word.encode(errors="replace")) > 16 and not _is_like_number(word):
        return _stray(word, "names of partitions have at most 16 bytes", PAIRS_HINT)
    return None


def explain_file(place: str, word: str, words: Sequence[str]) -> UsageError | None:
    """The error for a word in place of a file; None if it may be a file.

    :param place: the word before it
    """
    if os.path.exists(word):
        return None
    if found := find_unquoted(words):
        return found
    if is_number(word):
        if is_number(place):
            return missing_file(place)
        return explain_address(place, words) or _stray(place, "an address follows it", PAIRS_HINT)
    return None


def missing_file(place: str) -> UsageError:
    """The error for an address or name without a file."""
    return UsageError(f"no file given for {_describe(place)}", hint=PAIRS_HINT)


def explain_last(word: str, words: Sequence[str]) -> UsageError:
    """The error for the last word of a list without a file after it."""
    if found := find_unquoted(words):
        return found
    if is_number(word):
        return missing_file(word)
    return explain_address(word, words) or missing_file(word)


def find_unquoted(words: Sequence[str]) -> UsageError | None:
    """The error for a path with spaces that the shell split."""
    for start in range(min(len(words), MAX_WORDS)):
        if os.path.exists(words[start]):
            continue
        for end in range(start + 2, min(start + 2 + MAX_SPACES, len(words) + 1)):
            path = " ".join(words[start:end])
            if len(path) < 4096 and os.path.exists(path):
                return UsageError(
                    f"{words[start]!r} is not a file, but {path!r} is: the path contains a space",
                    hint=f'Put it in quotes: "{path}".',
                )
    return None


def is_number(word: str) -> bool:
    """Whether a word is a number with or without a unit."""

    try:
        parse_number(word)
    except UsageError:
        return False
    return True


def _stray(word: str, why: str, hint: str) -> UsageError:
    return UsageError(
        f"{word!r} is given where an address or a partition's name is expected: {why}",
        hint=hint,
    )


def _describe(place: str) -> str:
    return f"address {place}" if is_number(place) else f"{place!r}"
