"""``monitor``: show what the chip says, explain its boot messages, and pass on what is typed. No reset unless asked."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any

import click

from espwire.cli.output import GONE, Output, is_terminal, lost_output
from espwire.cli.session import DEFAULT_BAUD, Session
from espwire.text import escape

if TYPE_CHECKING:
    from datetime import datetime

    from espwire.chips.model import Chip
    from espwire.monitor.console import Console
    from espwire.monitor.terminal import Keyboard
    from espwire.transport.ports import Port

EXIT_INTERRUPTED = 130
DIM, PLAIN = "\x1b[2m", "\x1b[0m"


@click.command(
    "monitor",
    help="Show the chip's serial output, and send what you type. Ctrl-] quits, Ctrl-T Ctrl-H lists the other keys.",
)
@click.option("--reset", is_flag=True, help="Reset the chip into its application first.")
@click.option(
    "--log", "log_name", metavar="FILE", help="Keep the chip's lines in this new file, too."
)
@click.option("--append", is_flag=True, help="Add to the log file if there is one.")
@click.option("--timestamps", is_flag=True, help="Show the time in front of each line.")
@click.option(
    "--raw",
    is_flag=True,
    help="Pass every byte as it comes; else control characters are shown as \\x07.",
)
@click.option("--no-input", is_flag=True, help="Read no keys; Ctrl-C ends it.")
@click.option(
    "--eol", type=click.Choice(("cr", "lf", "crlf")), default="cr", help="What Enter sends (cr)."
)
@click.option("--dtr", is_flag=True, help="Assert DTR: some USB applications say nothing without.")
@click.pass_obj
def command(
    session: Session,
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
    """Run the monitor on this process's terminal; the exit code tells which key ended it."""
    from espwire.monitor.keys import EOL, MonitorCommand
    from espwire.monitor.log import open_log
    from espwire.monitor.loop import Monitor, MonitorOptions
    from espwire.monitor.terminal import is_foreground, open_keyboard

    _check(session, log_name=log_name, append=append, timestamps=timestamps, raw=raw)
    # a rate from a file or a variable is meant for flashing; the chip's text has its own
    baud = session.baud if "baud" in session.given else DEFAULT_BAUD
    port = _find_port(session)
    options = MonitorOptions(baud=baud, reset=reset, dtr=dtr, eol=EOL[eol])
    stamp = _now if timestamps else None
    with ExitStack() as stack:
        log = (
            None
            if log_name is None
            else stack.enter_context(open_log(log_name, append=append, stamp=stamp))
        )
        console = _open_console(session, raw=raw, timestamps=timestamps)
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
        except KeyboardInterrupt:  # no keyboard of ours: the system's Ctrl-C
            ended = MonitorCommand.INTERRUPT
    if log is not None and log.failure is not None:
        raise log.failure
    if ended is MonitorCommand.INTERRUPT:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


def _check(
    session: Session, *, log_name: str | None, append: bool, timestamps: bool, raw: bool
) -> None:
    from espwire.errors import UsageError

    if session.json:
        raise UsageError(
            "the monitor has no JSON output", hint="Leave --json out; --log keeps plain lines."
        )
    if append and log_name is None:
        raise UsageError("--append without --log", hint="Name the file with --log FILE.")
    if raw and timestamps and log_name is None:
        raise UsageError(
            "--raw and --timestamps exclude each other",
            hint="Times go with --raw into a --log file only.",
        )


def _find_port(session: Session) -> Port:
    from espwire.transport.ports import NamedPort

    target = session.target()
    if not isinstance(target, str):
        # only USB tells who a device is; anything else is known by its path
        return NamedPort(target.identity.path) if target.identity.vid is None else target
    if target.lower().startswith("virtual:") and "pace=" not in target:
        target += (
            "&" if "?" in target else "?"
        ) + "pace=1"  # a chip that is watched lives in real time
    return NamedPort(target)


def _open_console(session: Session, *, raw: bool, timestamps: bool) -> Console:
    from espwire.monitor.console import FILE, TERMINAL, Console
    from espwire.monitor.text import Kind

    screen = StandardScreen(quiet=session.quiet)
    passes = TERMINAL if screen.is_terminal else FILE
    if os.environ.get("NO_COLOR"):
        passes -= {Kind.STYLE}
    return Console(
        screen, raw=raw, passes=passes, stamp=_now if timestamps else None, chip=_find_chip(session)
    )


def _find_chip(session: Session) -> Chip | None:
    from espwire.chips.registry import load_chip

    return None if session.chip is None else load_chip(session.chip)


def _now() -> datetime:
    from datetime import datetime

    return datetime.now()


class StandardScreen:
    """The chip's output on standard output, messages of the monitor on standard error.

    A closed pipe ends the monitor like any filter; a full disk is an error.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._messages = Output()
        self.is_terminal = is_terminal(sys.stdout)
        self._dims = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")

    def show(self, text: str) -> None:
        """Text of the chip."""
        self._print(sys.stdout, text)

    def pass_on(self, data: bytes) -> None:
        """Bytes of the chip."""
        self._print(getattr(sys.stdout, "buffer", None), data)

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        """A message of the monitor, dim, on a line of its own."""
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
        """:raises BrokenPipeError: nobody reads any more
        :raises FileError: standard output does not take it
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
