"""Flash encryption in software: XTS-AES, and the ESP32's own scheme.

Each function takes data and the flash address of its first byte, both in multiples of 16.
Source: ``chips/data/image.toml`` [flash_encryption_xts], [flash_encryption_esp32]; checked against espsecure.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Literal

from espwire.errors import KeyFileError, Unsupported, UsageError

if TYPE_CHECKING:
    from espwire.chips.model import Chip

UNIT, BLOCK = 128, 16
XTS_KEY_BYTES, ESP32_KEY_BYTES = (16, 32, 64), (24, 32)
KEY_BITS = (128, 192, 256, 512)
ESP32_STEP = 32  # bytes that the ESP32 encrypts with the same key
USUAL_CRYPT_CONFIG = 0xF
# the address bit for each bit of the ESP32's key: runs that count down to bit 5
_RUN_STARTS = (23, 23, 23, 14, 23, 23, 23, 12, 23, 23, 23, 10, 23, 23, 23, 8)
_RUN_END = 5
# bit of FLASH_CRYPT_CONFIG → first and last key bit that it enables
_CONFIG_RANGES = ((0, 66), (67, 131), (132, 194), (195, 255))


def encrypt_xts(data: bytes, address: int, key: bytes) -> bytes:
    """Encrypt data for flash at ``address``. The key has 16, 32 or 64 bytes, as in a key file.

    :raises UsageError: code ``unaligned``
    :raises KeyFileError: code ``key-size``
    :raises Unsupported: code ``needs-cryptography``
    """
    return _run_xts(data, address, key, encrypt=True)


def decrypt_xts(data: bytes, address: int, key: bytes) -> bytes:
    """Decrypt data from flash at ``address``; as ``encrypt_xts``."""
    return _run_xts(data, address, key, encrypt=False)


def encrypt_esp32(
    data: bytes, address: int, key: bytes, crypt_config: int = USUAL_CRYPT_CONFIG
) -> bytes:
    """Encrypt data for an ESP32's flash at ``address``. The key has 32 bytes, or 24 with 3/4 coding.

    :raises UsageError, KeyFileError, Unsupported: as ``encrypt_xts``
    """
    return _run_esp32(data, address, key, crypt_config, encrypt=True)


def decrypt_esp32(
    data: bytes, address: int, key: bytes, crypt_config: int = USUAL_CRYPT_CONFIG
) -> bytes:
    """Decrypt data from an ESP32's flash at ``address``; as ``encrypt_esp32``."""
    return _run_esp32(data, address, key, crypt_config, encrypt=False)


def find_scheme(chip: Chip) -> Literal["xts", "esp32"] | None:
    """How a chip encrypts its flash; None: it cannot."""
    if chip.security.flash_encryption is None:
        return None
    return "xts" if chip.security.key_readable is None else "esp32"


def generate_key(bits: int) -> bytes:
    """A random key.

    :raises UsageError: code ``key-size``
    """
    if bits not in KEY_BITS:
        raise UsageError(
            f"no chip uses a flash encryption key of {bits} bits",
            hint=f"Use {', '.join(map(str, KEY_BITS[:-1]))} or {KEY_BITS[-1]} bits.",
            code="key-size",
        )
    return secrets.token_bytes(bits // 8)


def require_cryptography() -> None:
    """Check that encryption is available.

    :raises Unsupported: code ``needs-cryptography``
    """
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise _no_cryptography() from None


def _run_xts(data: bytes, address: int, key: bytes, *, encrypt: bool) -> bytes:
    """Process units of 128 bytes, each byte-reversed before and after; partial units are padded."""
    _check(data, address, BLOCK)
    if len(key) not in XTS_KEY_BYTES:
        raise _wrong_key(key, XTS_KEY_BYTES)
    if len(key) == XTS_KEY_BYTES[0]:
        key = hashlib.sha256(key).digest()
    half = len(key) // 2
    if key[:half] == key[half:]:
        raise KeyFileError(
            "both halves of the flash encryption key are equal, which XTS-AES does not allow",
            hint="Use a random key.",
            code="key-halves",
        )
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise _no_cryptography() from None

    head = address % UNIT
    padded = bytes(head) + data + bytes(-(head + len(data)) % UNIT)
    done = bytearray()
    for at in range(0, len(padded), UNIT):
        tweak = (address - head + at).to_bytes(BLOCK, "little")
        cipher = Cipher(algorithms.AES(key), modes.XTS(tweak))
        run = cipher.encryptor() if encrypt else cipher.decryptor()
        done += run.update(padded[at : at + UNIT][::-1])[::-1]
    return bytes(done[head : head + len(data)])


def _run_esp32(data: bytes, address: int, key: bytes, crypt_config: int, *, encrypt: bool) -> bytes:
    """Encrypt with AES decryption, and vice versa; the key depends on the address."""
    _check(data, address, BLOCK)
    if len(key) not in ESP32_KEY_BYTES:
        raise _wrong_key(key, ESP32_KEY_BYTES)
    if len(key) == ESP32_KEY_BYTES[0]:
        key += key[8:16]
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise _no_cryptography() from None

    done = bytearray()
    at = 0
    while at < len(data):
        place = address + at
        size = min(ESP32_STEP - place % ESP32_STEP, len(data) - at)
        cipher = Cipher(algorithms.AES(_turn_key(key, place, crypt_config)), modes.ECB())
        run = cipher.decryptor() if encrypt else cipher.encryptor()
        for start in range(at, at + size, BLOCK):
            done += run.update(data[start : start + BLOCK][::-1])[::-1]
        at += size
    return bytes(done)


def _turn_key(key: bytes, address: int, crypt_config: int) -> bytes:
    """The key for the 32 bytes at ``address``: each key bit is XORed with an address bit."""
    number = int.from_bytes(key, "big")
    for bit, mask in _key_masks(crypt_config):
        if address >> bit & 1:
            number ^= mask
    return number.to_bytes(len(key), "big")


@cache
def _key_masks(crypt_config: int) -> tuple[tuple[int, int], ...]:
    """Address bit → mask of the key bits that it inverts."""
    masks: dict[int, int] = {}
    for position, bit in enumerate(_address_bits()):
        owner = next(
            at for at, (first, last) in enumerate(_CONFIG_RANGES) if first <= position <= last
        )
        if crypt_config >> owner & 1:
            masks[bit] = masks.get(bit, 0) | 1 << 255 - position
    return tuple(masks.items())


def _address_bits() -> Iterator[int]:
    for start in _RUN_STARTS:
        yield from range(start, _RUN_END - 1, -1)


def _check(data: bytes, address: int, align: int) -> None:
    if address < 0 or address % align or len(data) % align:
        raise UsageError(
            f"{len(data)} bytes at {address:#x} are not whole blocks of {align}",
            hint=f"Use an address and a length that are multiples of {align}.",
            code="unaligned",
        )


def _wrong_key(key: bytes, sizes: tuple[int, ...]) -> KeyFileError:
    known = " or ".join(map(str, sizes))
    return KeyFileError(
        f"the flash encryption key has {len(key)} bytes, not {known}",
        hint="Use the complete binary key file that was burned into the chip.",
        code="key-size",
    )


def _no_cryptography() -> Unsupported:
    return Unsupported(
        "encryption needs the Python package cryptography, which is not installed",
        hint='Run: pip install "espwire[secure]"',
        code="needs-cryptography",
    )
