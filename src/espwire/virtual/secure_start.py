"""What a chip with secure boot or flash encryption checks when it starts from flash: its bootloader, table and application.

The first part is the ROM's: it decrypts the bootloader with the key in the eFuses, and verifies its digest (version 1) or its
signatures (version 2). The second part is that of a bootloader of ESP-IDF that is built for these features: it decrypts the
partition table, selects an application, and verifies its signature and security version. Where its partition table is and
which key it verifies version 1 signatures with are part of its own configuration: here, the table is searched, and the key
is the public key that the bootloader contains.

The texts are those of public logs; ``docs/evidence/2026-11-30-secure-plans.md`` names them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from espwire.efuse.danger import find_places
from espwire.efuse.digests import judge_scheme
from espwire.efuse.store import VirtualStore
from espwire.efuse.trust import list_trusted
from espwire.errors import ImageError, Unsupported
from espwire.image.codec import parse_prefix
from espwire.image.descriptors import find_app_descriptor
from espwire.image.model import ROW_MAGIC, Image
from espwire.image.ota import OTA_DATA_SIZE, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import (
    LAST_TABLE,
    TABLE_OFFSET,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    parse_if_table,
)
from espwire.image.signature import DIGEST_BYTES, IV_BYTES, V1_SIZE
from espwire.secure.flash_encryption import UNIT, decrypt_esp32, decrypt_xts, find_scheme
from espwire.secure.keys import P256, PublicKey
from espwire.secure.secure_boot import Block, read_blocks
from espwire.secure.secure_boot_v1 import (
    DIGEST_KEY_BYTES,
    digest_bootloader,
)
from espwire.secure.verify import is_valid
from espwire.sizes import SECTOR
from espwire.virtual.boot import BootText
from espwire.virtual.fuse_file import CRYPT_CONFIG, is_encrypting, is_set, read_part

SECURE_VERSION = (
    "SECURE_VERSION"  # eFuse: the number of set bits is the least version of applications
)
LONGEST_BOOTLOADER = 0x20000
SHA384 = "SECURE_BOOT_SHA384_EN"  # eFuse that enables signatures by P-384
V1_KEY = "secure_boot_v1"
P256_PRIME = 2**256 - 2**224 + 2**192 + 2**96 - 1
P256_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
NO_TABLE = "E boot: Failed to verify partition table\r\nE boot: load partition table error!"
BLOCK_FAULTS = {
    "damaged": "it is damaged",
    "other data": "the digest of the image does not match",
    "invalid": "the signature is wrong",
}


class Start(NamedTuple):
    """The end of a start from flash. ``text``: what the chip prints; ``app``: the partition that runs; None: none does."""

    text: str
    app: Partition | None


class FlashView(NamedTuple):
    """A flash as the chip reads it.

    ``read``: the raw content of a range; ``decrypt``: turns it, given its address, into what the chip sees.
    """

    read: Callable[[int, int], bytes]
    decrypt: Callable[[bytes, int], bytes]
    size: int

    def view(self, address: int, size: int) -> bytes:
        """Decrypted bytes; blank ones at the end may be left out. Nothing, if the address is inside a cipher block."""
        if address % UNIT:
            return b""
        raw = self.read(address, min(size, self.size - address)) if address < self.size else b""
        used = len(raw.rstrip(b"\xff"))
        return self.decrypt(raw[: -(-used // UNIT) * UNIT], address)


def start(text: BootText, store: VirtualStore, flash: FlashView) -> Start:
    """Start from flash as a chip with these eFuses would."""
    try:
        return _Starter(text, store, flash).run()
    except Unsupported as error:
        return Start(f"virtual chip: cannot check the firmware: {error}\r\n", None)


def build_decrypt(store: VirtualStore, key: bytes) -> Callable[[bytes, int], bytes]:
    """How a chip with these eFuses reads its flash. With a key of zeros, which XTS-AES does not allow, it reads zeros."""
    full = store.read_burned()
    if not is_encrypting(full.chip, full.register):
        return lambda data, address: data
    if find_scheme(full.chip) != "xts":
        config = full.value_of(CRYPT_CONFIG)
        return lambda data, address: decrypt_esp32(data, address, key or bytes(32), config)
    if not any(key):
        return lambda data, address: bytes(len(data))
    return lambda data, address: decrypt_xts(data, address, key)


class _Refused(Exception):
    """The start ends here; the text is what the chip prints."""


class _Starter:
    """One start; collects the lines that the chip prints."""

    def __init__(self, text: BootText, store: VirtualStore, flash: FlashView) -> None:
        full = store.read_burned()
        self._chip, self._text, self._full, self._flash = full.chip, text, full, flash
        self._store, security = store, full.chip.security
        self._v1 = is_set(security.secure_boot_v1, full.register)
        v2 = (security.secure_boot_v2, security.secure_boot)
        self._v2 = any(is_set(at, full.register) for at in v2)
        self._trusted = [each for each in list_trusted(store.read()) if not each.revoked]
        self._lines: list[str] = []

    def run(self) -> Start:
        app = None
        try:
            app = self._find_app(self._check_bootloader())
        except _Refused as refusal:
            self._lines.append(str(refusal))
        return Start("".join(f"{line}\r\n" for line in self._lines), app)

    def _check_bootloader(self) -> bytes:
        """What the ROM does. Returns the bootloader."""
        at = self._chip.flash.bootloader_offset
        data = self._flash.view(at, LONGEST_BOOTLOADER)
        try:
            image, size = parse_prefix(memoryview(data), self._chip)
        except ImageError:
            head = self._flash.decrypt(self._flash.read(at, UNIT), at)[:4]
            raise _Refused(self._text.bad_image.format(head=head[::-1].hex())) from None
        if self._v1 and not self._has_digest(data[:size]):
            raise _Refused(self._text.refused_v1)
        if self._v2:
            numbers = " ".join(each.purpose[-1] for each in self._trusted)
            self._lines.append(self._text.opening_v2.format(numbers=numbers))
            if why := self._find_refusal(data, size):
                raise _Refused(f"{why}\r\n{self._text.refused_v2}")
            self._lines.append("secure boot verification succeeded")
        # a bootloader that was written with its digest may lack the end of its hash
        if not (image.checksum_valid if self._v1 else image.intact):
            raise _Refused("csum err: the image is damaged")
        return data[:size]

    def _has_digest(self, image: bytes) -> bool:
        """Version 1: whether the start of flash holds the digest of the bootloader, by the key in the eFuses."""
        head = self._flash.decrypt(self._flash.read(0, 2 * UNIT), 0)[: IV_BYTES + DIGEST_BYTES]
        key = read_part(self._store, next(find_places(self._full, (V1_KEY,))))
        full_size = len(key) == DIGEST_KEY_BYTES
        return full_size and digest_bootloader(image, key, head[:IV_BYTES]).startswith(head)

    def _find_refusal(self, data: bytes, size: int) -> str:
        """Version 2: why an image is not trusted; empty if it is."""
        end = -(-size // SECTOR) * SECTOR + SECTOR
        blocks = read_blocks(data[:end].ljust(end, b"\xff"))
        digests = [purpose for purpose in self._full.data.key_purposes if purpose.digest]
        used = blocks if len(digests) > 1 else blocks[:1]  # chips with one digest use one signature
        if all(block.state == "absent" for block in used):
            return "no signature block was found after the image"
        why = [
            f"signature block {block.number}: {reason}"
            for block in used
            if (reason := self._judge(block)) is not None
        ]
        return (
            "" if len(why) < len([block for block in used if block.state != "absent"]) else why[0]
        )

    def _judge(self, block: Block) -> str | None:
        """What is wrong with a signature; None: nothing, or it is absent."""
        if block.state == "absent":
            return None
        if block.state != "valid" or block.public is None:
            return BLOCK_FAULTS.get(block.state, block.state)
        scheme = block.public.scheme
        if any(finding.fatal for finding in judge_scheme(self._full, scheme)):
            return f"this chip does not support {scheme.title}"
        if scheme.hash_name == "sha384" and not self._full.value_of(SHA384):
            return f"{SHA384} is not set"
        digest = block.public.digest()
        if not any(digest.startswith(each.digest) for each in self._trusted):
            return "its key is not trusted, or is revoked"
        return None

    def _find_app(self, bootloader: bytes) -> Partition:
        """What the bootloader does."""
        table = self._find_table()
        data, place = None, find_ota_data(table)
        if place is not None and place.size >= OTA_DATA_SIZE:
            raw = self._flash.view(place.offset, OTA_DATA_SIZE).ljust(OTA_DATA_SIZE, b"\xff")
            data = parse_ota_data(raw)
        status = find_boot(table, data)
        rows = dict.fromkeys(row for row in (status.boots, *status.slots) if row is not None)
        for row in rows:
            why = self._find_fault(row, bootloader)
            if not why:
                self._lines.append(f"I boot: Loaded app from partition at offset {row.offset:#x}")
                return row
            self._lines.append(f"E boot: {row.label} is not bootable: {why}")
        raise _Refused("E boot: No bootable app partitions in the partition table")

    def _find_table(self) -> PartitionTable:
        places = range(TABLE_OFFSET, LAST_TABLE, SECTOR)
        for at in places:
            start_of = self._flash.decrypt(self._flash.read(at, UNIT), at)
            if start_of[:2] != ROW_MAGIC:
                continue
            table = parse_if_table(self._flash.view(at, TABLE_SIZE).ljust(TABLE_SIZE, b"\xff"))
            if table is not None:
                return table
        head = self._flash.decrypt(self._flash.read(TABLE_OFFSET, UNIT), TABLE_OFFSET)[:2]
        if head == ROW_MAGIC:
            raise _Refused(f"E flash_parts: the partition table is damaged\r\n{NO_TABLE}")
        number = int.from_bytes(head, "little")
        raise _Refused(f"E flash_parts: partition 0 invalid magic number {number:#x}\r\n{NO_TABLE}")

    def _find_fault(self, row: Partition, bootloader: bytes) -> str:
        """Why an application does not start; empty if it does."""
        data = self._flash.view(row.offset, row.size)
        try:
            image, size = parse_prefix(memoryview(data), self._chip)
        except ImageError:
            return f"image at {row.offset:#x} has invalid magic byte, or is damaged"
        if not image.intact:
            return f"image at {row.offset:#x} has a wrong checksum"
        if self._v2 and (why := self._find_refusal(data, size)):
            return f"secure boot signature verification failed: {why}"
        keys = find_points(bootloader) if self._v1 else ()
        if keys and not any(_is_signed_v1(data, size, key) for key in keys):
            return "secure boot signature verification failed"
        return self._find_old_version(image)

    def _find_old_version(self, image: Image) -> str:
        least = self._full.value_of(SECURE_VERSION).bit_count()
        app = find_app_descriptor(image)
        version = 0 if app is None else app.secure_version
        if version >= least:
            return ""
        return f"its security version is {version}, below the {least} in the eFuses"


def _is_signed_v1(data: bytes, size: int, key: PublicKey) -> bool:
    signature = data[size : size + V1_SIZE]
    if len(signature) < V1_SIZE or signature[:4] != bytes(4):
        return False
    return is_valid(key, hashlib.sha256(memoryview(data)[:size]).digest(), signature[4:])


def find_points(data: bytes) -> tuple[PublicKey, ...]:
    """The public keys on P-256 that an image contains, as 64 bytes on a word boundary."""
    return tuple(_list_points(data))


def _list_points(data: bytes) -> Iterator[PublicKey]:
    for at in range(0, len(data) - 2 * P256.size + 1, 4):
        x = int.from_bytes(data[at : at + P256.size], "big")
        y = int.from_bytes(data[at + P256.size : at + 2 * P256.size], "big")
        if x and y and (y * y - x * x * x + 3 * x - P256_B) % P256_PRIME == 0:
            yield PublicKey(P256, x, y)
