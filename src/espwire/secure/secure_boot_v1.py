"""Secure boot version 1 of the ESP32: signatures of images, the key for a reflashable bootloader, and its digest.

A signature is 68 bytes after the image: version 0, r and s. The chip checks the bootloader itself by a digest, which it
computes with a secret key; with a reflashable bootloader, the host has that key and computes the digest.
Source: ``chips/data/image.toml`` [secure_boot_v1]; compared with espsecure.
"""

from __future__ import annotations

import hashlib

from espwire.errors import ImageError, KeyFileError, SafetyStop, UsageError
from espwire.image.signature import DIGEST_FILE_IMAGE_AT, IV_BYTES, V1_SIZE
from espwire.secure.flash_encryption import require_cryptography, reverse_groups
from espwire.secure.keys import P256, PrivateKey, PublicKey, Signer, require_scheme
from espwire.secure.verify import Precomputed, explain_failure, is_valid

VERSION = bytes(4)
DIGEST_KEY_BYTES = 32
UNIT, BLOCK, WORD = 128, 16, 4  # bytes
IMAGE_MAGIC, HASH_FLAG_AT, HASH_BYTES = 0xE9, 23, 32
KEY_BITS = (192, 256)
BLANK = b"\xff"


def sign(data: bytes, signer: Signer) -> bytes:
    """The file with its signature.

    :raises KeyFileError: code ``key-scheme``, ``signature-invalid``
    :raises SafetyStop: code ``already-signed``: by this key
    """
    require_scheme(signer.public.scheme, P256, "the signing key")
    if not data:
        raise UsageError(
            "the file is empty", hint="Check that it is the right file.", code="empty-file"
        )
    if data[-V1_SIZE:][:4] == VERSION and verify(data, signer.public):
        raise SafetyStop(
            "the file is already signed by this key",
            hint="Sign the unsigned file.",
            code="already-signed",
        )
    digest = hashlib.sha256(data).digest()
    signature = signer.sign(digest)
    if not is_valid(signer.public, digest, signature):
        raise explain_failure(
            signer.public,
            data,
            signature,
            unpadded=data,
            elsewhere=isinstance(signer, Precomputed),
        )
    return data + VERSION + signature


def verify(data: bytes, public: PublicKey) -> bool:
    """Whether the file ends with a valid signature by the key.

    :raises ImageError: code ``not-signed``
    :raises KeyFileError: code ``key-scheme``
    """
    require_scheme(public.scheme, P256, "the key")
    signature = data[-V1_SIZE:]
    if len(data) <= V1_SIZE or signature[:4] != VERSION:
        raise ImageError(
            "the file does not end with a signature of version 1",
            hint="Check that it is a signed file and that it is complete.",
            code="not-signed",
        )
    return is_valid(public, hashlib.sha256(data[:-V1_SIZE]).digest(), signature[4:])


def build_digest_key(key: PrivateKey, bits: int = 256) -> bytes:
    """The key for the digest of a reflashable bootloader: SHA-256 of the private number, cut to 192 bits for 3/4 coding.

    :raises KeyFileError: code ``key-scheme``
    :raises UsageError: code ``key-size``
    """
    require_scheme(key.public.scheme, P256, "the signing key")
    if bits not in KEY_BITS:
        raise UsageError(
            f"the digest key cannot have {bits} bits",
            hint="Use 256 bits, or 192 for a chip with 3/4 coding.",
            code="key-size",
        )
    return hashlib.sha256(key.scalar()).digest()[: bits // 8]


def digest_bootloader(image: bytes, key: bytes, iv: bytes) -> bytes:
    """The file for flash address 0: IV, digest, and from 0x1000 on the bootloader, padded to units of 128 bytes.

    :param key: 32 bytes, as burned into BLOCK2
    :param iv: 128 random bytes
    :raises KeyFileError: code ``key-size``, ``iv-size``
    :raises ImageError: code ``image-magic``
    """
    require_cryptography()
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if len(key) != DIGEST_KEY_BYTES:
        raise KeyFileError(
            f"the secure boot key has {len(key)} bytes, not {DIGEST_KEY_BYTES}",
            hint="Use the file of `espwire secure digest-private-key`, with 256 bits.",
            code="key-size",
        )
    if len(iv) != IV_BYTES:
        raise KeyFileError(
            f"the IV has {len(iv)} bytes, not {IV_BYTES}",
            hint="Leave out --iv for a random one.",
            code="iv-size",
        )
    if image[:1] != bytes([IMAGE_MAGIC]) or len(image) <= HASH_FLAG_AT:
        raise ImageError(
            "the file is not a bootloader image: it does not begin with E9h",
            hint="Use the bootloader that the build created.",
            code="image-magic",
        )
    covered = image
    if image[HASH_FLAG_AT] == 1 and len(image) % UNIT <= HASH_BYTES:
        covered = image[: len(image) - len(image) % UNIT]  # only the rest of the hash
    covered += BLANK * (-len(covered) % UNIT)
    text = iv + covered
    run = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    mixed = reverse_groups(reverse_groups(run.update(reverse_groups(text, BLOCK)), BLOCK), WORD)
    digest = reverse_groups(hashlib.sha512(mixed).digest(), WORD)
    return (iv + digest).ljust(DIGEST_FILE_IMAGE_AT, BLANK) + covered
