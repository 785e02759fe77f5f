"""SLIP decoding in bytes per second, for several sizes of frames and of chunks from the port."""

from __future__ import annotations

import os
import time

from espwire.protocol import slip
from measure import median

TOTAL = 16 << 20


def rate(frame: int, piece: int) -> float:
    """Decoded MB/s for frames of ``frame`` random bytes fed in pieces of ``piece`` bytes."""
    count = TOTAL // frame
    stream = b"".join(slip.encode(os.urandom(frame)) for _ in range(count))
    pieces = [stream[at : at + piece] for at in range(0, len(stream), piece)]
    rates = []
    for _ in range(5):
        decoder, start = slip.Decoder(), time.perf_counter()
        frames = sum(len(decoder.feed(data)) for data in pieces)
        rates.append(len(stream) / 1e6 / (time.perf_counter() - start))
        assert frames == count
    return median(rates)


def main() -> None:
    """Print a line per case; linear decoding shows as a rate that does not fall with the piece size."""
    for frame, piece in [(4096, 65536), (4096, 4096), (16384, 65536), (16384, 1024)]:
        print(
            f"SLIP decoding, frames {frame:>5}, pieces {piece:>5}   {rate(frame, piece):9.0f} MB/s    goal >= 100"
        )


if __name__ == "__main__":
    main()
