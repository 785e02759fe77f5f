"""espwire: talk to the ROM bootloader of Espressif chips. Public names load on first use (PEP 562).

Everything that stands in ``__all__`` is the public interface; tests/golden/public_api.txt holds its signatures.
"""

from espwire._version import __version__

# Not typing.TYPE_CHECKING: typing alone would double the time of `import espwire`; type checkers know this name too.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from espwire.chips.model import Chip as Chip
    from espwire.chips.registry import chip_ids as chip_ids
    from espwire.chips.registry import load_chip as load_chip
    from espwire.device.connect import connect as connect
    from espwire.device.connect import reset as reset
    from espwire.device.device import Device as Device
    from espwire.device.flash_id import FlashInfo as FlashInfo
    from espwire.device.flash_status import FlashStatus as FlashStatus
    from espwire.device.flash_status import FlashStatusChange as FlashStatusChange
    from espwire.device.memory import Memory as Memory
    from espwire.device.packets import Packet as Packet
    from espwire.device.packets import PacketRing as PacketRing
    from espwire.device.ram import MemWord as MemWord
    from espwire.device.ram import MemWrite as MemWrite
    from espwire.device.security import SecurityInfo as SecurityInfo
    from espwire.device.sfdp import EraseType as EraseType
    from espwire.device.sfdp import Sfdp as Sfdp
    from espwire.device.sfdp import SfdpTable as SfdpTable
    from espwire.errors import Cancelled as Cancelled
    from espwire.errors import CommandFailed as CommandFailed
    from espwire.errors import ConnectError as ConnectError
    from espwire.errors import DataError as DataError
    from espwire.errors import DeviceError as DeviceError
    from espwire.errors import ElfError as ElfError
    from espwire.errors import FileError as FileError
    from espwire.errors import HexError as HexError
    from espwire.errors import ImageError as ImageError
    from espwire.errors import KeyFileError as KeyFileError
    from espwire.errors import LinkError as LinkError
    from espwire.errors import LinkLost as LinkLost
    from espwire.errors import NoReply as NoReply
    from espwire.errors import PortBusy as PortBusy
    from espwire.errors import PortDenied as PortDenied
    from espwire.errors import PortNotFound as PortNotFound
    from espwire.errors import SafetyStop as SafetyStop
    from espwire.errors import TableError as TableError
    from espwire.errors import ToolError as ToolError
    from espwire.errors import Unsupported as Unsupported
    from espwire.errors import UsageError as UsageError
    from espwire.errors import VerifyError as VerifyError
    from espwire.errors import WrongBootMode as WrongBootMode
    from espwire.errors import WrongChip as WrongChip
    from espwire.events import ChipFound as ChipFound
    from espwire.events import Event as Event
    from espwire.events import Finished as Finished
    from espwire.events import Note as Note
    from espwire.events import Opened as Opened
    from espwire.events import PlanReady as PlanReady
    from espwire.events import Progress as Progress
    from espwire.events import Report as Report
    from espwire.events import Reporter as Reporter
    from espwire.events import Resetting as Resetting
    from espwire.events import Result as Result
    from espwire.events import Warned as Warned
    from espwire.events import to_json as to_json
    from espwire.flash.erase import erase_flash as erase_flash
    from espwire.flash.erase import erase_region as erase_region
    from espwire.flash.memory import MemDump as MemDump
    from espwire.flash.memory import RamLoad as RamLoad
    from espwire.flash.memory import dump_mem as dump_mem
    from espwire.flash.memory import load_ram as load_ram
    from espwire.flash.plan import Finding as Finding
    from espwire.flash.plan import Part as Part
    from espwire.flash.plan import Plan as Plan
    from espwire.flash.plan import Policy as Policy
    from espwire.flash.read import read_to_file as read_to_file
    from espwire.flash.verify import verify_flash as verify_flash
    from espwire.flash.write import write_flash as write_flash
    from espwire.image.flash_settings import HeaderSettings as HeaderSettings
    from espwire.link.base import CancelToken as CancelToken
    from espwire.link.base import Link as Link
    from espwire.link.base import LinkInfo as LinkInfo
    from espwire.link.ports import Port as Port
    from espwire.link.ports import PortIdentity as PortIdentity
    from espwire.link.ports import SystemPort as SystemPort
    from espwire.link.ports import list_ports as list_ports
    from espwire.link.url import open_link as open_link
    from espwire.settings import Settings as Settings
    from espwire.settings import Timing as Timing

_HOME = {
    "Chip": "espwire.chips.model",
    "chip_ids": "espwire.chips.registry",
    "load_chip": "espwire.chips.registry",
    "connect": "espwire.device.connect",
    "reset": "espwire.device.connect",
    "Device": "espwire.device.device",
    "FlashInfo": "espwire.device.flash_id",
    "FlashStatus": "espwire.device.flash_status",
    "FlashStatusChange": "espwire.device.flash_status",
    "SecurityInfo": "espwire.device.security",
    "Memory": "espwire.device.memory",
    "Packet": "espwire.device.packets",
    "PacketRing": "espwire.device.packets",
    "MemWord": "espwire.device.ram",
    "MemWrite": "espwire.device.ram",
    "Sfdp": "espwire.device.sfdp",
    "SfdpTable": "espwire.device.sfdp",
    "EraseType": "espwire.device.sfdp",
    "Cancelled": "espwire.errors",
    "CommandFailed": "espwire.errors",
    "ConnectError": "espwire.errors",
    "DataError": "espwire.errors",
    "DeviceError": "espwire.errors",
    "ElfError": "espwire.errors",
    "FileError": "espwire.errors",
    "HexError": "espwire.errors",
    "ImageError": "espwire.errors",
    "KeyFileError": "espwire.errors",
    "LinkError": "espwire.errors",
    "LinkLost": "espwire.errors",
    "NoReply": "espwire.errors",
    "PortBusy": "espwire.errors",
    "PortDenied": "espwire.errors",
    "PortNotFound": "espwire.errors",
    "SafetyStop": "espwire.errors",
    "TableError": "espwire.errors",
    "ToolError": "espwire.errors",
    "Unsupported": "espwire.errors",
    "UsageError": "espwire.errors",
    "VerifyError": "espwire.errors",
    "WrongBootMode": "espwire.errors",
    "WrongChip": "espwire.errors",
    "ChipFound": "espwire.events",
    "Event": "espwire.events",
    "Finished": "espwire.events",
    "Note": "espwire.events",
    "Opened": "espwire.events",
    "PlanReady": "espwire.events",
    "Progress": "espwire.events",
    "Report": "espwire.events",
    "Reporter": "espwire.events",
    "Resetting": "espwire.events",
    "Result": "espwire.events",
    "Warned": "espwire.events",
    "to_json": "espwire.events",
    "erase_region": "espwire.flash.erase",
    "erase_flash": "espwire.flash.erase",
    "MemDump": "espwire.flash.memory",
    "dump_mem": "espwire.flash.memory",
    "RamLoad": "espwire.flash.memory",
    "load_ram": "espwire.flash.memory",
    "Finding": "espwire.flash.plan",
    "Part": "espwire.flash.plan",
    "Plan": "espwire.flash.plan",
    "Policy": "espwire.flash.plan",
    "read_to_file": "espwire.flash.read",
    "verify_flash": "espwire.flash.verify",
    "write_flash": "espwire.flash.write",
    "HeaderSettings": "espwire.image.flash_settings",
    "CancelToken": "espwire.link.base",
    "Link": "espwire.link.base",
    "LinkInfo": "espwire.link.base",
    "Port": "espwire.link.ports",
    "PortIdentity": "espwire.link.ports",
    "SystemPort": "espwire.link.ports",
    "list_ports": "espwire.link.ports",
    "open_link": "espwire.link.url",
    "Settings": "espwire.settings",
    "Timing": "espwire.settings",
}
__all__ = [
    "CancelToken",
    "Cancelled",
    "Chip",
    "ChipFound",
    "CommandFailed",
    "ConnectError",
    "DataError",
    "Device",
    "DeviceError",
    "ElfError",
    "EraseType",
    "Event",
    "FileError",
    "Finding",
    "Finished",
    "FlashInfo",
    "FlashStatus",
    "FlashStatusChange",
    "HeaderSettings",
    "HexError",
    "ImageError",
    "KeyFileError",
    "Link",
    "LinkError",
    "LinkInfo",
    "LinkLost",
    "MemDump",
    "MemWord",
    "MemWrite",
    "Memory",
    "NoReply",
    "Note",
    "Opened",
    "Packet",
    "PacketRing",
    "Part",
    "Plan",
    "PlanReady",
    "Policy",
    "Port",
    "PortBusy",
    "PortDenied",
    "PortIdentity",
    "PortNotFound",
    "Progress",
    "RamLoad",
    "Report",
    "Reporter",
    "Resetting",
    "Result",
    "SafetyStop",
    "SecurityInfo",
    "Settings",
    "Sfdp",
    "SfdpTable",
    "SystemPort",
    "TableError",
    "Timing",
    "ToolError",
    "Unsupported",
    "UsageError",
    "VerifyError",
    "Warned",
    "WrongBootMode",
    "WrongChip",
    "__version__",
    "chip_ids",
    "connect",
    "dump_mem",
    "erase_flash",
    "erase_region",
    "list_ports",
    "load_chip",
    "load_ram",
    "open_link",
    "read_to_file",
    "reset",
    "to_json",
    "verify_flash",
    "write_flash",
]


def __getattr__(name: str) -> object:
    """Import the module behind a public name when it is first asked for."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'espwire' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return sorted({*globals(), *__all__})
