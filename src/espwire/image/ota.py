"""OTA data: two sectors that select the application slot to boot. Parse them, and plan a switch to another slot.

Layout and rules: ESP-IDF's guide "Over The Air Updates" (OTA data partition, app rollback) and its bootloader.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from espwire.errors import TableError
from espwire.image.partition_table import (
    APP,
    DATA,
    FACTORY,
    OTA_DATA,
    TEST,
    Partition,
    PartitionTable,
    find_kind,
)
from espwire.sizes import SECTOR
from espwire.text import escape

ENTRY = struct.Struct("<I20sII")  # sequence, label, state, CRC-32 of the sequence
OTA_DATA_SIZE = 2 * SECTOR
BLANK = 0xFFFFFFFF
MAX_SEQUENCE = BLANK - 1


class OtaState(IntEnum):
    """Progress of a new application; without rollback it stays undefined."""

    NEW = 0
    PENDING_VERIFY = 1
    VALID = 2
    INVALID = 3
    ABORTED = 4
    UNDEFINED = BLANK


STATES = {"undefined": OtaState.UNDEFINED, "new": OtaState.NEW, "valid": OtaState.VALID}
REJECTED = (OtaState.INVALID, OtaState.ABORTED)


@dataclass(frozen=True)
class OtaEntry:
    """The entry in one sector. Sequence 1 selects slot 0, 2 selects slot 1, and so on, wrapping around."""

    sequence: int = BLANK
    state: int = OtaState.UNDEFINED
    crc: int = BLANK
    label: bytes = b"\xff" * 20

    @property
    def blank(self) -> bool:
        """Whether the sequence is that of an erased sector."""
        return self.sequence == BLANK

    @property
    def crc_valid(self) -> bool:
        """Whether the CRC is that of the sequence."""
        return self.crc == compute_crc(self.sequence)

    @property
    def usable(self) -> bool:
        """Whether the bootloader uses it: sequence 0 is valid too, if its CRC is correct."""
        return not self.blank and self.crc_valid and self.state not in REJECTED

    @property
    def state_name(self) -> str:
        """``new``, ``pending-verify``, …, or the number."""
        known = self.state in tuple(OtaState)
        return OtaState(self.state).name.lower().replace("_", "-") if known else f"{self.state:#x}"


@dataclass(frozen=True)
class OtaData:
    """Both entries."""

    entries: tuple[OtaEntry, OtaEntry]

    @property
    def active(self) -> int | None:
        """The sector in effect: the usable one with the higher sequence."""
        usable = [index for index in (0, 1) if self.entries[index].usable]
        return max(usable, key=lambda index: (self.entries[index].sequence, -index), default=None)


@dataclass(frozen=True)
class OtaStatus:
    """What boots and why. ``boots`` None: nothing can. ``slots``: factory, OTA slots in order, test."""

    boots: Partition | None
    reason: str
    data: OtaData | None
    slots: tuple[Partition, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class OtaChange:
    """What to do to boot another slot: sectors to erase, then one to write; neither if it already boots."""

    slot: Partition
    erase: tuple[int, ...] = ()
    write: int | None = None
    entry: OtaEntry | None = None

    @property
    def nothing(self) -> bool:
        """Whether the slot already boots."""
        return not self.erase and self.write is None


def compute_crc(sequence: int) -> int:
    """CRC-32 of the four little-endian bytes, like ``crc32_le(UINT32_MAX, …)`` of the ROM."""
    return zlib.crc32(struct.pack("<I", sequence), 0xFFFFFFFF)


def parse_ota_data(data: bytes) -> OtaData:
    """Both entries.

    :raises TableError: code ``ota-data-size``: fewer than two sectors
    """
    if len(data) < OTA_DATA_SIZE:
        raise TableError(
            f"OTA data has {len(data):#x} bytes, not the {OTA_DATA_SIZE:#x} of two sectors",
            hint="Pass the whole partition of type data, subtype ota.",
            code="ota-data-size",
        )
    return OtaData((_parse_entry(data), _parse_entry(data[SECTOR:])))


def _parse_entry(data: bytes) -> OtaEntry:
    sequence, label, state, crc = ENTRY.unpack_from(data)
    return OtaEntry(sequence, state, crc, label)


def build_sector(entry: OtaEntry) -> bytes:
    """One sector with this entry; the rest blank."""
    return ENTRY.pack(entry.sequence, entry.label, entry.state, entry.crc).ljust(SECTOR, b"\xff")


def find_ota_data(table: PartitionTable) -> Partition | None:
    """The partition with the OTA data: the last one of its kind, as in the bootloader."""
    return find_kind(reversed(table.partitions), DATA, OTA_DATA)


def number_slots(table: PartitionTable) -> tuple[Partition | None, ...]:
    """The bootloader's slots by number: as many as the table has OTA rows, whatever the numbers of the rows are.

    None: no row has that number. If two rows have the same number, the last is used; a row whose number is not below
    the count never boots.
    """
    rows = [row for row in table.partitions if row.ota_slot is not None]
    slots = {row.ota_slot: row for row in rows}
    return tuple(slots.get(number) for number in range(len(rows)))


def find_ota_slots(table: PartitionTable) -> tuple[Partition, ...]:
    """The slots that the bootloader can boot, by number."""
    return tuple(row for row in number_slots(table) if row is not None)


def choose_slot(sequence: int, count: int) -> int:
    """The slot that a sequence selects, by the bootloader's 32-bit arithmetic: 0 wraps to the largest number.

    >>> choose_slot(1, 2), choose_slot(2, 2), choose_slot(0, 2), choose_slot(0, 3)
    (0, 1, 1, 0)
    """
    return ((sequence - 1) & 0xFFFFFFFF) % count


def find_boot(table: PartitionTable, data: OtaData | None) -> OtaStatus:
    """What the bootloader starts. ``data`` None: the table has no OTA data partition.

    Not considered: a button that selects ``test`` or ``factory``, and an application that fails its checks.
    """
    factory = find_kind(reversed(table.partitions), APP, FACTORY)
    test = find_kind(reversed(table.partitions), APP, TEST)
    slots = number_slots(table)
    everything = tuple(row for row in (factory, *slots, test) if row is not None)
    first = next((row for row in (factory, *slots, test) if row is not None and row.size), None)
    if data is None:
        reason = "the table has no OTA data partition"
        return OtaStatus(first, reason, None, everything)
    place = find_ota_data(table)
    if place is not None and place.size < OTA_DATA_SIZE:
        reason = f"the OTA data partition has {place.size:#x} bytes, less than {OTA_DATA_SIZE:#x}: the bootloader resets"
        return OtaStatus(None, reason, data, everything)
    active = data.active
    if active is None or not slots:
        reason = "no entry of the OTA data is usable"
        if active is not None:
            reason = "the table has no OTA slot"
        elif all(entry.blank for entry in data.entries):
            reason = "OTA data is blank"
        return OtaStatus(first, reason, data, everything, _find_notes(data))
    entry = data.entries[active]
    number = choose_slot(entry.sequence, len(slots))
    reason = f"sector {active} has sequence {entry.sequence}"
    # from the selected slot down to factory, then up, then test, skipping what is missing or empty
    order = (*reversed(slots[: number + 1]), factory, *slots[number + 1 :], test)
    boots = next((row for row in order if row is not None and row.size), None)
    if slots[number] is None or boots != slots[number]:
        reason += f", but slot {number} is missing or empty"
    return OtaStatus(boots, reason, data, everything, _find_notes(data))


def _find_notes(data: OtaData) -> tuple[str, ...]:
    notes = []
    for index, entry in enumerate(data.entries):
        if not entry.blank and not entry.crc_valid:
            notes.append(f"sector {index}: the CRC is wrong, so the entry is ignored")
        elif not entry.blank and entry.state in REJECTED:
            notes.append(f"sector {index}: its application was rejected ({entry.state_name})")
    if data.active is not None and data.entries[data.active].state == OtaState.PENDING_VERIFY:
        notes.append(
            "the application has not confirmed itself: with rollback, the next boot starts the previous application"
        )
    return tuple(notes)


def plan_switch(
    table: PartitionTable, data: OtaData, name: str, state: OtaState = OtaState.UNDEFINED
) -> OtaChange:
    """What to write so that ``name`` (a partition's name, ``ota_1``, ``factory``) boots.

    Only the sector that is not in effect is written, so that one of the two applications boots at any time. For
    ``factory`` both are erased, the one in effect last.

    :raises TableError: ``ota-slot``: no such slot, or OTA data cannot select it; ``ota-sequence``: the counter is full
    """
    slot = _find_slot(table, name)
    slots = number_slots(table)
    active = data.active
    if slot.ota_slot is None:
        used = [index for index in (0, 1) if data.entries[index] != OtaEntry()]
        return OtaChange(slot, erase=tuple(sorted(used, key=lambda index: index == active)))
    current = 0 if active is None else data.entries[active].sequence
    if active is not None and slots[choose_slot(current, len(slots))] == slot:
        return OtaChange(slot)
    sequence = (
        current + 1 + (slot.ota_slot - current) % len(slots)
    )  # the next one that selects the slot
    if sequence > MAX_SEQUENCE:
        raise TableError(
            f"the sequence {current:#x} in the OTA data is the highest possible",
            hint="Switch to factory or erase the otadata partition, then switch again.",
            code="ota-sequence",
        )
    target = 0 if active is None else 1 - active
    entry = OtaEntry(sequence, state, compute_crc(sequence))
    return OtaChange(slot, write=target, entry=entry)


def _find_slot(table: PartitionTable, name: str) -> Partition:
    factory = find_kind(reversed(table.partitions), APP, FACTORY)
    bootable = (*find_ota_slots(table), *([factory] if factory else []))
    for row in bootable:
        if name in (row.name, row.label):
            return row
    for row in bootable:
        if name in (row.subtype_name, str(row.ota_slot)):
            return row
    known = ", ".join(row.label for row in bootable) or "none"
    raise TableError(
        f"OTA data cannot select '{escape(name)}'", hint=f"It can select: {known}.", code="ota-slot"
    )


def apply_change(data: bytes, change: OtaChange) -> bytes:
    """The bytes of both sectors after the change."""
    sectors = [data[:SECTOR], data[SECTOR:OTA_DATA_SIZE]]
    for index in change.erase:
        sectors[index] = b"\xff" * SECTOR
    if change.write is not None and change.entry is not None:
        sectors[change.write] = build_sector(change.entry)
    return b"".join(sectors)
