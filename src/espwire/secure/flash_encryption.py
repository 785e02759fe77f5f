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
ADDRESS_LIMIT = 1 << 32
REDUCTION = 0x87  # of the polynomial of XTS: x^128 = x^7 + x^2 + x + 1
XTS_KEY_BYTES, ESP32_KEY_BYTES = (16, 32, 64), (24, 32)
KEY_BITS = (128, 192, 256, 512)
ESP32_STEP = 32  # bytes that the ESP32 encrypts with the same key
LOW_BITS = (5, 13)  # address bits that change within 8 KiB
LOW_MASK = 0xFF
USUAL_CRYPT_CONFIG = 0xF
# the address bit for each bit of the ESP32's key: runs that count down to bit 5
_RUN_STARTS = (23, 23, 23, 14, 23, 23, 23, 12, 23, 23, 23, 10, 23, 23, 23, 8)
_RUN_END = 5
# bit of FLASH_CRYPT_CONFIG → first and last key bit that it enables
_CONFIG_RANGES = ((0, 66), (67, 131), (132, 194), (195, 255))


def encrypt_xts(data: bytes, address: int, key: bytes) -> bytes:
    """Encrypt data for flash at ``address``. The key has 16, 32 or 64 bytes, as in a key file.

    :raises UsageError: codes ``unaligned``, ``address``
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
    units = len(padded) // UNIT
    numbers = range(address - head, address - head + len(padded), UNIT)
    tweaks = b"".join(number.to_bytes(BLOCK, "little") for number in numbers)
    run = Cipher(algorithms.AES(key[half:]), modes.ECB()).encryptor()
    masks = _spread_tweaks(run.update(tweaks), units)
    cipher = Cipher(algorithms.AES(key[:half]), modes.ECB())
    run = cipher.encryptor() if encrypt else cipher.decryptor()
    done = reverse_groups(_xor(run.update(_xor(reverse_groups(padded, UNIT), masks)), masks), UNIT)
    return done[head : head + len(data)]


def _spread_tweaks(tweaks: bytes, units: int) -> bytes:
    """The tweak of each block: those of a unit are the unit's tweak times powers of x in GF(2^128).

    All units are computed at once, as lanes of a large number.
    """
    top = int.from_bytes((bytes(BLOCK - 1) + b"\x80") * units, "little")
    lanes, spread = int.from_bytes(tweaks, "little"), bytearray(UNIT * units)
    for start in range(0, UNIT, BLOCK):
        column = lanes.to_bytes(BLOCK * units, "little")
        for at in range(BLOCK):
            spread[start + at :: UNIT] = column[at::BLOCK]
        carry = lanes & top
        lanes = (lanes ^ carry) << 1 ^ (carry >> 127) * REDUCTION
    return bytes(spread)


def _xor(one: bytes, other: bytes) -> bytes:
    both = int.from_bytes(one, "little") ^ int.from_bytes(other, "little")
    return both.to_bytes(len(one), "little")


def reverse_groups(data: bytes | bytearray, size: int) -> bytes:
    """Reverse the bytes of each group of ``size`` bytes."""
    result = bytearray(len(data))
    for at in range(size):
        result[at::size] = data[size - 1 - at :: size]
    return bytes(result)


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

    head = address % ESP32_STEP
    padded = bytes(head) + data + bytes(-(head + len(data)) % ESP32_STEP)
    keys = _AddressKeys(key, crypt_config)
    mode, mixed, done = modes.ECB(), reverse_groups(padded, BLOCK), bytearray()
    for at in range(0, len(mixed), ESP32_STEP):
        cipher = Cipher(algorithms.AES(keys.find(address - head + at)), mode)
        run = cipher.decryptor() if encrypt else cipher.encryptor()
        done += run.update(mixed[at : at + ESP32_STEP])
    return reverse_groups(done, BLOCK)[head : head + len(data)]


class _AddressKeys:
    """The keys for each 32 bytes of flash: each bit of the key is XORed with an address bit."""

    def __init__(self, key: bytes, crypt_config: int) -> None:
        self._number, self._masks = int.from_bytes(key, "big"), _key_masks(crypt_config)
        self._low = self._list_masks(LOW_BITS)
        self._high: tuple[int, int] = (-1, 0)  # the address bits above, and the key for them

    def find(self, address: int) -> bytes:
        """The key for the 32 bytes at ``address``."""
        high, low = address >> LOW_BITS[1], address >> LOW_BITS[0] & LOW_MASK
        if self._high[0] != high:
            number = self._number
            for bit, mask in self._masks:
                if bit >= LOW_BITS[1] and address >> bit & 1:
                    number ^= mask
            self._high = (high, number)
        return (self._high[1] ^ self._low[low]).to_bytes(32, "big")

    def _list_masks(self, bits: tuple[int, int]) -> list[int]:
        """What is XORed for each value of some address bits."""
        masks, found = dict(self._masks), [0]
        for bit in range(*bits):
            found += [mask ^ masks.get(bit, 0) for mask in found]
        return found


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
    if address + len(data) > ADDRESS_LIMIT:
        raise UsageError(
            f"{len(data):,} bytes at {address:#x} exceed the 32-bit flash addresses",
            hint="Check the address.",
            code="address",
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
