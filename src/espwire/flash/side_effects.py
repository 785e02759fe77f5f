"""Checks for side effects of a write, such as partitions that become blank and applications that do not boot."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.device.flash_registers import FlashStatus
from espwire.errors import TableError
from espwire.events import PartitionChange
from espwire.flash.boot_content import ParsedImages
from espwire.flash.findings import Finding, build_fatal
from espwire.flash.model import BLANK, Erase, FlashTarget, Plan, Unbooted
from espwire.flash.read import read_flash
from espwire.flash.read_table import read_boot_slot, read_table_if_any
from espwire.flash.safety import find_signed_bootloader
from espwire.flash.table_diff import find_changes, find_misread
from espwire.image.build_file import TABLE
from espwire.image.codec import is_image
from espwire.image.model import ROW_MAGIC
from espwire.image.ota import find_ota_data
from espwire.image.partition_table import APP, TABLE_OFFSET, TABLE_SIZE, PartitionTable, parse_table
from espwire.image.scan import find_regions
from espwire.sizes import BLOCK, SECTOR, Ranges, align_down, align_up, join_ranges, subtract_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

PROTECTED, LOCKED = 0x1C, 0x80  # in status register 1: BP0 to BP2, and SRP
UNREADABLE = (0x00, 0xFF)

ReadTable = Callable[[], PartitionTable | None]  # the one in flash, at the usual offset


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


def find_blanked(device: Device, plan: Plan, read_table: ReadTable) -> tuple[Finding, ...]:
    """The finding for partitions that hold data now and will be blank, because a file has 0xFF all over them."""
    writes = [write for write in plan.writes if not write.encrypted]
    blank = join_ranges(
        (at, at + SECTOR)
        for write in writes
        for at in range(write.address, align_down(write.end, SECTOR), SECTOR)
        if not write.data[at - write.address :][:SECTOR].strip(BLANK)
    )
    if not blank or (table := read_table()) is None:
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


def find_table_changes(
    device: Device, target: FlashTarget, plan: Plan, blobs: Iterable[Blob]
) -> tuple[PartitionChange, ...]:
    """How a partition table that is written differs from the one in flash, and which data will be misread."""
    changes: list[PartitionChange] = []
    pieces = [piece for write in plan.writes if not write.encrypted for piece in write.pieces]
    covered = _find_covered(plan)
    end = target.flash_size or 0

    def find_data(low: int, high: int) -> Ranges:
        kept = subtract_ranges(
            [(align_up(low, SECTOR), align_down(min(high, end), SECTOR))], covered
        )
        found: list[tuple[int, int]] = []
        for start, stop in kept:
            written = device.backend.find_written(start, stop - start)
            found += ((start, stop),) if written is None else written
        return join_ranges(found)

    for offset, new in _list_tables(blobs):
        written = any(p.address < offset + TABLE_SIZE and offset < p.end for p in pieces)
        if not written or not device.backend.find_written(offset, TABLE_SIZE):
            continue
        old = read_table_if_any(device, offset)
        if old is None or old.partitions == new.partitions:
            continue
        changes += find_changes(old, new)
        left = (row for row in new.partitions if not _holds(covered, row.offset))
        changes += find_misread(old, replace(new, partitions=tuple(left)), find_data)
    return tuple(changes)


def find_table_overrun(
    device: Device, target: FlashTarget, blobs: Iterable[Blob], images: ParsedImages
) -> tuple[Finding, ...]:
    """The finding for a signed bootloader that reaches the partition table: fatal if one is in flash there.

    A table that is written as well shows where it belongs.
    """
    blobs = tuple(blobs)
    for blob in blobs:
        place = find_signed_bootloader(blob, target.chip, images)
        if place is None or place[1] <= TABLE_OFFSET:
            continue
        if any(region.table for other in blobs for region in find_regions(other.data, target.chip)):
            return ()
        text = (
            f"the signed bootloader in {blob.label} ends at {place[1]:#x}, behind {TABLE_OFFSET:#x}"
        )
        readable = target.limits.can_read and not target.encrypts_flash
        if not readable:
            text += ": a partition table there would be overwritten"
            return (Finding("bootloader-size", text),)
        if read_table_if_any(device) is not None:
            text += ", where the partition table is in flash"
            return (build_fatal("bootloader-size", text),)
    return ()


def find_misread_data(changes: Iterable[PartitionChange]) -> tuple[Finding, ...]:
    """The finding for partitions that get data of others."""
    misread = [change for change in changes if change.kind == "misread"]
    if not misread:
        return ()
    names = " ".join(f"--erase {name}" for name in dict.fromkeys(change.name for change in misread))
    text = "; ".join(change.text for change in misread)
    return (Finding("data-misread", f"{text}; `flash {names}` erases it first"),)


def _list_tables(blobs: Iterable[Blob]) -> list[tuple[int, PartitionTable]]:
    """The partition tables in the blobs, by flash address."""
    tables = []
    for blob in blobs:
        offset = blob.address if blob.kind == TABLE else TABLE_OFFSET
        data = blob.data[offset - blob.address :][:TABLE_SIZE] if blob.address <= offset else b""
        if data[:2] == ROW_MAGIC:
            with suppress(TableError):
                tables.append((offset, parse_table(data)))
    return tables


def _find_covered(plan: Plan) -> Ranges:
    """What holds new content after the plan, or is erased: whole sectors."""
    return join_ranges(
        (
            align_down(step.address, SECTOR),
            align_up(step.address + step.size if isinstance(step, Erase) else step.end, SECTOR),
        )
        for step in plan.steps
    )


def _holds(ranges: Ranges, address: int) -> bool:
    return any(low <= address < high for low, high in ranges)


def changes_table(plan: Plan) -> bool:
    """Whether the partition table may be another one after the plan."""
    end = TABLE_OFFSET + TABLE_SIZE
    return any(low < end and high > TABLE_OFFSET for low, high in _find_covered(plan))


def find_unbooted(
    device: Device, target: FlashTarget, blobs: Iterable[Blob], read_table: ReadTable
) -> Unbooted | None:
    """The application that was written although another one boots.

    None: what was written boots, no application was written, or the flash does not show what boots. Through a ROM,
    reading the partition table would take a second, so it is not done.
    """
    limits = target.limits
    if target.encrypts_flash or not limits.can_read or limits.erases_at_begin:
        return None
    images = {address for blob in blobs for address in _find_images(blob)}
    if not images:
        return None
    table = read_table()
    if table is None or find_ota_data(table) is None:
        return None
    written = [row for row in table.partitions if row.type == APP and row.offset in images]
    if not written:
        return None
    try:
        boots = read_boot_slot(device, table).boots
    except TableError:
        return None
    if boots is None or boots in written or not is_image(read_flash(device, boots.offset, 1)):
        return None
    return Unbooted(written[0].label, boots.label)


def _find_images(blob: Blob) -> Iterable[int]:
    """Where the blob may hold an application: the addresses that a partition can have."""
    for address in range(align_up(max(blob.address, BLOCK), BLOCK), blob.end, BLOCK):
        if is_image(blob.data[address - blob.address :][:1]):
            yield address
