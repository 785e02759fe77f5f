"""``monitor``: shows the chip's output, explains its boot messages and sends what is typed."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.config import DEFAULT_BAUD, MAX_BAUD
from espwire.cli.inputs import load_chip_option
from espwire.cli.number_types import Number
from espwire.cli.options import elf_option
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.monitor.console import Console
    from espwire.monitor.keys import MonitorCommand
    from espwire.monitor.terminal import Keyboard
    from espwire.symbols.symbol_set import SymbolSet
    from espwire.transport.ports import Port

EXIT_INTERRUPTED = 130


class MonitorRate(Number):
    """A baud rate, or ``auto``."""

    def __init__(self) -> None:
        super().__init__(1, MAX_BAUD)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As ``Number``; ``auto`` stays as it is.

        :raises UsageError: it is not a number
        """
        if isinstance(value, str) and value.lower() == "auto":
            return "auto"
        return super().convert(value, param, ctx)


@click.command()
@click.option("--reset", is_flag=True, help="Reset the chip first, which starts the application.")
@click.option("--log", "log_name", metavar="FILE", help="Also write the output to this new file.")
@click.option("--append", is_flag=True, help="Append to an existing log file.")
@click.option("--timestamps", is_flag=True, help="Start each line with the time.")
@click.option(
    "-b",
    "--baud",
    type=MonitorRate(),
    metavar="N|auto",
    help="Baud rate; auto: find it from what arrives, and follow it. Default: 115200.",
)
@elf_option
@click.option(
    "--filter",
    "filter_text",
    metavar="RULES",
    help="Show only log lines up to a level: 'wifi:W *:I'. Levels: N E W I D V.",
)
@click.option("--gdb", metavar="PROGRAM", help="The GDB that Ctrl-T Ctrl-G starts.")
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
def monitor(context: Context, /, **options: Any) -> None:
    """Ctrl-] quits; Ctrl-T Ctrl-H lists the other keys. The chip is not reset unless you use --reset.
    Crashes are explained, and their addresses resolved by the ELF file of the build in the current folder, or --elf.
    """
    check_monitor(context)
    choices = MonitorChoices(**options)
    choices.check()
    run_monitor(context, choices)


@dataclass(frozen=True, kw_only=True)
class MonitorChoices:
    """The options of the command. ``project``: the folder or file of the build; ``again``: how to flash it again."""

    reset: bool = False
    log_name: str | None = None
    append: bool = False
    timestamps: bool = False
    baud: int | str | None = None
    elf: tuple[str, ...] = ()
    filter_text: str | None = None
    gdb: str | None = None
    raw: bool = False
    no_input: bool = False
    eol: str = "cr"
    dtr: bool = False
    project: str = "."
    again: tuple[str, ...] = ()

    def check(self) -> None:
        """:raises UsageError: options exclude each other"""
        if self.append and self.log_name is None:
            raise UsageError("--append needs --log", hint="Name the file with --log FILE.")
        if self.raw and self.timestamps and self.log_name is None:
            raise UsageError(
                "--raw and --timestamps exclude each other",
                hint="Use only one of them, or add --log: with --raw, times appear only in the log file.",
            )
        if self.raw and self.filter_text is not None:
            raise UsageError("--raw and --filter exclude each other", hint="Use only one of them.")


def run_monitor(context: Context, choices: MonitorChoices) -> None:
    """Show the chip's output until a key or Ctrl-C ends it.

    :raises click.exceptions.Exit: ended by Ctrl-C
    """
    from espwire.cli.monitor_session import open_symbols
    from espwire.monitor.keys import MonitorCommand
    from espwire.monitor.lines import parse_filter
    from espwire.monitor.log import open_log

    lines = None if choices.filter_text is None else parse_filter(choices.filter_text)
    symbols, found = open_symbols(context, choices.elf, choices.project)
    port = _find_port(context)
    stamp = datetime.now if choices.timestamps else None
    with ExitStack() as stack:
        log = (
            None
            if choices.log_name is None
            else stack.enter_context(open_log(choices.log_name, append=choices.append, stamp=stamp))
        )
        console = _open_console(context, choices, symbols)
        console.log, console.gate.filter = log, lines
        stack.callback(console.close)
        if found:
            console.note(found)
        if symbols is not None:
            stack.callback(symbols.save)
        try:
            ended = _Session(context, choices, port, console, symbols).run()
        except KeyboardInterrupt:  # Ctrl-C while the keyboard is not read
            ended = MonitorCommand.INTERRUPT
    if log is not None and log.failure is not None:
        raise log.failure
    if ended is MonitorCommand.INTERRUPT:
        raise click.exceptions.Exit(EXIT_INTERRUPTED)


class _Session:
    """Runs of the monitor, between which the board is flashed again or debugged."""

    def __init__(
        self,
        context: Context,
        choices: MonitorChoices,
        port: Port,
        console: Console,
        symbols: SymbolSet | None,
    ) -> None:
        self._choices, self._port, self._console, self._symbols = choices, port, console, symbols
        # a rate from settings files or environment is meant for flashing
        baud = choices.baud or context.options.get("baud", DEFAULT_BAUD)
        self._finds_rate = not isinstance(baud, int)
        self._baud: int = baud if isinstance(baud, int) else DEFAULT_BAUD
        self._again = choices.again or self._plan_flash(context)

    def _plan_flash(self, context: Context) -> tuple[str, ...]:
        """The command line that flashes the build in the current folder; empty: there is none."""
        if self._symbols is None or self._choices.elf:
            return ()
        return ("-p", self._port.identity.path, "flash", self._choices.project)

    def run(self) -> MonitorCommand:
        """Until a key or Ctrl-C ends it."""
        from espwire.cli.monitor_session import find_gdb_target, flash_again, run_gdb
        from espwire.monitor.keys import EOL, MonitorCommand
        from espwire.monitor.loop import Monitor, MonitorOptions

        choices, reset, waits = self._choices, self._choices.reset, False
        while True:
            options = MonitorOptions(
                baud=self._baud,
                find_rate=self._finds_rate,
                can_flash=bool(self._again),
                can_debug=find_gdb_target(self._port.identity.path) is not None,
                reset=reset,
                dtr=choices.dtr,
                eol=EOL[choices.eol],
                waits=waits,
            )
            waits = True
            with ExitStack() as terminal:
                keyboard = self._open_keyboard(terminal)
                ended = Monitor(self._port, self._console, keyboard=keyboard, options=options).run()
            if ended is MonitorCommand.FLASH:
                code = flash_again(("--after", "no-reset", *self._again))
                reset = code == 0
                if code:
                    self._console.note(f"flashing failed with exit code {code}", urgent=True)
                elif self._symbols is not None:
                    self._symbols.refresh()
            elif ended is MonitorCommand.GDB:
                failure = run_gdb(choices.gdb, self._port.identity.path, self._baud, self._symbols)
                self._console.note(failure or "GDB has ended", urgent=True)
                self._console.stub_waits = reset = False
            else:
                return ended

    def _open_keyboard(self, stack: ExitStack) -> Keyboard | None:
        """The keyboard; None: there is none, or it is not to be read."""
        from espwire.monitor.terminal import is_foreground, open_keyboard

        if self._choices.no_input:
            return None
        if sys.stdin is None or not sys.stdin.isatty() or not is_foreground(sys.stdin.fileno()):
            return None
        return stack.enter_context(open_keyboard(sys.stdin.fileno()))


def check_monitor(context: Context) -> None:
    """:raises UsageError: JSON output is asked for, which the monitor does not have"""
    if context.json:
        raise UsageError(
            "the monitor has no JSON output", hint="Leave out --json; --log writes plain lines."
        )


def _find_port(context: Context) -> Port:
    from espwire.transport.ports import NamedPort
    from espwire.transport.url import in_real_time

    target = context.find_target()
    if not isinstance(target, str):
        # only USB devices can be identified; other ports are known by their path
        return NamedPort(target.identity.path) if target.identity.vid is None else target
    return NamedPort(in_real_time(target))


def _open_console(context: Context, choices: MonitorChoices, symbols: SymbolSet | None) -> Console:
    from espwire.cli.monitor_session import NO_SYMBOLS, StandardScreen, save_dump
    from espwire.monitor.console import FILE, TERMINAL, Console
    from espwire.monitor.text import Kind

    screen = StandardScreen(quiet=context.quiet)
    passes = TERMINAL if screen.is_terminal else FILE
    if os.environ.get("NO_COLOR"):
        passes -= {Kind.STYLE}
    return Console(
        screen,
        raw=choices.raw,
        passes=passes,
        stamp=datetime.now if choices.timestamps else None,
        chip=load_chip_option(context),
        symbols=symbols,
        no_symbols=NO_SYMBOLS,
        save_dump=save_dump,
    )
