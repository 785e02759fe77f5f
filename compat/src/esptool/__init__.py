"""The module ``esptool``, answered by espwire: what esptool 5 documents for scripts, and nothing of its inside.

``__version__`` is the esptool whose interface this follows, since scripts compare it; ``espwire.__version__`` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from esptool import cmds as cmds
from esptool._running import perform
from esptool.cmds import (
    attach_flash,
    chip_id,
    connect_esp,
    detect_chip,
    dump_mem,
    elf2image,
    erase_flash,
    erase_region,
    flash_id,
    get_security_info,
    image_info,
    load_ram,
    merge_bin,
    read_flash,
    read_flash_sfdp,
    read_flash_status,
    read_mac,
    read_mem,
    reset_chip,
    run,
    run_stub,
    verify_flash,
    version,
    write_flash,
    write_flash_status,
    write_mem,
)
from esptool.loader import ESPLoader
from esptool.util import FatalError, NotImplementedInROMError, NotSupportedError, UnsupportedCommandError
from espwire.cli.esptool import SPEAKS as __version__

__all__ = [
    "ESPLoader",
    "FatalError",
    "NotImplementedInROMError",
    "NotSupportedError",
    "UnsupportedCommandError",
    "__version__",
    "attach_flash",
    "chip_id",
    "cmds",
    "connect_esp",
    "detect_chip",
    "dump_mem",
    "elf2image",
    "erase_flash",
    "erase_region",
    "flash_id",
    "get_security_info",
    "image_info",
    "load_ram",
    "main",
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


def main(argv: Sequence[str] | None = None, esp: ESPLoader | None = None) -> None:
    """Run one command line of esptool, that of this process if none is given.

    :param esp: a chip that is connected already; it stays so, and ``--before``, ``--after``, ``--port`` change nothing
    :raises FatalError: the command failed
    :raises SystemExit: 2: the command line makes no sense, which has been told on standard error
    """
    import sys

    perform(sys.argv[1:] if argv is None else list(argv), esp.device if esp is not None else None)
