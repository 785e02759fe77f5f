"""Finds the port of a run: the one that ``--port`` names, or the only connected board. Opens nothing."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from espwire.errors import PortNotFound, UsageError
from espwire.text import hide_token

if TYPE_CHECKING:
    from espwire.cli.state import State
    from espwire.transport.ports import Lister, PortIdentity, SystemPort

# patterns of whole names, in any case; `re` compiles them at first use
URL = r"(?!COM\d+:?$)[A-Z][A-Z0-9+]{2,}:.*"
MAC = r"[0-9A-F]{2}([:-]?[0-9A-F]{2}){5}"
PORT_WORD = (
    r"[a-z0-9]{3,}://.+|virtual:.+|com[0-9]+:?"
    r"|/dev/(?!std(in|out|err)$|fd/|null$|zero$|full$|shm/|u?random$).+"
)

MAX_NAME = 60  # characters of a port in a file name


def is_port(word: str) -> bool:
    """Whether a word names a port rather than a file or an address.

    >>> [is_port(word) for word in ("/dev/ttyUSB0", "COM3", "virtual:esp32", "/dev/stdin", "common.bin", "0x0")]
    [True, True, True, False, False, False]
    """
    return _fits(PORT_WORD, word) or (":" in word and _fits(MAC, word))


def is_url(word: str) -> bool:
    """Whether it is a URL: ``socket://…``, ``virtual:…``."""
    return _fits(URL, word)


def _fits(pattern: str, word: str) -> bool:
    return re.fullmatch(pattern, word, re.IGNORECASE) is not None


def split_ports(text: str) -> tuple[str, ...]:
    """The ports of a list. A comma in the options of a ``virtual:`` port does not separate.

    >>> split_ports("COM3,/dev/ttyUSB0,virtual:esp32?fault=flip:1e-5,drop:1e-4")
    ('COM3', '/dev/ttyUSB0', 'virtual:esp32?fault=flip:1e-5,drop:1e-4')
    """
    ports: list[str] = []
    for piece in text.split(","):
        if ports and "?" in ports[-1] and not is_port(piece):
            ports[-1] += f",{piece}"
        elif piece.strip():
            ports.append(piece.strip())
    return tuple(ports)


def plain_name(port: str) -> str:
    """A port's name as part of a file name.

    >>> [plain_name(port) for port in ("/dev/ttyUSB0", "COM3", "socket://10.0.0.7:4000")]
    ['ttyUSB0', 'COM3', 'socket-10.0.0.7-4000']
    """
    port = hide_token(port)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", port.removeprefix("/dev/")).strip("-.")
    return plain[-MAX_NAME:] or "port"


def find_target(
    name: str | None,
    *,
    filters: Sequence[str] = (),
    any_port: bool = False,
    state: State,
    lister: Lister | None = None,
) -> SystemPort | str:
    """The port to open, or a URL (``socket://…``, ``virtual:…``) as it is.

    :param name: a path, a URL, a USB serial number or a known MAC address; None: the only connected board
    :raises UsageError: codes ``several-ports``, ``port-filter``
    :raises PortNotFound: no board is connected, or none has this MAC address
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
    """Whether ``name`` is a MAC address, but not that of the chip found where it was last seen."""
    from espwire.cli.state import plain_mac

    if not _fits(MAC, name) or plain_mac(identity.serial) == plain_mac(name):
        return False  # a serial number is stored in the device itself
    return plain_mac(mac) != plain_mac(name)


def _find_named(name: str, state: State, lister: Lister) -> SystemPort | str:
    from espwire.cli.state import find_remembered
    from espwire.transport.ports import SystemPort, find_by_serial, find_port, list_ports

    if not name.strip() or is_url(name):
        return name  # transport/url.py parses them
    if _is_path(name):
        return find_port(name, lister)
    existing = list_ports(lister)
    if any(os.path.normcase(port.path) == os.path.normcase(name) for port in existing):
        return find_port(name, lister)
    matching = find_by_serial(name, existing)
    if len(matching) > 1:
        paths = [port.path for port in matching]
        raise UsageError(
            f"{len(matching)} ports have the serial number {name}",
            hint=f"Select one with -p: {', '.join(paths)}.",
            code="several-ports",
            ports=paths,
        )
    if matching:
        return SystemPort(matching[0], lister=lister)
    if not _fits(MAC, name):
        return name
    remembered = find_remembered(state, name, existing)
    if remembered is None:
        raise PortNotFound(
            f"no known port has a chip with the MAC address {name}",
            hint="Connect to it once by the name of its port (`espwire ports` lists the ports).",
            code="mac-not-found",
        )
    return SystemPort(remembered, lister=lister)


def _is_path(name: str) -> bool:
    """Whether it can only be a path; a serial number has no separator."""
    return os.sep in name or bool(re.fullmatch(r"COM\d+:?", name, re.IGNORECASE))
