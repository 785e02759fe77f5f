"""``monitor``: shows the chip's output, explains its boot messages and sends what is typed."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

import click

from espwire.cli.config import DEFAULT_BAUD
from espwire.cli.inputs import load_chip_option
from espwire.cli.output import GONE, Output, is_terminal, lost_output
from espwire.errors import UsageError
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.monitor.console import Console
    from espwire.monitor.terminal import Keyboard
    from espwire.transport.ports import Port

EXIT_INTERRUPTED = 130
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


@click.command()
@click.option("--reset", is_flag=True, help="Reset the chip first, which starts the application.")
@click.option("--log", "log_name", metavar="FILE", help="Also write the output to this new file.")
@click.option("--append", is_flag=True, help="Append to an existing log file.")
@click.option("--timestamps", is_flag=True, help="Start each line with the time.")
@click.option(
    "--raw",
    is_flag=True,
    help="Print every byte unchanged. Default: control characters are shown as \\x07.",
)
@click.option("--no-input", is_flag=True, help="Do not read the keyboard; Ctrl-C quits.")
@click.option(
    "--eol",
    type=click.Choice(("cr", "lf", "crlf")),
    default="cr",
    help="What Enter sends. Default: cr.",
)
@click.option(
    "--dtr", is_flag=True, help="Assert DTR; some USB applications print nothing without it."
)
@click.pass_obj
def monitor(
    context: Context,
    /,
    reset: bool,
    log_name: str | None,
    append: bool,
    timestamps: bool,
    raw: bool,
    no_input: bool,
    eol: str,
    dtr: bool,
) -> None:
    """Ctrl-] quits; Ctrl-T Ctrl-H lists the other keys. The chip is not reset unless you use --reset."""
    _check(context, log_name=log_name, append=append, timestamps=timestamps, raw=raw)
    run_monitor(
        context,
        reset=reset,
        log_name=log_name,
        append=append,
        timestamps=timestamps,
        raw=raw,
        no_input=no_input,
        eol=eol,
        dtr=dtr,
    )


def run_monitor(
    context: Context,
    *,
    reset: bool = True,
    log_name: str | None = None,
    append: bool = False,
    timestamps: bool = False,
    raw: bool = False,
    no_input: bool = False,
    eol: str = "cr",
    dtr: bool = False,
) -> None:
    """Show the chip's output until a key or Ctrl-C ends it; the parameters are the options of the command.

    :raises click.exceptions.Exit: ended by Ctrl-C
    """
    from espwire.monitor.keys import EOL, MonitorCommand
    from espwire.monitor.log import open_log
    from espwire.monitor.loop import Monitor, MonitorOptions
    from espwire.monitor.terminal import is_foreground, open_keyboard

    # a rate from settings files or environment is meant for flashing
    baud = context.options.get("baud", DEFAULT_BAUD)
    port = _find_port(context)
    options = MonitorOptions(baud=baud, reset=reset, dtr=dtr, eol=EOL[eol])
    stamp = datetime.now if timestamps else None
    with ExitStack() as stack:
        log = (
            None
            if log_name is None
            else stack.enter_context(open_log(log_name, append=append, stamp=stamp))
        )
        console = _open_console(context, raw=raw, timestamps=timestamps)
        console.log = log
        keyboard: Keyboard | None = None
        if (
            not no_input
            and sys.stdin is not None
            and sys.stdin.isatty()
            and is_foreground(sys.stdin.fileno())
        ):
            keyboard = stack.enter_context(open_keyboard(sys.stdin.fileno()))
        stack.callback(console.close)
        try:
            ended = Monitor(port, console, keyboard=keyboard, options=options).run()
        except KeyboardInterrupt:  # Ctrl-C while the keyboard is not read
            ended = MonitorCommand.INTERRUPT
    if log is not None and log.failure is not None:
        raise log.failure
    if ended is MonitorCommand.INTERRUPT:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


def check_monitor(context: Context) -> None:
    """:raises UsageError: JSON output is asked for, which the monitor does not have"""
    if context.json:
        raise UsageError(
            "the monitor has no JSON output", hint="Leave out --json; --log writes plain lines."
        )


def _check(
    context: Context, *, log_name: str | None, append: bool, timestamps: bool, raw: bool
) -> None:
    check_monitor(context)
    if append and log_name is None:
        raise UsageError("--append needs --log", hint="Name the file with --log FILE.")
    if raw and timestamps and log_name is None:
        raise UsageError(
            "--raw and --timestamps exclude each other",
            hint="Use only one of them, or add --log: with --raw, times appear only in the log file.",
        )


def _find_port(context: Context) -> Port:
    from espwire.transport.ports import NamedPort

    target = context.find_target()
    if not isinstance(target, str):
        # only USB devices can be identified; other ports are known by their path
        return NamedPort(target.identity.path) if target.identity.vid is None else target
    if target.lower().startswith("virtual:") and "pace=" not in target:
        target += ("&" if "?" in target else "?") + "pace=1"  # real time, as a person watches
    return NamedPort(target)


def _open_console(context: Context, *, raw: bool, timestamps: bool) -> Console:
    from espwire.monitor.console import FILE, TERMINAL, Console
    from espwire.monitor.text import Kind

    screen = StandardScreen(quiet=context.quiet)
    passes = TERMINAL if screen.is_terminal else FILE
    if os.environ.get("NO_COLOR"):
        passes -= {Kind.STYLE}
    return Console(
        screen,
        raw=raw,
        passes=passes,
        stamp=datetime.now if timestamps else None,
        chip=load_chip_option(context),
    )


class StandardScreen:
    """Prints the chip's output to standard output, and messages of the monitor to standard error.

    A closed pipe ends the monitor without an error; a full disk is an error.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._messages = Output()
        self.is_terminal = is_terminal(sys.stdout)
        self._dims = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")

    def show(self, text: str) -> None:
        """Print the chip's text."""
        self._print(sys.stdout, text)

    def pass_on(self, data: bytes) -> None:
        """Print the chip's bytes unchanged."""
        self._print(getattr(sys.stdout, "buffer", None), data)

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        """Print a message of the monitor, dim, on a line of its own."""
        if self._quiet and not urgent:
            return
        if mid_line and self.is_terminal:
            self.show("\n")
        for line in text.splitlines():
            shown = escape(line)
            self._messages.error_line(
                f"{DIM}--- {shown}{PLAIN}" if self._dims else f"--- {shown}", styled=True
            )

    def _print(self, stream: IO[Any] | None, text: str | bytes) -> None:
        """:raises BrokenPipeError: the reader is gone
        :raises FileError: standard output cannot be written
        """
        if stream is None:
            return
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            if error.errno in GONE:
                raise BrokenPipeError from error
            raise lost_output(error) from error
