"""``ota status``: what boots, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import input_format_option
from espwire.cli.places import place_options
from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.image.ota import OtaData, OtaStatus


@click.command(
    "status", help="Show which application slot boots, of the device or of a dump of flash."
)
@click.argument("file", metavar="[FILE]", required=False)
@input_format_option
@place_options
@click.pass_obj
def command(session: Session, file: str | None) -> None:
    """Table and OTA data, then the boot loader's choice."""
    from espwire.cli.ota import open_dump, read_table_option
    from espwire.flash.partitions import read_ota_status, read_partition_table

    if file is not None:
        status = open_dump(file, session).status
    else:
        table = read_table_option(session)
        with session.device() as device:
            table = table or read_partition_table(device, session.partition_table_offset)
            status = read_ota_status(device, table=table)
    session.result("ota status", draw_status(status), describe_status(status))


def draw_status(status: OtaStatus) -> str:
    """A few lines."""
    boots = "nothing can boot" if status.boots is None else f"boots {status.boots.label}"
    lines = [f"{boots}: {status.reason}"]
    for row in status.slots:
        mark = "*" if row == status.boots else " "
        lines.append(f"{mark} {row.label:16} {row.subtype_name:8} {row.offset:#010x}")
    active = None if status.data is None else status.data.active
    for index, entry in enumerate(status.data.entries if status.data else ()):
        told = "blank" if entry.blank else f"sequence {entry.sequence}, state {entry.state_name}"
        told += "" if entry.blank or entry.crc_valid else ", wrong CRC"
        lines.append(f"sector {index}: {told}{' (this one counts)' if index == active else ''}")
    return "\n".join([*lines, *(f"note: {note}" for note in status.notes)])


def describe_status(status: OtaStatus) -> dict[str, Any]:
    """The same for programs."""
    return {
        "boots": None if status.boots is None else status.boots.label,
        "reason": status.reason,
        "slots": [
            {"name": row.label, "subtype": row.subtype_name, "offset": row.offset}
            for row in status.slots
        ],
        "active": None if status.data is None else status.data.active,
        "entries": describe_entries(status.data),
        "notes": list(status.notes),
    }


def describe_entries(data: OtaData | None) -> list[dict[str, Any]]:
    """Both entries for programs."""
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
