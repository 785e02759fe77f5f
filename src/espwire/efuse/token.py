"""eFuse tokens: the blocks of a chip in one line of text, as espefuse prints them.

``EFSR:chip:revision:block0:…:blockN:errors:crc``. EFSR is what was read, EFSW what is to be burned, EFSRW both. A block is
its little-endian words in base64url without padding, or nothing if all are 0. The CRC-32 covers all text before it.
"""

from __future__ import annotations

import binascii
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from typing import NamedTuple

from espwire.efuse.tables import load_fuses
from espwire.errors import DataError

KINDS = ("EFSR", "EFSW", "EFSRW")


class Token(NamedTuple):
    """A token: blocks as numbers, bit 0 first; ``errors`` as in the text, decoded."""

    kind: str
    chip: str
    revision: int
    blocks: tuple[int, ...]
    errors: bytes = b""


def build_token(token: Token, sizes: Sequence[int]) -> str:
    """The text of a token. ``sizes``: bytes of each block."""
    blocks = [
        block.to_bytes(size, "little") for block, size in zip(token.blocks, sizes, strict=True)
    ]
    parts = [token.kind, token.chip, f"{token.revision:03}"]
    text = ":".join([*parts, *(_encode(block) for block in (*blocks, token.errors)), ""])
    return text + _encode(zlib.crc32(text.encode()).to_bytes(4, "little"), zero=True)


def parse_token(text: str) -> Token:
    """The token in ``text``.

    :raises DataError: code ``efuse-token``: malformed, a wrong CRC, or blocks of another chip
    """
    covered, colon, crc = text.strip().rpartition(":")
    parts = covered.split(":")
    if not colon or parts[0] not in KINDS or len(parts) < 4:
        raise _invalid("it must start with EFSR, EFSW or EFSRW and have a chip, revision and CRC")
    expected = zlib.crc32(f"{covered}:".encode()).to_bytes(4, "little")
    if _decode(crc) != expected:
        raise _invalid("its CRC does not match: a part is missing or changed")
    kind, chip, revision, *blocks, errors = parts
    data = load_fuses(chip)
    if len(blocks) != len(data.blocks):
        raise _invalid(f"it has {len(blocks)} blocks; {data.name} has {len(data.blocks)}")
    if not revision.isdecimal() or len(revision) != 3:
        raise _invalid(f"its revision is {revision!r}, not three digits")
    numbers = []
    for block, part in zip(data.blocks, blocks, strict=True):
        content = _decode(part)
        if len(content) not in (0, 4 * block.words, 3 * block.words):
            raise _invalid(f"{block.name} has {len(content)} bytes, not {4 * block.words}")
        numbers.append(int.from_bytes(content, "little"))
    return Token(kind, data.id, int(revision), tuple(numbers), _decode(errors))


def _encode(data: bytes, *, zero: bool = False) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode() if zero or any(data) else ""


def _decode(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise _invalid(f"{text!r} is not base64url") from None


def _invalid(reason: str) -> DataError:
    return DataError(
        f"invalid eFuse token: {reason}",
        hint="Copy the whole line that the command `dump --format token` printed.",
        code="efuse-token",
    )
