"""What depends on the name that the program is started under: ``espwire``, or one of esptool's programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from espwire._version import __version__
from espwire.errors import ToolError

if TYPE_CHECKING:
    from espwire.cli.render import Wording
    from espwire.device.device import Device
    from espwire.events import Report


class Program(NamedTuple):
    """What depends on the name that the program is started under: ``espwire``, or ``esptool.py``."""

    name: str = "espwire"
    group: str = ""  # the commands are those of this group; empty: all
    version_text: str = f"espwire {__version__}"
    error_word: Callable[[ToolError], str] = lambda error: "error"
    exit_code: Callable[[ToolError], int] = lambda error: error.exit_code
    wording: Wording | None = None  # None: espwire's own
    report_device: Callable[[Device, Report], None] | None = None
    strict: bool = True  # False: accept ambiguous numbers and files as esptool does
    consents: frozenset[str] = frozenset()  # in addition to --allow
    keep: bool = True  # what shares a sector with a file; False: erase it as esptool does
    announces: bool = False  # prints which eFuse command runs
    waits: bool = True  # for a board that is lost in the middle of an operation
    tunes: bool = True  # without --baud, looks for the fastest reliable rate
    many_boards: bool = True  # --port A,B, --all and --watch; False: --port is one name
