"""The module ``esptool``, answered by espwire: what esptool 5 documents for scripts, and nothing of its inside.

``__version__`` is the esptool whose interface this follows, since scripts compare it; ``espwire.__version__`` is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from esptool import cmds as cmds
from esptool._running import perform
from esptool.cmds import *  # noqa: F403  what cmds.__all__ names, all of it
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
    "cmds",
    "main",
]
__all__ += cmds.__all__


def main(argv: Sequence[str] | None = None, esp: ESPLoader | None = None) -> None:
    """Run one command line of esptool, that of this process if none is given.

    :param esp: a chip that is connected already; it stays so, and ``--before``, ``--after``, ``--port`` change nothing
    :raises FatalError: the command failed
    :raises SystemExit: 2: the command line makes no sense, which has been told on standard error
    """
    import sys

    perform(sys.argv[1:] if argv is None else list(argv), esp.device if esp is not None else None)
