"""Which port a run means: what ``--port`` names, or the one board that is plugged in. Opens nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espwire.errors import PortNotFound, UsageError
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.state import State
    from espwire.transport.open_errors import Holder
    from espwire.transport.ports import Lister, PortIdentity, SystemPort

URL = re.compile(r"(?!COM\d+:?$)[A-Za-z][A-Za-z0-9+]{2,}:.*", re.IGNORECASE)
MAC = re.compile(r"[0-9a-fA-F]{2}([:-]?[0-9a-fA-F]{2}){5}")
PORT_WORD = re.compile(
    r"[a-z0-9]{3,}://.+|virtual:.+|com[0-9]+:?|/dev/(?!std(in|out|err)$|fd/|null$|zero$|full$|shm/|u?random$).+",
    re.IGNORECASE,
)
HEAD = ("port", "ids", "serial number", "location", "board", "held by")


def is_port(word: str) -> bool:
    """Whether a word names a port rather than a file or an address.

    >>> [is_port(word) for word in ("/dev/ttyUSB0", "COM3", "virtual:esp32", "/dev/stdin", "common.bin", "0x0")]
    [True, True, True, False, False, False]
    """
    return PORT_WORD.fullmatch(word) is not None or (
        ":" in word and MAC.fullmatch(word) is not None
    )


def find_target(
    name: str | None,
    *,
    filters: Sequence[str] = (),
    any_port: bool = False,
    state: State,
    lister: Lister | None = None,
) -> SystemPort | str:
    """The port to open, or a URL (``socket://…``, ``virtual:…``) as it is.

    :param name: a path, a URL, a USB serial number, or a MAC that was seen before; None: choose among what is there
    :raises UsageError: codes ``several-ports``, ``port-filter``
    :raises PortNotFound: no board; nothing has this MAC
    """
    from espwire.transport.ports import (
        SystemPort,
        choose,
        list_ports,
        list_system_ports,
        parse_filter,
    )

    lister = lister or list_system_ports
    wanted = parse_filter(filters)
    if name is not None:
        return _find_named(name, state, lister)
    return SystemPort(
        choose(list_ports(lister), port_filter=wanted, any_port=any_port), lister=lister
    )


def is_other_board(name: str, identity: PortIdentity, mac: str) -> bool:
    """Whether ``name`` is a MAC, and not that of the chip that was found where it was remembered to be."""
    from espwire.cli.state import plain_mac

    if not MAC.fullmatch(name) or plain_mac(identity.serial) == plain_mac(name):
        return False  # a serial number is on the device itself
    return plain_mac(mac) != plain_mac(name)


def list_data(
    identities: Sequence[PortIdentity], holders: dict[str, Holder]
) -> list[dict[str, Any]]:
    """The ports for programs."""
    from espwire.transport.ports import is_known, likely_board

    rows: list[dict[str, Any]] = []
    for one in identities:
        holder = holders.get(one.path)
        rows.append(
            {
                "path": one.path,
                "vid": one.vid,
                "pid": one.pid,
                "serial": one.serial,
                "location": one.location,
                "description": one.description,
                "manufacturer": one.manufacturer,
                "board": likely_board(one),
                "known": is_known(one),
                "holder": None if holder is None else {"pid": holder.pid, "name": holder.name},
            }
        )
    return rows


def draw_table(rows: Sequence[dict[str, Any]], *, hidden: int = 0) -> str:
    """The ports for people; ``hidden`` is how many the filter took away."""
    if not rows:
        return (
            f"No serial port fits the filter; {hidden} do not."
            if hidden
            else "There is no serial port here."
        )
    cells = [HEAD, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    )


def _find_named(name: str, state: State, lister: Lister) -> SystemPort | str:
    from espwire.transport.ports import SystemPort, find_by_serial, find_port, list_ports

    if not name.strip() or URL.fullmatch(name):
        return name  # transport/url.py knows them, or says what is wrong
    if _is_path(name):
        return find_port(name, lister)
    there = list_ports(lister)
    if any(os.path.normcase(one.path) == os.path.normcase(name) for one in there):
        return find_port(name, lister)
    found = find_by_serial(name, there)
    if len(found) > 1:
        paths = [one.path for one in found]
        raise UsageError(
            f"{len(found)} ports have the serial number {name}",
            hint=f"Name one of them with --port: {', '.join(paths)}.",
            code="several-ports",
            ports=paths,
        )
    if found:
        return SystemPort(found[0], lister=lister)
    if not MAC.fullmatch(name):
        return name
    remembered = _find_remembered(name, state, there)
    if remembered is None:
        raise PortNotFound(
            f"no port is known to lead to the chip with MAC {name}",
            hint="Connect to it once by the name of its port; `espwire ports` shows what is there.",
            code="mac-not-found",
        )
    return SystemPort(remembered, lister=lister)


def _find_remembered(
    mac: str, state: State, there: tuple[PortIdentity, ...]
) -> PortIdentity | None:
    from espwire.cli.state import find_remembered

    return find_remembered(state, mac, there)


def _is_path(name: str) -> bool:
    """Whether it can only be a path: a serial number has no separator."""
    return os.sep in name or bool(re.fullmatch(r"COM\d+:?", name, re.IGNORECASE))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    ids = "-" if row["vid"] is None else f"{row['vid']:04x}:{row['pid'] or 0:04x}"
    holder = row["holder"]
    held = "-" if holder is None else f"{escape(holder['name']) or 'process'} ({holder['pid']})"
    return (
        _text(row["path"]),
        ids,
        _text(row["serial"]),
        _text(row["location"]),
        row["board"],
        held,
    )


def _text(value: str) -> str:
    """What a device says of itself must not drive the terminal."""
    return escape(value) or "-"
