"""Prints the code sizes for packed reads that suit the given files best: ``SIZES`` of protocol/packed.py.

    python tools/read_codes.py FILE…

Each file counts the same, whatever its size.
"""

from __future__ import annotations

import heapq
import sys
from collections import Counter
from itertools import count
from pathlib import Path

from espwire.protocol.packed import CODES, LITERALS, MOST_BITS
from espwire.virtual.programs.read_packer import (
    END_CODE,
    HISTORY,
    LENGTH_CODES,
    SHORTEST,
    Packer,
    split_value,
)

PACKET = 4096
WEIGHT = 1 << 20  # of a file


def count_codes(data: bytes) -> Counter[int]:
    """How often each code occurs in the packets of a file."""
    found: Counter[int] = Counter()
    packer = Packer()
    for at in range(0, len(data), PACKET):
        packet = data[at : at + PACKET]
        known = data[max(0, at + len(packet) - HISTORY) : at]
        for token in packer.tokenize(at, known, packet):
            if isinstance(token, int):
                found[token] += 1
            else:
                found[split_value(LENGTH_CODES, token[0] - SHORTEST, 2).code] += 1
                found[split_value(LITERALS, token[1] - 1, 1).code] += 1
        found[END_CODE] += 1
    return found


def find_sizes(weights: list[float]) -> list[int]:
    """Sizes of Huffman codes of at most ``MOST_BITS``: rare symbols count more, until that is enough."""
    least = sum(weights) / (2 << MOST_BITS)
    while True:
        order = count()
        heap = [(max(weight, least), next(order), (i,)) for i, weight in enumerate(weights)]
        sizes = [0] * len(weights)
        heapq.heapify(heap)
        while len(heap) > 1:
            (one, _, some), (other, _, more) = heapq.heappop(heap), heapq.heappop(heap)
            for i in some + more:
                sizes[i] += 1
            heapq.heappush(heap, (one + other, next(order), some + more))
        if max(sizes) <= MOST_BITS:
            return sizes
        least *= 1.1


def main(paths: list[str]) -> None:
    """Print the sizes as hexadecimal digits."""
    weights = [0.0] * CODES
    for path in paths:
        codes = count_codes(Path(path).read_bytes())
        total = codes.total()
        for code, number in codes.items():
            weights[code] += WEIGHT * number / total
    for part in (weights[:LITERALS], weights[LITERALS:]):
        print("".join(f"{size:x}" for size in find_sizes(part)))


if __name__ == "__main__":
    main(sys.argv[1:])
