"""The front door: the table of commands, and the one place where errors become exit codes. Loads next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

TYPE_CHECKING = False  # not from typing: that alone would double the time of `espwire --version`
if TYPE_CHECKING:
    from espwire.cli.session import Session

# section → command → one line of help, so that `--help` imports no command
SECTIONS: dict[str, dict[str, str]] = {
    "Flash": {
        "flash": "Find what goes where in a build, show it, write it, verify it.",
        "write-flash": "Write files to flash, and verify them.",
        "verify-flash": "Compare flash with files.",
        "read-flash": "Read flash into a file.",
        "erase-flash": "Erase the whole flash.",
        "erase-region": "Erase a part of flash.",
        "write-flash-status": "Write the flash's status registers.",
    },
    "Look": {
        "chip-info": "Show chip, revision, features, flash and security.",
        "flash-id": "Show maker, device and size of the flash.",
        "read-flash-status": "Show the flash's status registers.",
        "read-flash-sfdp": "Show what the flash tells of itself, raw or decoded.",
        "read-mac": "Show the MAC address.",
        "chip-id": "Show the chip id of an ESP8266; other chips have none.",
        "get-security-info": "Show security flags and key purposes.",
        "monitor": "Show what the chip says, and pass on what you type.",
        "chips": "List the chips this program knows.",
        "ports": "List the serial ports and what is likely behind them; opens none.",
    },
    "Memory and control": {
        "read-mem": "Read one word of memory or of a register.",
        "write-mem": "Write one word of memory or of a register, or some of its bits.",
        "dump-mem": "Read memory into a file.",
        "load-ram": "Put a program into RAM and start it.",
        "run": "Start the application from the loader.",
        "reset": "Reset the chip by the port's lines.",
    },
    "Images": {
        "elf2image": "Make the image that the ROM boots of an ELF file.",
        "make-image": "Make an image of raw files.",
        "image-info": "Show what a firmware file holds, and check it.",
        "merge-bin": "Merge files into one that holds them all: raw, UF2 or Intel HEX.",
        "split-image": "Cut a merged BIN, HEX, S-record or UF2 into boot loader, partition table and partitions.",
        "image-diff": "Show in what two firmware files differ.",
        "partitions": "Partition tables: show, check, build, read.",
        "ota": "OTA data: which application boots.",
        "image": "Pictures of firmware files and of flash.",
    },
    "More": {
        "virtual": "A chip made of software, for any flashing tool.",
        "completion": "Print the script that completes command lines in bash, zsh or fish.",
        "version": "Show the version.",
    },
}
HIDDEN = {"demo": "Flash firmware to a virtual chip, and look at what it then holds."}
OFFLINE = frozenset(
    {
        "image-info",
        "merge-bin",
        "split-image",
        "image-diff",
        "chips",
        "ports",
        "virtual",
        "completion",
        "version",
        "demo",
    }
)
COMPLETION_VARIABLE = "_ESPWIRE_COMPLETE"  # set by the scripts of `espwire completion`
GARBAGE = 20_000  # new objects between two searches for garbage; Python's 700 make 30 of them while click is imported
EXIT_PIPE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143


def run() -> None:
    """The ``espwire`` program: runs the command line of this process and exits."""
    if sys.argv[1:] in (["--version"], ["version"]):
        # the fast path: not even click; see tests/house/test_startup.py
        from espwire._version import __version__

        if print_at_once(f"espwire {__version__}"):
            sys.exit(0)
    import os

    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from espwire.cli.complete import answer

        sys.exit(answer(instruction))
    start(lambda: main(sys.argv[1:]))


def print_at_once(text: str) -> bool:
    """Print; False if that fails, which the long way then reports."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        return False
    return True


def start(work: Callable[[], int], *, interrupted: int = EXIT_INTERRUPTED) -> None:
    """Run ``work`` as this process's program and exit with its code; ``interrupted`` is that of an early Ctrl-C."""
    import gc
    import signal

    gc.set_threshold(GARBAGE)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that lacks a sign must not cost the work
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(work())
    except KeyboardInterrupt:  # before main could set itself up, or while it was telling of another failure
        sys.exit(interrupted)
    finally:
        from espwire.cli.output import discard_unwritten

        discard_unwritten()
        gc.freeze()  # else the interpreter searches all modules for garbage on its way out: 5 ms


def _terminate(number: int, frame: object) -> None:
    """SIGTERM unwinds like Ctrl-C does, so the port is closed and no half file stays behind."""
    sys.exit(EXIT_TERMINATED)


def perform(arguments: Sequence[str], session: Session) -> int:
    """Run one command line; the exit code, if it went well. What goes wrong comes out as it is, click's too."""
    import click

    from espwire.cli import argfile, group, options

    session.guess(arguments)  # so that a broken command line is answered in the form it asked for
    words = options.spread_filters(argfile.expand(arguments)) or ["--help"]
    session.guess(words)
    root = group.build(session.program.name)
    try:
        with root.make_context(session.program.name, list(words), obj=session) as context:
            root.invoke(context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    session.close()
    return 0


def main(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command line; the exit code. Prints, but never exits and never raises an ``Exception``.

    :param session: of another program than ``espwire``; see cli/esptool.py
    """
    import click

    from espwire.cli import group
    from espwire.cli.session import Session
    from espwire.errors import Cancelled, ToolError, UsageError

    session = session or Session()
    try:
        return perform(arguments, session)
    except ToolError as error:
        return session.fail(error)
    except click.ClickException as error:
        return session.fail(UsageError(group.sentence(error), hint=group.hint(error)))
    except (KeyboardInterrupt, click.Abort):
        return session.fail(Cancelled("stopped by Ctrl-C"))
    except BrokenPipeError:  # the monitor's reader has gone
        return EXIT_PIPE
    except Exception as error:
        return session.fail_with_bug(error)
    finally:
        session.stop_drawing()  # whatever ends this, the cursor comes back
