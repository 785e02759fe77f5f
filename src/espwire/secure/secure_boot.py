"""Secure boot version 2: sign images, verify signatures, and describe the signature sector.

The image is padded with FFh to whole sectors, and one sector with up to three signature blocks follows. The chip boots
an image if a block in this sector is valid and the digest of its key is in the eFuses. All blocks of a sector are RSA,
or all are ECDSA. The layout of a block is in ``image/signature.py`` and ``keys.py``.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

from espwire.errors import ImageError, KeyFileError, SafetyStop, UsageError
from espwire.image.signature import BLOCK, CRC_AT, ECDSA, MAGIC, MAX_BLOCKS, P384_HASH, RSA
from espwire.secure.keys import SCHEMES, PublicKey, Scheme, Signer
from espwire.secure.verify import Precomputed, explain_failure, is_valid
from espwire.sizes import SECTOR

BLANK = b"\xff"
TAIL = MAX_BLOCKS * BLOCK  # the rest of the sector is blank
SHA256_BYTES, SHA384_BYTES = 32, 48
RSA_KEY_AT, RSA_SIGNATURE_AT, RSA_END = 36, 812, 1196

State = Literal["absent", "damaged", "other data", "invalid", "valid"]


class Block(NamedTuple):
    """One of the three places for a signature.

    ``damaged``: its CRC or its fields are wrong; ``other data``: the digest is not that of this image; ``invalid``: the
    signature does not fit the key in the block.
    """

    number: int
    state: State
    public: PublicKey | None = None

    @property
    def present(self) -> bool:
        """Whether something is there, valid or not."""
        return self.state != "absent"


class Signed(NamedTuple):
    """A signed file. ``image_bytes``: what is signed; ``padding``: bytes added before; ``blocks``: signatures now."""

    data: bytes
    image_bytes: int
    padding: int
    blocks: int


def sign(
    data: bytes, signers: Sequence[Signer], *, append: bool = False, pad: bool = True
) -> Signed:
    """Sign a file.

    :param append: add signatures to those that the file has
    :param pad: pad to whole sectors first
    :raises UsageError: code ``too-many-signatures``, ``mixed-schemes``, ``same-key``, ``empty-file``
    :raises SafetyStop: code ``already-signed``
    :raises ImageError: code ``not-signed``, ``signature-damaged``: there is nothing intact to append to
    :raises KeyFileError: code ``signature-invalid``: a signature computed elsewhere is wrong
    """
    image, present = data, tuple[Block, ...]()
    signed = has_signature_sector(data)
    if append:
        if not signed:
            raise ImageError(
                "the file has no signature sector to append to",
                hint="Sign it without --append-signatures.",
                code="not-signed",
            )
        image = data[:-SECTOR]
        present = _find_appendable(data)
    elif signed:
        raise SafetyStop(
            "the file is already signed: it ends with a signature sector",
            hint="Use --append-signatures to add a signature, or sign the unsigned file.",
            code="already-signed",
        )
    if not image:
        raise UsageError(
            "the file is empty", hint="Check that it is the right file.", code="empty-file"
        )
    _check_keys([signer.public for signer in signers], [block.public for block in present])
    padding = -len(image) % SECTOR if pad else 0
    unpadded, image = image, image + BLANK * padding
    blocks = [data[-SECTOR:][BLOCK * block.number :][:BLOCK] for block in present]
    blocks += [_sign_block(image, signer, unpadded=unpadded) for signer in signers]
    sector = b"".join(blocks).ljust(SECTOR, BLANK)
    return Signed(image + sector, len(image), padding, len(blocks))


def read_blocks(data: bytes) -> tuple[Block, ...]:
    """The three blocks of a file's last sector. Does not check which key is trusted.

    :raises ImageError: code ``not-signed``: the file is too short
    :raises Unsupported: code ``needs-cryptography``
    """
    if len(data) <= SECTOR:
        raise ImageError(
            f"the file is too short for an image and a signature sector: {len(data):,} bytes",
            hint="Check that it is a signed file and that it is complete.",
            code="not-signed",
        )
    image, sector = memoryview(data)[:-SECTOR], data[-SECTOR:]
    raw = [sector[BLOCK * number :][:BLOCK] for number in range(MAX_BLOCKS)]
    if not any(map(_is_marked, raw)):  # the sector is something else
        return tuple(Block(number, "absent") for number in range(MAX_BLOCKS))
    return tuple(_read_block(block, number, image) for number, block in enumerate(raw))


def check_alignment(data: bytes) -> None:
    """:raises ImageError: code ``not-signed``: the signature sector is not at the start of a sector"""
    if len(data) % SECTOR:
        raise ImageError(
            f"the file has {len(data):,} bytes, not a multiple of {SECTOR:,}",
            hint="Add --skip-padding if it was signed with that option; else check that it is a signed file.",
            code="not-signed",
        )


def has_signature_sector(data: bytes) -> bool:
    """Whether the file's last sector is one of signatures, intact or not."""
    sector = data[-SECTOR:]
    if len(data) <= SECTOR or sector[TAIL:].strip(BLANK):
        return False
    return any(_is_marked(sector[BLOCK * number :]) for number in range(MAX_BLOCKS))


def _is_marked(block: bytes) -> bool:
    return block[0] == MAGIC and block[1] in (RSA, ECDSA)


def _find_appendable(data: bytes) -> tuple[Block, ...]:
    """The blocks of a sector to which a signature can be appended.

    :raises ImageError: code ``signature-damaged``
    """
    blocks = read_blocks(data)
    present = [block for block in blocks if block.present]
    for number, block in enumerate(present):
        if block.state != "valid" or block.number != number:
            reason = {
                "damaged": "is damaged",
                "other data": "was made for other data",
                "invalid": "does not fit its key",
            }.get(block.state, "follows an empty one")
            raise ImageError(
                f"cannot append: signature block {block.number} {reason}",
                hint="Sign the unsigned file with all keys.",
                code="signature-damaged",
            )
    return tuple(present)


def _check_keys(new: Sequence[PublicKey], present: Sequence[PublicKey | None]) -> None:
    """:raises UsageError: the keys cannot be together in a signature sector"""
    keys = [key for key in (*present, *new) if key is not None]
    if not new:
        raise UsageError("no key to sign with", hint="Add --keyfile FILE.")
    if len(keys) > MAX_BLOCKS:
        raise UsageError(
            f"{len(keys)} signatures do not fit: a signature sector has room for {MAX_BLOCKS}",
            hint=f"{len(present)} are in the file already; use fewer keys.",
            code="too-many-signatures",
        )
    if len({key.scheme.is_rsa for key in keys}) > 1:
        raise UsageError(
            "RSA and ECDSA signatures cannot be mixed in a file",
            hint="Use keys of one kind.",
            code="mixed-schemes",
        )
    if len(set(keys)) < len(keys):
        raise UsageError(
            "the same key would sign twice", hint="Use each key once.", code="same-key"
        )


def _sign_block(image: bytes, signer: Signer, *, unpadded: bytes) -> bytes:
    """A signature block.

    :raises KeyFileError: code ``signature-invalid``
    """
    public = signer.public
    digest = hashlib.new(public.scheme.hash_name, image).digest()
    signature = signer.sign(digest)
    if not is_valid(public, digest, signature):
        elsewhere = isinstance(signer, Precomputed)
        raise explain_failure(public, image, signature, unpadded=unpadded, elsewhere=elsewhere)
    scheme = public.scheme
    start = bytes([MAGIC, RSA if scheme.is_rsa else ECDSA, scheme.hash_name == "sha384", 0])
    if scheme.is_rsa:
        field = signature[::-1]
    else:
        half = scheme.size
        numbers = signature[:half][::-1] + signature[half:][::-1]
        field = numbers.ljust(scheme.point_field, b"\0")
    body = (start + digest + public.pack() + field).ljust(CRC_AT, b"\0")
    return (body + zlib.crc32(body).to_bytes(4, "little")).ljust(BLOCK, b"\0")


def _read_block(block: bytes, number: int, image: memoryview) -> Block:
    if not _is_marked(block):
        return Block(number, "absent" if not block.strip(BLANK) else "damaged")
    if zlib.crc32(block[:CRC_AT]) != int.from_bytes(block[CRC_AT : CRC_AT + 4], "little"):
        return Block(number, "damaged")
    parts = _split_block(block)
    if parts is None:
        return Block(number, "damaged")
    public, digest, signature = parts
    if digest != hashlib.new(public.scheme.hash_name, image).digest():
        return Block(number, "other data", public)
    try:
        valid = is_valid(public, digest, signature)
    except KeyFileError:  # not a point on the curve
        return Block(number, "damaged")
    return Block(number, "valid" if valid else "invalid", public)


def _split_block(block: bytes) -> tuple[PublicKey, bytes, bytes] | None:
    """Public key, digest of the image and signature; None if the fields contradict each other."""
    if block[1] == RSA:
        modulus = int.from_bytes(block[RSA_KEY_AT : RSA_KEY_AT + 384], "little")
        exponent = int.from_bytes(block[420:424], "little")
        public = PublicKey(SCHEMES["rsa3072"], modulus, exponent)
        if (
            block[2:4] != bytes(2)
            or not modulus & 1
            or public.pack() != block[RSA_KEY_AT:RSA_SIGNATURE_AT]
        ):
            return None  # the chip computes with the other two fields
        return public, block[4:RSA_KEY_AT], block[RSA_SIGNATURE_AT:RSA_END][::-1]
    digest_bytes = {0: SHA256_BYTES, P384_HASH: SHA384_BYTES}.get(block[2])
    if digest_bytes is None:
        return None
    key_at = 4 + digest_bytes
    scheme = _find_curve(block[key_at], digest_bytes)
    if scheme is None:
        return None
    size, at = scheme.size, key_at + 1
    x, y = (int.from_bytes(block[start : start + size], "little") for start in (at, at + size))
    public = PublicKey(scheme, x, y)
    at += scheme.point_field
    if public.pack() != block[key_at:at]:
        return None
    signature = block[at : at + size][::-1] + block[at + size : at + 2 * size][::-1]
    return public, block[4:key_at], signature


def _find_curve(curve: int, digest_bytes: int) -> Scheme | None:
    for scheme in SCHEMES.values():
        if scheme.curve and scheme.curve == curve:
            return scheme if hashlib.new(scheme.hash_name).digest_size == digest_bytes else None
    return None
