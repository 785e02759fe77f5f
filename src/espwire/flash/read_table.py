"""Reads a device's partition table and OTA data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.errors import TableError, Unsupported
from espwire.flash.read import read_flash
from espwire.image.model import ROW_MAGIC
from espwire.image.ota import OTA_DATA_SIZE, OtaStatus, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import (
    END_ROW,
    TABLE_OFFSET,
    USED_SIZE,
    PartitionTable,
    parse_table,
)

if TYPE_CHECKING:
    from espwire.device.device import Device

USUAL_SIZE = 0x200  # bytes of most tables, with the blank row at the end


def read_partition_table(device: Device, offset: int = TABLE_OFFSET) -> PartitionTable:
    """The table that the device holds.

    :raises Unsupported: this loader cannot read flash
    :raises TableError: there is none at ``offset``, or it is broken
    """
    try:
        data = read_flash(device, offset, USUAL_SIZE)
        if data[:2] == ROW_MAGIC and END_ROW not in data:
            data += read_flash(device, offset + USUAL_SIZE, USED_SIZE - USUAL_SIZE)
    except Unsupported as error:
        if error.code != "cannot-read-flash":
            raise
        raise Unsupported(
            f"the partition table cannot be read: {error}",
            hint=f"{error.hint} Or pass the table with --partitions FILE, or use addresses.",
            code="cannot-read-partitions",
        ) from None
    return parse_table(data, f"the flash at {offset:#x}")


def read_table_if_any(device: Device, offset: int = TABLE_OFFSET) -> PartitionTable | None:
    """As ``read_partition_table``; None: there is no table that can be used."""
    try:
        return read_partition_table(device, offset)
    except TableError:
        return None


def read_boot_slot(device: Device, table: PartitionTable) -> OtaStatus:
    """What boots by ``table`` and the device's OTA data."""
    partition = find_ota_data(table)
    data = read_flash(device, partition.offset, OTA_DATA_SIZE) if partition is not None else None
    return find_boot(table, parse_ota_data(data) if data is not None else None)
