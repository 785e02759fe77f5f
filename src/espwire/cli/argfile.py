"""``@file`` on the command line: the words of that file stand in its place. Knows no command and no option."""

from __future__ import annotations

from collections.abc import Iterable

from espwire.errors import FileError, UsageError
from espwire.text import split_words

MAX_BYTES, MAX_DEPTH, MAX_WORDS, MAX_WORD = 1 << 20, 8, 20_000, 4096


def expand(words: Iterable[str]) -> list[str]:
    """``words`` with every ``@file`` replaced by what a shell would split the file into, files in files too.

    :raises FileError: a file cannot be read
    :raises UsageError: a file is too big, no text, badly quoted, or files nest without end
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
                    hint="Does a file name itself?",
                )
            _expand(_split(word[1:]), into, (*above, word[1:]))
        else:
            into.append(word)
        if len(into) > MAX_WORDS:
            raise UsageError(
                f"more than {MAX_WORDS} arguments", hint="Put fewer files into one call."
            )


def _split(name: str) -> list[str]:
    if not name:
        raise UsageError("'@' names no file", hint="Write @file, with the arguments in that file.")
    from espwire.streams import read_most

    try:
        content = read_most(name, MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FileError(
            f"argument file {name!r} cannot be read: {reason}",
            hint="An argument that starts with @ names a file of arguments; write ./@name for a file so called.",
        ) from error
    if len(content) > MAX_BYTES:
        raise UsageError(
            f"argument file {name!r} is above 1 MiB",
            hint="Is it the firmware itself? Then leave out '@'.",
        )
    try:
        text = content.decode("utf-8-sig")
        if "\0" in text:
            raise ValueError("it holds a zero byte")
        words = split_words(text)
    except ValueError as error:
        raise UsageError(
            f"argument file {name!r} cannot be split into words: {error}",
            hint="It should hold plain text: options and files, quoted as in a shell.",
        ) from None
    longest = max(map(len, words), default=0)
    if longest > MAX_WORD:
        raise UsageError(
            f"argument file {name!r} holds a word of {longest:,} characters",
            hint="Is it a list of arguments?",
        )
    return words
