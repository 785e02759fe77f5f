"""What is where in a device's flash: its partition table, the slot that boots (and switching it), the flash map."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.errors import TableError, Unsupported, UsageError
from espwire.events import PlannedStep, PlanReady, Progress, Report, Warned, silent
from espwire.flash.erase import erase_region
from espwire.flash.findings import Policy
from espwire.flash.model import BLANK, FlashTarget
from espwire.flash.read import read_flash
from espwire.flash.read_table import read_boot_slot, read_partition_table, read_table_if_any
from espwire.flash.signed import find_image_end
from espwire.flash.write import write_flash
from espwire.image.descriptors import APP, APP_MAGIC, parse_app_descriptor
from espwire.image.flash_map import Area, FlashMap, build_map, join_details, name_idf
from espwire.image.model import EXTENDED, HEADER, SEGMENT_HEADER
from espwire.image.ota import (
    OTA_DATA_SIZE,
    OtaChange,
    OtaState,
    OtaStatus,
    build_sector,
    find_ota_data,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_table import APP as APP_TYPE
from espwire.image.partition_table import (
    TABLE_OFFSET,
    Partition,
    PartitionTable,
    find_partition,
)
from espwire.progress import track
from espwire.sizes import BLOCK, SECTOR, Ranges, join_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

HEAD = HEADER.size + EXTENDED.size + SEGMENT_HEADER.size + APP.size
MAX_DIGESTS = 256


def find_place(table: PartitionTable, name: str, *, report: Report = silent) -> Partition:
    """The partition to write to; a warning if it must be encrypted.

    :raises TableError: code ``partition-unknown``
    """
    partition = find_partition(table, name)
    if "encrypted" in partition.flag_names:
        text = f"partition '{partition.label}' is flagged encrypted: with flash encryption on, it must be written encrypted"
        report(Warned(code="partition-encrypted", text=text))
    return partition


def check_fits(partition: Partition, size: int, what: str) -> None:
    """Raise where ``size`` bytes are more than the partition has.

    :raises TableError: code ``partition-too-small``
    """
    if size > partition.size:
        raise TableError(
            f"{what} has {size:#x} bytes, but partition '{partition.label}' at {partition.offset:#x} has only {partition.size:#x}",
            hint="Make the data smaller or the partition larger.",
            code="partition-too-small",
            partition=partition.name,
            size=size,
            room=partition.size,
        )


def check_inside(partition: Partition, ranges: Iterable[tuple[int, int]], what: str) -> None:
    """Raise where data that has its own addresses leaves the partition it was named for.

    :raises TableError: code ``partition-outside``
    """
    for start, end in ranges:
        if start < partition.offset or end > partition.end:
            raise TableError(
                f"{what} has data for {start:#x} to {end:#x}, outside partition '{partition.label}' "
                f"({partition.offset:#x} to {partition.end:#x})",
                hint="The file contains addresses: use the partition that they are in.",
                code="partition-outside",
            )


def read_ota_status(device: Device, *, table: PartitionTable | None = None) -> OtaStatus:
    """What boots, by the device's partition table (or ``table``) and its OTA data.

    :raises Unsupported: this loader cannot read flash; code ``ota-encrypted``: its flash is encrypted
    :raises TableError: no partition table, or a broken one
    """
    _check_plain(device)
    return read_boot_slot(device, table or read_partition_table(device))


def switch_ota(
    device: Device,
    slot: str,
    *,
    table: PartitionTable | None = None,
    state: OtaState = OtaState.UNDEFINED,
    dry_run: bool = False,
    report: Report = silent,
) -> OtaChange:
    """Make the slot boot: only the OTA data sector that is not in use is written, and verified.

    :param slot: a partition's name, ``ota_1``, ``1``, or ``factory``
    :raises TableError: ``ota-slot``, ``no-ota-data``, or no partition table
    :raises Unsupported: as ``read_ota_status``
    :raises SafetyStop, VerifyError: as ``write_flash``
    """
    _check_plain(device)
    table = table or read_partition_table(device)
    partition = require_ota_data(table)
    data = parse_ota_data(read_flash(device, partition.offset, OTA_DATA_SIZE))
    change = plan_switch(table, data, slot, state)
    if dry_run:
        report(build_plan_event(change, partition))
        return change
    for index in change.erase:
        erase_region(
            device, partition.offset + index * SECTOR, SECTOR, policy=Policy(), report=report
        )
    if change.write is not None and change.entry is not None:
        blob = Blob(
            partition.offset + change.write * SECTOR,
            build_sector(change.entry),
            f"{partition.label} {change.write}",
        )
        write_flash(device, [blob], report=report)
    return change


def require_ota_data(table: PartitionTable) -> Partition:
    """The partition with the OTA data.

    :raises TableError: code ``no-ota-data``
    """
    partition = find_ota_data(table)
    if partition is None:
        raise TableError(
            "the partition table has no OTA data partition (type data, subtype ota)",
            hint="Add an otadata partition; without it, the chip always boots factory or the first OTA slot.",
            code="no-ota-data",
        )
    return partition


def build_plan_event(change: OtaChange, partition: Partition) -> PlanReady:
    """The plan of a switch, as an event."""
    sectors = [("erase", index) for index in change.erase]
    if change.entry is not None and change.write is not None:
        sectors.append(("write", change.write))
    actions = tuple(
        PlannedStep(
            kind=kind, address=partition.offset + index * SECTOR, size=SECTOR, name=partition.label
        )
        for kind, index in sectors
    )
    return PlanReady(
        steps=describe_change(change, partition), wire_bytes=0, seconds=0.0, actions=actions
    )


def describe_change(change: OtaChange, partition: Partition) -> tuple[str, ...]:
    """One line per step."""
    steps = [
        f"erase {partition.offset + index * SECTOR:#x}, sector {index} of {partition.label}"
        for index in change.erase
    ]
    if change.entry is not None and change.write is not None:
        address = partition.offset + change.write * SECTOR
        steps.append(
            f"write sequence {change.entry.sequence} at {address:#x}, sector {change.write} of {partition.label}"
        )
    return tuple(steps) or (f"nothing: {change.slot.label} boots already",)


def _check_plain(device: Device) -> None:
    """The chip encrypts OTA data with the rest of its flash."""
    if device.security is not None and device.security.flash_encryption:
        raise Unsupported(
            "the flash of this chip is encrypted, and so are its partition table and OTA data",
            hint="Switch from within the application with esp_ota_set_boot_partition.",
            code="ota-encrypted",
        )


def read_map(
    device: Device,
    *,
    table_offset: int = TABLE_OFFSET,
    flash_size: int | None = None,
    report: Report = silent,
) -> FlashMap:
    """What is where in the flash of a device, without reading all of it: its partition table, the headers of images and
    the chip's MD5 of each stretch. Checksums of images are not checked.

    :param flash_size: bytes; None: by the flash's own id
    :raises Unsupported: this loader cannot read flash
    :raises UsageError: code ``flash-size-unknown``
    """
    size = FlashTarget.of(device, flash_size=flash_size).real_size
    if size is None:
        raise UsageError(
            "the flash size is unknown", hint="Give --flash-size.", code="flash-size-unknown"
        )
    table = read_table_if_any(device, table_offset)
    boot = read_boot_slot(device, table) if table is not None else None
    filled = _find_filled(device, table, size, track(report, device.transport.now))
    heads = (_read_head(device, address, size) for address in _list_image_addresses(device, table))
    contents = tuple(head for head in heads if head is not None)
    return build_map(
        size, filled, table=table, table_offset=table_offset, contents=contents, boot=boot
    )


def _list_image_addresses(device: Device, table: PartitionTable | None) -> list[int]:
    addresses = [device.chip.flash.bootloader_offset]
    rows = table.partitions if table is not None else ()
    addresses += [row.offset for row in rows if row.type == APP_TYPE]
    return list(dict.fromkeys(addresses))


def _find_filled(device: Device, table: PartitionTable | None, size: int, report: Report) -> Ranges:
    """Stretches that are not blank: blocks, cut at the borders of partitions; sectors in the first block."""
    block = max(BLOCK, size // MAX_DIGESTS)
    borders = {0, size, *range(0, size, block), *range(0, min(BLOCK, size), SECTOR)}
    for row in table.partitions if table is not None else ():
        borders |= {at for at in (row.offset, row.end) if at < size and at % SECTOR == 0}
    edges = sorted(borders)
    filled = []
    for start, end in pairwise(edges):
        if not _is_blank(device, start, end - start):
            filled.append((start, end))
        report(Progress(task="read", name="map", done=end, total=size))
    return join_ranges(filled)


def _is_blank(device: Device, address: int, size: int) -> bool:
    blank = BLANK * size
    if not device.backend.limits.can_digest:
        return read_flash(device, address, size) == blank
    expected = hashlib.md5(blank, usedforsecurity=False).digest()
    return device.backend.digests(address, size, size) == [expected]


def _read_head(device: Device, address: int, size: int) -> Area | None:
    """The image at an address, by its headers alone."""
    if address + HEAD > size:
        return None
    end = find_image_end(partial(read_flash, device), address, size)
    if end is None:
        return None
    head = read_flash(device, address, HEAD)
    start = HEADER.size + EXTENDED.size + SEGMENT_HEADER.size
    kind = "bootloader" if address == device.chip.flash.bootloader_offset else "app"
    if int.from_bytes(head[start : start + 4], "little") != APP_MAGIC:
        return Area(kind, "", address, end - address)
    app = parse_app_descriptor(head[start:])
    detail = join_details((app.project, app.version, name_idf(app.idf_version)))
    return Area("app", "", address, end - address, detail)
