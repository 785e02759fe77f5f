"""``partitions``: the group of commands for partition tables."""

from __future__ import annotations

from espwire.cli.group import LazyGroup

SECTIONS = {
    "Commands": {
        "show": "Show a table: of a CSV, a binary, a dump, or of the device.",
        "check": "Check a table against all rules and a flash size.",
        "build": "Make the binary table from CSV.",
        "read": "Take the table from the device or a dump, as binary or CSV.",
    }
}

command = LazyGroup(
    name="partitions",
    sections=SECTIONS,
    package="espwire.cli.commands.partitions_commands",
    online=True,
    help="Partition tables: show, check, build, read.",
)
