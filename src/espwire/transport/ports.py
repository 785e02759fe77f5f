"""Serial ports by identity: list, rank, filter, select, and find a device again under a new path.

A path says where a device is now; a :class:`Port` is the device itself. Ports are listed by a ``Lister``, so tests can
use a simulated USB bus. USB ids show which board a port probably belongs to.
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
from espwire.transport.url import is_device_name, open_transport

POLL_S = 0.05
BAUD = 115200
FILTER_KEYS = ("name", "pid", "serial", "vid")
# defaults of bridge makers: many devices share them
WEAK_SERIALS = frozenset({"123456", "1234567890"})
STRONG_SERIAL = 6  # characters; the ROM of the ESP32-S2 reports "0", an unconfigured bridge "0001"
VOWEL_SOUNDS = frozenset("AEFHILMNORSX")


@dataclass(frozen=True)
class PortIdentity:
    """What the operating system reports about a port. ``path``: where it is now. Unknown texts are empty."""

    path: str
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    location: str = ""
    description: str = ""
    manufacturer: str = ""

    @property
    def ids(self) -> str:
        """``303A:1001``; empty for a port that is not USB."""
        return "" if self.vid is None else f"{self.vid:04X}:{self.pid or 0:04X}"

    @property
    def key(self) -> str:
        """Stable key of an adapter: VID:PID:serial, or the path if it is not USB."""
        return f"{self.ids}:{self.serial}" if self.ids else self.path


Lister = Callable[[], Sequence[PortIdentity]]
Opener = Callable[[str, int, CancelToken], Transport]


class Port(Protocol):
    """A device with a serial port, whatever its current path."""

    identity: PortIdentity

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open the port.

        :raises PortNotFound, PortBusy, PortDenied: it cannot be opened
        """

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> Port:
        """Wait until the same device is connected again, perhaps with another path.

        :raises PortNotFound: it is not, after ``seconds``
        """


def list_system_ports() -> tuple[PortIdentity, ...]:
    """The operating system's ports, by pyserial. Opens none."""
    from espwire.transport.open_errors import naming_pyserial

    with naming_pyserial():
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


def _open_path(path: str, baud: int, cancel: CancelToken) -> Transport:
    return open_transport(path, baud=baud, cancel=cancel)


class SystemPort:
    """A port of the operating system, or of whatever ``lister`` and ``opener`` represent."""

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
        self._lister, self._opener = lister, opener or _open_path
        self._clock, self._sleep = clock, sleep

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open the device that has the path now.

        :raises PortNotFound, PortBusy, PortDenied: it cannot be opened
        """
        return self._opener(self.identity.path, baud, cancel or CancelToken())

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> SystemPort:
        """Wait until two scans in a row, 0.05 s apart, find the same device at the same path.

        A single scan is not enough: a device that is being removed stays listed for a moment.

        :raises PortNotFound: code ``port-not-back``: not within ``seconds``
        """
        end, before = self._clock() + seconds, ""
        while True:
            if cancel is not None:
                cancel.check()
            same = find_same(self.identity, self._lister())
            if same is not None and same.path == before:
                return SystemPort(
                    same,
                    lister=self._lister,
                    opener=self._opener,
                    clock=self._clock,
                    sleep=self._sleep,
                )
            before = same.path if same is not None else ""
            if self._clock() >= end:
                raise not_back(self.identity, seconds)
            self._sleep(POLL_S)


class NamedPort:
    """A port known by its name only: a URL, a pseudo-terminal, a UART without USB. It is back when its path exists."""

    def __init__(self, name: str) -> None:
        self.identity = PortIdentity(path=name)
        self._is_path = os.name == "posix" and is_device_name(name)

    def open(self, *, baud: int = BAUD, cancel: CancelToken | None = None) -> Transport:
        """Open the port.

        :raises TransportError: it cannot be opened
        """
        return open_transport(self.identity.path, baud=baud, cancel=cancel)

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> NamedPort:
        """Wait until the path exists; return at once for a URL.

        :raises PortNotFound: code ``port-not-back``: not within ``seconds``
        """
        end = time.monotonic() + seconds
        while self._is_path and not os.path.exists(self.identity.path):
            if cancel is not None:
                cancel.check()
            if time.monotonic() >= end:
                raise not_back(self.identity, seconds)
            time.sleep(POLL_S)
        return self


def list_ports(lister: Lister = list_system_ports) -> tuple[PortIdentity, ...]:
    """All ports, in natural order of their paths. Opens none."""
    return tuple(sorted(lister(), key=lambda identity: natural(identity.path)))


def natural(path: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts COM10 after COM9."""
    pieces = re.findall(r"\d+|\D+", path)
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces)


def find_port(
    name: str, lister: Lister = list_system_ports, *, opener: Opener | None = None
) -> SystemPort:
    """The port with this path; links such as /dev/serial/by-id/… are followed.

    A path that is not listed gives a port of which only the path is known; opening it may fail.
    """
    real = os.path.normcase(os.path.realpath(name) if os.path.islink(name) else name)
    listed = next(
        (identity for identity in lister() if os.path.normcase(identity.path) == real), None
    )
    return SystemPort(listed or PortIdentity(path=name), lister=lister, opener=opener)


def find_by_serial(serial: str, identities: Iterable[PortIdentity]) -> tuple[PortIdentity, ...]:
    """The ports with this USB serial number; case, colons and hyphens are ignored."""
    plain = _plain(serial)
    return tuple(identity for identity in identities if plain and _plain(identity.serial) == plain)


def _plain(serial: str) -> str:
    return serial.replace(":", "").replace("-", "").upper()


# --- the same device again ---


def find_same(known: PortIdentity, identities: Sequence[PortIdentity]) -> PortIdentity | None:
    """The device that ``known`` was: by serial number, else by its place on the bus, else by its ids.

    Ids identify it only if no other device has them. A port that is not USB is identified by its path.
    """
    if known.vid is None:
        return next((other for other in identities if other.path == known.path), None)
    usb = [other for other in identities if other.vid is not None]
    if _is_strong(known.serial):
        same = [other for other in usb if _plain(other.serial) == _plain(known.serial)]
        if same:  # more than one: a device with several ports
            return _find_at_location(known, same) or (same[0] if len(same) == 1 else None)
    usb = [other for other in usb if not _is_another(known, other)]
    if known.location:
        return _find_at_location(known, usb)
    same = [other for other in usb if other.ids == known.ids]
    return same[0] if len(same) == 1 else None


def not_back(identity: PortIdentity, seconds: float) -> PortNotFound:
    """The error for a device that was not connected again in time."""
    name = f"{identity.path} ({identity.serial or identity.ids})" if identity.ids else identity.path
    return PortNotFound(
        f"{name} did not come back within {seconds:g} s",
        hint="Unplug the board, plug it in again, and repeat the command.",
        code="port-not-back",
        path=identity.path,
    )


def has_own_key(identity: PortIdentity) -> bool:
    """Whether the key of the adapter is probably unique to it."""
    return not identity.ids or _is_strong(identity.serial)


def _is_strong(serial: str) -> bool:
    """Whether the serial number is probably unique to one device."""
    plain = _plain(serial)
    return len(plain) >= STRONG_SERIAL and plain not in WEAK_SERIALS and len(set(plain)) > 1


def names_one_port(serial: str, identities: Iterable[PortIdentity] | None = None) -> bool:
    """Whether a serial number surely belongs to one port: it is not short, common or shared by ports that are connected."""
    if not _is_strong(serial):
        return False
    return len(find_by_serial(serial, list_ports() if identities is None else identities)) <= 1


def _is_another(known: PortIdentity, other: PortIdentity) -> bool:
    """Whether these are surely two devices: a bridge keeps its ids, a chip's application may change them."""
    if known.ids != other.ids:
        return find_bridge(known) is not None or find_bridge(other) is not None
    return bool(known.serial and other.serial) and _plain(known.serial) != _plain(other.serial)


def _find_at_location(
    known: PortIdentity, candidates: Sequence[PortIdentity]
) -> PortIdentity | None:
    """The candidate at the same location. The interface number after the colon may differ if only one fits."""
    exact = [other for other in candidates if other.location == known.location]
    if len(exact) == 1:
        return exact[0]
    device = known.location.partition(":")[0]
    near = [other for other in candidates if device and other.location.partition(":")[0] == device]
    return near[0] if len(near) == 1 else None


# --- which board a port probably belongs to ---


def is_known(identity: PortIdentity) -> bool:
    """Whether the USB ids are Espressif's or a common bridge's."""
    if identity.vid is None or is_skipped(identity):
        return False
    return identity.vid == load_usb_ids().espressif.vid or find_bridge(identity) is not None


def is_skipped(identity: PortIdentity) -> bool:
    """Whether the name shows that it is never a board: Bluetooth, debug consoles."""
    return any(
        part.lower() in identity.path.lower() for part in load_usb_ids().port_names.macos_skip
    )


def find_bridge(identity: PortIdentity) -> Bridge | None:
    """The USB-to-UART chip with these ids."""
    ids = (identity.vid, identity.pid)
    return next(
        (
            bridge
            for bridge in load_usb_ids().bridges
            if bridge.serial and (bridge.vid, bridge.pid) == ids
        ),
        None,
    )


def likely_board(identity: PortIdentity) -> str:
    """What the port probably belongs to: "ESP chip's built-in USB (Serial/JTAG)", "board with a CP2105"; never empty."""
    ids = load_usb_ids()
    own = ids.espressif
    if identity.vid is None:
        return "not a USB port"
    if identity.vid != own.vid:
        bridge = find_bridge(identity)
        if bridge is None:
            return "unknown USB device"
        many = f" ({bridge.ports} ports)" if bridge.ports > 1 else ""
        return f"board with {_article(bridge.name)} {bridge.name}{many}"
    pid = identity.pid or 0
    if pid == own.serial_jtag:
        return "ESP chip's built-in USB (Serial/JTAG)"
    if pid == own.usb_bridge.pid:
        return f"board with {_article(own.usb_bridge.name)} {own.usb_bridge.name}"
    if pid in OTG_PRODUCTS:
        return f"{NAMES[OTG_PRODUCTS[pid]]} in download mode (USB OTG)"
    for board in ids.dev_board_ids:
        if board.pid == pid:
            return f"{board.board} running {board.firmware}"
    classes = [name.upper() for name, bit in own.sdk_default.bits.items() if pid >> bit & 1]
    if pid & ~0xFF == own.sdk_default.base & ~0xFF:
        return f"ESP chip running an application with USB ({' and '.join(classes) or 'no class'})"
    if pid >= own.customers_from:
        return "product with an id from Espressif"
    return "Espressif device"


def describe(identity: PortIdentity) -> str:
    """Probable board and serial number."""
    board = likely_board(identity)
    return f"{board}, {identity.serial}" if identity.serial else board


def _article(name: str) -> str:
    return "an" if name[0] in VOWEL_SOUNDS else "a"


def rank(
    identities: Iterable[PortIdentity], *, platform: str = sys.platform
) -> tuple[PortIdentity, ...]:
    """Most likely boards first: a chip's built-in USB, other Espressif ids, bridges, other USB, the rest; then by name."""
    return tuple(sorted(identities, key=lambda identity: _rank_key(identity, platform)))


def _rank_key(identity: PortIdentity, platform: str) -> tuple[object, ...]:
    ids = load_usb_ids()
    own = ids.espressif
    if is_skipped(identity):
        group = 5
    elif identity.vid == own.vid:
        group = 0 if identity.pid == own.serial_jtag or identity.pid in OTG_PRODUCTS else 1
    elif find_bridge(identity) is not None:
        group = 2
    else:
        group = 3 if identity.vid is not None else 4
    names = ids.port_names.macos_first if platform == "darwin" else ids.port_names.linux_first
    return group, not any(part in identity.path for part in names), natural(identity.path)


# --- filters and selection ---


@dataclass(frozen=True)
class PortFilter:
    """Which ports to use: for each key with values, one of them must match."""

    vid: tuple[int, ...] = ()
    pid: tuple[int, ...] = ()
    name: tuple[str, ...] = ()
    serial: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.vid or self.pid or self.name or self.serial)


ANY = PortFilter()


def parse_filter(texts: Sequence[str]) -> PortFilter:
    """``["vid=0x303A", "serial=24:6F"]`` as a filter.

    :raises UsageError: code ``port-filter``: unknown key or invalid number

    >>> parse_filter(["vid=0x303A", "vid=6790"]).vid
    (12346, 6790)
    """
    values: dict[str, list[str]] = {key: [] for key in FILTER_KEYS}
    for text in texts:
        key, _, value = text.partition("=")
        key, value = key.strip().lower(), value.strip()
        if key not in FILTER_KEYS or not value:
            raise UsageError(
                f"invalid port filter {text!r}",
                hint="Use vid=, pid=, name= or serial= followed by a value.",
                code="port-filter",
            )
        values[key].append(value)
    return PortFilter(
        vid=tuple(_parse_id("vid", text) for text in values["vid"]),
        pid=tuple(_parse_id("pid", text) for text in values["pid"]),
        name=tuple(values["name"]),
        serial=tuple(values["serial"]),
    )


def _parse_id(key: str, text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not 0 <= value <= 0xFFFF:
        raise UsageError(
            f"{key}={text} in the port filter is not a USB id",
            hint="Write decimal, or hexadecimal with 0x, such as 0x303A.",
            code="port-filter",
        )
    return value


def matches(identity: PortIdentity, port_filter: PortFilter) -> bool:
    """Whether the port passes the filter. Paths (``name``) and serial numbers match in part, in any case."""
    return (
        (not port_filter.vid or identity.vid in port_filter.vid)
        and (not port_filter.pid or identity.pid in port_filter.pid)
        and (not port_filter.name or _contains(identity.path, port_filter.name))
        and (not port_filter.serial or _contains(identity.serial, port_filter.serial))
    )


def _contains(text: str, parts: Sequence[str]) -> bool:
    return any(part.lower() in text.lower() for part in parts)


def choose(
    identities: Sequence[PortIdentity],
    *,
    port_filter: PortFilter = ANY,
    any_port: bool = False,
    platform: str = sys.platform,
) -> PortIdentity:
    """The only port that can be a board.

    :param any_port: include ports without the ids of an Espressif chip or a common bridge
    :raises UsageError: code ``several-ports``: more than one port is left
    :raises PortNotFound: code ``no-port``: none is left; the hint lists the ports and why each was excluded
    """
    kept, excluded = [], {}
    for identity in rank(identities, platform=platform):
        if not matches(identity, port_filter):
            excluded[identity.path] = "does not match the filter"
        elif is_skipped(identity):
            excluded[identity.path] = "never a board"
        elif not any_port and not is_known(identity):
            excluded[identity.path] = f"{likely_board(identity)}, used only with --any-port"
        else:
            kept.append(identity)
    if len(kept) == 1:
        return kept[0]
    if kept:
        ports = "; ".join(f"{identity.path} ({describe(identity)})" for identity in kept)
        raise UsageError(
            f"{len(kept)} ports match",
            hint=f"Select one with --port or --port-filter: {ports}.",
            code="several-ports",
            ports=[identity.path for identity in kept],
        )
    ports = "; ".join(f"{path} ({reason})" for path, reason in excluded.items())
    raise PortNotFound(
        "no board found" if excluded else "no serial port found",
        hint="Connect the board, or name its port with --port."
        + (f" Excluded: {ports}." if excluded else "")
        + " No board? Try --port virtual:esp32c3.",
        code="no-port",
        left_out=excluded,
    )
