"""What USB ids tell of a port, as typed values of data/usb-ids.toml. Facts only: ports are listed in transport/ports.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from espwire.chips.tables import load_table
from espwire.errors import TableError

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Bridge:
    """A USB-to-UART chip. ``serial`` False: these ids are no serial port; ``ports``: how many it shows."""

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
    """A development board whose firmware has ids of its own."""

    pid: int
    board: str
    firmware: str


@dataclass(frozen=True, kw_only=True)
class RomOtg:
    """The ids of one chip's loader on USB-OTG."""

    pid: int
    chip: str


@dataclass(frozen=True, kw_only=True)
class SerialJtag:
    """The ids that all chips with USB-Serial/JTAG share."""

    pid: int
    chips: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class NamedProduct:
    """One product."""

    pid: int
    name: str


@dataclass(frozen=True, kw_only=True)
class SdkDefault:
    """Ids of applications built with the vendor's SDK: ``base`` and a bit per USB class."""

    base: int
    bits: Mapping[str, int]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Espressif:
    """The vendor's own ids. ``dev_boards`` is first and last; from ``customers_from`` on, ids are lent to others."""

    vid: int
    rom_otg_rule: str
    rom_otg: tuple[RomOtg, ...]
    serial_jtag: SerialJtag
    usb_bridge: NamedProduct
    sdk_default: SdkDefault
    dev_boards: tuple[int, ...]
    customers_from: int


@dataclass(frozen=True, kw_only=True)
class PortNames:
    """Parts of port names, for ports that tell no ids, and for the order of others."""

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
    """The facts, read from the package once.

    :raises TableError: the file does not fit these classes
    """
    import tomllib
    from importlib.resources import files

    text = files("espwire.chips").joinpath("data", "usb-ids.toml").read_text("utf-8")
    table = tomllib.loads(text)
    if table.pop("schema", None) != SCHEMA:
        raise TableError(f"usb-ids.toml is not of schema {SCHEMA}", hint="Mend the data file.")
    return load_table(UsbIds, table, "usb-ids.toml")
