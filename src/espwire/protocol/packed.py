"""Packed packets of a read: deflate (RFC 1951), of which the stub sends only the contents of one block.

The host chooses the block's Huffman codes and sends them with READ_OPEN, so the block's header never goes over the wire:
the host puts it before each packet and decompresses the result. Matches may refer to packets before. The sizes of the
codes are those that suit firmware (tools/read_codes.py).
"""

from __future__ import annotations

import zlib
from functools import cache

LITERALS, DISTANCES = 286, 30
CODES = LITERALS + DISTANCES
MOST_BITS = 12
HISTORY = 0x8000  # deflate's reach
_SIZE_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
# a hexadecimal digit per code: literals and lengths, then distances
SIZES = (
    "566777777778689987878988899889a977778888888a999a88789998899a9999777887778889999"
    "989899989999a99a988879889999a99a9998989a999aa99aa77778788888989a989879998889a99"
    "aa78899899898a99aa9988a9989a9aa9a9888998889999899a999a9999999a99aa89989899999aa"
    "9a8899a899899999887b4567789999aaabbcccccccccccccc8aa576555545454444444445677abb"
)


@cache
def build_codes() -> tuple[int, ...]:
    """The codes in the order of ``SIZES``: the bits as they are sent, and their number from bit 12 on."""
    sizes = [int(digit, 16) for digit in SIZES]
    return (*_assign(sizes[:LITERALS]), *_assign(sizes[LITERALS:]))


@cache
def codes_body() -> bytes:
    """The codes as READ_OPEN carries them: 16-bit words."""
    return b"".join(code.to_bytes(2, "little") for code in build_codes())


def unpack(content: bytes, size: int, history: bytes) -> bytes | None:
    """The ``size`` bytes of a packet; None: it is damaged, or has another size. Never unpacks more.

    :param history: the bytes before the packet, as far as they are known
    """
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS, zdict=history)
    try:
        data = unpacker.decompress(_build_header() + content, size + 1)
    except zlib.error:
        return None
    return data if len(data) == size and unpacker.eof and not unpacker.unused_data else None


def _assign(sizes: list[int]) -> list[int]:
    """Canonical codes, reversed."""
    codes, code = [0] * len(sizes), 0
    for size in range(1, MOST_BITS + 1):
        for symbol, wanted in enumerate(sizes):
            if wanted == size:
                codes[symbol] = int(f"{code:0{size}b}"[::-1], 2) | size << MOST_BITS
                code += 1
        code <<= 1
    return codes


@cache
def _build_header() -> bytes:
    """The block's header: whole bytes, because empty blocks before it fill up the last one."""
    fields = [(0b101, 3), (LITERALS - 257, 5), (DISTANCES - 1, 5), (len(_SIZE_ORDER) - 4, 4)]
    fields += [(4 if size < 16 else 0, 3) for size in _SIZE_ORDER]  # a size is four bits, reversed
    fields += [(int(f"{int(digit, 16):04b}"[::-1], 2), 4) for digit in SIZES]
    total = sum(count for _, count in fields)
    while total % 8:
        fields.insert(0, (0b010, 10))  # an empty block with deflate's fixed codes
        total += 10
    bits = at = 0
    for value, count in fields:
        bits |= value << at
        at += count
    return bits.to_bytes(total // 8, "little")
