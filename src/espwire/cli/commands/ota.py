"""``ota``: the group of commands for OTA data."""

from __future__ import annotations

from espwire.cli.group import LazyGroup

SECTIONS = {
    "Commands": {
        "status": "Show which application slot boots, and why.",
        "switch": "Make another application slot boot.",
    }
}

command = LazyGroup(
    name="ota",
    sections=SECTIONS,
    package="espwire.cli.commands.ota_commands",
    online=True,
    help="OTA data: which application boots.",
)
