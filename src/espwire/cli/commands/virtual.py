"""``virtual``: the group of commands for chips made of software."""

from __future__ import annotations

from espwire.cli.group import LazyGroup

SECTIONS = {"Commands": {"serve": "Serve a virtual chip over TCP or a pty."}}

command = LazyGroup(
    name="virtual",
    sections=SECTIONS,
    package="espwire.cli.commands.virtual_commands",
    help="A chip made of software, for any flashing tool.",
)
