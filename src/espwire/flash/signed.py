"""Reads signed images from a device's flash: the bootloader, applications, and the signatures that follow each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from espwire.errors import ImageError, Unsupported
from espwire.events import Report, Warned, silent
from espwire.flash.model import BLANK, FlashTarget
from espwire.flash.read import check_can_read, read_flash
from espwire.flash.read_table import read_partition_table
from espwire.image.model import EXTENDED, HEADER, MAGIC, MAX_SEGMENTS, SEGMENT_HEADER
from espwire.image.partition_table import (
    APP,
    BOOTLOADER,
    TABLE_OFFSET,
    PartitionTable,
    find_partition,
)
from espwire.image.signature import V1_SIZE
from espwire.sizes import SECTOR, align_down, align_up

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.flash.host_key import FlashCipher, HostKey

BOOTLOADER_NAME = "bootloader"  # a place, as partitions are
Read = Callable[[int, int], bytes]  # address, size
CIPHER_BLOCK = 16
HASH_BYTES, CHECKSUM_UNIT = 32, 16


class Place(NamedTuple):
    """Where an image may be: a half-open range of flash."""

    name: str
    address: int
    end: int


class StoredImage(NamedTuple):
    """An image in flash, as plaintext. ``signed``: with the sector behind it; ``version_1``: with 68 bytes behind it."""

    name: str
    address: int
    signed: bytes
    version_1: bytes


def read_images(
    device: Device,
    names: Iterable[int | str] = (),
    *,
    table: PartitionTable | None = None,
    table_offset: int = TABLE_OFFSET,
    key: HostKey | None = None,
    bootloader: bool = True,
    report: Report = silent,
) -> Iterator[StoredImage]:
    """The images at these addresses or in these partitions.

    :param names: ``bootloader``, partitions or addresses; none: the bootloader and all applications that flash holds
    :param table: the partition table; None: the device's
    :param key: decrypts the flash
    :param bootloader: whether it is among the images that are not named
    :raises Unsupported: this loader cannot read flash; code ``flash-encrypted``: a key is needed
    :raises TableError: a partition is unknown
    :raises ImageError: code ``image-magic``: no image is at an address that was named
    """
    check_can_read(device)
    cipher = _open_cipher(device, key, report)
    read = partial(_read_plain, device, cipher)
    names = tuple(names)
    for place in _list_places(device, names, table, table_offset, key, bootloader):
        end = find_image_end(read, place.address, place.end)
        if end is not None:
            sector = align_up(end, SECTOR)
            stop = min(max(sector + SECTOR, end + V1_SIZE), place.end)
            data = read(place.address, stop - place.address)
            whole, short = sector + SECTOR - place.address, end + V1_SIZE - place.address
            signed = data[:whole].ljust(whole, BLANK)
            yield StoredImage(place.name, place.address, signed, data[:short])
        elif names:
            raise ImageError(
                f"no image is in flash at {place.address:#x} ({place.name})",
                hint="Check the name or the address; for encrypted flash, also the key.",
                code="image-magic",
            )


def find_image_end(read: Read, address: int, limit: int) -> int | None:
    """Where the image at ``address`` ends, by its headers; None: none is there, or it does not fit.

    :param read: reads flash as plaintext
    :param limit: one past the last address that it can use
    """
    at = address + HEADER.size + EXTENDED.size
    if at > limit:
        return None
    head = read(address, at - address)
    magic, count, *_ = HEADER.unpack_from(head)
    if magic != MAGIC or not 1 <= count <= MAX_SEGMENTS:
        return None
    for _ in range(count):
        if at + SEGMENT_HEADER.size > limit:
            return None
        _, length = SEGMENT_HEADER.unpack(read(at, SEGMENT_HEADER.size))
        at += SEGMENT_HEADER.size + length
    end = address + align_up(at + 1 - address, CHECKSUM_UNIT) + (HASH_BYTES if head[-1] == 1 else 0)
    return end if end <= limit else None


def _open_cipher(device: Device, key: HostKey | None, report: Report) -> FlashCipher | None:
    if key is None:
        if device.security.flash_encryption:
            raise Unsupported(
                "the flash of this chip is encrypted",
                hint="Add --key FILE with its flash encryption key.",
                code="flash-encrypted",
            )
        return None
    from espwire.flash.host_key import UNPROVEN, choose_cipher, find_key_doubt

    cipher = choose_cipher(device, key)
    if why := find_key_doubt(device, cipher):
        report(Warned(code=UNPROVEN, text=why))
    return cipher


def _read_plain(device: Device, cipher: FlashCipher | None, address: int, size: int) -> bytes:
    if cipher is None:
        return read_flash(device, address, size)
    start = align_down(address, CIPHER_BLOCK)
    data = read_flash(device, start, align_up(address + size, CIPHER_BLOCK) - start)
    return cipher.decrypt(data, start)[address - start :][:size]


def _list_places(
    device: Device,
    names: tuple[int | str, ...],
    table: PartitionTable | None,
    table_offset: int,
    key: HostKey | None,
    bootloader: bool,
) -> Iterator[Place]:
    start = device.chip.flash.bootloader_offset
    size = FlashTarget.of(device).flash_size or 0
    if table is None and any(name != BOOTLOADER_NAME and isinstance(name, str) for name in names):
        table = _read_table(device, table_offset, key)
    if not names:
        table = table or _read_table(device, table_offset, key)
        if bootloader:
            yield Place(BOOTLOADER_NAME, start, table_offset)
        for row in table.partitions:
            if row.type in (APP, BOOTLOADER) and row.offset != start:
                yield Place(row.label, row.offset, min(row.end, size))
        return
    for name in names:
        if isinstance(name, int):
            yield Place(f"{name:#x}", name, size)
        elif name == BOOTLOADER_NAME:
            yield Place(BOOTLOADER_NAME, start, table_offset)
        else:
            assert table is not None
            row = find_partition(table, name)
            yield Place(row.label, row.offset, min(row.end, size))


def _read_table(device: Device, offset: int, key: HostKey | None) -> PartitionTable:
    if key is None:
        return read_partition_table(device, offset)
    from espwire.flash.host_key import read_encrypted_table

    return read_encrypted_table(device, key)
