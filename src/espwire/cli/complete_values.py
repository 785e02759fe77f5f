"""Values that a shell may complete for an option."""

from __future__ import annotations

from click.shell_completion import CompletionItem

BAUDS = ("115200", "230400", "460800", "921600", "1500000", "2000000", "9600", "57600", "74880")


def complete_chip(incomplete: str) -> list[CompletionItem[str]]:
    """``--chip``: the names of the chips."""
    from espwire.chips.index import NAMES

    names = {"auto": "detect the chip"} | NAMES
    start = incomplete.lower()
    return [
        CompletionItem(name, help=text) for name, text in names.items() if name.startswith(start)
    ]


def complete_port(incomplete: str) -> list[CompletionItem[str]]:
    """``--port``: the existing ports, likely boards first. Opens none."""
    from espwire.transport.ports import likely_board, list_ports, list_system_ports, rank

    return [
        CompletionItem(port.path, help=likely_board(port) or None)
        for port in rank(list_ports(list_system_ports))
        if port.path.lower().startswith(incomplete.lower())
    ]


def complete_baud(incomplete: str) -> list[CompletionItem[str]]:
    """``--baud``: the usual rates."""
    return [CompletionItem(rate) for rate in BAUDS if rate.startswith(incomplete)]


COMPLETERS = {"chip": complete_chip, "port": complete_port, "baud": complete_baud}
