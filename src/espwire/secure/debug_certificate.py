"""Debug certificates of the ESP32-S31: with one, the owner of a signing key opens a locked chip's debug interfaces.

A certificate is for one chip and one session: what is signed includes a digest of the chip's MAC address, of a nonce and
of a session counter in the eFuses. The chip trusts the key whose digest is in its eFuses.
Source: ``chips/data/image.toml`` [secure_debug_certificate]; compared with espsecure. No chip was available.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import zlib
from collections.abc import Iterable
from typing import NamedTuple

from espwire.errors import DataError, KeyFileError, UsageError
from espwire.secure.keys import P256, PublicKey, Signer, require_scheme
from espwire.secure.verify import is_valid

MAGIC, VERSION = 0x524D4143, 1
HEADER_BYTES, CONFIG_BYTES, NONCE_BYTES, HASH_BYTES, MAC_BYTES = 20, 256, 32, 32, 6
CERTIFICATE_BYTES = 436  # without the nonce
COUNTERS = (0, 1, 3, 7)  # each session burns one of three bits
COUNTER_SHIFT = 4
FEATURES = ("enable_jtag", "enable_download_reuse", "enable_force_spi_boot")  # by bit
SETTINGS_VERSION, SETTINGS_GROUP = 1, "config_flags"


class ChipInfo(NamedTuple):
    """Which chip and session a certificate is for."""

    digest: bytes
    nonce: bytes


def build_chip_info(mac: bytes, counter: int, nonce: bytes | None = None) -> ChipInfo:
    """The digest of a chip and a session.

    :param nonce: 32 bytes; None: random
    :raises UsageError: code ``mac``, ``session-counter``
    """
    if len(mac) != MAC_BYTES:
        raise UsageError(
            f"the MAC address has {len(mac)} bytes, not {MAC_BYTES}",
            hint="Enter it as 12 hexadecimal digits, with or without separators.",
            code="mac",
        )
    if counter not in COUNTERS:
        raise UsageError(
            f"the session counter cannot be {counter}",
            hint="It is 0, 1, 3 or 7: each session burns one more of three bits.",
            code="session-counter",
        )
    nonce = nonce or secrets.token_bytes(NONCE_BYTES)
    inner = hashlib.sha256(mac[::-1]).digest()
    digest = hashlib.sha256(inner + nonce + bytes([counter << COUNTER_SHIFT])).digest()
    return ChipInfo(digest, nonce)


def parse_chip_info(data: bytes, name: str) -> ChipInfo:
    """The file that a chip's information was saved in: digest and nonce.

    :raises DataError: code ``chip-info``
    """
    if len(data) != HASH_BYTES + NONCE_BYTES:
        raise DataError(
            f"{name} has {len(data):,} bytes, not {HASH_BYTES + NONCE_BYTES}",
            hint="Use the file with the chip's information for debug certificates.",
            code="chip-info",
        )
    return ChipInfo(data[:HASH_BYTES], data[HASH_BYTES:])


def parse_features(text: str, name: str) -> frozenset[str]:
    """The features that a JSON file enables: espsecure's format, version 1.

    :raises DataError: code ``debug-settings``
    """
    try:
        settings = json.loads(text)
        if settings["version"] != SETTINGS_VERSION:
            raise _wrong_settings(name, f"its version is not {SETTINGS_VERSION}")
        entries = [
            (entry["key"], entry["value"])
            for group in settings.get("groups", [])
            if group["group"] == SETTINGS_GROUP
            for entry in group["entries"]
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _wrong_settings(name, "it is not JSON with a version and groups") from None
    for key, value in entries:
        if key not in FEATURES:
            raise _wrong_settings(name, f"unknown key {str(key)[:40]!r}")
        if not isinstance(value, bool):
            raise _wrong_settings(name, f"{key} is not a boolean")
    return frozenset(key for key, value in dict(entries).items() if value)


def _wrong_settings(name: str, reason: str) -> DataError:
    return DataError(
        f"{name}: {reason}", hint=f"Keys: {', '.join(FEATURES)}.", code="debug-settings"
    )


def check_certificate(data: bytes, name: str) -> None:
    """:raises DataError: code ``debug-certificate``: length or magic number are wrong"""
    sizes = (CERTIFICATE_BYTES, CERTIFICATE_BYTES + NONCE_BYTES)
    if len(data) in sizes and int.from_bytes(data[:4], "little") == MAGIC:
        return
    raise DataError(
        f"{name} is not a debug certificate",
        hint="Use the file that generate-sdc-certificate created.",
        code="debug-certificate",
    )


def build_certificate(signer: Signer, chip: ChipInfo, features: Iterable[str]) -> bytes:
    """A certificate, and the nonce after it: 468 bytes.

    :raises KeyFileError: code ``key-scheme``, ``signature-invalid``
    """
    require_scheme(signer.public.scheme, P256, "the signing key")
    word = sum(1 << FEATURES.index(feature) for feature in set(features))
    config = word.to_bytes(4, "big").ljust(CONFIG_BYTES, b"\0")
    digest = hashlib.sha256(config + chip.digest).digest()
    signature = signer.sign(digest)
    if not is_valid(signer.public, digest, signature):
        raise KeyFileError(
            "the signature does not fit the public key",
            hint="Use the public key that belongs to the private one.",
            code="signature-invalid",
        )
    body = config + signer.public.raw() + signature
    body += hashlib.sha256(body).digest()
    header = (
        MAGIC.to_bytes(4, "little")
        + bytes([VERSION, 0])
        + CONFIG_BYTES.to_bytes(2, "little")
        + CERTIFICATE_BYTES.to_bytes(2, "little")
        + bytes(2)
        + zlib.crc32(body, 0xFFFFFFFF).to_bytes(4, "little")
        + bytes(4)
    )
    return header + body + chip.nonce


def digest_key(public: PublicKey) -> bytes:
    """The digest that the eFuses of a chip with debug certificates store: SHA-256 in reversed byte order.

    :raises KeyFileError: code ``key-scheme``
    """
    require_scheme(public.scheme, P256, "the key")
    return hashlib.sha256(public.raw()).digest()[::-1]
