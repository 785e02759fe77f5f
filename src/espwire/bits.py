"""Alignment, bit fields, and the spellings of sizes and addresses. Pure arithmetic; no files, no chips."""

from __future__ import annotations

import re
from collections.abc import Iterable

from espwire.errors import UsageError

Ranges = tuple[tuple[int, int], ...]  # half-open, sorted, apart from each other

KIB, MIB = 0x400, 0x100000
MAX_DIGITS = 1000
# patterns are compiled when they are first used: a run needs few of them
_NUMBER = r"(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)([kKmM]?)"
_FLASH_SIZE = r"([0-9]{1,9})(KB|MB)"


def align_down(value: int, step: int) -> int:
    """The largest multiple of ``step`` not above ``value``."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` not below ``value``."""
    return -(-value // step) * step


def join_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted; those that touch or overlap are joined.

    >>> join_ranges([(4, 6), (0, 2), (2, 3)])
    ((0, 3), (4, 6))
    """
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return tuple(joined)


def extract(word: int, shift: int, bits: int) -> int:
    """The ``bits`` bits of ``word`` from bit ``shift``."""
    return word >> shift & ((1 << bits) - 1)


def parse_number(text: str, what: str = "number", *, limit: int = 0xFFFFFFFF) -> int:
    """An unsigned number in any C-style base, with ``k`` or ``M`` (binary) as suffix.

    :raises UsageError: the text is no number, or above ``limit``

    >>> parse_number("0x1000"), parse_number("4k"), parse_number("2M")
    (4096, 4096, 2097152)
    """
    match = re.fullmatch(_NUMBER, text.strip())
    if match is None:
        raise UsageError(
            f"{what} {text!r} is not a number", hint="Write decimal, 0x… for hexadecimal, or a number with k or M."
        )
    digits, suffix = match.groups()
    # a leading zero is decimal here: "010" is ten, as users of C-style 0o… spell octal
    if len(digits) > MAX_DIGITS:  # Python itself refuses to read very long ones
        raise UsageError(f"{what} has {len(digits)} digits", hint="Check the number's digits and unit.")
    value = int(digits, 0) if digits[:2].lower() in ("0x", "0o", "0b") else int(digits, 10)
    value *= {"": 1, "k": KIB, "m": MIB}[suffix.lower()]
    if value > limit:
        raise UsageError(f"{what} {text} is above {limit:#x}", hint="Check the number's digits and unit.")
    return value


def parse_flash_size(text: str) -> int:
    """Bytes of a flash size spelled ``4MB``, ``512KB``; a ``-c1`` or ``-c2`` tail does not count.

    :raises UsageError: no such spelling

    >>> parse_flash_size("2MB-c1")
    2097152
    """
    match = re.fullmatch(_FLASH_SIZE, text.split("-", maxsplit=1)[0], re.IGNORECASE)
    if match is None:
        raise UsageError(f"flash size {text!r} is not a size", hint="Write it as 512KB, 4MB or 16MB.")
    return int(match[1]) * (KIB if match[2].upper() == "KB" else MIB)


def format_size(size: int) -> str:
    """``4MB``, ``512KB`` where it is a whole number of them, else bytes.

    >>> format_size(0x400000), format_size(0x1001)
    ('4MB', '4097 bytes')
    """
    if size and size % MIB == 0:
        return f"{size // MIB}MB"
    if size and size % KIB == 0:
        return f"{size // KIB}KB"
    return f"{size} bytes"
