"""USB ids of serial adapters and Espressif devices: data/usb-ids.toml as records."""

# no `from __future__ import annotations`: load_table reads the types of the fields

from collections.abc import Mapping
from functools import cache

from espwire.chips.tables import load_table, parse_toml, read_data_file
from espwire.record import Record

FILE = "usb-ids.toml"


class Bridge(Record):
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


class DevBoard(Record):
    """A development board whose firmware has its own product id."""

    pid: int
    board: str
    firmware: str


class NamedProduct(Record):
    """One product."""

    pid: int
    name: str


class SdkDefault(Record):
    """Product ids of applications built with ESP-IDF: ``base`` and one bit per USB class."""

    base: int
    bits: Mapping[str, int]
    note: str = ""


class Espressif(Record):
    """Espressif's product ids. ``dev_boards``: first and last; ids from ``customers_from`` on belong to customers."""

    vid: int
    serial_jtag: int
    usb_bridge: NamedProduct
    sdk_default: SdkDefault
    dev_boards: tuple[int, ...]
    customers_from: int


class PortNames(Record):
    """Parts of port names, to rank ports and to skip those that cannot be boards."""

    linux_first: tuple[str, ...]
    macos_first: tuple[str, ...]
    macos_skip: tuple[str, ...]


class UsbIds(Record):
    """The whole file."""

    dev_board_ids: tuple[DevBoard, ...]
    bridges: tuple[Bridge, ...]
    espressif: Espressif
    port_names: PortNames
    notes: tuple[str, ...] = ()


@cache
def load_usb_ids() -> UsbIds:
    """The ids, read once.

    :raises TableError: the data file is broken; the error names the file and the key
    """
    return load_table(UsbIds, parse_toml(read_data_file(FILE), f"{FILE}:"), FILE)
