"""Packs flash contents as the stub does: the same bytes. Mirrors ``stub/src/pack.c``.

A packet becomes literals and matches, greedily: each position is looked up in a small table of recent positions, by a
hash of its three bytes, and the longest of four candidates wins. The codes come from the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

HISTORY = 1 << 14  # bytes back that a match can reach, the packet included
BUCKETS, WAYS = 1 << 10, 4
SHORTEST, LONGEST, FAR = 3, 257, 4096
INSERTED = 32  # positions of a match that are entered into the table
LITERALS, END_CODE, LENGTH_CODES = 286, 256, 257
HASH_FACTOR, HASH_SHIFT = 2654435761, 22
STRIDE = 32  # bytes compared at once
WORD_SHIFT, WORD_BITS = 12, 0xFFF
Token = int | tuple[int, int]  # a literal; or length and distance of a match


class Value(NamedTuple):
    """A length or distance as deflate codes it: ``code``, then ``extra`` bits with ``rest``."""

    code: int
    extra: int
    rest: int


def split_value(first: int, value: int, step: int) -> Value:
    """``value`` counted from 0; ``step`` 2 for lengths, 1 for distances; ``first``: its first code."""
    extra = max(0, value.bit_length() - 1 - step)
    return Value(first + (extra << step) + (value >> extra), extra, value & (1 << extra) - 1)


class Packer:
    """The table of recent positions, and how much work it was: ``tokens`` and ``entered`` count up."""

    def __init__(self) -> None:
        self._buckets = [[0] * WAYS for _ in range(BUCKETS)]
        self.tokens = self.entered = 0

    def pack(self, at: int, known: bytes, data: bytes, codes: Sequence[int]) -> bytes | None:
        """``data`` at ring position ``at``, after the ``known`` bytes; None: not smaller.

        :param codes: of literals and lengths, then of distances: bits, and their number from bit 12 on
        """
        out, bits, count, limit = bytearray(), 0, 0, len(data)
        for token in self.tokenize(at, known, data):
            for word in _find_words(token, codes):
                bits |= (word & WORD_BITS) << count
                count += word >> WORD_SHIFT
            whole = count >> 3
            out += (bits & (1 << whole * 8) - 1).to_bytes(whole, "little")
            bits, count = bits >> whole * 8, count & 7
            if len(out) >= limit:
                return None
        end = codes[END_CODE]
        bits, count = bits | (end & WORD_BITS) << count, count + (end >> WORD_SHIFT)
        out += bits.to_bytes(count + 7 >> 3, "little")
        return bytes(out) if len(out) < limit else None

    def tokenize(self, at: int, known: bytes, data: bytes) -> Iterator[Token]:
        """Literals and matches."""
        every, buckets = known + data, self._buckets
        base, end = len(known), len(known) + len(data)
        at -= base
        i = base
        while i < end:
            next_i, token = i + 1, every[i]
            found: tuple[int, int] | None = None
            if end - i >= SHORTEST:
                bucket = buckets[_hash(every, i)]
                found = _find_match(every, i, min(end - i, LONGEST), bucket, at)
            self.tokens += 1
            if found is None:
                yield token
            else:
                next_i = i + found[0]
                yield found
            for place in range(i, min(next_i, i + INSERTED, end - SHORTEST + 1)):
                bucket = buckets[_hash(every, place)]
                del bucket[-1]
                bucket.insert(0, at + place)
                self.entered += 1
            i = next_i


def _hash(data: bytes, i: int) -> int:
    three = data[i] | data[i + 1] << 8 | data[i + 2] << 16
    return (three * HASH_FACTOR & 0xFFFFFFFF) >> HASH_SHIFT


def _find_match(
    data: bytes, i: int, most: int, bucket: list[int], at: int
) -> tuple[int, int] | None:
    best, distance = SHORTEST - 1, 0
    for place in bucket:
        back = (at + i - place) & HISTORY - 1
        reach = min(most, HISTORY - (at + i - back) % HISTORY)  # a match does not wrap around
        if not 0 < back <= i or best >= reach or data[i + best] != data[i - back + best]:
            continue
        size = _common(data, i, i - back, reach)
        if size <= best or (size == SHORTEST and back > FAR):
            continue
        best, distance = size, back
        if best == most:
            break
    return (best, distance) if distance else None


def _common(data: bytes, a: int, b: int, most: int) -> int:
    size = 0
    while (
        size + STRIDE <= most
        and data[a + size : a + size + STRIDE] == data[b + size : b + size + STRIDE]
    ):
        size += STRIDE
    while size < most and data[a + size] == data[b + size]:
        size += 1
    return size


def _find_words(token: Token, codes: Sequence[int]) -> tuple[int, ...]:
    """What is sent for a token: bits, and their number from bit 12 on."""
    if isinstance(token, int):
        return (codes[token],)
    length = split_value(LENGTH_CODES, token[0] - SHORTEST, 2)
    distance = split_value(LITERALS, token[1] - 1, 1)
    return (
        codes[length.code],
        length.rest | length.extra << WORD_SHIFT,
        codes[distance.code],
        distance.rest | distance.extra << WORD_SHIFT,
    )
