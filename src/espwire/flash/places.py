"""Partitions by name: the table of a device, where a name lies, whether a file fits. Writes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.errors import TableError, Unsupported
from espwire.events import Report, Warned, silent
from espwire.flash.read import read_bytes
from espwire.image.partitions import (
    TABLE_OFFSET,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    find_partition,
    parse_table,
)

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
