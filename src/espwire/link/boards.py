"""Which board a port likely is, and how likely it is one at all, by its USB ids. Opens nothing, lists nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from espwire.chips.usb import Bridge, load_usb_ids

if TYPE_CHECKING:
    from espwire.link.ports import PortIdentity

VOWEL_SOUNDS = frozenset("AEFHILMNORSX")


def is_known(identity: PortIdentity) -> bool:
    """Whether the port carries an Espressif chip or a common bridge, by its USB ids."""
    ids = load_usb_ids()
    if identity.vid is None or is_skipped(identity):
        return False
    return identity.vid == ids.espressif.vid or find_bridge(identity) is not None


def is_skipped(identity: PortIdentity) -> bool:
    """Whether the name says that the port is none for boards: Bluetooth, debug consoles."""
    return any(part.lower() in identity.path.lower() for part in load_usb_ids().port_names.macos_skip)


def find_bridge(identity: PortIdentity) -> Bridge | None:
    """The USB-to-UART chip with these ids."""
    ids = (identity.vid, identity.pid)
    return next((one for one in load_usb_ids().bridges if one.serial and (one.vid, one.pid) == ids), None)


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
    if pid == own.serial_jtag.pid:
        return "ESP chip by its own USB (Serial/JTAG)"
    if pid == own.usb_bridge.pid:
        return f"board behind {_article(own.usb_bridge.name)} {own.usb_bridge.name}"
    for rom in own.rom_otg:
        if rom.pid == pid:
            return f"{_chip_name(rom.chip)} by its own USB (OTG, in its loader)"
    for board in ids.dev_board_ids:
        if board.pid == pid:
            return f"{board.board} running {board.firmware}"
    classes = [name.upper() for name, bit in own.sdk_default.bits.items() if pid >> bit & 1]
    if pid & ~0xFF == own.sdk_default.base & ~0xFF:
        return f"ESP chip by its application's USB ({' and '.join(classes) or 'no class'})"
    return "product with an id lent by Espressif" if pid >= own.customers_from else "Espressif device"


def rank(identities: Iterable[PortIdentity], *, platform: str = sys.platform) -> tuple[PortIdentity, ...]:
    """The likeliest first: a chip's own USB, other Espressif ids, bridges, other USB, the rest; then by name."""
    return tuple(sorted(identities, key=lambda identity: _rank(identity, platform)))


def describe(identity: PortIdentity) -> str:
    """Board and serial number in a few words."""
    return f"{likely_board(identity)}, {identity.serial}" if identity.serial else likely_board(identity)


def natural(path: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts COM10 after COM9."""
    pieces = re.findall(r"\d+|\D+", path)
    return tuple((0, int(piece), "") if piece.isdecimal() else (1, 0, piece) for piece in pieces)


def _rank(identity: PortIdentity, platform: str) -> tuple[object, ...]:
    ids = load_usb_ids()
    own, first = ids.espressif, ids.port_names.macos_first if platform == "darwin" else ids.port_names.linux_first
    if is_skipped(identity):
        group = 5
    elif identity.vid == own.vid:
        direct = identity.pid == own.serial_jtag.pid or any(rom.pid == identity.pid for rom in own.rom_otg)
        group = 0 if direct else 1
    elif find_bridge(identity) is not None:
        group = 2
    else:
        group = 3 if identity.vid is not None else 4
    return group, not any(part in identity.path for part in first), natural(identity.path)


def _article(name: str) -> str:
    return "an" if name[0] in VOWEL_SOUNDS else "a"


def _chip_name(chip: str) -> str:
    from espwire.chips.index import CHIPS

    return CHIPS[chip].name
