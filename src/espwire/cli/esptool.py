"""The ``esptool.py`` program: the same commands with esptool's exit codes, and the words that others look for.

What hangs on the name stands here and in cli/tokens.py; no command asks under which name it runs.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

TYPE_CHECKING = False  # as in cli/main.py
if TYPE_CHECKING:
    from espwire.cli.render import Wording
    from espwire.cli.session import Program
    from espwire.device.device import Device
    from espwire.errors import ToolError
    from espwire.events import Report

SPEAKS = (
    "5.6.0"  # the newest esptool whose command line is understood; scripts compare such numbers
)
EXIT_USAGE, EXIT_FATAL, EXIT_PORT, EXIT_BUG = 2, 2, 1, 1
SILENT = frozenset(
    {"wrong-offset", "not-an-image", "unsigned-image"}
)  # consents for what esptool does not check
FATAL = "A fatal error occurred"


def run(name: str = "esptool.py") -> None:
    """The ``esptool.py`` program: runs the command line of this process and exits."""
    from espwire.cli.main import print_at_once, start

    def work() -> int:
        if sys.argv[1:] in (["--version"], ["version"]) and print_at_once(describe_version()):
            return 0  # the fast path: not even click
        return main(sys.argv[1:], name)

    start(work, interrupted=EXIT_FATAL)


def main(arguments: Sequence[str], name: str = "esptool.py") -> int:
    """Run one command line; the exit code: 0, 1 or 2. Without a word it prints help and fails, as esptool 5 does."""
    from espwire.cli import main as espwire
    from espwire.cli.session import Session

    code = espwire.main(arguments, Session(program=build_program(name)))
    return code if arguments else EXIT_USAGE


def describe_version() -> str:
    """Which espwire this is, and as its last line, which esptool's command line it understands."""
    from espwire._version import __version__

    return f"espwire {__version__}, with the command line of esptool v{SPEAKS}\n{SPEAKS}"


def build_program(name: str) -> Program:
    """What hangs on being called ``esptool.py``, or ``esptool``."""
    from espwire.cli.session import Program

    return Program(
        name=name,
        version_text=describe_version(),
        error_word=_choose_word,
        exit_code=find_exit_code,
        open_wording=_open_wording,
        tell_device=_tell_device,
        strict=False,
        consents=SILENT,
    )


def find_exit_code(error: ToolError) -> int:
    """esptool's exit code for a failure: 1 where the port goes away or we have a bug, 2 for anything else.

    A port that cannot be opened in the first place is a 2 there.
    """
    return {"link": EXIT_PORT, "link-lost": EXIT_PORT, "bug": EXIT_BUG}.get(error.code, EXIT_FATAL)


def _choose_word(error: ToolError) -> str:
    from espwire.errors import UsageError

    if error.code == "verify":
        return f"{FATAL}: Verification failed"
    return "error" if isinstance(error, UsageError) else FATAL


def _open_wording() -> Wording:
    from espwire.cli.tokens import ESPTOOL

    return ESPTOOL


def _tell_device(device: Device, report: Report) -> None:
    from espwire.cli.tokens import tell_device

    tell_device(device, report)
