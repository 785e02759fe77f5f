"""The secure-debug commands of a ROM loader: read what a debug certificate is made for, and present a certificate.

Source: ``chips/data/protocol.toml`` [secure_debug], and what esptool sends; compared on virtual chips. No chip was
available.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from espwire.errors import CommandFailed, DeviceError, UsageError
from espwire.protocol.commands import (
    SdcGenBegin,
    SdcGenData,
    SdcGenEnd,
    SdcVerifBegin,
    SdcVerifData,
    SdcVerifEnd,
)

if TYPE_CHECKING:
    from espwire.device.loader import Loader

DIGEST_BYTES = NONCE_BYTES = 32
REPLY_BYTES = 64  # the digest, and zeros
NONCE_ENABLED = 1


def read_debug_info(loader: Loader, nonce: bytes | None = None) -> bytes:
    """What a debug certificate is made for: a digest that the chip computes, and the nonce in it; 64 bytes.

    :param nonce: 32 bytes; None: random
    :raises Unsupported: this loader has no such commands
    :raises CommandFailed: the chip refuses
    """
    nonce = secrets.token_bytes(NONCE_BYTES) if nonce is None else nonce
    if len(nonce) != NONCE_BYTES:
        raise UsageError(
            f"the nonce has {len(nonce)} bytes, not {NONCE_BYTES}", hint="Leave it out."
        )
    loader.call(SdcGenBegin())
    loader.call(SdcGenData(nonce))
    reply = loader.call(SdcGenEnd(), result=REPLY_BYTES).body
    digest = reply[:DIGEST_BYTES]
    if len(digest) != DIGEST_BYTES:
        raise DeviceError(
            f"the chip sent {len(reply)} bytes of debug information, expected {REPLY_BYTES}",
            code="bad-reply",
        )
    return digest + nonce


def present_certificate(loader: Loader, certificate: bytes, name: str = "the certificate") -> None:
    """Have the chip check a debug certificate. If it is valid, the chip opens what the certificate enables.

    :raises Unsupported: this loader has no such commands
    :raises DeviceError: code ``certificate-refused``
    """
    loader.call(SdcVerifBegin(NONCE_ENABLED, len(certificate)))
    loader.call(SdcVerifData(certificate))
    try:
        loader.call(SdcVerifEnd())
    except CommandFailed as error:
        raise DeviceError(
            f"the chip refuses {name}: {error}",
            hint="Create it for this chip and its session counter, with the key whose digest is in the eFuses.",
            code="certificate-refused",
            status=error.status,
        ) from None
