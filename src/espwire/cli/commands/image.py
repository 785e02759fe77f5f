"""``image``: the group of commands that show what firmware files and flash hold."""

from __future__ import annotations

from espwire.cli.group import LazyGroup

SECTIONS = {"Commands": {"map": "Draw what stands where in a dump, a merged file or the device."}}

command = LazyGroup(
    name="image",
    sections=SECTIONS,
    package="espwire.cli.commands.image_commands",
    online=True,
    help="Pictures of firmware files and of flash.",
)
