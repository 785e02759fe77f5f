"""Checks for side effects of a write: protected flash chips, partitions that become blank, applications that do not boot."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.device.flash_registers import FlashStatus
from espwire.errors import TableError
from espwire.flash.findings import Finding, build_fatal
from espwire.flash.model import BLANK, FlashTarget, Plan
from espwire.image.codec import is_image
from espwire.image.ota import OTA_DATA_SIZE, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import (
    APP,
    TABLE_OFFSET,
    TABLE_SIZE,
    PartitionTable,
    parse_table,
)
from espwire.sizes import SECTOR, Ranges, align_down, align_up, join_ranges, subtract_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

PROTECTED, LOCKED = 0x1C, 0x80  # in status register 1: BP0 to BP2, and SRP
UNREADABLE = (0x00, 0xFF)


def find_protection(status: FlashStatus) -> tuple[Finding, ...]:
    """The finding for a flash chip that protects some of its sectors: it ignores commands that erase or write them.

    Which sectors depends on the maker of the part. Source: data sheets of W25Q, GD25Q, MX25L, IS25LP: BP0 to BP2 are
    bits 2 to 4 of status register 1, and SRP bit 7.
    """
    first = status.registers[0]
    if first in UNREADABLE or not first & PROTECTED:
        return ()
    text = f"the flash chip protects some of its sectors (status register 1 is {first:#04x})"
    if first & LOCKED:
        text += ", and the register is locked (SRP is set): it can be changed only while the WP pin is high, if at all"
    else:
        text += f"; `espwire write-flash-status --non-volatile {first & ~PROTECTED:#04x}` ends that"
    return (build_fatal("write-protected", text),)


def find_blanked(device: Device, plan: Plan) -> tuple[Finding, ...]:
    """The finding for partitions that hold data now and will be blank, because a file has 0xFF all over them."""
    writes = [write for write in plan.writes if not write.encrypted]
    blank = join_ranges(
        (at, at + SECTOR)
        for write in writes
        for at in range(write.address, align_down(write.end, SECTOR), SECTOR)
        if not write.data[at - write.address :][:SECTOR].strip(BLANK)
    )
    if not blank or (table := read_table(device)) is None:
        return ()
    lost = [
        entry.label
        for entry in table.partitions
        if entry.size
        and not subtract_ranges([(entry.offset, entry.end)], blank)
        and device.backend.find_written(entry.offset, entry.size)
    ]
    if not lost:
        return ()
    text = f"{', '.join(lost)}: holds data now and will be blank, because a file has 0xFF there; --keep-gaps keeps it"
    return (Finding("data-erased", text),)


def find_unbooted(
    device: Device, target: FlashTarget, blobs: Iterable[Blob]
) -> tuple[str, str] | None:
    """The application that was written, and the one that boots instead, by their partitions' labels.

    None: what was written boots, no application was written, or the flash does not say. Through a ROM, reading the
    partition table would take a second, so it is not done.
    """
    limits = target.limits
    if target.encrypts_flash or not limits.can_read or limits.erases_at_begin:
        return None
    offsets = {
        blob.address for blob in blobs if is_image(blob.data) and blob.address > TABLE_OFFSET
    }
    if not offsets or (table := read_table(device)) is None:
        return None
    data = find_ota_data(table)
    written = [entry for entry in table.partitions if entry.type == APP and entry.offset in offsets]
    if data is None or not written:
        return None
    try:
        boots = find_boot(table, parse_ota_data(_read(device, data.offset, OTA_DATA_SIZE))).boots
    except TableError:
        return None
    if boots is None or boots.offset in offsets:
        return None
    return written[0].label, boots.label


def read_table(device: Device) -> PartitionTable | None:
    """The partition table at its usual place; None: there is none."""
    try:
        return parse_table(_read(device, TABLE_OFFSET, TABLE_SIZE), "the flash")
    except TableError:
        return None


def cut_gaps(blobs: Iterable[Blob]) -> list[Blob]:
    """``blobs`` without the whole sectors of 0xFF in them, which are left in flash as they are (``--keep-gaps``)."""
    cut: list[Blob] = []
    for blob in blobs:
        runs = _find_runs(blob)
        for number, (low, high) in enumerate(runs, 1):
            name = blob.name if len(runs) == 1 else f"{blob.label}, part {number}"
            cut.append(
                Blob(low, blob.data[low - blob.address : high - blob.address], name, kind=blob.kind)
            )
    return cut


def _find_runs(blob: Blob) -> Ranges:
    first, last = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
    filled = []
    for at in range(first, last, SECTOR):
        low, high = max(at, blob.address), min(at + SECTOR, blob.end)
        if high - low < SECTOR or blob.data[low - blob.address : high - blob.address].strip(BLANK):
            filled.append((low, high))
    return join_ranges(filled)


def _read(device: Device, address: int, size: int) -> bytes:
    return b"".join(device.backend.read(address, size))
