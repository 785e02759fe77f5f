"""UF2 files: parse into blobs and build. Layout and family ids: ``chips/data/image.toml`` and the chips' data.

A UF2 file is a sequence of 512-byte blocks; numbering restarts with every blob, as ESP USB bridges expect.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable

from espwire.blob import Blob
from espwire.errors import ImageError, UsageError
from espwire.image.hex import TOP, join_records

BLOCK = 512
HEAD = struct.Struct("<8I")  # magic 1, magic 2, flags, address, payload size, number, count, family
MAGIC_1, MAGIC_2, MAGIC_END = 0x0A324655, 0x9E5D5157, (0x0AB16F30).to_bytes(4, "little")
NOT_FLASH, FAMILY_PRESENT, MD5_PRESENT = 0x0001, 0x2000, 0x4000
MAX_PAYLOAD, MD5_PART = 476, struct.Struct("<II16s")
Numbers = defaultdict[int, Counter[int]]  # stated number of blocks → how often each number occurs
Families = dict[
    int | None, tuple[Blob, ...]
]  # family id, None where no block names one → blobs by address


def is_uf2(data: bytes) -> bool:
    """Whether the file begins like UF2."""
    return data[:8] == struct.pack("<2I", MAGIC_1, MAGIC_2)


def parse_uf2(data: bytes, name: str = "the file") -> Families:
    """The blobs of each chip family; their addresses may be the same. Blocks without a family belong to all families.

    :raises ImageError: cut short, a block broken or missing, a wrong MD5, overlapping data
    """
    if len(data) % BLOCK or not data:
        raise ImageError(
            f"{name} has {len(data):,} bytes, not a multiple of the UF2 block size {BLOCK}",
            hint="The file was not copied or downloaded completely: get it again.",
            code="image-uf2-size",
        )
    numbers: dict[int | None, Numbers] = {}
    blocks: dict[int | None, list[tuple[int, bytes]]] = {}
    for at in range(0, len(data), BLOCK):
        address, payload, family = _parse_block(data, at, name)
        number, count = struct.unpack_from("<2I", data, at + 20)
        numbers.setdefault(family, defaultdict(Counter))[count][number] += 1
        if payload is not None:
            blocks.setdefault(family, []).append((address, payload))
    _check_complete(numbers.values(), name)
    if len(blocks) > 1:
        for_all = blocks.pop(None, [])
        blocks = {family: for_all + own for family, own in blocks.items()}
    codes = "image-uf2-overlap", "image-uf2-block"
    return {
        family: join_records(own, name, error=ImageError, codes=codes)
        for family, own in blocks.items()
    }


def _check_complete(numbers: Collection[Numbers], name: str) -> None:
    """Each family has its own numbering, or all share a single one. No number may be missing."""
    missing = next(filter(None, map(_find_missing, numbers)), None)
    if missing is None:
        return
    shared: Numbers = defaultdict(Counter)
    for own in numbers:
        for count, seen in own.items():
            shared[count].update(seen)
    if (
        len(numbers) > 1
        and _find_missing(shared) is None
        and max(map(max, map(Counter.values, shared.values()))) == 1
    ):
        return
    count, number = missing
    raise ImageError(
        f"{name} is incomplete: block {number} of {count} is missing",
        hint="The file was not copied or downloaded completely: get it again.",
        code="image-uf2-size",
    )


def _find_missing(numbers: Numbers) -> tuple[int, int] | None:
    """Count and number of a block that is missing. A file may hold several numberings, and in any order."""
    for count, seen in numbers.items():
        if len(seen) != count or len(set(seen.values())) > 1:
            rarest = min(seen.values()) if len(seen) == count else 0
            return count, next(number for number in range(count) if seen[number] == rarest)
    return None


def _parse_block(data: bytes, at: int, name: str) -> tuple[int, bytes | None, int | None]:
    """Address, payload and family of one block; no payload: it is not for the flash."""
    first, second, flags, address, size, number, count, family = HEAD.unpack_from(data, at)
    wrong = ""
    if (first, second, data[at + BLOCK - 4 : at + BLOCK]) != (MAGIC_1, MAGIC_2, MAGIC_END):
        wrong = "its magic numbers are wrong"
    elif size > MAX_PAYLOAD or address + size > TOP:
        wrong = f"it claims {size} bytes at {address:#x}"
    elif number >= count:
        wrong = f"its number is {number}, but the number of blocks is {count}"
    if wrong:
        raise ImageError(
            f"{name}, block {at // BLOCK} at offset {at:#x}: {wrong}",
            hint="The file is damaged or not UF2: get it again.",
            code="image-uf2-block",
        )
    if flags & NOT_FLASH:
        return address, None, family if flags & FAMILY_PRESENT else None
    start = at + HEAD.size
    if flags & MD5_PRESENT:
        _check_md5(data, start + size, at, name)
    return address, data[start : start + size], family if flags & FAMILY_PRESENT else None


def _check_md5(data: bytes, where: int, at: int, name: str) -> None:
    """The MD5 part follows the payload: the block's own range and the MD5 of its payload."""
    import hashlib

    address, size = struct.unpack_from("<2I", data, at + 12)
    ok = where + MD5_PART.size <= at + BLOCK - 4
    if ok:
        first, length, digest = MD5_PART.unpack_from(data, where)
        actual = hashlib.md5(data[where - size : where], usedforsecurity=False).digest()
        ok = (first, length, digest) == (address, size, actual)
    if not ok:
        raise ImageError(
            f"{name}, block {at // BLOCK} at offset {at:#x}: its MD5 is wrong",
            hint="The file is damaged: get it again.",
            code="image-uf2-md5",
        )


def build_uf2(
    blobs: Iterable[Blob], family: int, *, chunk_size: int | None = None, md5: bool = True
) -> bytes:
    """A UF2 file with ``blobs`` in their order.

    :param chunk_size: payload bytes per block, a multiple of 4; None: as many as fit
    :raises UsageError: code ``merge-chunk-size``
    """
    import hashlib

    most = MAX_PAYLOAD - (MD5_PART.size if md5 else 0)
    chunk = most if chunk_size is None else chunk_size
    if not 4 <= chunk <= most or chunk % 4:
        raise UsageError(
            f"UF2 blocks cannot hold {chunk} bytes of payload each",
            hint=f"Give a multiple of 4 up to {MAX_PAYLOAD}; up to {MAX_PAYLOAD - MD5_PART.size} with MD5 sums.",
            code="merge-chunk-size",
        )
    flags = FAMILY_PRESENT | (MD5_PRESENT if md5 else 0)
    out: list[bytes] = []
    fresh = hashlib.md5(usedforsecurity=False)  # copying is faster than creating
    for blob in blobs:
        count = -(-len(blob.data) // chunk)
        size, pack = chunk, _block_layout(chunk, md5=md5).pack
        for number in range(count):
            payload = blob.data[number * chunk : (number + 1) * chunk]
            if len(payload) != size:
                size, pack = len(payload), _block_layout(len(payload), md5=md5).pack
            address = blob.address + number * chunk
            head = (MAGIC_1, MAGIC_2, flags, address, size, number, count, family, payload)
            if md5:
                digest = fresh.copy()
                digest.update(payload)
                out.append(pack(*head, address, size, digest.digest(), MAGIC_END))
            else:
                out.append(pack(*head, MAGIC_END))
    return b"".join(out)


def _block_layout(size: int, *, md5: bool) -> struct.Struct:
    """A whole block with ``size`` bytes of payload; what is left is filled with zeros."""
    used = HEAD.size + size + (MD5_PART.size if md5 else 0) + len(MAGIC_END)
    return struct.Struct(f"<8I{size}s{'II16s' if md5 else ''}{BLOCK - used}x{len(MAGIC_END)}s")
