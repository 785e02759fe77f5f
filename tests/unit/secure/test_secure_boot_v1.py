"""Secure boot version 1: signatures, the key of a reflashable bootloader, and its digest."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from espwire.chips.registry import load_chip
from espwire.errors import ImageError, KeyFileError, SafetyStop, ToolError
from espwire.image.codec import build, create_image
from espwire.image.model import Segment
from espwire.image.signature import is_digest_file
from espwire.secure.keys import P256, SCHEMES, PrivateKey, PublicKey, generate_key
from espwire.secure.secure_boot_v1 import (
    build_digest_key,
    digest_bootloader,
    sign,
    verify,
)
from espwire.secure.verify import Precomputed

DATA = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def key():
    return generate_key(P256)


def test_a_signature_is_68_bytes_after_the_file(key):
    signed = sign(DATA, key)
    assert signed.startswith(DATA + bytes(4))
    assert len(signed) == len(DATA) + 68
    assert verify(signed, key.public)
    assert not verify(signed, generate_key(P256).public)
    for at in (0, len(DATA) + 4, len(signed) - 1):
        changed = bytearray(signed)
        changed[at] ^= 1
        assert not verify(bytes(changed), key.public)
    for data in (DATA, b"", signed[:-1]):
        with pytest.raises(ImageError) as caught:
            verify(data, key.public)
        assert caught.value.code == "not-signed"


def test_what_cannot_be_signed_is_refused(key):
    with pytest.raises(SafetyStop):
        sign(sign(DATA, key), key)
    for scheme in ("ecdsa192", "ecdsa384", "rsa3072"):
        with pytest.raises(KeyFileError) as caught:
            sign(DATA, generate_key(SCHEMES[scheme]))
        assert caught.value.code == "key-scheme"
    with pytest.raises(ToolError):
        sign(b"", key)
    with pytest.raises(KeyFileError, match="by another key, or for other data"):
        sign(DATA, Precomputed(key.public, bytes(63) + b"\x01"))


def fixed_key() -> PrivateKey:
    number = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721  # RFC 6979, A.2.5
    private = ec.derive_private_key(number, ec.SECP256R1())
    numbers = private.public_key().public_numbers()
    return PrivateKey(private, PublicKey(P256, numbers.x, numbers.y))


def test_the_same_file_and_key_give_the_same_signature():
    """RFC 6979, A.2.5: "sample" with SHA-256."""
    signed = sign(b"sample", fixed_key())
    assert signed[10:].hex().upper() == (
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    )


def test_the_digest_key_is_the_hash_of_the_private_number():
    key = fixed_key()
    scalar = bytes.fromhex("C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
    assert build_digest_key(key) == hashlib.sha256(scalar).digest()
    assert build_digest_key(key, 192) == hashlib.sha256(scalar).digest()[:24]
    for bits in (0, 128, 255, 512):
        with pytest.raises(ToolError) as caught:
            build_digest_key(key, bits)
        assert caught.value.code == "key-size"


def make_image(size: int, *, hashed: bool) -> bytes:
    """A valid image with one segment of ``size`` bytes."""
    segment = Segment(0x3FFF0040, bytes((7 * at + 3) & 255 for at in range(size)))
    image = bytearray(build(create_image([segment], 0x3FFF0040, chip=load_chip("esp32"))))
    if not hashed:
        image[23] = 0
        del image[-32:]
    return bytes(image)


@pytest.mark.parametrize(
    ("size", "hashed", "bytes_left", "digest"),
    [
        (64, False, 112, "8909a276b29f3dde"),
        (64, True, 16, "1b49ac0bcddb67db"),
        (100, False, 16, "718592e6d269face"),
        (100, True, 48, "55a995f631c36555"),
        (448, True, 16, "a6201b9fc16adbab"),
    ],
)
def test_the_digest_is_that_of_espsecure(size, hashed, bytes_left, digest):
    image, key, iv = make_image(size, hashed=hashed), bytes(range(32)), bytes(range(128))
    assert len(image) % 128 == bytes_left
    made = digest_bootloader(image, key, iv)
    assert made[:128] == iv
    assert hashlib.sha256(made).hexdigest()[:16] == digest
    assert made[192:0x1000] == b"\xff" * (0x1000 - 192)
    end = len(image) if not hashed or bytes_left > 32 else len(image) - bytes_left
    assert made[0x1000:] == image[:end] + b"\xff" * (-end % 128)
    assert is_digest_file(made)
    assert not is_digest_file(image)
    assert not is_digest_file(b"\xff" * 0x1000 + image)


def test_keys_ivs_and_images_are_checked():
    image = make_image(512, hashed=False)
    for arguments, code in (
        ((image, bytes(24), bytes(128)), "key-size"),
        ((image, bytes(32), bytes(127)), "iv-size"),
        ((b"\xea" + image[1:], bytes(32), bytes(128)), "image-magic"),
        ((image[:20], bytes(32), bytes(128)), "image-magic"),
    ):
        with pytest.raises(ToolError) as caught:
            digest_bootloader(*arguments)
        assert caught.value.code == code
