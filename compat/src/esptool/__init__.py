"""A replacement for the module ``esptool``, based on espwire: the interface that esptool 5 documents for scripts.

``__version__`` is the version of esptool with this interface, because scripts compare it; espwire's own version is
``espwire.__version__``.
"""

from __future__ import annotations

from collections.abc import Sequence

from esptool import cmds as cmds
from esptool._running import perform
from esptool.bin_image import LoadFirmwareImage as LoadFirmwareImage
from esptool.cmds import *  # noqa: F403  everything in cmds.__all__
from esptool.cmds import connect_first_available as get_default_connected_device
from esptool.cmds import connect_with_retries as connect_loop
from esptool.cmds import get_port_list as get_port_list
from esptool.loader import (
    DEFAULT_CONNECT_ATTEMPTS,
    DEFAULT_OPEN_PORT_ATTEMPTS,
    ESPLoader,
    StubFlasher,
)
from esptool.logger import log
from esptool.targets import *  # noqa: F403  a class per chip
from esptool.targets import CHIP_DEFS, CHIP_LIST, ROM_LIST
from esptool.util import (
    FatalError,
    NotImplementedInROMError,
    NotSupportedError,
    UnsupportedCommandError,
    flash_size_bytes,
)
from espwire.cli.esptool.program import ESPTOOL_VERSION as __version__

__all__ = [
    "CHIP_DEFS",
    "CHIP_LIST",
    "DEFAULT_CONNECT_ATTEMPTS",
    "DEFAULT_OPEN_PORT_ATTEMPTS",
    "ROM_LIST",
    "ESPLoader",
    "FatalError",
    "LoadFirmwareImage",
    "NotImplementedInROMError",
    "NotSupportedError",
    "StubFlasher",
    "UnsupportedCommandError",
    "__version__",
    "cmds",
    "connect_loop",
    "flash_size_bytes",
    "get_default_connected_device",
    "get_port_list",
    "log",
    "main",
]
__all__ += cmds.__all__
__all__ += [rom.__name__ for rom in ROM_LIST]


def main(argv: Sequence[str] | None = None, esp: ESPLoader | None = None) -> None:
    """Run a command line of esptool, by default that of this process.

    :param esp: a connected chip; ``--port`` and ``--before`` have no effect. Its port stays open, but ``--after`` resets
        the chip at the end: ``esp.connect()`` enters the loader again.
    :raises FatalError: the command failed
    :raises SystemExit: 2: the command line is invalid; the error was printed on standard error
    """
    import sys

    words = sys.argv[1:] if argv is None else list(argv)
    if esp is None:
        perform(words)
        return
    try:
        perform(words, esp.device, leave=True)
    finally:
        esp.refresh()


def _main() -> None:
    """Run the program ``esptool`` on the command line of this process; exits."""
    from espwire_compat.programs import esptool

    esptool()


def __getattr__(name: str) -> object:
    if name == "DETECTED_FLASH_SIZES":
        return cmds.DETECTED_FLASH_SIZES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
