"""Find the secure boot signatures of an image. They are not verified, which requires the public key.

Version 2 signature blocks are in their own sector after the image; version 1 directly follows the image (ESP32 only).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Literal, NamedTuple

from espwire.sizes import SECTOR

BLOCK = 1216
MAX_BLOCKS = 3
MAGIC = 0xE7
RSA, ECDSA = 2, 3
CRC_AT = 1196
P384_HASH = 1
CURVES = {1: "P-192", 2: "P-256", 3: "P-384"}
V1_SIZE = 68
# a file with the digest of a bootloader (version 1): IV and digest at flash address 0, then the bootloader
IV_BYTES, DIGEST_BYTES, DIGEST_FILE_IMAGE_AT = 128, 64, SECTOR
IMAGE_MAGIC, BLANK = 0xE9, b"\xff"
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


class Signature(NamedTuple):
    """One signature. ``offset``: from the start of the image. Fields that version 1 does not have are None.

    ``key_digest`` is what eFuses store; ``crc_valid``: the block is intact; ``digest_valid``: it is for these bytes.
    """

    version: Literal[1, 2]
    offset: int
    scheme: str
    block: int = 0
    crc_valid: bool | None = None
    digest_valid: bool | None = None
    key_digest: bytes | None = None

    @property
    def intact(self) -> bool:
        """Whether no check fails."""
        return self.crc_valid is not False and self.digest_valid is not False


def find_signatures(data: bytes, end: int) -> tuple[Signature, ...]:
    """Signatures after the image in ``data[:end]``."""
    sector = -(-end // SECTOR) * SECTOR
    found = tuple(_find_blocks(data, sector))
    if not found and _is_version_1(data, end):
        found = (Signature(version=1, offset=end, scheme="ECDSA P-256"),)
    return found


def _find_blocks(data: bytes, sector: int) -> Iterator[Signature]:
    """The blocks of version 2; padding between image and sector must be blank."""
    import hashlib  # takes 2 ms, which other images do not need

    for number in range(MAX_BLOCKS):
        at = sector + number * BLOCK
        block = data[at : at + BLOCK]
        if len(block) < BLOCK or block[0] != MAGIC or block[1] not in (RSA, ECDSA):
            return
        scheme, digest, key = describe_block(block)
        hashed = hashlib.new(
            "sha384" if len(digest) == 48 else "sha256", memoryview(data)[:sector]
        ).digest()
        yield Signature(
            version=2,
            offset=at,
            scheme=scheme,
            block=number,
            crc_valid=zlib.crc32(block[:CRC_AT])
            == int.from_bytes(block[CRC_AT : CRC_AT + 4], "little"),
            digest_valid=digest == hashed,
            key_digest=hashlib.sha256(key).digest(),
        )


def describe_block(block: bytes) -> tuple[str, bytes, bytes]:
    """Scheme, stored digest of the image, and the bytes of the public key that its digest is made of."""
    if block[1] == RSA:
        return "RSA-3072 PSS", block[4:36], block[36:812]
    if block[2] == P384_HASH:
        return f"ECDSA {CURVES.get(block[52], 'unknown curve')}", block[4:52], block[52:149]
    return f"ECDSA {CURVES.get(block[36], 'unknown curve')}", block[4:36], block[36:101]


def _is_version_1(data: bytes, end: int) -> bool:
    """Version 0, two numbers in the range of P-256, and blank flash after them."""
    raw = data[end : end + V1_SIZE]
    if len(raw) < V1_SIZE or raw[:4] != bytes(4):
        return False
    r, s = int.from_bytes(raw[4:36], "big"), int.from_bytes(raw[36:68], "big")
    rest = data[end + V1_SIZE : end + V1_SIZE + SECTOR]
    return 0 < r < P256_ORDER and 0 < s < P256_ORDER and not rest.strip(b"\xff")


def is_digest_file(data: bytes) -> bool:
    """Whether a file is a bootloader with its digest for version 1, which belongs at flash address 0."""
    image = data[DIGEST_FILE_IMAGE_AT : DIGEST_FILE_IMAGE_AT + 1]
    head = data[:DIGEST_FILE_IMAGE_AT]
    return (
        image == bytes([IMAGE_MAGIC])
        and not head[IV_BYTES + DIGEST_BYTES :].strip(BLANK)
        and bool(head[:IV_BYTES].strip(BLANK))
    )


def find_signed_end(data: bytes, end: int) -> int | None:
    """Where the signature sector of version 2 ends after the image in ``data[:end]``; None: it has none."""
    sector = -(-end // SECTOR) * SECTOR
    block = data[sector : sector + 2]
    marked = len(block) == 2 and block[0] == MAGIC and block[1] in (RSA, ECDSA)
    return sector + SECTOR if marked else None
