"""The picture of a device's flash without reading all of it: table, heads of images, the chip's MD5 of each stretch."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.errors import TableError, UsageError
from espwire.events import Progress, Report, silent, thin_out
from espwire.flash.partitions import read_partition_table
from espwire.flash.read import read_bytes
from espwire.flash.survey import survey_device
from espwire.flash.verify import read_md5
from espwire.image.descriptors import APP, APP_MAGIC, parse_app_descriptor
from espwire.image.flash_map import Content, Evidence, FlashMap, build_map, join_words, name_idf
from espwire.image.model import EXTENDED, HEADER, MAGIC, MAX_SEGMENTS, SEGMENT_HEADER
from espwire.image.ota import OTA_DATA_SIZE, OtaStatus, find_boot, find_ota_data, parse_ota_data
from espwire.image.partition_table import APP as APP_TYPE
from espwire.image.partition_table import TABLE_OFFSET, PartitionTable
from espwire.protocol.opcodes import Op
from espwire.sizes import BLOCK, SECTOR, Ranges, join_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

HEAD = HEADER.size + EXTENDED.size + SEGMENT_HEADER.size + APP.size
MAX_QUESTIONS = 256


def read_map(
    device: Device,
    *,
    table_offset: int = TABLE_OFFSET,
    flash_size: int | None = None,
    report: Report = silent,
) -> FlashMap:
    """What stands where in the flash of a device. Checksums of images are not looked at.

    :param flash_size: bytes; None: as the flash itself says
    :raises Unsupported: this loader cannot read flash
    :raises UsageError: code ``flash-size-unknown``
    """
    size = survey_device(device, flash_size=flash_size).survey.real_size
    if size is None:
        raise UsageError(
            "the flash size is not known", hint="Give --flash-size.", code="flash-size-unknown"
        )
    table = _read_table(device, table_offset)
    boot = _read_boot(device, table) if table is not None else None
    filled = _find_filled(device, table, size, thin_out(report, device.transport.now))
    contents = tuple(
        found for place in _find_places(device, table) if (found := _read_head(device, place, size))
    )
    return build_map(
        Evidence(
            size=size,
            filled=filled,
            table=table,
            table_offset=table_offset,
            contents=contents,
            boot=boot,
        )
    )


def _read_table(device: Device, offset: int) -> PartitionTable | None:
    """The table; None: there is none, which is nothing wrong with a picture."""
    try:
        return read_partition_table(device, offset)
    except TableError:
        return None


def _read_boot(device: Device, table: PartitionTable) -> OtaStatus:
    place = find_ota_data(table)
    if place is None:
        return find_boot(table, None)
    return find_boot(table, parse_ota_data(read_bytes(device, place.offset, OTA_DATA_SIZE)))


def _find_places(device: Device, table: PartitionTable | None) -> list[int]:
    places = [device.chip.flash.bootloader_offset]
    rows = table.partitions if table is not None else ()
    return places + [
        row.offset for row in rows if row.type == APP_TYPE and row.offset not in places
    ]


def _find_filled(device: Device, table: PartitionTable | None, size: int, report: Report) -> Ranges:
    """Stretches that are not blank: blocks, cut at the borders of partitions; sectors in the first block."""
    block = max(BLOCK, size // MAX_QUESTIONS)
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
    blank = b"\xff" * size
    if not device.loader.supports(Op.SPI_FLASH_MD5):
        return read_bytes(device, address, size) == blank
    return read_md5(device, address, size) == hashlib.md5(blank, usedforsecurity=False).digest()


def _read_head(device: Device, address: int, size: int) -> Content | None:
    """The image at an address, by its headers alone."""
    if address + HEAD > size:
        return None
    head = read_bytes(device, address, HEAD)
    magic, count, *_ = HEADER.unpack_from(head)
    if magic != MAGIC or not 1 <= count <= MAX_SEGMENTS:
        return None
    at, flag = address + HEADER.size + EXTENDED.size, head[HEADER.size + EXTENDED.size - 1]
    for _ in range(count):
        if at + SEGMENT_HEADER.size > size:
            return None
        _, length = SEGMENT_HEADER.unpack(read_bytes(device, at, SEGMENT_HEADER.size))
        at += SEGMENT_HEADER.size + length
    end = address + ((at - address) // 16 + 1) * 16 + (32 if flag == 1 else 0)
    start = HEADER.size + EXTENDED.size + SEGMENT_HEADER.size
    kind = "bootloader" if address == device.chip.flash.bootloader_offset else "app"
    if int.from_bytes(head[start : start + 4], "little") != APP_MAGIC:
        return Content(kind, address, end - address, "")  # type: ignore[arg-type]
    told = parse_app_descriptor(head[start:])
    detail = join_words((told.project, told.version, name_idf(told.idf_version)))
    return Content("app", address, end - address, detail)
