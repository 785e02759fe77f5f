"""Variables in texts and file names: ``{serial}`` becomes the value of ``serial``.

Only a name in braces is a variable; all other braces stay, so that a template can be JSON. ``{{serial}}`` stands for the
text ``{serial}``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from espwire.errors import DataError
from espwire.text import shorten

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# what espwire reads from the board; mac_hex: without colons
BUILT_IN = ("mac", "mac_hex", "chip", "flash_id")
_PLACE = re.compile(r"\{\{([A-Za-z_][A-Za-z0-9_]*)\}\}|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f/\\:*?"<>|]|^\.*$')


def find_names(text: str) -> tuple[str, ...]:
    """The variables in a text, each once."""
    return tuple(dict.fromkeys(match[2] for match in _PLACE.finditer(text) if match[2]))


def fill(text: str, values: Mapping[str, str], where: str) -> str:
    """``text`` with the values of its variables.

    :param where: what the text is, for errors
    :raises DataError: code ``job-variable``: a variable has no value
    """

    def replace(match: re.Match[str]) -> str:
        if match[1]:
            return f"{{{match[1]}}}"
        value = values.get(match[2], "")
        if not value:
            raise build_missing(match[2], values, where)
        return value

    return _PLACE.sub(replace, text)


def fill_path(text: str, values: Mapping[str, str], where: str) -> str:
    """As ``fill``, for a file name: a value cannot name another folder.

    :raises DataError: code ``job-variable``
    """
    for name in find_names(text):
        value = values.get(name, "")
        if value and _NOT_IN_NAMES.search(value):
            raise DataError(
                f"{where}: {name} is {shorten(value)!r}, which cannot be part of a file name",
                hint="Use letters, digits, - and _ in values that are part of a file name.",
                code="job-variable",
            )
    return fill(text, values, where)


def build_missing(name: str, known: Collection[str], where: str) -> DataError:
    """The error for a variable without a value."""
    close = difflib.get_close_matches(name, [each for each in known if each != name], n=1)
    hint = f"Did you mean {{{close[0]}}}? If not, add" if close and name not in known else "Add"
    return DataError(
        f"{where}: the variable {name} has no value",
        hint=f"{hint} it to [variables] or to the file of [boards], or use --set {name}=VALUE.",
        code="job-variable",
    )
