"""Coding schemes of eFuse blocks: what the controller must be given so that it stores certain data."""

from __future__ import annotations

from espwire.efuse.model import Scheme
from espwire.errors import Unsupported

RS_DATA, RS_PARITY = 32, 12  # bytes
CHUNK, CODED_CHUNK = 6, 8  # bytes of the 3/4 scheme


def encode(data: bytes, scheme: Scheme) -> bytes:
    """The bytes to burn for ``data``, little-endian words.

    :raises Unsupported: nobody can burn with this scheme
    """
    if scheme == "none":
        return data
    if scheme == "three_quarter":
        return b"".join(encode_chunk(data[i : i + CHUNK]) for i in range(0, len(data), CHUNK))
    if scheme == "reed_solomon":
        padded = data.ljust(RS_DATA, b"\0")
        return padded + encode_parity(padded)
    raise Unsupported(
        f"eFuse blocks with the coding scheme {scheme!r} cannot be burned",
        hint="Only block 0 of this chip can be burned.",
        code="efuse-coding",
    )


def encode_chunk(chunk: bytes) -> bytes:
    """Six bytes, their XOR, and the sum of ``i`` times the number of ones in byte ``i`` (1 to 6)."""
    xor = total = 0
    for index, byte in enumerate(chunk, 1):
        xor ^= byte
        total += index * byte.bit_count()
    return chunk + bytes((xor, total))


def encode_parity(data: bytes) -> bytes:
    """The 12 parity bytes of 32 bytes of data: Reed-Solomon over GF(256), polynomial 0x11D, roots from 2^0 on."""
    import reedsolo

    coded: bytearray = reedsolo.RSCodec(RS_PARITY).encode(data)
    return bytes(coded[len(data) :])
