"""Which boards a run on several boards uses: a list of ports, all connected boards, or those that are plugged in."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from espwire.chips.usb_ids import load_usb_ids
from espwire.cli.output import is_terminal, printable
from espwire.cli.ports import find_target, is_url, split_ports
from espwire.errors import PortNotFound, UsageError
from espwire.events import Warned
from espwire.transport.ports import (
    PortFilter,
    PortIdentity,
    describe,
    has_own_key,
    is_known,
    is_skipped,
    list_ports,
    matches,
    parse_filter,
    rank,
)

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.cli.state import State

SETTLE_S = 0.5  # a new port exists before the system has set its permissions
REPLUG_S = 3.0  # a port that is away for a shorter time belongs to a board that was reset


def resolve_ports(context: Context, text: str) -> dict[str, str]:
    """The ports of a list, each with the path or URL that it means. Opens nothing.

    :raises UsageError: code ``port-twice``; or a name is ambiguous
    :raises PortNotFound: a MAC address is not known
    """
    found: dict[str, str] = {}
    for name in split_ports(text):
        target = find_target(name, state=context.state)
        path = target if isinstance(target, str) else target.identity.path
        place = os.path.normcase(os.path.realpath(path)) if os.path.exists(path) else path
        if place in found.values():
            other = next(known for known, where in found.items() if where == place)
            again = "twice" if other == name else f"twice: {printable(other)} is the same"
            raise UsageError(
                f"the port {printable(name)} is named {again}",
                hint="Name each board once.",
                code="port-twice",
                ports=[other, name],
            )
        found[name] = place
    return found


@dataclass(frozen=True)
class Candidates:
    """Connected boards: ``sure`` by their USB id or earlier use, ``unsure`` with a bridge that others use, too."""

    sure: tuple[PortIdentity, ...]
    unsure: tuple[PortIdentity, ...]


def sort_ports(
    ports: Iterable[PortIdentity],
    state: State,
    *,
    port_filter: PortFilter,
    any_port: bool = False,
) -> Candidates:
    """The ports that may be boards, likely ones first.

    :param any_port: also those without the ids of a known bridge
    """
    own = load_usb_ids().espressif.vid
    sure, unsure = [], []
    for port in rank(ports):
        if is_skipped(port) or not matches(port, port_filter):
            continue
        if port.vid == own or (has_own_key(port) and state.is_known_adapter(port.key)):
            sure.append(port)
        elif any_port or is_known(port):
            unsure.append(port)
    return Candidates(tuple(sure), tuple(unsure))


def find_all(context: Context) -> Candidates:
    """The connected boards, with the filters of the command line."""
    return sort_ports(
        list_ports(),
        context.state,
        port_filter=parse_filter(context.get("port_filter")),
        any_port=context.get("any_port"),
    )


def choose_all(context: Context) -> list[str]:
    """The paths of all connected boards; bridges that were never used only after consent.

    :raises PortNotFound: no board is connected
    :raises UsageError: code ``needs-yes``: consent is needed, and standard input is not a terminal
    """
    found = find_all(context)
    chosen = list(found.sure)
    if found.unsure and (context.get("yes") or _confirm(context, found.unsure)):
        chosen += found.unsure
    if not chosen:
        raise PortNotFound(
            "no board found",
            hint="Connect the boards, or name their ports with --port.",
            code="no-port",
        )
    return [port.path for port in chosen]


def _confirm(context: Context, ports: tuple[PortIdentity, ...]) -> bool:
    names = ", ".join(f"{port.path} ({describe(port)})" for port in ports)
    if context.json or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
        raise UsageError(
            f"these ports may belong to other devices than boards: {printable(names)}",
            hint="Add --yes to use them, or select ports with --port or --port-filter.",
            code="needs-yes",
            ports=[port.path for port in ports],
        )
    context.output.line("These ports may belong to other devices than boards:")
    for port in ports:
        context.output.line(f"  {printable(port.path)} ({printable(describe(port))})")
    context.output.write(sys.stdout, "Type yes to use them, or anything else to leave them out: ")
    return sys.stdin.readline().strip().lower() == "yes"


@dataclass
class PlugWatch:
    """Finds boards that are plugged in, by the place of their port.

    ``seen``: when each place was last occupied. A board that is reset leaves for a moment; a place counts as new
    after ``REPLUG_S`` without a port.
    """

    seen: dict[str, float] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    def ignore(self, places: Iterable[str], now: float) -> None:
        """Take these places as occupied, for example while their boards are worked on."""
        self.seen |= dict.fromkeys(places, now)

    def look(self, present: Mapping[str, str], now: float) -> dict[str, str]:
        """The places where a board was plugged in, with the ports.

        :param present: the places that are occupied, with their ports
        """
        new: dict[str, str] = {}
        for place, port in present.items():
            if now - self.seen.get(place, -REPLUG_S) < REPLUG_S:
                self.seen[place] = now
            elif now - self._since.setdefault(place, now) >= SETTLE_S:
                self.seen[place] = now
                new[place] = port
        self._since = {
            place: since
            for place, since in self._since.items()
            if place in present and place not in new
        }
        return new


def find_place(port: PortIdentity) -> str:
    """Where a port is connected. Behind a bridge each interface is a board; a chip's own USB has only one."""
    if not port.location:
        return port.path
    own = port.vid == load_usb_ids().espressif.vid
    return port.location.partition(":")[0] if own else port.location


def check_watched(names: Iterable[str]) -> None:
    """:raises UsageError: a name cannot be plugged in"""
    for name in names:
        if is_url(name):
            raise UsageError(
                f"--watch cannot watch {printable(name)}",
                hint="Name ports that appear when a board is plugged in, or leave out --port.",
            )


def open_watch(
    context: Context, names: Sequence[str], warn: Callable[[Warned], None]
) -> Callable[[], Mapping[str, str]]:
    """A function that returns the occupied places with their ports: of the ``names``, or of all boards.

    :param warn: receives a warning for each port that is left out because it may not be a board
    """
    left_out: set[str] = set()

    def look() -> dict[str, str]:
        if names:
            return {name: name for name in names if is_connected(context, name)}
        found = find_all(context)
        ports = found.sure + (found.unsure if context.get("yes") else ())
        for port in () if context.get("yes") else found.unsure:
            if port.path not in left_out:
                left_out.add(port.path)
                text = (
                    f"{port.path} ({describe(port)}) is left out; use --yes to include such ports"
                )
                warn(Warned(code="port-left-out", text=text))
        return {find_place(port): port.path for port in ports}

    return look


def is_connected(context: Context, name: str) -> bool:
    """Whether the board with this name is connected now."""
    try:
        target = find_target(name, state=context.state)
    except (PortNotFound, UsageError):  # UsageError: two have this serial number
        return False
    if isinstance(target, str):
        return False
    return target.identity.vid is not None or os.path.exists(target.identity.path)
