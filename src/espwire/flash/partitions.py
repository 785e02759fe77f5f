"""Partitions by name: the table of a device, where a name lies, whether a file fits. Writes nothing.

OTA data of a device: which slot boots, and making another one boot. The rules are image/ota.py's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.errors import TableError, Unsupported
from espwire.events import PlannedStep, PlanReady, Report, Warned, silent
from espwire.flash.erase import erase_region
from espwire.flash.plan import Part, Policy
from espwire.flash.read import read_bytes
from espwire.flash.write import write_flash
from espwire.image.ota import (
    OTA_DATA_SIZE,
    OtaChange,
    OtaState,
    OtaStatus,
    build_sector,
    find_boot,
    find_ota_data,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_table import (
    TABLE_OFFSET,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    find_partition,
    parse_table,
)
from espwire.sizes import SECTOR

if TYPE_CHECKING:
    from espwire.device.device import Device


def read_partition_table(device: Device, offset: int = TABLE_OFFSET) -> PartitionTable:
    """The table that the device holds.

    :raises Unsupported: this loader cannot read flash
    :raises TableError: there is none at ``offset``, or it is broken
    """
    try:
        data = read_bytes(device, offset, TABLE_SIZE)
    except Unsupported as error:
        if error.code != "cannot-read-flash":
            raise
        raise Unsupported(
            f"the partition table cannot be read: {error}",
            hint=f"{error.hint} Else give the table as a file, --partitions partitions.csv, or addresses, not names.",
            code="cannot-read-partitions",
        ) from None
    return parse_table(data, f"the flash at {offset:#x}")


def find_place(table: PartitionTable, name: str, *, report: Report = silent) -> Partition:
    """The partition that something shall be written to; one that must be encrypted is told.

    :raises TableError: code ``partition-unknown``
    """
    found = find_partition(table, name)
    if "encrypted" in found.flag_names:
        text = f"partition '{found.label}' is flagged encrypted: with flash encryption on, it must be written encrypted"
        report(Warned(code="partition-encrypted", text=text))
    return found


def check_fits(found: Partition, size: int, what: str) -> None:
    """Raise where ``size`` bytes are more than the partition has.

    :raises TableError: code ``partition-too-small``
    """
    if size > found.size:
        raise TableError(
            f"{what} has {size:#x} bytes, but partition '{found.label}' at {found.offset:#x} only {found.size:#x}",
            hint="Make it smaller, or the partition larger; an address instead of the name is not checked.",
            code="partition-too-small",
            partition=found.name,
            size=size,
            room=found.size,
        )


def check_inside(partition: Partition, ranges: Iterable[tuple[int, int]], what: str) -> None:
    """Raise where data that brings its own addresses leaves the partition it was named for.

    :raises TableError: code ``partition-outside``
    """
    for start, end in ranges:
        if start < partition.offset or end > partition.end:
            raise TableError(
                f"{what} has data for {start:#x} to {end:#x}, outside partition '{partition.label}' "
                f"({partition.offset:#x} to {partition.end:#x})",
                hint="The file brings its own addresses: name the right partition, or give an address.",
                code="partition-outside",
            )


def read_ota_status(device: Device, *, table: PartitionTable | None = None) -> OtaStatus:
    """What boots, by the device's partition table (or ``table``) and its OTA data.

    :raises Unsupported: this loader cannot read flash; code ``ota-encrypted``: its flash is encrypted
    :raises TableError: no partition table, or a broken one
    """
    _check_plain(device)
    table = table or read_partition_table(device)
    place = find_ota_data(table)
    if place is None:
        return find_boot(table, None)
    return find_boot(table, parse_ota_data(read_bytes(device, place.offset, OTA_DATA_SIZE)))


def switch_ota(
    device: Device,
    slot: str,
    *,
    table: PartitionTable | None = None,
    state: OtaState = OtaState.UNDEFINED,
    dry_run: bool = False,
    report: Report = silent,
) -> OtaChange:
    """Make the slot boot: only the sector of the OTA data that does not count is written, and verified.

    :param slot: a partition's name, ``ota_1``, ``1``, or ``factory``
    :raises TableError: ``ota-slot``, ``no-ota-data``, or no partition table
    :raises Unsupported: as ``read_ota_status``
    :raises SafetyStop, VerifyError: as ``write_flash``
    """
    _check_plain(device)
    table = table or read_partition_table(device)
    place = require_ota_data(table)
    data = parse_ota_data(read_bytes(device, place.offset, OTA_DATA_SIZE))
    change = plan_switch(table, data, slot, state)
    if dry_run:
        report(build_plan_event(change, place))
        return change
    for index in change.erase:
        erase_region(device, place.offset + index * SECTOR, SECTOR, policy=Policy(), report=report)
    if change.write is not None and change.entry is not None:
        part = Part(
            place.offset + change.write * SECTOR,
            build_sector(change.entry),
            f"{place.label} {change.write}",
        )
        write_flash(device, [part], report=report)
    return change


def require_ota_data(table: PartitionTable) -> Partition:
    """The partition that holds the choice.

    :raises TableError: code ``no-ota-data``
    """
    place = find_ota_data(table)
    if place is None:
        raise TableError(
            "the partition table has no OTA data partition (type data, subtype ota)",
            hint="What boots is fixed by the table: factory, or the first OTA slot.",
            code="no-ota-data",
        )
    return place


def build_plan_event(change: OtaChange, place: Partition) -> PlanReady:
    """What a switch is going to do, as an event."""
    sectors = [("erase", index) for index in change.erase]
    if change.entry is not None and change.write is not None:
        sectors.append(("write", change.write))
    actions = tuple(
        PlannedStep(kind=kind, address=place.offset + index * SECTOR, size=SECTOR, name=place.label)
        for kind, index in sectors
    )
    return PlanReady(
        steps=describe_change(change, place), wire_bytes=0, seconds=0.0, actions=actions
    )


def describe_change(change: OtaChange, place: Partition) -> tuple[str, ...]:
    """One line per step."""
    steps = [
        f"erase {place.offset + index * SECTOR:#x}, sector {index} of {place.label}"
        for index in change.erase
    ]
    if change.entry is not None and change.write is not None:
        address = place.offset + change.write * SECTOR
        steps.append(
            f"write sequence {change.entry.sequence} at {address:#x}, sector {change.write} of {place.label}"
        )
    return tuple(steps) or (f"nothing: {change.slot.label} boots already",)


def _check_plain(device: Device) -> None:
    """The chip encrypts OTA data with the rest of its flash."""
    if device.security is not None and device.security.flash_encryption:
        raise Unsupported(
            "the flash of this chip is encrypted, and so are its partition table and OTA data",
            hint="Have the application itself switch, with esp_ota_set_boot_partition.",
            code="ota-encrypted",
        )
