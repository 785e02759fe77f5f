"""Encrypts what is written, and decrypts what is read, with a flash encryption key on this computer.

The chip decides the scheme; its partition table decides which ranges of flash are encrypted. A key that software cannot
read in the chip is proven by what it decrypts: the bootloader that the flash holds must become a valid image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob
from espwire.errors import ImageError, KeyFileError, TableError, Unsupported, UsageError
from espwire.events import Note, Report, Warned, silent
from espwire.flash.findings import Finding, build_fatal
from espwire.flash.read import check_can_read, read_flash
from espwire.image.codec import is_image, parse_prefix
from espwire.image.model import ROW_MAGIC
from espwire.image.partition_table import (
    DATA,
    ENCRYPTED,
    LAST_TABLE,
    NVS_KEYS,
    TABLE_OFFSET,
    TABLE_SIZE,
    PartitionTable,
    parse_if_table,
)
from espwire.secure.flash_encryption import (
    BLOCK,
    ESP32_KEY_BYTES,
    decrypt_esp32,
    decrypt_xts,
    encrypt_esp32,
    encrypt_xts,
    find_scheme,
    require_cryptography,
)
from espwire.sizes import SECTOR, Ranges, join_ranges

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.device import Device

LONGEST_BOOTLOADER, BOOTLOADER_STEP = 0x20000, 0x4000  # bytes, and how many are read at once
WHOLE_FLASH: Ranges = ((0, 1 << 32),)
LONG_PURPOSES = frozenset(("XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2"))
SHORT_PURPOSE = "XTS_AES_128_KEY"
UNPROVEN = "unproven-key"


@dataclass(frozen=True, kw_only=True)
class HostKey:
    """A flash encryption key, and what the user states about its use.

    ``crypt_config``: the ESP32's FLASH_CRYPT_CONFIG; None: as the chip has it.
    ``everything``: encrypt the whole flash; else what the partition table marks.
    ``table``: the partition table; None: the one that is written, else the one in flash. ``table_offset``: where it is, or
    where to search first.
    """

    key: bytes = field(repr=False)
    crypt_config: int | None = None
    everything: bool = False
    table: PartitionTable | None = None
    table_offset: int = TABLE_OFFSET


@dataclass(frozen=True)
class FlashCipher:
    """The encryption of one chip's flash. ``crypt_config`` None: XTS-AES."""

    key: bytes = field(repr=False)
    crypt_config: int | None = None

    def encrypt(self, data: bytes, address: int) -> bytes:
        """:raises UsageError: code ``unaligned``"""
        if self.crypt_config is None:
            return encrypt_xts(data, address, self.key)
        return encrypt_esp32(data, address, self.key, self.crypt_config)

    def decrypt(self, data: bytes, address: int) -> bytes:
        """:raises UsageError: code ``unaligned``"""
        if self.crypt_config is None:
            return decrypt_xts(data, address, self.key)
        return decrypt_esp32(data, address, self.key, self.crypt_config)


def choose_cipher(device: Device, key: HostKey) -> FlashCipher:
    """The encryption of the device's chip with ``key``.

    :raises Unsupported: code ``no-encryption``: the chip has none; ``needs-cryptography``
    :raises KeyFileError: codes ``key-size``, ``key-halves``: not a key of the kind that the chip uses
    :raises UsageError: code ``crypt-config``: FLASH_CRYPT_CONFIG is not known, or differs
    """
    chip = device.chip
    scheme = find_scheme(chip)
    if scheme is None:
        raise Unsupported(
            f"{chip.name} has no flash encryption", hint="Leave out --key.", code="no-encryption"
        )
    require_cryptography()
    purposes = frozenset(device.security.purpose_names(chip))
    sizes = find_key_sizes(chip, purposes)
    if len(key.key) not in sizes:
        bits = " or ".join(str(8 * size) for size in sizes)
        used = " and ".join(sorted(purposes & LONG_PURPOSES)) if sizes == (64,) else SHORT_PURPOSE
        reason = f" ({used} in its eFuses)" if purposes & {*LONG_PURPOSES, SHORT_PURPOSE} else ""
        raise KeyFileError(
            f"the key has {8 * len(key.key)} bits; this {chip.name} uses {bits} bits{reason}",
            hint="Use the complete binary key file that was burned into the chip.",
            code="key-size",
        )
    cipher = FlashCipher(key.key, None if scheme == "xts" else _find_crypt_config(device, key))
    cipher.encrypt(bytes(BLOCK), 0)  # reports an unsuitable key now
    return cipher


def find_key_sizes(chip: Chip, purposes: frozenset[str]) -> tuple[int, ...]:
    """Bytes of a key file for the chip. Of two kinds of keys in its eFuses, it uses the longer one."""
    if purposes >= LONG_PURPOSES:
        return (64,)
    if SHORT_PURPOSE in purposes:
        return (32,)
    if chip.security.key_readable is not None:
        return ESP32_KEY_BYTES
    if chip.security.key_valid is not None:
        return (16, 32)
    return (32, 64) if set(chip.security.key_purposes.values()) >= LONG_PURPOSES else (32,)


def _find_crypt_config(device: Device, key: HostKey) -> int:
    """FLASH_CRYPT_CONFIG. Before encryption is on, 0 in the eFuses only means that it is not set yet."""
    burned, stated = device.flash_crypt_config, key.crypt_config
    if not burned and not device.security.flash_encryption:
        burned = None
    if burned is None and stated is None:
        raise UsageError(
            "the eFuse FLASH_CRYPT_CONFIG cannot be read, or is not burned yet",
            hint="State it with --flash-crypt-conf; ESP-IDF burns 0xF.",
            code="crypt-config",
        )
    if None not in (burned, stated) and burned != stated:
        raise UsageError(
            f"--flash-crypt-conf is {stated:#x}, but the chip's FLASH_CRYPT_CONFIG is {burned:#x}",
            hint="Leave out --flash-crypt-conf.",
            code="crypt-config",
        )
    return int(burned if burned is not None else stated or 0)


class FoundTable(NamedTuple):
    """A partition table and its address."""

    offset: int
    table: PartitionTable


def find_encrypted(
    device: Device,
    cipher: FlashCipher,
    key: HostKey,
    blobs: Iterable[Blob] = (),
    report: Report = silent,
) -> Ranges:
    """Half-open ranges of flash that the chip reads as encrypted: bootloader, partition table, and partitions.

    :param blobs: what will be written, as plaintext; a partition table among it counts before that in flash
    :raises TableError: code ``no-partition-table``: none was found
    :raises Unsupported: code ``cannot-read-partitions``
    """
    if key.everything:
        return WHOLE_FLASH
    found = _find_written_table(blobs, key.table_offset)
    if key.table is not None:
        found = FoundTable(key.table_offset, key.table)
    if found is None:
        found = _find_flash_table(device, cipher, key.table_offset)
        report(Note(text=f"partition table found in flash at {found.offset:#x}"))
    return list_encrypted(found, report)


def read_encrypted_table(device: Device, key: HostKey) -> PartitionTable:
    """The partition table that the user states, or the one in the device's flash.

    :raises KeyFileError, TableError, Unsupported: as ``choose_cipher`` and ``find_encrypted``
    """
    if key.table is not None:
        return key.table
    return _find_flash_table(device, choose_cipher(device, key), key.table_offset).table


def list_encrypted(found: FoundTable, report: Report = silent) -> Ranges:
    """The encrypted ranges that a partition table defines."""
    ranges = [(0, found.offset + TABLE_SIZE)]
    for row in found.table.partitions:
        if row.encrypted:
            ranges.append((row.offset, row.end))
        if (row.type, row.subtype) == (DATA, NVS_KEYS) and not row.flags & ENCRYPTED:
            text = f"partition {row.label} holds NVS keys, but its row lacks the flag `encrypted`; it is encrypted all the same"
            report(Warned(code="nvs-keys-flag", text=text))
    return join_ranges(sorted(ranges))


def _list_table_places(first: int) -> list[int]:
    places = range(SECTOR, LAST_TABLE, SECTOR)
    usual = [place for place in places if place >= TABLE_OFFSET]
    return list(dict.fromkeys([first, *usual, *places]))


def _find_written_table(blobs: Iterable[Blob], first: int) -> FoundTable | None:
    blobs = tuple(blobs)
    for at in _list_table_places(first):
        for blob in blobs:
            if blob.address <= at < blob.end:
                data = blob.data[at - blob.address :][:TABLE_SIZE]
                if (table := parse_if_table(data)) is not None:
                    return FoundTable(at, table)
    return None


def _find_flash_table(device: Device, cipher: FlashCipher, first: int) -> FoundTable:
    if not device.backend.limits.can_read:
        raise Unsupported(
            "the partition table, which says what is encrypted, cannot be read with this loader",
            hint="Give it with --partitions FILE, or add --all-encrypted.",
            code="cannot-read-partitions",
        )
    for at in _list_table_places(first):
        start = read_flash(device, at, 2 * BLOCK)
        if ROW_MAGIC not in (start[:2], cipher.decrypt(start, at)[:2]):
            continue
        data = read_flash(device, at, TABLE_SIZE)
        for content in (cipher.decrypt(data, at), data):
            if (table := parse_if_table(content)) is not None:
                return FoundTable(at, table)
    raise TableError(
        f"no partition table was found in flash below {LAST_TABLE:#x}, so it is not known what is encrypted",
        hint="Give it with --partitions FILE, or add --all-encrypted. Check the key.",
        code="no-partition-table",
    )


def encrypt_blobs(
    blobs: Iterable[Blob], ranges: Ranges, cipher: FlashCipher, report: Report = silent
) -> tuple[Blob, ...]:
    """``blobs`` with ciphertext in ``ranges``; a blob that ends inside a cipher block is padded with FFh.

    :raises UsageError: code ``unaligned``
    """
    done = []
    for blob in blobs:
        parts = _find_parts(blob.address, blob.end, ranges, label=blob.label)
        data = _process(blob.data, blob.address, parts, cipher.encrypt)
        if count := sum(stop - start for start, stop in parts):
            some = "" if count >= len(blob.data) else f"{count:,} of {len(blob.data):,} bytes "
            report(Note(text=f"{blob.label}: {some}encrypted on this computer"))
        elif blob.data:
            report(Note(text=f"{blob.label}: not encrypted, by the partition table"))
        done.append(replace(blob, data=data, previous=None) if count else blob)
    return tuple(done)


def open_decoder(
    device: Device, key: HostKey, address: int, size: int | None, report: Report = silent
) -> Callable[[int, bytes], bytes]:
    """The function that decrypts what is read from a range; warns if the key is not proven to be the chip's.

    :param size: bytes; None: up to the end of the flash
    :raises UsageError: code ``unaligned``
    :raises KeyFileError, TableError, Unsupported: the key or the partition table cannot be used
    """
    check_can_read(device)
    cipher = choose_cipher(device, key)
    if why := find_key_doubt(device, cipher):
        report(Warned(code=UNPROVEN, text=why))
    ranges = find_encrypted(device, cipher, key, report=report)
    end = address + size if size is not None else WHOLE_FLASH[0][1]
    _find_parts(address, end, ranges, whole=True)

    def decode(start: int, data: bytes) -> bytes:
        return _process(data, start, _find_parts(start, start + len(data), ranges), cipher.decrypt)

    return decode


def _find_parts(
    address: int, end: int, ranges: Ranges, *, label: str = "the range to read", whole: bool = False
) -> list[tuple[int, int]]:
    """The encrypted parts of a range.

    :param whole: its last cipher block must be complete, too
    :raises UsageError: code ``unaligned``
    """
    parts = [(max(low, address), min(high, end)) for low, high in ranges]
    parts = [(start, stop) for start, stop in parts if start < stop]
    for start, stop in parts:
        if start % BLOCK or (stop % BLOCK and (whole or stop < end)):
            raise UsageError(
                f"{label}, {address:#x} to {end:#x}, contains part of an encrypted block of {BLOCK} bytes",
                hint=f"Use an address and a size that are multiples of {BLOCK}.",
                code="unaligned",
            )
    return parts


def _process(
    data: bytes, address: int, parts: Iterable[tuple[int, int]], run: Callable[[bytes, int], bytes]
) -> bytes:
    """Encrypt or decrypt parts of the data; the last cipher block is padded with FFh."""
    result = bytearray(data)
    for start, stop in parts:
        part = slice(start - address, stop - address)
        result[part] = run(bytes(result[part]) + b"\xff" * (-stop % BLOCK), start)
    return bytes(result)


def find_key_problems(device: Device, cipher: FlashCipher) -> list[Finding]:
    """The reasons against writing with this key: the chip does not encrypt, or the key is not proven to be the chip's."""
    chip = device.chip
    if not device.security.flash_encryption:
        text = f"flash encryption of this {chip.name} is off: it cannot start what is encrypted with the key"
        return [build_fatal("encryption-off", text, by_name_only=True)]
    why = find_key_doubt(device, cipher)
    return [build_fatal(UNPROVEN, why, by_name_only=True)] if why else []


def find_key_doubt(device: Device, cipher: FlashCipher) -> str:
    """Why the bootloader in flash does not prove the key; empty if it does."""
    if not device.backend.limits.can_read:
        return "the key cannot be checked: this loader cannot read the bootloader in flash"
    start, data = device.chip.flash.bootloader_offset, b""
    while len(data) < LONGEST_BOOTLOADER:
        data += read_flash(device, start + len(data), BOOTLOADER_STEP)
        if not data.strip(b"\xff"):
            return f"the key cannot be checked: the flash is blank at {start:#x}, where the bootloader belongs"
        plain = cipher.decrypt(data, start)
        if not is_image(plain):
            break
        if _is_intact(plain, device.chip):
            return ""
    if is_image(data) and _is_intact(data, device.chip):
        return (
            f"the bootloader in flash at {start:#x} is not encrypted, so the key cannot be checked"
        )
    return f"this is not the chip's key, or its bootloader is damaged: what it decrypts at {start:#x} is not a valid image"


def _is_intact(data: bytes, chip: Chip) -> bool:
    try:
        return parse_prefix(memoryview(data), chip)[0].intact
    except ImageError:
        return False


def encrypt_to_compare(
    device: Device, key: HostKey, blobs: Sequence[Blob], report: Report = silent
) -> tuple[Blob, ...]:
    """What the flash holds if ``blobs`` were written with ``key``; warns if the key is not proven to be the chip's.

    :raises UsageError, KeyFileError, TableError, Unsupported: as ``encrypt_for``
    """
    cipher = choose_cipher(device, key)
    if why := find_key_doubt(device, cipher):
        report(Warned(code=UNPROVEN, text=why))
    return encrypt_blobs(blobs, find_encrypted(device, cipher, key, blobs, report), cipher, report)


def encrypt_for(
    device: Device, key: HostKey, blobs: Sequence[Blob], report: Report = silent
) -> tuple[tuple[Blob, ...], tuple[Finding, ...]]:
    """What to write in place of ``blobs``, and the findings.

    :raises UsageError: code ``encrypted-twice``: the chip is to encrypt a blob as well
    :raises KeyFileError, TableError, Unsupported: the key or the partition table cannot be used
    """
    if any(blob.encrypted for blob in blobs):
        raise UsageError(
            "files cannot be encrypted by a key file and by the chip",
            hint="Use either --key or --encrypt.",
            code="encrypted-twice",
        )
    cipher = choose_cipher(device, key)
    problems = find_key_problems(device, cipher)
    ranges = find_encrypted(device, cipher, key, blobs, report)
    return encrypt_blobs(blobs, ranges, cipher, report), tuple(problems)
