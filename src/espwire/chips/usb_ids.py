"""USB ids of serial adapters and Espressif devices: data/usb-ids.toml as frozen dataclasses."""

# no `from __future__ import annotations`: load_table reads the types of the fields

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from espwire.chips.tables import load_table, parse_toml, read_data_file

FILE = "usb-ids.toml"


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A USB-to-UART chip. ``serial`` False: not a serial port; ``ports``: how many ports it provides."""

    vid: int
    pid: int
    name: str
    maker: str
    ports: int = 1
    serial: bool = True
    auto_reset: bool = False
    flow_control_always: bool = False
    reset_variant: str = ""
    note: str = ""
    unverified: bool = False


@dataclass(frozen=True, kw_only=True)
class DevBoard:
    """A development board whose firmware has its own product id."""

    pid: int
    board: str
    firmware: str


@dataclass(frozen=True, kw_only=True)
class NamedProduct:
    """One product."""

    pid: int
    name: str


@dataclass(frozen=True, kw_only=True)
class SdkDefault:
    """Product ids of applications built with ESP-IDF: ``base`` and one bit per USB class."""

    base: int
    bits: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Espressif:
    """Espressif's product ids. ``dev_boards``: first and last; ids from ``customers_from`` on belong to customers."""

    vid: int
    serial_jtag: int
    usb_bridge: NamedProduct
    sdk_default: SdkDefault
    dev_boards: tuple[int, ...]
    customers_from: int


@dataclass(frozen=True, kw_only=True)
class PortNames:
    """Parts of port names, to rank ports and to skip those that cannot be boards."""

    linux_first: tuple[str, ...]
    macos_first: tuple[str, ...]
    macos_skip: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class UsbIds:
    """The whole file."""

    dev_board_ids: tuple[DevBoard, ...]
    bridges: tuple[Bridge, ...]
    espressif: Espressif
    port_names: PortNames
    notes: tuple[str, ...] = field(default=())


@cache
def load_usb_ids() -> UsbIds:
    """The ids, read once.

    :raises TableError: the data file is broken; the error names the file and the key
    """
    return load_table(UsbIds, parse_toml(read_data_file(FILE), f"{FILE}:"), FILE)
