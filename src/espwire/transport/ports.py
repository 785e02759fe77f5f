"""Serial ports by who they are: list, rank, filter, choose, follow one through a new name. Opens only what is chosen.

A path is where a device is now; a :class:`Port` is the device. The list comes from a ``Lister``, so that tests have a
bus of their own.

Which board a port likely is, and how likely it is one at all, by its USB ids. Opens nothing, lists nothing.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from espwire.chips.index import NAMES, OTG_PRODUCTS
from espwire.chips.usb_ids import Bridge, load_usb_ids
from espwire.errors import PortNotFound, UsageError
from espwire.transport.base import CancelToken, Transport

POLL_S = 0.05
BAUD = 115200
FILTER_KEYS = ("name", "pid", "serial", "vid")
# serial numbers that makers leave as they found them: many devices share one
WEAK_SERIALS = frozenset({"123456", "1234567890"})
STRONG_SERIAL = (
    6  # characters; "0" is what the ROM of the ESP32-S2 says, "0001" a bridge from the shelf
)


@dataclass(frozen=True)
class PortIdentity:
    """Who a port is, as far as the system tells. ``path``: where it is now. A text is empty where nothing is known."""

    path: str
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    location: str = ""
    description: str = ""
    manufacturer: str = ""

    @property
    def ids(self) -> str:
        """``303A:1001``, or empty for a port that is not USB."""
        return "" if self.vid is None else f"{self.vid:04X}:{self.pid or 0:04X}"

    @property
    def key(self) -> str:
        """What an adapter is remembered by: ids and serial number, or the path of one that is not USB."""
        return f"{self.ids}:{self.serial}" if self.ids else self.path


Lister = Callable[[], Sequence[PortIdentity]]
Opener = Callable[[str, int, CancelToken], Transport]


class Port(Protocol):
    """One device with a serial port, whatever its path is now."""

    identity: PortIdentity

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open it. PortNotFound, PortBusy, PortDenied."""

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> Port:
        """The same device when it is there again, perhaps under another path. PortNotFound when time is up."""


def list_system_ports() -> tuple[PortIdentity, ...]:
    """What the operating system has, as pyserial finds it; opens nothing."""
    from serial.tools import list_ports as system

    return tuple(
        PortIdentity(
            path=port.device,
            vid=port.vid,
            pid=port.pid,
            serial=port.serial_number or "",
            location=port.location or "",
            description="" if port.description in (None, "n/a") else port.description,
            manufacturer=port.manufacturer or "",
        )
        for port in system.comports()
    )


class SystemPort:
    """A Port of the operating system, or of whatever ``lister`` and ``opener`` stand for."""

    def __init__(
        self,
        identity: PortIdentity,
        *,
        lister: Lister = list_system_ports,
        opener: Opener | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.identity = identity
        self._lister, self._opener = lister, opener or _open_serial
        self._clock, self._sleep = clock, sleep

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open what is at the path now.

        :raises PortNotFound, PortBusy, PortDenied: it cannot be opened
        """
        return self._opener(self.identity.path, baud, cancel or CancelToken())

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> SystemPort:
        """The same device once it has been seen twice in a row at one path, looking every 0.05 s.

        Twice, since a device that is about to go is still listed for a moment.

        :raises PortNotFound: code ``port-not-back``: not within ``seconds``
        """
        end, before = self._clock() + seconds, ""
        while True:
            if cancel is not None:
                cancel.check()
            found = find_same(self.identity, self._lister())
            if found is not None and found.path == before:
                return SystemPort(
                    found,
                    lister=self._lister,
                    opener=self._opener,
                    clock=self._clock,
                    sleep=self._sleep,
                )
            before = found.path if found is not None else ""
            if self._clock() >= end:
                raise not_back(self.identity, seconds)
            self._sleep(POLL_S)


def list_ports(lister: Lister = list_system_ports) -> tuple[PortIdentity, ...]:
    """Every port that is there, in the natural order of their paths. Opens nothing."""
    return tuple(sorted(lister(), key=lambda identity: natural(identity.path)))


def find_port(
    name: str, lister: Lister = list_system_ports, *, opener: Opener | None = None
) -> SystemPort:
    """The port with this path (links such as /dev/serial/by-id/… are followed), or one of which only that is known.

    No port needs to be there: opening it will tell.
    """
    real = os.path.normcase(os.path.realpath(name) if os.path.islink(name) else name)
    listed = next(
        (identity for identity in lister() if os.path.normcase(identity.path) == real), None
    )
    return SystemPort(listed or PortIdentity(path=name), lister=lister, opener=opener)


def find_by_serial(serial: str, identities: Iterable[PortIdentity]) -> tuple[PortIdentity, ...]:
    """The ports with this USB serial number; case and colons do not count."""
    wanted = _plain(serial)
    return tuple(
        identity for identity in identities if wanted and _plain(identity.serial) == wanted
    )


def find_same(known: PortIdentity, identities: Sequence[PortIdentity]) -> PortIdentity | None:
    """The device that ``known`` was: by its serial number, else its place on the bus, else its ids.

    Ids count if only one device has them. A port that is not USB is its path.
    """
    if known.vid is None:
        return next((other for other in identities if other.path == known.path), None)
    usb = [other for other in identities if other.vid is not None]
    if _is_strong(known.serial):
        found = [other for other in usb if _plain(other.serial) == _plain(known.serial)]
        if found:  # several: a device with several ports
            return _at_place(known, found) or (found[0] if len(found) == 1 else None)
    usb = [other for other in usb if not _is_someone_else(known, other)]
    if known.location:
        return _at_place(known, usb)
    found = [other for other in usb if other.ids == known.ids]
    return found[0] if len(found) == 1 else None


def not_back(identity: PortIdentity, seconds: float) -> PortNotFound:
    """The error for a device that stays away."""
    who = f"{identity.path} ({identity.serial or identity.ids})" if identity.ids else identity.path
    return PortNotFound(
        f"{who} did not come back within {seconds:g} s",
        hint="Unplug the board, plug it in again, and start over.",
        code="port-not-back",
        path=identity.path,
    )


@dataclass(frozen=True)
class PortFilter:
    """Which ports are meant: for each key that is given, one of its values must fit."""

    vid: tuple[int, ...] = ()
    pid: tuple[int, ...] = ()
    name: tuple[str, ...] = ()
    serial: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.vid or self.pid or self.name or self.serial)


def parse_filter(words: Sequence[str]) -> PortFilter:
    """``["vid=0x303A", "serial=24:6F"]`` as a filter.

    :raises UsageError: code ``port-filter``: no such key, or no number

    >>> parse_filter(["vid=0x303A", "vid=6790"]).vid
    (12346, 6790)
    """
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        key = key.strip().lower()
        if key not in FILTER_KEYS or not equals or not value.strip():
            raise UsageError(
                f"the port filter {word!r} is not understood",
                hint="Write vid=, pid=, name= or serial= and a value.",
                code="port-filter",
            )
        found.setdefault(key, []).append(value.strip())
    return PortFilter(
        vid=tuple(_parse_id("vid", text) for text in found.get("vid", ())),
        pid=tuple(_parse_id("pid", text) for text in found.get("pid", ())),
        name=tuple(found.get("name", ())),
        serial=tuple(found.get("serial", ())),
    )


def matches(identity: PortIdentity, wanted: PortFilter) -> bool:
    """Whether the filter lets the port pass. Paths (``name``) and serial numbers fit by a part, in any case."""
    return (
        (not wanted.vid or identity.vid in wanted.vid)
        and (not wanted.pid or identity.pid in wanted.pid)
        and (not wanted.name or any(_holds(identity.path, part) for part in wanted.name))
        and (not wanted.serial or any(_holds(identity.serial, part) for part in wanted.serial))
    )


ANY = PortFilter()


def choose(
    identities: Sequence[PortIdentity],
    *,
    wanted: PortFilter = ANY,
    any_port: bool = False,
    platform: str = sys.platform,
) -> PortIdentity:
    """The one port that is meant.

    :param any_port: also take a port not known to carry an Espressif chip or a common bridge
    :raises UsageError: code ``several-ports``: more than one is left
    :raises PortNotFound: none is left; the hint says what is there and why each was left out
    """
    kept, left_out = [], []
    for identity in rank(identities, platform=platform):
        if not matches(identity, wanted):
            left_out.append((identity, "the filter does not fit"))
        elif is_skipped(identity):
            left_out.append((identity, "not a port for boards"))
        elif not any_port and not is_known(identity):
            left_out.append((identity, f"{likely_board(identity)}, taken only with --any-port"))
        else:
            kept.append(identity)
    if len(kept) == 1:
        return kept[0]
    if kept:
        told = "; ".join(f"{one.path} ({describe(one)})" for one in kept)
        raise UsageError(
            f"{len(kept)} ports could be meant",
            hint=f"Name one with --port, or narrow them down with --port-filter: {told}.",
            code="several-ports",
            ports=[one.path for one in kept],
        )
    told = "; ".join(f"{one.path} ({why})" for one, why in left_out)
    there = f"Left out: {told}." if told else "There is no serial port here."
    raise PortNotFound(
        "no board is found" if left_out else "no board is plugged in",
        hint=f"Plug the board in, or name its port with --port. {there} Without a board, try --port virtual:esp32c3.",
        code="no-port",
        left_out={one.path: why for one, why in left_out},
    )


def _open_serial(path: str, baud: int, cancel: CancelToken) -> Transport:
    from espwire.transport.url import open_transport

    return open_transport(path, baud=baud, cancel=cancel)


def _is_strong(serial: str) -> bool:
    """Whether the serial number belongs to one device alone, as far as one can see."""
    plain = _plain(serial)
    return len(plain) >= STRONG_SERIAL and plain not in WEAK_SERIALS and len(set(plain)) > 1


def _is_someone_else(known: PortIdentity, other: PortIdentity) -> bool:
    """Two serial numbers under the same ids are two devices; a bridge never changes its ids, a chip's program may."""
    if known.ids != other.ids:
        return find_bridge(known) is not None or find_bridge(other) is not None
    return bool(known.serial and other.serial) and _plain(known.serial) != _plain(other.serial)


def _at_place(known: PortIdentity, found: Sequence[PortIdentity]) -> PortIdentity | None:
    """The one at the same place; after the colon is the number of an interface, which may differ if only one fits."""
    exact = [other for other in found if other.location == known.location]
    if len(exact) == 1:
        return exact[0]
    device = known.location.partition(":")[0]
    near = [other for other in found if device and other.location.partition(":")[0] == device]
    return near[0] if len(near) == 1 else None


def _plain(serial: str) -> str:
    return serial.replace(":", "").replace("-", "").upper()


def _holds(text: str, part: str) -> bool:
    return part.lower() in text.lower()


def _parse_id(key: str, text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFF:
        hint = "Write decimal, or 0x… for hexadecimal, such as 0x303A."
        raise UsageError(
            f"{key}={text} in the port filter is no USB id", hint=hint, code="port-filter"
        )
    return value


VOWEL_SOUNDS = frozenset("AEFHILMNORSX")


def is_known(identity: PortIdentity) -> bool:
    """Whether the port carries an Espressif chip or a common bridge, by its USB ids."""
    ids = load_usb_ids()
    if identity.vid is None or is_skipped(identity):
        return False
    return identity.vid == ids.espressif.vid or find_bridge(identity) is not None


def is_skipped(identity: PortIdentity) -> bool:
    """Whether the name says that the port is none for boards: Bluetooth, debug consoles."""
    return any(
        part.lower() in identity.path.lower() for part in load_usb_ids().port_names.macos_skip
    )


def find_bridge(identity: PortIdentity) -> Bridge | None:
    """The USB-to-UART chip with these ids."""
    ids = (identity.vid, identity.pid)
    return next(
        (one for one in load_usb_ids().bridges if one.serial and (one.vid, one.pid) == ids), None
    )


def likely_board(identity: PortIdentity) -> str:
    """What it most likely is, for people: "ESP32-S3 by its own USB", "board with a CP2105"; never empty."""
    ids = load_usb_ids()
    own = ids.espressif
    if identity.vid is None:
        return "port without USB"
    if identity.vid != own.vid:
        bridge = find_bridge(identity)
        if bridge is None:
            return "unknown USB device"
        many = f" ({bridge.ports} ports)" if bridge.ports > 1 else ""
        return f"board with {_article(bridge.name)} {bridge.name}{many}"
    pid = identity.pid or 0
    if pid == own.serial_jtag:
        return "ESP chip by its own USB (Serial/JTAG)"
    if pid == own.usb_bridge.pid:
        return f"board behind {_article(own.usb_bridge.name)} {own.usb_bridge.name}"
    if pid in OTG_PRODUCTS:
        return f"{NAMES[OTG_PRODUCTS[pid]]} by its own USB (OTG, in its loader)"
    for board in ids.dev_board_ids:
        if board.pid == pid:
            return f"{board.board} running {board.firmware}"
    classes = [name.upper() for name, bit in own.sdk_default.bits.items() if pid >> bit & 1]
    if pid & ~0xFF == own.sdk_default.base & ~0xFF:
        return f"ESP chip by its application's USB ({' and '.join(classes) or 'no class'})"
    return (
        "product with an id lent by Espressif" if pid >= own.customers_from else "Espressif device"
    )


def rank(
    identities: Iterable[PortIdentity], *, platform: str = sys.platform
) -> tuple[PortIdentity, ...]:
    """The likeliest first: a chip's own USB, other Espressif ids, bridges, other USB, the rest; then by name."""
    return tuple(sorted(identities, key=lambda identity: _rank(identity, platform)))


def describe(identity: PortIdentity) -> str:
    """Board and serial number in a few words."""
    return (
        f"{likely_board(identity)}, {identity.serial}"
        if identity.serial
        else likely_board(identity)
    )


def natural(path: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts COM10 after COM9."""
    pieces = re.findall(r"\d+|\D+", path)
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces)


def _rank(identity: PortIdentity, platform: str) -> tuple[object, ...]:
    ids = load_usb_ids()
    own, first = (
        ids.espressif,
        ids.port_names.macos_first if platform == "darwin" else ids.port_names.linux_first,
    )
    if is_skipped(identity):
        group = 5
    elif identity.vid == own.vid:
        group = 0 if identity.pid == own.serial_jtag or identity.pid in OTG_PRODUCTS else 1
    elif find_bridge(identity) is not None:
        group = 2
    else:
        group = 3 if identity.vid is not None else 4
    return group, not any(part in identity.path for part in first), natural(identity.path)


def _article(name: str) -> str:
    return "an" if name[0] in VOWEL_SOUNDS else "a"
