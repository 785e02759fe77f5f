"""Replaces ``@file`` on the command line by the arguments in that file."""

from __future__ import annotations

from collections.abc import Iterable

from espwire.errors import FileError, UsageError
from espwire.streams import read_most
from espwire.text import split_words

MAX_BYTES, MAX_DEPTH, MAX_WORDS, MAX_WORD = 1 << 20, 8, 20_000, 4096


def expand(words: Iterable[str]) -> list[str]:
    """``words`` with every ``@file`` replaced by the file's words, split as a shell does; files may nest.

    :raises FileError: a file cannot be read
    :raises UsageError: a file is too large, not text, has unbalanced quotes, or files nest too deeply
    """
    expanded: list[str] = []
    _expand(words, expanded, ())
    return expanded


def _expand(words: Iterable[str], into: list[str], above: tuple[str, ...]) -> None:
    for word in words:
        if word.startswith("@"):
            if len(above) >= MAX_DEPTH:
                raise UsageError(
                    f"argument files nest more than {MAX_DEPTH} deep: {' → '.join(above[-2:])} → {word[1:]}",
                    hint="Check whether a file includes itself.",
                )
            _expand(_split(word[1:]), into, (*above, word[1:]))
        else:
            into.append(word)
        if len(into) > MAX_WORDS:
            raise UsageError(
                f"more than {MAX_WORDS} arguments", hint="Use several runs with fewer files each."
            )


def _split(name: str) -> list[str]:
    if not name:
        raise UsageError("no file name after '@'", hint="Write @FILE for the arguments in FILE.")

    try:
        content = read_most(name, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(
            f"argument file {name!r} cannot be read: {reason}",
            hint="@NAME reads arguments from the file NAME. If a name starts with @, write ./@NAME.",
        ) from error
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"argument file {name!r} is larger than 1 MiB",
            hint="To flash the file itself, leave out '@'.",
        )
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it contains a zero byte")
        words = split_words(text)
    except ValueError as error:
        raise UsageError(
            f"argument file {name!r} cannot be split into arguments: {error}",
            hint="It must be plain text: options and files, quoted as in a shell.",
        ) from None
    longest = max(map(len, words), default=0)
    if longest > MAX_WORD:
        raise UsageError(
            f"argument file {name!r} contains an argument of {longest:,} characters",
            hint="Check that it is a list of arguments.",
        )
    return words
