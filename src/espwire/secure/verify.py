"""Verifies signatures, takes signatures that were computed elsewhere, and explains why one of these is wrong."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from espwire.errors import KeyFileError
from espwire.secure.keys import PublicKey, open_hash, open_padding, open_public, require_signing

SALT, HASH = 32, 32  # bytes, of RSA-PSS
PKCS1_START = b"\x00\x01" + 8 * b"\xff"
PSS_END = 0xBC


class Precomputed(NamedTuple):
    """A signature that was computed elsewhere, as a ``Signer``."""

    public: PublicKey
    signature: bytes

    def sign(self, digest: bytes) -> bytes:
        """The signature, whatever the digest is."""
        return self.signature


def parse_signature(data: bytes, public: PublicKey, name: str) -> bytes:
    """A signature file: RSA as it is; ECDSA as DER, which OpenSSL writes, or as r and s.

    :raises KeyFileError: code ``signature-size``
    """
    size = public.scheme.size
    if public.scheme.is_rsa:
        if len(data) == size:
            return data
    elif len(data) == 2 * size:
        return data
    elif (numbers := _split_der(data)) is not None and max(numbers) < 1 << 8 * size:
        return b"".join(number.to_bytes(size, "big") for number in numbers)
    raise KeyFileError(
        f"{name} is not a signature by a key for {public.scheme.title}: it has {len(data):,} bytes",
        hint="Check that signature and public key are in the same order and belong together.",
        code="signature-size",
    )


def _split_der(data: bytes) -> tuple[int, int] | None:
    require_signing()
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    try:
        r, s = decode_dss_signature(data)
    except ValueError:
        return None
    return (r, s) if r >= 0 and s >= 0 else None


def is_valid(public: PublicKey, digest: bytes, signature: bytes) -> bool:
    """Whether ``signature`` (most significant bytes first) is one of ``digest`` by the key.

    :raises KeyFileError: code ``key-point``
    :raises Unsupported: code ``needs-cryptography``
    """
    require_signing()
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, utils
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    key = open_public(public)
    algorithm = utils.Prehashed(open_hash(public.scheme))
    size = public.scheme.size
    try:
        if isinstance(key, RSAPublicKey):
            key.verify(signature, digest, open_padding(), algorithm)
        else:
            r, s = (int.from_bytes(part, "big") for part in (signature[:size], signature[size:]))
            key.verify(utils.encode_dss_signature(r, s), digest, ec.ECDSA(algorithm))
    except (InvalidSignature, ValueError):
        return False
    return True


def explain_failure(
    public: PublicKey, image: bytes, signature: bytes, *, unpadded: bytes, elsewhere: bool
) -> KeyFileError:
    """The error for a signature that is not valid, with the most likely cause.

    :param unpadded: the image before it was padded to whole sectors
    :param elsewhere: the signature is from a file, not from a key that this program used
    """
    if not elsewhere:
        cause = "the key returned a signature that does not fit its public key"
    elif image != unpadded and _is_valid_for(public, unpadded, signature):
        cause = "it is a signature of the file without padding to whole sectors of FFh bytes"
    else:
        cause = _explain_rsa(public, image, signature) if public.scheme.is_rsa else ""
        cause = cause or "it was made by another key, or for other data"
    rule = (
        "RSA-PSS with SHA-256 and a salt of 32 bytes"
        if public.scheme.is_rsa
        else f"ECDSA with {public.scheme.hash_name.upper().replace('SHA', 'SHA-')}"
    )
    return KeyFileError(
        f"the signature is not valid: {cause}",
        hint=f"Sign the padded file by {rule}, with the private key that belongs to the public key.",
        code="signature-invalid",
    )


def _is_valid_for(public: PublicKey, data: bytes, signature: bytes) -> bool:
    return is_valid(public, hashlib.new(public.scheme.hash_name, data).digest(), signature)


def _explain_rsa(public: PublicKey, image: bytes, signature: bytes) -> str:
    """What is wrong with an RSA signature: the wrong kind of padding, or another salt length; empty: nothing known."""
    number = int.from_bytes(signature, "big")
    if number >= public.first:
        return ""
    encoded = pow(number, public.second, public.first).to_bytes(public.scheme.size, "big")
    digest = hashlib.sha256(image).digest()
    if encoded.startswith(PKCS1_START):
        return "it uses the padding of PKCS #1 v1.5 instead of PSS"
    if encoded.endswith(digest) and not encoded[: -len(digest)].strip(b"\0"):
        return "it has no padding: the digest was encrypted as it is"
    salt = find_salt(encoded, digest)
    if salt is not None:
        return f"its salt has {salt} bytes instead of {SALT}"
    return ""


def find_salt(encoded: bytes, digest: bytes) -> int | None:
    """The salt length of a message encoded by PSS (RFC 8017, 9.1.2) with SHA-256, for a modulus of whole bytes.

    None: it is not the encoding of ``digest``.
    """
    if encoded[-1] != PSS_END:
        return None
    masked, check = encoded[: -HASH - 1], encoded[-HASH - 1 : -1]
    mask = b"".join(
        hashlib.sha256(check + count.to_bytes(4, "big")).digest()
        for count in range(-(-len(masked) // HASH))
    )
    block = bytes(a ^ b for a, b in zip(masked, mask, strict=False))
    block = bytes([block[0] & 0x7F]) + block[1:]
    salt = block.lstrip(b"\0")
    if salt[:1] != b"\x01":
        return None
    salt = salt[1:]
    return len(salt) if hashlib.sha256(bytes(8) + digest + salt).digest() == check else None
