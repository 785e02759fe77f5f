"""OTA data in a dump of flash: read, and written back. What the commands of the ``ota`` group share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espwire.errors import TableError

if TYPE_CHECKING:
    from espwire.cli.session import Session
    from espwire.image.ota import OtaChange, OtaStatus
    from espwire.image.partition_table import PartitionTable


@dataclass(frozen=True)
class Dump:
    """A file that begins where flash begins, and what it says of booting."""

    path: str
    data: bytes = field(repr=False)
    table: PartitionTable
    status: OtaStatus

    def apply(self, change: OtaChange) -> None:
        """Write the file with the change made, whole or not at all.

        :raises FileError: it cannot be written
        """
        from espwire.files import write_file
        from espwire.flash.partitions import require_ota_data
        from espwire.image.ota import OTA_DATA_SIZE, apply_change

        offset = require_ota_data(self.table).offset
        end = offset + OTA_DATA_SIZE
        changed = apply_change(self.data[offset:end], change)
        write_file(self.path, self.data[:offset] + changed + self.data[end:])


def read_table_option(session: Session) -> PartitionTable | None:
    """The table of ``--partitions``, if it was given.

    :raises FileError, TableError: it cannot be used
    """
    from espwire.cli.tables import read_table_file

    return None if session.partitions is None else read_table_file(session.partitions, session)


def open_dump(path: str, session: Session, *, to_change: bool = False) -> Dump:
    """A dump of flash from its beginning, or a merged file of any format.

    :param to_change: it will be written back, so it has to be raw
    :raises FileError: it cannot be read
    :raises TableError: it has no partition table, or ends before the OTA data does
    :raises UsageError: it is not raw and shall be changed
    """
    from espwire.chips.registry import load_chip
    from espwire.cli.parts import STDIN, name_source, read_source
    from espwire.errors import UsageError
    from espwire.image.ota import OTA_DATA_SIZE, find_boot, find_ota_data, parse_ota_data
    from espwire.image.partition_table import TABLE_SIZE, parse_table
    from espwire.image.split import lay_out

    session.configure()
    chip = None if session.chip is None else load_chip(session.chip)
    offset, stored = session.partition_table_offset, read_source(path)
    data = (
        stored
        if not stored
        else lay_out(stored, name_source(path), chip, format=session.input_format)
    )
    if to_change and (data is not stored or path == STDIN):
        raise UsageError(
            f"{path} is no raw dump: OTA data can be changed in such a one only",
            hint="`espwire merge-bin -o dump.bin 0 FILE` makes one of it.",
            code="ota-not-raw",
        )
    table = read_table_option(session)
    table = table or parse_table(data[offset : offset + TABLE_SIZE], f"{path} at {offset:#x}")
    place = find_ota_data(table)
    if place is None:
        return Dump(path, data, table, find_boot(table, None))
    if place.offset + OTA_DATA_SIZE > len(data):
        raise TableError(
            f"{path} ends at {len(data):#x}, before its OTA data at {place.offset:#x} does",
            hint="Give a dump of the flash from address 0 that goes far enough.",
            code="ota-data-size",
        )
    return Dump(path, data, table, find_boot(table, parse_ota_data(data[place.offset :])))
