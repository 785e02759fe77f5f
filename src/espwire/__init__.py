"""espwire: talk to the ROM bootloader of Espressif chips. Public names load on first use (PEP 562).

Everything that stands in ``__all__`` is the public interface; tests/golden/public_api.txt holds its signatures.
"""

from espwire._version import __version__

# Not typing.TYPE_CHECKING: typing alone would double the time of `import espwire`; type checkers know this name too.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from espwire.blob import Blob as Blob
    from espwire.chips.model import Chip as Chip
    from espwire.chips.registry import chip_ids as chip_ids
    from espwire.chips.registry import load_chip as load_chip
    from espwire.device.connect import connect as connect
    from espwire.device.connect import reset as reset
    from espwire.device.connect_history import Memory as Memory
    from espwire.device.device import Device as Device
    from espwire.device.flash_id import FlashInfo as FlashInfo
    from espwire.device.flash_registers import FlashStatus as FlashStatus
    from espwire.device.flash_registers import FlashStatusChange as FlashStatusChange
    from espwire.device.loader import Packet as Packet
    from espwire.device.memory_access import MemWord as MemWord
    from espwire.device.memory_access import MemWrite as MemWrite
    from espwire.device.security import SecurityInfo as SecurityInfo
    from espwire.device.sfdp import EraseType as EraseType
    from espwire.device.sfdp import Sfdp as Sfdp
    from espwire.device.sfdp import SfdpTable as SfdpTable
    from espwire.device.streams import ReadTransfer as ReadTransfer
    from espwire.device.streams import WriteTransfer as WriteTransfer
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
    from espwire.errors import NoReply as NoReply
    from espwire.errors import PortBusy as PortBusy
    from espwire.errors import PortDenied as PortDenied
    from espwire.errors import PortNotFound as PortNotFound
    from espwire.errors import SafetyStop as SafetyStop
    from espwire.errors import TableError as TableError
    from espwire.errors import ToolError as ToolError
    from espwire.errors import TransportError as TransportError
    from espwire.errors import TransportLost as TransportLost
    from espwire.errors import Unsupported as Unsupported
    from espwire.errors import UsageError as UsageError
    from espwire.errors import VerifyError as VerifyError
    from espwire.errors import WrongBootMode as WrongBootMode
    from espwire.errors import WrongChip as WrongChip
    from espwire.events import ChipFound as ChipFound
    from espwire.events import Connecting as Connecting
    from espwire.events import Event as Event
    from espwire.events import Finished as Finished
    from espwire.events import Note as Note
    from espwire.events import Opened as Opened
    from espwire.events import PlannedStep as PlannedStep
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
    from espwire.flash.flash_map import read_map as read_map
    from espwire.flash.load_ram import MemDump as MemDump
    from espwire.flash.load_ram import RamLoad as RamLoad
    from espwire.flash.load_ram import dump_mem as dump_mem
    from espwire.flash.load_ram import load_ram as load_ram
    from espwire.flash.partitions import read_ota_status as read_ota_status
    from espwire.flash.partitions import read_partition_table as read_partition_table
    from espwire.flash.partitions import switch_ota as switch_ota
    from espwire.flash.plan import Finding as Finding
    from espwire.flash.plan import Plan as Plan
    from espwire.flash.plan import Policy as Policy
    from espwire.flash.read import read_flash as read_flash
    from espwire.flash.read import read_to_file as read_to_file
    from espwire.flash.streams import open_read as open_read
    from espwire.flash.streams import open_write as open_write
    from espwire.flash.verify import verify_flash as verify_flash
    from espwire.flash.write import write_build as write_build
    from espwire.flash.write import write_flash as write_flash
    from espwire.image.build_dir import read_build as read_build
    from espwire.image.build_file import BuildPlan as BuildPlan
    from espwire.image.build_file import BuildRequest as BuildRequest
    from espwire.image.diff import ImageDiff as ImageDiff
    from espwire.image.diff import diff_images as diff_images
    from espwire.image.elf2image import ImageFiles as ImageFiles
    from espwire.image.elf2image import elf2image as elf2image
    from espwire.image.flash_map import FlashMap as FlashMap
    from espwire.image.flash_map import map_dump as map_dump
    from espwire.image.flash_map_svg import draw_svg as draw_svg
    from espwire.image.flash_map_text import draw_text as draw_text
    from espwire.image.header import HeaderSettings as HeaderSettings
    from espwire.image.inspect import FileInfo as FileInfo
    from espwire.image.inspect import ImageInfo as ImageInfo
    from espwire.image.inspect import inspect_bytes as inspect_bytes
    from espwire.image.layout import ElfOptions as ElfOptions
    from espwire.image.make_image import make_image as make_image
    from espwire.image.merge import Merged as Merged
    from espwire.image.merge import MergeOptions as MergeOptions
    from espwire.image.merge import merge_blobs as merge_blobs
    from espwire.image.ota import OtaChange as OtaChange
    from espwire.image.ota import OtaState as OtaState
    from espwire.image.ota import OtaStatus as OtaStatus
    from espwire.image.partition_csv import CsvPlaces as CsvPlaces
    from espwire.image.partition_csv import build_csv as build_csv
    from espwire.image.partition_csv import parse_csv as parse_csv
    from espwire.image.partition_table import Partition as Partition
    from espwire.image.partition_table import PartitionTable as PartitionTable
    from espwire.image.partition_table import Problem as Problem
    from espwire.image.partition_table import TableRules as TableRules
    from espwire.image.partition_table import build_table as build_table
    from espwire.image.partition_table import check_table as check_table
    from espwire.image.partition_table import find_partition as find_partition
    from espwire.image.partition_table import parse_table as parse_table
    from espwire.image.read_any import read_input as read_input
    from espwire.image.split import split_image as split_image
    from espwire.settings import RetryPolicy as RetryPolicy
    from espwire.settings import Settings as Settings
    from espwire.settings import Timing as Timing
    from espwire.sizes import Revision as Revision
    from espwire.transport.base import CancelToken as CancelToken
    from espwire.transport.base import Transport as Transport
    from espwire.transport.base import TransportInfo as TransportInfo
    from espwire.transport.ports import Port as Port
    from espwire.transport.ports import PortIdentity as PortIdentity
    from espwire.transport.ports import SystemPort as SystemPort
    from espwire.transport.ports import list_ports as list_ports
    from espwire.transport.url import open_transport as open_transport

_HOME = {
    "Revision": "espwire.sizes",
    "Blob": "espwire.blob",
    "Chip": "espwire.chips.model",
    "chip_ids": "espwire.chips.registry",
    "load_chip": "espwire.chips.registry",
    "connect": "espwire.device.connect",
    "reset": "espwire.device.connect",
    "Device": "espwire.device.device",
    "FlashInfo": "espwire.device.flash_id",
    "FlashStatus": "espwire.device.flash_registers",
    "FlashStatusChange": "espwire.device.flash_registers",
    "SecurityInfo": "espwire.device.security",
    "Memory": "espwire.device.connect_history",
    "Packet": "espwire.device.loader",
    "ReadTransfer": "espwire.device.streams",
    "WriteTransfer": "espwire.device.streams",
    "MemWord": "espwire.device.memory_access",
    "MemWrite": "espwire.device.memory_access",
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
    "TransportError": "espwire.errors",
    "TransportLost": "espwire.errors",
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
    "Connecting": "espwire.events",
    "Event": "espwire.events",
    "Finished": "espwire.events",
    "Note": "espwire.events",
    "Opened": "espwire.events",
    "PlannedStep": "espwire.events",
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
    "MemDump": "espwire.flash.load_ram",
    "dump_mem": "espwire.flash.load_ram",
    "open_read": "espwire.flash.streams",
    "open_write": "espwire.flash.streams",
    "RamLoad": "espwire.flash.load_ram",
    "load_ram": "espwire.flash.load_ram",
    "Finding": "espwire.flash.plan",
    "Plan": "espwire.flash.plan",
    "Policy": "espwire.flash.plan",
    "read_flash": "espwire.flash.read",
    "read_to_file": "espwire.flash.read",
    "verify_flash": "espwire.flash.verify",
    "write_flash": "espwire.flash.write",
    "write_build": "espwire.flash.write",
    "BuildPlan": "espwire.image.build_file",
    "BuildRequest": "espwire.image.build_file",
    "read_build": "espwire.image.build_dir",
    "read_input": "espwire.image.read_any",
    "ImageFiles": "espwire.image.elf2image",
    "elf2image": "espwire.image.elf2image",
    "read_map": "espwire.flash.flash_map",
    "read_ota_status": "espwire.flash.partitions",
    "switch_ota": "espwire.flash.partitions",
    "read_partition_table": "espwire.flash.partitions",
    "FlashMap": "espwire.image.flash_map",
    "map_dump": "espwire.image.flash_map",
    "draw_svg": "espwire.image.flash_map_svg",
    "draw_text": "espwire.image.flash_map_text",
    "OtaChange": "espwire.image.ota",
    "OtaState": "espwire.image.ota",
    "OtaStatus": "espwire.image.ota",
    "CsvPlaces": "espwire.image.partition_csv",
    "build_csv": "espwire.image.partition_csv",
    "parse_csv": "espwire.image.partition_csv",
    "Partition": "espwire.image.partition_table",
    "PartitionTable": "espwire.image.partition_table",
    "Problem": "espwire.image.partition_table",
    "TableRules": "espwire.image.partition_table",
    "build_table": "espwire.image.partition_table",
    "check_table": "espwire.image.partition_table",
    "find_partition": "espwire.image.partition_table",
    "parse_table": "espwire.image.partition_table",
    "HeaderSettings": "espwire.image.header",
    "make_image": "espwire.image.make_image",
    "ElfOptions": "espwire.image.layout",
    "ImageDiff": "espwire.image.diff",
    "diff_images": "espwire.image.diff",
    "FileInfo": "espwire.image.inspect",
    "ImageInfo": "espwire.image.inspect",
    "inspect_bytes": "espwire.image.inspect",
    "MergeOptions": "espwire.image.merge",
    "Merged": "espwire.image.merge",
    "merge_blobs": "espwire.image.merge",
    "split_image": "espwire.image.split",
    "CancelToken": "espwire.transport.base",
    "Transport": "espwire.transport.base",
    "TransportInfo": "espwire.transport.base",
    "Port": "espwire.transport.ports",
    "PortIdentity": "espwire.transport.ports",
    "SystemPort": "espwire.transport.ports",
    "list_ports": "espwire.transport.ports",
    "open_transport": "espwire.transport.url",
    "RetryPolicy": "espwire.settings",
    "Settings": "espwire.settings",
    "Timing": "espwire.settings",
}
__all__ = [
    "Blob",
    "BuildPlan",
    "BuildRequest",
    "CancelToken",
    "Cancelled",
    "Chip",
    "ChipFound",
    "CommandFailed",
    "ConnectError",
    "Connecting",
    "CsvPlaces",
    "DataError",
    "Device",
    "DeviceError",
    "ElfError",
    "ElfOptions",
    "EraseType",
    "Event",
    "FileError",
    "FileInfo",
    "Finding",
    "Finished",
    "FlashInfo",
    "FlashMap",
    "FlashStatus",
    "FlashStatusChange",
    "HeaderSettings",
    "HexError",
    "ImageDiff",
    "ImageError",
    "ImageFiles",
    "ImageInfo",
    "KeyFileError",
    "MemDump",
    "MemWord",
    "MemWrite",
    "Memory",
    "MergeOptions",
    "Merged",
    "NoReply",
    "Note",
    "Opened",
    "OtaChange",
    "OtaState",
    "OtaStatus",
    "Packet",
    "Partition",
    "PartitionTable",
    "Plan",
    "PlanReady",
    "PlannedStep",
    "Policy",
    "Port",
    "PortBusy",
    "PortDenied",
    "PortIdentity",
    "PortNotFound",
    "Problem",
    "Progress",
    "RamLoad",
    "ReadTransfer",
    "Report",
    "Reporter",
    "Resetting",
    "Result",
    "RetryPolicy",
    "Revision",
    "SafetyStop",
    "SecurityInfo",
    "Settings",
    "Sfdp",
    "SfdpTable",
    "SystemPort",
    "TableError",
    "TableRules",
    "Timing",
    "ToolError",
    "Transport",
    "TransportError",
    "TransportInfo",
    "TransportLost",
    "Unsupported",
    "UsageError",
    "VerifyError",
    "Warned",
    "WriteTransfer",
    "WrongBootMode",
    "WrongChip",
    "__version__",
    "build_csv",
    "build_table",
    "check_table",
    "chip_ids",
    "connect",
    "diff_images",
    "draw_svg",
    "draw_text",
    "dump_mem",
    "elf2image",
    "erase_flash",
    "erase_region",
    "find_partition",
    "inspect_bytes",
    "list_ports",
    "load_chip",
    "load_ram",
    "make_image",
    "map_dump",
    "merge_blobs",
    "open_read",
    "open_transport",
    "open_write",
    "parse_csv",
    "parse_table",
    "read_build",
    "read_flash",
    "read_input",
    "read_map",
    "read_ota_status",
    "read_partition_table",
    "read_to_file",
    "reset",
    "split_image",
    "switch_ota",
    "to_json",
    "verify_flash",
    "write_build",
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
