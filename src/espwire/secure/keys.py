"""Signing keys: parse and write key files, generate keys, and compute what the chip stores of a public key.

``PublicKey`` is plain numbers, so that keys from files, from signature blocks and from security modules compare equal.
A ``Signer`` is anything that signs with a private key: a ``PrivateKey`` from a file, or a key in a security module
(hsm.py). Error messages never contain a byte of a key file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from espwire.errors import KeyFileError, Unsupported, UsageError
from espwire.secure.key_files import check_cost, find_key, read_raw_point

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import (
        EllipticCurve,
        EllipticCurvePrivateKey,
        EllipticCurvePublicKey,
    )
    from cryptography.hazmat.primitives.asymmetric.padding import PSS
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

RSA_BYTES, RSA_EXPONENT = 384, 65537
MAX_EXPONENT = 1 << 32  # a signature block has 4 bytes for it
POINT_FIELD, P384_POINT_FIELD = 64, 96  # bytes of a signature block for a point, or for a signature

Passphrase = Callable[[], bytes]  # called only if a key is encrypted


class Scheme(NamedTuple):
    """A kind of signing key. ``size``: bytes of a coordinate, or of the RSA modulus; ``curve``: as in signature blocks."""

    name: str
    title: str
    size: int
    hash_name: str = "sha256"
    curve: int = 0
    curve_name: str = ""

    @property
    def is_rsa(self) -> bool:
        """Whether it is RSA rather than ECDSA."""
        return not self.curve

    @property
    def point_field(self) -> int:
        """Bytes of a signature block for a point or a signature of ECDSA; unused ones are zero."""
        return P384_POINT_FIELD if 2 * self.size > POINT_FIELD else POINT_FIELD


SCHEMES = {
    scheme.name: scheme
    for scheme in (
        Scheme("rsa3072", "RSA-3072", RSA_BYTES),
        Scheme("ecdsa192", "ECDSA P-192", 24, "sha256", 1, "secp192r1"),
        Scheme("ecdsa256", "ECDSA P-256", 32, "sha256", 2, "secp256r1"),
        Scheme("ecdsa384", "ECDSA P-384", 48, "sha384", 3, "secp384r1"),
    )
}
P256 = SCHEMES["ecdsa256"]


class PublicKey(NamedTuple):
    """``first`` and ``second``: modulus and exponent of RSA, x and y of a point."""

    scheme: Scheme
    first: int
    second: int

    def pack(self) -> bytes:
        """The key as it is in a signature block: the bytes that its digest is computed of."""
        size, first = self.scheme.size, self.first.to_bytes(self.scheme.size, "little")
        if not self.scheme.is_rsa:
            point = first + self.second.to_bytes(size, "little")
            return bytes([self.scheme.curve]) + point.ljust(self.scheme.point_field, b"\0")
        squared = pow(1 << 8 * size, 2, self.first)  # what the chip's accelerator computes with
        inverse = -pow(self.first, -1, 1 << 32) % (1 << 32)
        return b"".join(
            (
                first,
                self.second.to_bytes(4, "little"),
                squared.to_bytes(size, "little"),
                inverse.to_bytes(4, "little"),
            )
        )

    def digest(self) -> bytes:
        """SHA-256 of the key, which eFuses store. The ESP32-C2 stores the first 16 bytes."""
        return hashlib.sha256(self.pack()).digest()

    def raw(self) -> bytes:
        """x and y, most significant byte first: secure boot version 1 and debug certificates."""
        size = self.scheme.size
        return self.first.to_bytes(size, "big") + self.second.to_bytes(size, "big")

    def pem(self) -> bytes:
        """The key as PEM.

        :raises KeyFileError: code ``key-point``: the point is not on the curve
        """
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return open_public(self).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Signer(Protocol):
    """Signs with one private key."""

    @property
    def public(self) -> PublicKey:
        """The public key."""

    def sign(self, digest: bytes) -> bytes:
        """The signature of a digest: RSA-PSS, or r and s; most significant bytes first."""


class PrivateKey:
    """A private key in memory."""

    def __init__(self, key: RSAPrivateKey | EllipticCurvePrivateKey, public: PublicKey) -> None:
        self._key, self.public = key, public

    def __repr__(self) -> str:
        return f"<private key {self.public.scheme.name}>"

    def sign(self, digest: bytes) -> bytes:
        """See ``Signer``. ECDSA is deterministic (RFC 6979): the same file and key give the same signature."""
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric import ec, utils
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

        algorithm = utils.Prehashed(open_hash(self.public.scheme))
        if isinstance(self._key, RSAPrivateKey):
            return self._key.sign(digest, open_padding(), algorithm)
        size = self.public.scheme.size
        try:
            signature = self._key.sign(digest, ec.ECDSA(algorithm, deterministic_signing=True))
        except UnsupportedAlgorithm:  # OpenSSL before 3.2
            signature = self._key.sign(digest, ec.ECDSA(algorithm))
        r, s = utils.decode_dss_signature(signature)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def pem(self, passphrase: bytes | None = None, *, pkcs8: bool = False) -> bytes:
        """The key as PEM: PKCS#8 if it is encrypted or ``pkcs8``, else the traditional form."""
        from cryptography.hazmat.primitives import serialization as forms

        as_pkcs8 = pkcs8 or passphrase is not None
        return self._key.private_bytes(
            forms.Encoding.PEM,
            forms.PrivateFormat.PKCS8 if as_pkcs8 else forms.PrivateFormat.TraditionalOpenSSL,
            forms.NoEncryption()
            if passphrase is None
            else forms.BestAvailableEncryption(passphrase),
        )

    def scalar(self) -> bytes:
        """The private number of an ECDSA key, most significant byte first.

        :raises KeyFileError: code ``key-scheme``: it is an RSA key
        """
        from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

        if not isinstance(self._key, EllipticCurvePrivateKey):
            raise wrong_scheme("the key", self.public.scheme, "an ECDSA key")
        return self._key.private_numbers().private_value.to_bytes(self.public.scheme.size, "big")


def generate_key(scheme: Scheme) -> PrivateKey:
    """A new private key.

    :raises Unsupported: code ``needs-cryptography``
    """
    require_signing()
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    if scheme.is_rsa:
        return _wrap(rsa.generate_private_key(RSA_EXPONENT, 8 * RSA_BYTES), "the new key")
    return _wrap(ec.generate_private_key(_open_curve(scheme)), "the new key")


def parse_private_key(data: bytes, name: str, passphrase: Passphrase | None = None) -> PrivateKey:
    """The private key in a PEM or DER file.

    :param name: of the file, for messages
    :param passphrase: returns the passphrase; None: encrypted keys are refused
    :raises KeyFileError: it is not a private key, of another scheme, damaged, or the passphrase is wrong
    :raises Unsupported: code ``needs-cryptography``
    """
    require_signing()
    found = find_key(data, name)
    if not found.private:
        raise KeyFileError(
            f"{name} is a public key, but a private key is required",
            hint="Use the file with the private key.",
            code="key-public",
        )
    return _wrap(_load_private(found.data, name, passphrase, pem=found.pem), name)


def parse_public_key(data: bytes, name: str, passphrase: Passphrase | None = None) -> PublicKey:
    """The public key in a file: PEM or DER of a public or private key, or 64 raw bytes of a point on P-256.

    :raises KeyFileError, Unsupported: as ``parse_private_key``
    """
    require_signing()
    if (point := read_raw_point(data)) is not None:
        key = PublicKey(P256, *point)
        open_public(key, name)
        return key
    found = find_key(data, name)
    if found.private:
        return _wrap(_load_private(found.data, name, passphrase, pem=found.pem), name).public
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        load = serialization.load_pem_public_key if found.pem else serialization.load_der_public_key
        return read_public(load(found.data), name)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _damaged(name) from None


def _load_private(data: bytes, name: str, passphrase: Passphrase | None, *, pem: bool) -> object:
    """:raises KeyFileError: code ``key-passphrase``, ``key-damaged``, ``key-cost``"""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    load = serialization.load_pem_private_key if pem else serialization.load_der_private_key
    try:
        return load(data, password=None)
    except TypeError:  # it is encrypted
        check_cost(data, name, pem=pem)
    except (ValueError, UnsupportedAlgorithm):
        raise _damaged(name) from None
    if passphrase is None:
        raise KeyFileError(
            f"{name} is encrypted, and no passphrase is available",
            hint="Set the environment variable ESPWIRE_KEY_PASSPHRASE, or run the command in a terminal.",
            code="key-passphrase",
        )
    try:
        return load(data, password=passphrase())
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise KeyFileError(
            f"{name} cannot be decrypted: the passphrase is wrong, or the file is damaged",
            hint="Check the passphrase.",
            code="key-passphrase",
        ) from None


def _wrap(key: object, name: str) -> PrivateKey:
    """:raises KeyFileError: code ``key-scheme``"""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    if not isinstance(key, RSAPrivateKey | EllipticCurvePrivateKey):
        raise wrong_scheme(name, None, "RSA-3072, ECDSA P-192, P-256 or P-384")
    return PrivateKey(key, read_public(key.public_key(), name))


def read_public(key: object, name: str) -> PublicKey:
    """The numbers of a key of the package cryptography.

    :raises KeyFileError: code ``key-scheme``
    """
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    supported = "RSA-3072, ECDSA P-192, P-256 or P-384"
    if isinstance(key, RSAPublicKey):
        numbers = key.public_numbers()
        if key.key_size == 8 * RSA_BYTES and not (numbers.n & 1 and numbers.e < MAX_EXPONENT):
            raise _damaged(name)
        if key.key_size != 8 * RSA_BYTES:
            raise KeyFileError(
                f"{name} is an RSA key of {key.key_size} bits; secure boot requires 3072",
                hint="Generate a key with `espwire secure generate-signing-key --scheme rsa3072`.",
                code="key-scheme",
            )
        return PublicKey(SCHEMES["rsa3072"], numbers.n, numbers.e)
    if isinstance(key, EllipticCurvePublicKey):
        for scheme in SCHEMES.values():
            if scheme.curve_name == key.curve.name:
                point = key.public_numbers()
                return PublicKey(scheme, point.x, point.y)
        raise KeyFileError(
            f"{name} is a key for the curve {key.curve.name}; secure boot uses P-192, P-256 and P-384",
            hint="Use a key of a supported curve.",
            code="key-scheme",
        )
    raise wrong_scheme(name, None, supported)


def open_public(
    key: PublicKey, name: str = "the public key"
) -> RSAPublicKey | EllipticCurvePublicKey:
    """The key as one of the package cryptography.

    :raises KeyFileError: code ``key-point``: the point is not on the curve, or the numbers are invalid
    """
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    try:
        if key.scheme.is_rsa:
            return rsa.RSAPublicNumbers(key.second, key.first).public_key()
        curve = _open_curve(key.scheme)
        return ec.EllipticCurvePublicNumbers(key.first, key.second, curve).public_key()
    except ValueError:
        raise KeyFileError(
            f"{name} is not a valid {key.scheme.title} key",
            hint="Check that it is the right file and that it is complete.",
            code="key-point",
        ) from None


def open_hash(scheme: Scheme) -> HashAlgorithm:
    """The scheme's hash, of the package cryptography."""
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA384() if scheme.hash_name == "sha384" else hashes.SHA256()


def open_padding() -> PSS:
    """The padding of RSA signatures: PSS with SHA-256 and a salt of 32 bytes."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.PSS(padding.MGF1(hashes.SHA256()), 32)


def _open_curve(scheme: Scheme) -> EllipticCurve:
    from cryptography.hazmat.primitives.asymmetric import ec

    curves: tuple[EllipticCurve, ...] = (ec.SECP192R1(), ec.SECP256R1(), ec.SECP384R1())
    return curves[scheme.curve - 1]


def require_scheme(scheme: Scheme, allowed: Scheme, name: str) -> None:
    """:raises KeyFileError: code ``key-scheme``: the key is for another scheme"""
    if scheme != allowed:
        raise wrong_scheme(name, scheme, f"an {allowed.title} key")


def wrong_scheme(name: str, scheme: Scheme | None, required: str) -> KeyFileError:
    """The error for a key of the wrong kind."""
    kind = "another kind of key" if scheme is None else f"a key for {scheme.title}"
    return KeyFileError(
        f"{name} is {kind}, not {required}",
        hint="Use a key of that kind; `espwire secure generate-signing-key` creates them.",
        code="key-scheme",
    )


def find_scheme(name: str) -> Scheme:
    """The scheme of that name.

    :raises UsageError: it is unknown
    """
    if name not in SCHEMES:
        raise UsageError(f"unknown scheme {name!r}", hint=f"Schemes: {', '.join(SCHEMES)}.")
    return SCHEMES[name]


def require_signing() -> None:
    """:raises Unsupported: code ``needs-cryptography``"""
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise Unsupported(
            "signing needs the Python package cryptography, which is not installed",
            hint='Run: pip install "espwire[secure]"',
            code="needs-cryptography",
        ) from None


def _damaged(name: str) -> KeyFileError:
    return KeyFileError(
        f"{name} is a damaged key file, or of a kind that is not supported",
        hint="Supported are PEM and DER of RSA-3072, ECDSA P-192, P-256 and P-384 keys.",
        code="key-damaged",
    )
