"""``ota status`` and ``ota switch``, on a device or a dump of its flash."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.inputs import (
    STDIN,
    TableSource,
    load_chip_option,
    name_source,
    read_source,
    read_table_file,
)
from espwire.cli.options import dry_run_option, input_format_option, table_options
from espwire.errors import TableError, UsageError
from espwire.files import write_file
from espwire.image.ota import (
    OTA_DATA_SIZE,
    STATES,
    OtaChange,
    OtaData,
    OtaEntry,
    OtaStatus,
    apply_change,
    find_boot,
    find_ota_data,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_table import TABLE_SIZE, PartitionTable, parse_table
from espwire.image.split import lay_out

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.image.read_any import FormatChoice


@dataclass(frozen=True)
class Dump:
    """A file with the contents of flash from address 0, and its boot state."""

    path: str
    data: bytes = field(repr=False)
    table: PartitionTable
    status: OtaStatus

    def apply(self, change: OtaChange) -> None:
        """Write the changed file, whole or not at all.

        :raises FileError: it cannot be written
        """
        from espwire.flash.partitions import require_ota_data

        start = require_ota_data(self.table).offset
        end = start + OTA_DATA_SIZE
        changed = apply_change(self.data[start:end], change)
        write_file(self.path, self.data[:start] + changed + self.data[end:])


def _open_dump(
    context: Context, path: str, source: TableSource, format: FormatChoice, *, for_change: bool
) -> Dump:
    """Read a dump of flash, or a merged file of any format.

    :raises FileError: it cannot be read
    :raises TableError: it has no partition table, or ends before its OTA data
    :raises UsageError: it is to be changed, but is not raw
    """

    chip = load_chip_option(context)
    stored = data = read_source(path)
    if stored:
        data = lay_out(stored, name_source(path), chip, format=format)
    if for_change and (data is not stored or path == STDIN):
        raise UsageError(
            f"{path} is not a raw dump; OTA data can be changed only in a raw dump",
            hint="Convert it with `espwire merge-bin -o dump.bin 0 FILE`.",
            code="ota-not-raw",
        )
    offset = source.offset
    table = _read_table_option(context, source) or parse_table(
        data[offset : offset + TABLE_SIZE], f"{path} at {offset:#x}"
    )
    partition = find_ota_data(table)
    if partition is None:
        return Dump(path, data, table, find_boot(table, None))
    if partition.offset + OTA_DATA_SIZE > len(data):
        raise TableError(
            f"{path} ends at {len(data):#x}, before the end of its OTA data at {partition.offset:#x}",
            hint="Give a dump that starts at address 0 and includes the OTA data.",
            code="ota-data-size",
        )
    return Dump(path, data, table, find_boot(table, parse_ota_data(data[partition.offset :])))


def _read_table_option(context: Context, source: TableSource) -> PartitionTable | None:
    """The table of ``--partitions``, if it is given.

    :raises FileError, TableError: it cannot be used
    """
    if source.file is None:
        return None
    return read_table_file(context, source.file, source.offset)


@click.command()
@click.argument("file", metavar="[FILE]", required=False)
@input_format_option
@table_options
@click.pass_obj
def status(
    context: Context,
    file: str | None,
    input_format: FormatChoice,
    partitions: str | None,
    table_offset: int,
) -> None:
    """FILE is a dump of flash. Without FILE, the device's flash is read."""
    from espwire.flash.partitions import read_ota_status
    from espwire.flash.read_table import read_partition_table

    source = TableSource(partitions, table_offset)
    if file is not None:
        status = _open_dump(context, file, source, input_format, for_change=False).status
    else:
        table = _read_table_option(context, source)
        with context.device() as device:
            table = table or read_partition_table(device, table_offset)
            status = read_ota_status(device, table=table)
    context.result("ota status", _draw_status(status), _status_data(status))


def _draw_status(status: OtaStatus) -> str:
    boots = "nothing can boot" if status.boots is None else f"boots {status.boots.label}"
    lines = [f"{boots}: {status.reason}"]
    for row in status.slots:
        mark = "*" if row == status.boots else " "
        lines.append(f"{mark} {row.label:16} {row.subtype_name:8} {row.offset:#010x}")
    active = None if status.data is None else status.data.active
    for index, entry in enumerate(status.data.entries if status.data else ()):
        text = "blank" if entry.blank else f"sequence {entry.sequence}, state {entry.state_name}"
        text += "" if entry.blank or entry.crc_valid else ", wrong CRC"
        lines.append(f"sector {index}: {text}{' (active)' if index == active else ''}")
    return "\n".join([*lines, *(f"note: {note}" for note in status.notes)])


def _status_data(status: OtaStatus) -> dict[str, Any]:
    return {
        "boots": None if status.boots is None else status.boots.label,
        "reason": status.reason,
        "slots": [
            {"name": row.label, "subtype": row.subtype_name, "offset": row.offset}
            for row in status.slots
        ],
        "active": None if status.data is None else status.data.active,
        "entries": _entries_data(status.data),
        "notes": list(status.notes),
    }


def _entries_data(data: OtaData | None) -> list[dict[str, Any]]:
    return [
        {
            "blank": entry.blank,
            "sequence": None if entry.blank else entry.sequence,
            "state": entry.state_name,
            "crc_valid": entry.crc_valid,
            "usable": entry.usable,
        }
        for entry in (data.entries if data else ())
    ]


@click.command()
@click.argument("slot", metavar="SLOT")
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--state",
    type=click.Choice(("undefined", "new", "valid")),
    default="undefined",
    help="State of the new entry; new allows a rollback. Default: undefined.",
)
@dry_run_option
@input_format_option
@table_options
@click.pass_obj
def switch(
    context: Context,
    slot: str,
    file: str | None,
    state: str,
    dry_run: bool,
    input_format: FormatChoice,
    partitions: str | None,
    table_offset: int,
) -> None:
    """SLOT is a partition's name, ota_1, 1, or factory. FILE is a dump of flash to change. Without FILE, the device's
    flash is changed."""
    from espwire.flash.partitions import (
        build_plan_event,
        require_ota_data,
        switch_ota,
    )
    from espwire.flash.read_table import read_partition_table

    source = TableSource(partitions, table_offset)
    if file is not None:
        dump = _open_dump(context, file, source, input_format, for_change=True)
        partition = require_ota_data(dump.table)
        data = dump.status.data or OtaData((OtaEntry(), OtaEntry()))
        change = plan_switch(dump.table, data, slot, STATES[state])
        context.report(build_plan_event(change, partition))
        if not dry_run and not change.nothing:
            dump.apply(change)
    else:
        table = _read_table_option(context, source)
        with context.device() as device:
            change = switch_ota(
                device,
                slot,
                table=table or read_partition_table(device, table_offset),
                state=STATES[state],
                dry_run=dry_run,
                report=context.report,
            )
    name = change.slot.label
    if change.nothing:
        text = f"{name} already boots; nothing was written."
    elif dry_run:
        text = f"Nothing was written (--dry-run): {name} would boot."
    else:
        text = f"{name} boots next."
    outcome = {
        "slot": name,
        "written": not (dry_run or change.nothing),
        "erased": list(change.erase),
        "sector": change.write,
        "sequence": None if change.entry is None else change.entry.sequence,
    }
    context.finish("ota switch", text, outcome)
