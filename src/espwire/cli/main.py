"""The front door: the table of commands, and the one place where errors become exit codes. Loads next to nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence

# section → command → one line of help, so that `--help` imports no command
SECTIONS: dict[str, dict[str, str]] = {
    "Flash": {
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
    "More": {
        "virtual": "A chip made of software, for any flashing tool.",
        "completion": "Print the script that completes command lines in bash, zsh or fish.",
        "version": "Show the version.",
    },
}
HIDDEN = {"demo": "Flash firmware to a virtual chip, and look at what it then holds."}
OFFLINE = frozenset({"chips", "ports", "virtual", "completion", "version", "demo"})
COMPLETION_VARIABLE = "_ESPWIRE_COMPLETE"  # set by the scripts of `espwire completion`
EXIT_PIPE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 130, 143


def run() -> None:
    """The ``espwire`` program: runs the command line of this process and exits."""
    if sys.argv[1:] in (["--version"], ["version"]):
        # the fast path: not even click; see tests/house/test_startup.py
        from espwire._version import __version__

        print(f"espwire {__version__}")
        sys.exit(0)
    import os
    import signal

    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from espwire.cli.complete import answer

        sys.exit(answer(instruction))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console that lacks a sign must not cost the work
    signal.signal(signal.SIGTERM, _terminate)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:  # before main could set itself up, or while it was telling of another failure
        sys.exit(EXIT_INTERRUPTED)


def _terminate(number: int, frame: object) -> None:
    """SIGTERM unwinds like Ctrl-C does, so the port is closed and no half file stays behind."""
    sys.exit(EXIT_TERMINATED)


def main(arguments: Sequence[str]) -> int:
    """Run one command line; the exit code. Prints, but never exits and never raises an ``Exception``."""
    import click

    from espwire.cli import argfile, group, options
    from espwire.cli.session import Session
    from espwire.errors import Cancelled, ToolError, UsageError

    session = Session()
    session.guess(arguments)  # so that a broken command line is answered in the form it asked for
    try:
        words = options.spread_filters(argfile.expand(arguments)) or ["--help"]
        session.guess(words)
        root = group.build()
        with root.make_context("espwire", list(words), obj=session) as context:
            root.invoke(context)
        session.close()
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except ToolError as error:
        return session.fail(error)
    except click.ClickException as error:
        return session.fail(UsageError(group.sentence(error), hint=group.hint(error)))
    except (KeyboardInterrupt, click.Abort):
        return session.fail(Cancelled("stopped by Ctrl-C"))
    except BrokenPipeError:
        session.mute()
        return EXIT_PIPE
    except Exception as error:
        return session.fail_with_bug(error)
    finally:
        session.stop_drawing()  # whatever ends this, the cursor comes back
    return 0
