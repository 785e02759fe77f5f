"""Compresses data for the chip."""

from __future__ import annotations

LIBDEFLATE_LEVEL = 12  # the highest
ZLIB_LEVEL = 9


def deflate_zlib(data: bytes) -> bytes:
    """``data`` as a zlib stream with a window of 32 KiB, which every loader can decompress.

    Uses libdeflate, whose output for firmware is about 1.6 % smaller at the same speed, or zlib on platforms without the
    ``deflate`` package.
    """
    try:
        from deflate import zlib_compress
    except ImportError:
        import zlib

        return zlib.compress(data, ZLIB_LEVEL)
    return bytes(zlib_compress(data, LIBDEFLATE_LEVEL))
