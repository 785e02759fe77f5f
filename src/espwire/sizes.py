"""Numbers of the command line and of data sheets: sizes, addresses, revisions, alignment, bit fields."""

from __future__ import annotations

import re
from collections.abc import Iterable

from espwire.errors import UsageError

Ranges = tuple[tuple[int, int], ...]  # half-open, sorted, disjoint

KIB, MIB = 0x400, 0x100000
MAX_DIGITS = 1000
SECTOR, BLOCK = 0x1000, 0x10000  # what the erase commands of every supported flash chip erase
# compiled on first use: most runs do not need them
_NUMBER = r"(0[xX][0-9a-fA-F]+|0[oO][0-7]+|0[bB][01]+|[0-9]+)(?: ?([kKmM])(?:i?[bB])?)?"
_FLASH_SIZE = r"([0-9]{1,9}) ?(KB|MB)"


class Revision(int):
    """A chip revision as major × 100 + minor, printed as ``v3.1`` for 301.

    >>> Revision(301), Revision(301) >= 300, str(Revision(3)), Revision(301).major, Revision(301).minor
    (v3.1, True, 'v0.3', 3, 1)
    """

    @property
    def major(self) -> int:
        """The number before the dot."""
        return int(self) // 100

    @property
    def minor(self) -> int:
        """The number after the dot."""
        return int(self) % 100

    def __repr__(self) -> str:
        return f"v{self.major}.{self.minor}"

    __str__ = __repr__


def align_down(value: int, step: int) -> int:
    """The largest multiple of ``step`` not above ``value``."""
    return value - value % step


def align_up(value: int, step: int) -> int:
    """The smallest multiple of ``step`` not below ``value``."""
    return -(-value // step) * step


def join_ranges(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sort ranges, and join those that touch or overlap.

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


def subtract_ranges(
    ranges: Iterable[tuple[int, int]], without: Iterable[tuple[int, int]]
) -> Ranges:
    """What of ``ranges`` is not in ``without``.

    >>> subtract_ranges([(0, 8), (10, 12)], [(2, 3), (7, 11)])
    ((0, 2), (3, 7), (11, 12))
    """
    left = list(join_ranges(ranges))
    for low, high in without:
        left = [
            (start, end)
            for first, last in left
            for start, end in ((first, min(last, low)), (max(first, high), last))
            if start < end
        ]
    return join_ranges(left)


def extract(word: int, shift: int, bits: int) -> int:
    """The ``bits`` bits of ``word`` above bit ``shift``."""
    return word >> shift & ((1 << bits) - 1)


def parse_number(text: str, what: str = "number", *, limit: int = 0xFFFFFFFF) -> int:
    """Parse an unsigned number in a C-style base, with an optional suffix ``k``, ``KB``, ``M`` or ``MB`` (binary).

    :raises UsageError: not a number, or above ``limit``

    >>> parse_number("0x1000"), parse_number("4k"), parse_number("5MB")
    (4096, 4096, 5242880)
    """
    text = text.strip()
    match = re.fullmatch(_NUMBER, text)
    if match is None:
        raise UsageError(f"{what} {text!r} is not a number", hint=_suggest(text, what))
    digits, suffix = match.groups()
    if len(digits) > MAX_DIGITS:  # Python limits the length
        raise UsageError(
            f"{what} has {len(digits)} digits", hint="Check the number's digits and unit."
        )
    if digits.isdecimal() and digits[0] == "0" and digits.strip("0"):
        bare = digits.lstrip("0")
        raise UsageError(
            f"{what} {text!r} starts with a zero: it could be octal, decimal or hexadecimal",
            hint=f"Write 0x{bare} for hexadecimal or {bare} for decimal.",
        )
    value = int(digits, 0) if digits[:2].lower() in ("0x", "0o", "0b") else int(digits, 10)
    value *= {"": 1, "k": KIB, "m": MIB}[(suffix or "").lower()]
    if value > limit:
        raise UsageError(
            f"{what} {text} is above {limit:#x}", hint="Check the number's digits and unit."
        )
    return value


def parse_flash_address(text: str, *, strict: bool = True) -> int:
    """As ``parse_number``, for a flash address.

    :param strict: refuse a decimal number that is aligned to a sector only if read as hexadecimal
    :raises UsageError: not a number, or a likely mistake

    >>> parse_flash_address("4096"), parse_flash_address("10000", strict=False)
    (4096, 10000)
    """
    value = parse_number(text, "address")
    text = text.strip()
    if strict and text.isdecimal() and value % SECTOR and not int(text, 16) % SECTOR:
        raise UsageError(
            f"address {text!r} is decimal ({value:#x}) and not aligned to a flash sector",
            hint=f"Write 0x{text} for hexadecimal, or {value:#x} if you mean decimal {text}.",
        )
    return value


LOOK_ALIKES = str.maketrans("OoIl", "0011")


def fix_number(text: str) -> str | None:
    """The number that was probably meant by a mistyped word; None: unclear.

    >>> fix_number("1OOOO"), fix_number("0x1OOO"), fix_number("1000h"), fix_number("A000"), fix_number("dout")
    ('0x10000', '0x1000', '0x1000', '0xA000', None)
    >>> fix_number("10 000"), fix_number("\uff10x1000"), fix_number("+0x1000"), fix_number("0x1000:")
    ('0x10000', '0x1000', '0x1000', '0x1000')
    """
    if len(text) > MAX_DIGITS or not any(sign.isdecimal() or sign in "Oo" for sign in text):
        return None
    from unicodedata import normalize  # loaded only for mistakes

    plain = normalize("NFKC", text).translate(LOOK_ALIKES)
    plain = re.sub(r"[\s_,]", "", plain).strip("'\";:.").removeprefix("+")
    match = re.fullmatch(r"(?:0[xX]|[xX$#])*([0-9a-fA-F]+)[hH]?", plain)
    return f"0x{match[1]}" if match is not None and any(map(str.isdecimal, match[1])) else None


def _suggest(text: str, what: str) -> str:
    """The hint for a text that is not a number. Addresses and sizes are probably hexadecimal."""
    fixed, plain = fix_number(text), text.translate(LOOK_ALIKES)
    if what not in ("address", "size") and plain.isascii() and plain.isdecimal():
        fixed = plain
    if fixed is None:
        return "Write a decimal number, a hexadecimal number with 0x, or a number with KB or MB."
    if any(sign in text for sign in "OoIl"):
        return (
            f"Did you mean {fixed}? The word contains a letter (O, I or l) that looks like a digit."
        )
    return f"Did you mean {fixed}?" + (
        "" if text[:2].lower() == "0x" else " Hexadecimal numbers start with 0x."
    )


def parse_flash_size(text: str) -> int:
    """Bytes of a flash size such as ``4MB`` or ``512KB``; an ending ``-c1`` or ``-c2`` is ignored.

    :raises UsageError: not a flash size

    >>> parse_flash_size("2MB-c1")
    2097152
    """
    match = re.fullmatch(_FLASH_SIZE, text.split("-", maxsplit=1)[0], re.IGNORECASE)
    if match is None:
        raise UsageError(f"invalid flash size {text!r}", hint="Write it as 512KB, 4MB or 16MB.")
    return int(match[1]) * (KIB if match[2].upper() == "KB" else MIB)


def format_size(size: int) -> str:
    """``4MB`` or ``512KB`` for a multiple of these units, else bytes.

    >>> format_size(0x400000), format_size(0x1001)
    ('4MB', '4,097 bytes')
    """
    if size and size % MIB == 0:
        return f"{size // MIB}MB"
    if size and size % KIB == 0:
        return f"{size // KIB}KB"
    return f"{size:,} bytes"
