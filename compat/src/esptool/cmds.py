"""esptool 5's documented functions. Those that look into the chip print what they find and return None, as there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from esptool._images import elf2image, image_info, merge_bin
from esptool._running import perform, report, reporting
from esptool.loader import (
    DEFAULT_CONNECT_ATTEMPTS,
    DEFAULT_OPEN_PORT_ATTEMPTS,
    ESPLoader,
    open_loader,
)
from esptool.logger import log
from esptool.targets import (
    CHIP_DEFS,  # noqa: F401  where esptool has it, too
    CHIP_LIST,  # noqa: F401  where esptool has it, too
    ROM_LIST,  # noqa: F401  where esptool has it, too
)
from esptool.util import (
    FatalError,
    ImageSource,
    NotSupportedError,
    name_source,
    read_source,
    translated,
)
from espwire.blob import Blob
from espwire.chips.registry import parse_chip_id
from espwire.cli.esptool.program import OVERRIDDEN
from espwire.flash.findings import Policy
from espwire.flash.model import FlashTarget
from espwire.image.header import HeaderSettings
from espwire.sizes import format_size

__all__ = [
    "attach_flash",
    "chip_id",
    "connect_esp",
    "connect_first_available",
    "connect_with_retries",
    "detect_chip",
    "detect_flash_size",
    "dump_mem",
    "elf2image",
    "erase_flash",
    "erase_region",
    "flash_id",
    "get_security_info",
    "image_info",
    "load_ram",
    "merge_bin",
    "read_flash",
    "read_flash_sfdp",
    "read_flash_status",
    "read_mac",
    "read_mem",
    "reset_chip",
    "run",
    "run_stub",
    "verify_flash",
    "version",
    "write_flash",
    "write_flash_status",
    "write_mem",
]
FLASH_MODES = {"qio": 0, "qout": 1, "dio": 2, "dout": 3}
FLAGS = frozenset(
    {"erase_all", "force", "skip_flashed", "compress", "no_compress", "no_progress"}
)  # of write_flash


def detect_chip(
    port: Any = ESPLoader.DEFAULT_PORT,
    baud: int = ESPLoader.ESP_ROM_BAUD,
    connect_mode: str = "default-reset",
    trace_enabled: bool = False,
    connect_attempts: int = DEFAULT_CONNECT_ATTEMPTS,
) -> ESPLoader:
    """Connect to whichever chip is there. Tracing is the command line's: ``trace_enabled`` changes nothing.

    :param port: a name, or a pyserial object that is open
    """
    return open_loader([port], None, baud, connect_mode, connect_attempts)


@translated
def connect_esp(
    port: str | None = None,
    chip: str = "auto",
    initial_baud: int = ESPLoader.ESP_ROM_BAUD,
    port_filter: list[str] | None = None,
    before: str = "default-reset",
    trace: bool = False,
    connect_attempts: int = DEFAULT_CONNECT_ATTEMPTS,
    open_port_attempts: int = DEFAULT_OPEN_PORT_ATTEMPTS,
) -> ESPLoader:
    """Connect to ``port``, or without one to the first likely board that answers.

    :param port_filter: texts such as ``vid=0x303A``, as ``--port-filter`` takes them
    """
    if port is None:
        from espwire.transport.ports import (
            likely_board,
            list_ports,
            list_system_ports,
            matches,
            parse_filter,
            rank,
        )

        wanted = parse_filter(port_filter or ())
        ports = [
            found.path
            for found in rank(list_ports(list_system_ports))
            if (matches(found, wanted) if wanted else likely_board(found))
        ]
    else:
        ports = [port]
    return open_loader(
        ports, _name_chip(chip), initial_baud, before, connect_attempts, open_port_attempts
    )


@translated
def connect_with_retries(
    port: str,
    initial_baud: int,
    chip: str,
    max_retries: int,
    trace: bool = False,
    before: str = "default-reset",
) -> ESPLoader:
    """Connect to ``port``, and try to open it ``max_retries`` times; 0 or less: without end."""
    return open_loader(
        [port], _name_chip(chip), initial_baud, before, DEFAULT_CONNECT_ATTEMPTS, max_retries
    )


def connect_first_available(
    serial_list: list[str],
    port: str | None,
    connect_attempts: int,
    initial_baud: int,
    chip: str = "auto",
    trace: bool = False,
    before: str = "default-reset",
) -> ESPLoader | None:
    """Connect to ``port``, or without one to the last of ``serial_list`` that answers.

    Returns None where none answers; with ``port``, that is raised.
    """
    for name in [port] if port is not None else reversed(serial_list):
        try:
            return open_loader([name], _name_chip(chip), initial_baud, before, connect_attempts)
        except FatalError as error:
            if port is not None:
                raise
            log.note(f"{name}: {error}")
    return None


def get_port_list(
    vids: Sequence[int] = (),
    pids: Sequence[int] = (),
    names: Sequence[str] = (),
    serials: Sequence[str] = (),
) -> list[str]:
    """The names of the serial ports that pass the filters; empty filters pass all."""
    from espwire.transport.ports import PortFilter, list_ports, list_system_ports, matches

    wanted = PortFilter(vid=tuple(vids), pid=tuple(pids), name=tuple(names), serial=tuple(serials))
    return sorted(found.path for found in list_ports(list_system_ports) if matches(found, wanted))


def _name_chip(chip: str) -> str | None:
    return None if chip == "auto" else parse_chip_id(chip)


@translated
def detect_flash_size(esp: ESPLoader) -> str | None:
    """The size that the flash chip's id encodes, such as ``4MB``; None if it encodes none."""
    from espwire.device.flash_id import find_flash_size

    size = None if esp.secure_download_mode else find_flash_size(esp.flash_id())
    return None if size is None else format_size(size)


def run_stub(esp: ESPLoader, plugins: list[str] | None = None) -> ESPLoader:
    """Start espwire's stub; where there is none for this chip, warn and return it in its ROM loader as it is."""
    return esp.run_stub()


@translated
def load_ram(esp: ESPLoader, input: ImageSource) -> None:
    """Put a program into RAM and start it."""
    from espwire.flash import load_ram as memory

    memory.load_ram(esp.device, read_source(input), name=name_source(input), report=report)


@translated
def run(esp: ESPLoader) -> None:
    """Have the loader start the application."""
    esp.device.run()


def reset_chip(esp: ESPLoader, reset_mode: str = "hard-reset") -> None:
    """Leave the chip as asked."""
    esp.reset(reset_mode)


def chip_id(esp: ESPLoader) -> None:
    """Print the ESP8266's chip id; of other chips the MAC."""
    perform(["chip-id"], esp.device)


def read_mac(esp: ESPLoader) -> None:
    """Print the MAC."""
    perform(["read-mac"], esp.device)


def get_security_info(esp: ESPLoader) -> None:
    """Print the security flags."""
    perform(["get-security-info"], esp.device)


@translated
def attach_flash(
    esp: ESPLoader,
    spi_connection: tuple[int, int, int, int, int] | str | None = None,
    flash_type: str = "nor",
) -> None:
    """Make the flash ready.

    :param spi_connection: ``SPI``, ``HSPI``, five pins, or None for those of the eFuses
    :raises NotSupportedError: NAND flash
    """
    _check_nor(flash_type)
    if spi_connection is not None:
        esp.device.use_flash_pins(spi_connection)
    esp.device.attach_flash()


def flash_id(esp: ESPLoader) -> None:
    """Print maker, device and size of the flash."""
    perform(["flash-id"], esp.device)


@translated
def read_flash(
    esp: ESPLoader,
    address: int,
    size: int,
    output: str | None = None,
    flash_size: str = "keep",
    no_progress: bool = False,
    flash_type: str = "nor",
    nand_end_address: int | None = None,
) -> bytes | None:
    """Read flash into a file, or without one return it."""
    import tempfile
    from pathlib import Path

    from espwire.flash.read import read_to_file

    _check_nor("nand" if nand_end_address is not None else flash_type)
    if output is not None:
        read_to_file(esp.device, address, size, output, report=reporting(no_progress))
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "flash.bin"
        read_to_file(esp.device, address, size, path, report=reporting(no_progress))
        return path.read_bytes()


@translated
def write_flash(
    esp: ESPLoader,
    addr_data: list[tuple[int, ImageSource]],
    flash_freq: str = "keep",
    flash_mode: str = "keep",
    flash_size: str = "keep",
    flash_type: str = "nor",
    **kwargs: Any,
) -> None:
    """Write images, and verify them.

    :param kwargs: ``erase_all``, ``force``, ``skip_flashed``, ``compress``, ``no_compress``, ``no_progress``
    :raises NotSupportedError: another keyword that asks for something
    :raises FatalError: a guard has a reason against it, or the flash does not hold what was written
    """
    from espwire.flash import write

    _check_nor(flash_type)
    odd = [name for name, value in kwargs.items() if value and name not in FLAGS]
    if odd:
        raise NotSupportedError(
            f"write_flash does not take {odd[0]} here: use the command line, or espwire's library"
        )
    wanted = True if kwargs.get("compress") else False if kwargs.get("no_compress") else None
    policy = Policy(
        keep=False,
        compress=wanted,
        erase_all=bool(kwargs.get("erase_all")),
        force=bool(kwargs.get("force")),
        consents=OVERRIDDEN,
        skip_flashed=bool(kwargs.get("skip_flashed")),
    )
    write.write_flash(
        esp.device,
        _read_parts(addr_data),
        policy=policy,
        settings=HeaderSettings(mode=flash_mode, size=flash_size, frequency=flash_freq),
        report=reporting(kwargs.get("no_progress")),
    )


@translated
def erase_flash(esp: ESPLoader, force: bool = False, flash_type: str = "nor") -> None:
    """Erase the whole flash."""
    from espwire.flash import erase

    _check_nor(flash_type)
    erase.erase_flash(esp.device, policy=Policy(force=force), report=report)
    log.print("Flash memory erased successfully.")


@translated
def erase_region(
    esp: ESPLoader, address: int, size: int, force: bool = False, flash_type: str = "nor"
) -> None:
    """Erase whole sectors."""
    from espwire.flash import erase

    _check_nor(flash_type)
    erase.erase_region(esp.device, address, size, policy=Policy(force=force), report=report)
    log.print("Flash memory region erased successfully.")


@translated
def verify_flash(
    esp: ESPLoader,
    addr_data: list[tuple[int, ImageSource]],
    flash_freq: str = "keep",
    flash_mode: str = "keep",
    flash_size: str = "keep",
    diff: bool = False,
    flash_type: str = "nor",
) -> None:
    """Compare flash with images.

    :param diff: name the ranges that differ, which the message does in any case
    :raises FatalError: they differ
    """
    from espwire.flash import prepare, verify

    _check_nor(flash_type)
    settings = HeaderSettings(mode=flash_mode, size=flash_size, frequency=flash_freq)
    target = FlashTarget.of(esp.device, flash_size=prepare.find_stated_size(settings))
    parts = prepare.prepare_blobs(_read_parts(addr_data), target, settings, report=report)
    verify.verify_flash(esp.device, parts, report=report)
    log.print("Verification successful (digest matched).")


def read_flash_status(esp: ESPLoader, bytes: int = 2) -> None:
    """Print the flash's status registers."""
    perform(["read-flash-status", "--bytes", str(bytes)], esp.device)


def write_flash_status(
    esp: ESPLoader, value: int, bytes: int = 2, non_volatile: bool = False
) -> None:
    """Write the flash's status registers."""
    more = ["--non-volatile"] if non_volatile else []
    perform(["write-flash-status", "--bytes", str(bytes), *more, hex(value)], esp.device)


def read_flash_sfdp(esp: ESPLoader, address: int, bytes: int = 1) -> None:
    """Print what the flash tells of itself."""
    perform(["read-flash-sfdp", hex(address), str(bytes)], esp.device)


def read_mem(esp: ESPLoader, address: int) -> None:
    """Print one word of memory."""
    perform(["read-mem", hex(address)], esp.device)


def write_mem(esp: ESPLoader, address: int, value: int, mask: int = 0xFFFFFFFF) -> None:
    """Write one word of memory, or some of its bits."""
    perform(["write-mem", hex(address), hex(value), hex(mask)], esp.device)


@translated
def dump_mem(esp: ESPLoader, address: int, size: int, output: str | None = None) -> bytes | None:
    """Read memory into a file, or without one return it."""
    from espwire.flash import load_ram as memory

    return memory.dump_mem(esp.device, address, size, output, report=report).data


def version() -> None:
    """Print which espwire this is, and which esptool's interface it follows."""
    from espwire.cli.esptool.program import describe_version

    log.print(describe_version())


def _read_parts(addr_data: list[tuple[int, ImageSource]]) -> list[Blob]:
    return [
        Blob(address, read_source(source), name_source(source)) for address, source in addr_data
    ]


def _check_nor(flash_type: str) -> None:
    if flash_type != "nor":
        raise NotSupportedError("NAND flash is out of espwire's scope")


def __getattr__(name: str) -> dict[int, str]:
    """``DETECTED_FLASH_SIZES``: the third byte of a flash part's id and the size that it encodes."""
    if name == "DETECTED_FLASH_SIZES":
        from espwire.device.flash_id import flash_facts

        return {entry["code"]: format_size(entry["bytes"]) for entry in flash_facts()["size_codes"]}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
