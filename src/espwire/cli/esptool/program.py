"""The program ``esptool.py``: espwire's commands with esptool's exit codes and output.

Everything that depends on the program's name is in ``build_program``; commands do not know the name.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False  # see cli/main.py
if TYPE_CHECKING:
    from espwire.cli.program import Program
    from espwire.errors import ToolError

ESPTOOL_VERSION = "5.6.0"  # the newest esptool whose command line is supported; scripts compare it
EXIT_USAGE, EXIT_FATAL, EXIT_PORT, EXIT_BUG = 2, 2, 1, 1
# safety checks that esptool does not have: only warnings
OVERRIDDEN = frozenset(
    {
        "wrong-offset",
        "not-an-image",
        "unsigned-image",
        "untrusted-key",
        "revoked-key",
        "bootloader-size",
        "encrypting-unreliable",
    }
)
FATAL = "A fatal error occurred"


def main(arguments: Sequence[str], name: str = "esptool.py") -> int:
    """Run one command line; the exit code: 0, 1 or 2. Without arguments it prints help and fails, as esptool 5 does."""
    from espwire.cli import main as espwire
    from espwire.cli.context import Context

    code = espwire.main(arguments, Context(build_program(name)))
    return code if arguments else EXIT_USAGE


def describe_version() -> str:
    """espwire's version and, as the last line, that of the esptool whose command line it supports."""
    from espwire._version import __version__

    return f"espwire {__version__}, with the command line of esptool v{ESPTOOL_VERSION}\n{ESPTOOL_VERSION}"


def build_program(name: str) -> Program:
    """What depends on the name ``esptool.py`` or ``esptool``."""
    from espwire.cli.esptool.output import ESPTOOL, report_device
    from espwire.cli.program import Program

    return Program(
        name=name,
        version_text=describe_version(),
        error_word=choose_word,
        exit_code=find_exit_code,
        wording=ESPTOOL,
        report_device=report_device,
        strict=False,
        consents=OVERRIDDEN,
        keep=False,
        waits=False,
        tunes=False,
        many_boards=False,
    )


def find_exit_code(error: ToolError) -> int:
    """esptool's exit code: 1 if the port disappears or for a bug, else 2, also if the port cannot be opened."""
    return {"link": EXIT_PORT, "link-lost": EXIT_PORT, "bug": EXIT_BUG}.get(error.code, EXIT_FATAL)


def choose_word(error: ToolError) -> str:
    """The word before an error's message."""
    from espwire.errors import UsageError

    if error.code == "verify":
        return f"{FATAL}: Verification failed"
    return "error" if isinstance(error, UsageError) else FATAL
