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
        "flash": "Write a build folder or firmware file to its addresses, and verify it.",
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
        "read-flash-sfdp": "Read the flash chip's SFDP table, raw or decoded.",
        "read-mac": "Show the MAC address.",
        "chip-id": "Show the chip id of an ESP8266; other chips have none.",
        "get-security-info": "Show security flags and key purposes.",
        "monitor": "Show the chip's serial output, and send what you type.",
        "chips": "List the chips this program knows.",
        "ports": "List the serial ports and the boards that are likely connected; opens none.",
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
        "elf2image": "Convert an ELF file to a bootable image.",
        "make-image": "Make an image from raw files.",
        "image-info": "Show what a firmware file holds, and check it.",
        "merge-bin": "Merge files into one that holds them all: raw, UF2 or Intel HEX.",
        "split-image": "Split a merged file into bootloader, partition table and partitions.",
        "image-diff": "Compare two firmware files.",
        "partitions": "Partition tables: show, check, build, read.",
        "ota": "OTA data: which application boots.",
        "image": "Pictures of firmware files and of flash.",
    },
    "More": {
        "demo": "Write firmware to a virtual chip and show the result. Needs no board.",
        "virtual": "A chip made of software, for any flashing tool.",
        "completion": "Print the script that completes command lines in bash, zsh or fish.",
        "version": "Show the version.",
    },
}
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
STDOUT_NAMES = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
EXIT_PIPE, EXIT_INTERRUPTED, EXIT_NO_MEMORY = 1, 130, 1
# these end a run like Ctrl-C does, so that the port is closed and no unfinished file stays; exit code 128 + number
ENDING_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGBREAK")
NO_MEMORY = "not enough memory for this"
NO_MEMORY_HINT = "Close other programs, or raise the memory limit of this one (ulimit -v)."


def run() -> None:
    """The ``espwire`` program: runs the command line of this process and exits."""
    start(_work)


def _work() -> int:
    if sys.argv[1:] in (["--version"], ["version"]):
        # the fast path: not even click; see tests/house/test_startup.py
        from espwire._version import __version__

        if print_at_once(f"espwire {__version__}"):
            return 0
    import os

    if instruction := os.environ.get(COMPLETION_VARIABLE):
        from espwire.cli.complete import answer

        return answer(instruction)
    return main(sys.argv[1:])


def print_at_once(text: str) -> bool:
    """Print; False if that fails, which the long way then reports."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        return False
    return True


def start(work: Callable[[], int], *, interrupted: int = EXIT_INTERRUPTED) -> None:
    """Run ``work`` as this process's program and exit with its code; ``interrupted`` is that of an early Ctrl-C."""
    # a Ctrl-C outside the block below, while the interpreter ends for example, is no reason for a traceback either
    show, sys.unraisablehook = sys.excepthook, _deliver_again
    sys.excepthook = lambda kind, *more: None if kind is KeyboardInterrupt else show(kind, *more)
    try:
        import gc

        gc.set_threshold(GARBAGE)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(
                    errors="backslashreplace"
                )  # a console that lacks a sign must not cost the work
        _catch_signals()
        sys.exit(work())
    except (
        KeyboardInterrupt
    ):  # before main could set itself up, or while it was reporting another failure
        sys.exit(interrupted)
    except MemoryError:  # there was not even enough to report it properly
        print(f"error: {NO_MEMORY} [out-of-memory]\nhint: {NO_MEMORY_HINT}", file=sys.stderr)
        sys.exit(EXIT_NO_MEMORY)
    finally:
        import gc

        if "espwire.cli.output" in sys.modules:
            from espwire.cli.output import discard_unwritten

            discard_unwritten()
        gc.freeze()  # else the interpreter searches all modules for garbage on its way out: 5 ms


def _catch_signals() -> None:
    import signal

    for name in ENDING_SIGNALS:
        number = getattr(signal, name, None)
        if (
            number is not None and signal.getsignal(number) is not signal.SIG_IGN
        ):  # nohup has SIGHUP ignored
            signal.signal(number, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


_arrived: list[BaseException] = []  # what signals raised


def _stop(number: int, frame: object) -> None:
    """Unwind: Ctrl-C by KeyboardInterrupt, the other signals by SystemExit."""
    _arrived.append(KeyboardInterrupt() if number == 2 else SystemExit(128 + number))
    raise _arrived[-1]


def _deliver_again(dropped: sys.UnraisableHookArgs) -> None:
    """A signal can arrive in a destructor or a callback, where the interpreter drops exceptions: send it once more."""
    import _thread
    import signal
    import time

    error = dropped.exc_value
    code = (
        128 + signal.SIGINT
        if isinstance(error, KeyboardInterrupt)
        else getattr(error, "code", None)
    )
    number = next((each for each in signal.Signals if code == 128 + each), None)
    if number is None:
        sys.__unraisablehook__(dropped)
        return

    def deliver(number: signal.Signals = number, thread: int = _thread.get_ident()) -> None:
        time.sleep(0.01)  # until the main thread has left the place that drops it
        if sys.platform != "win32":
            signal.pthread_kill(thread, number)  # this also ends a system call that waits
        else:
            _thread.interrupt_main(number)

    _thread.start_new_thread(deliver, ())


def perform(arguments: Sequence[str], session: Session) -> int:
    """Run one command line; the exit code, if it went well. What goes wrong comes out as it is, click's too."""
    import click

    from espwire.cli import argfile, group, options

    session.guess(arguments)  # so that a broken command line is answered in the form it asked for
    words = options.spread_filters(argfile.expand(arguments)) or ["--help"]
    session.guess(words)
    session.output.diverted = any(word.endswith(STDOUT_NAMES) for word in words)
    root = group.build(session.program.name)
    try:
        with root.make_context(session.program.name, list(words), obj=session) as context:
            root.invoke(context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    session.close()
    return 0


def _find_stop(error: Exception) -> BaseException | None:
    """The signal behind an error: in places the interpreter turns it into another one, as may a failing clean-up."""
    import click

    from espwire.errors import ToolError

    found: BaseException | None = error
    seen: set[int] = set()  # an error may be its own cause
    while found is not None and not isinstance(found, KeyboardInterrupt | SystemExit):
        seen.add(id(found))
        found = found.__cause__ or found.__context__
        if id(found) in seen:
            found = None
    if found is None and _arrived and not isinstance(error, ToolError | click.ClickException):
        return _arrived[-1]  # nobody meant to raise this error, so it is the signal's doing
    return found


def main(arguments: Sequence[str], session: Session | None = None) -> int:
    """Run one command line; the exit code. Prints, but never exits and never raises an ``Exception``.

    :param session: of another program than ``espwire``; see cli/esptool.py
    """
    from espwire.cli.session import Session
    from espwire.errors import Cancelled

    session = session or Session()
    try:
        return perform(arguments, session)
    except Exception as error:
        stop = _find_stop(error)
        if stop is None:
            return _report(error, session)
        if isinstance(stop, SystemExit):
            raise stop from None
    except KeyboardInterrupt:
        pass
    finally:
        session.stop_drawing()  # whatever ends this, the cursor comes back
    return session.fail(Cancelled("stopped by Ctrl-C"))


def _report(error: Exception, session: Session) -> int:
    """The exit code for what went wrong, once it is reported."""
    import click

    from espwire.cli import group
    from espwire.errors import Cancelled, ToolError, UsageError

    if isinstance(error, BrokenPipeError):  # the monitor's reader has gone
        return EXIT_PIPE
    if isinstance(error, MemoryError):
        error.__traceback__ = None  # its frames keep what took the memory
        return session.fail(ToolError(NO_MEMORY, hint=NO_MEMORY_HINT, code="out-of-memory"))
    if isinstance(error, click.ClickException):
        return session.fail(UsageError(group.sentence(error), hint=group.hint(error)))
    if isinstance(error, click.Abort):
        return session.fail(Cancelled("stopped by Ctrl-C"))
    return session.fail(error) if isinstance(error, ToolError) else session.fail_with_bug(error)
