"""Shows a run on several boards: a table on a terminal, lines elsewhere, or JSON lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TextIO, cast

from espwire.cli.boards.board import Board, State
from espwire.cli.output import Output, StdoutForBar, is_terminal, printable, wants_colour
from espwire.cli.render import describe, dump
from espwire.events import ChipFound, Event, Finished, Report, Warned, to_json

if TYPE_CHECKING:
    from rich.table import Table

REFRESH_HZ = 5
WIDE = 120  # columns of a terminal, from which on the table shows chip and MAC address
BAR_WIDTH, NARROW_BAR = 20, 8
BAR_FROM = 50  # columns of a terminal, from which on there is room for a bar
MAX_MESSAGE = 400  # characters of an error or a hint


class Verdict(NamedTuple):
    """How the end of a run is shown: in a line by itself with the parameters ``sgr``, in rich's output with ``style``."""

    word: str
    sgr: str
    style: str


VERDICTS = {
    State.PASSED: Verdict("PASS", "32", "green"),
    State.FAILED: Verdict("FAIL", "1;31", "bold red"),
    State.STOPPED: Verdict("STOPPED", "33", "yellow"),
}


class Display(Protocol):
    """Shows what happens to the boards."""

    def add(self, board: Board) -> None:
        """A board is part of the run."""

    def event(self, board: Board, event: Event) -> None:
        """An event of a board, which it has noted already."""

    def end(self, board: Board) -> None:
        """A board's run has ended."""

    def warn(self, warning: Warned) -> None:
        """A warning about the run as a whole."""

    def close(self) -> None:
        """End the drawing."""


def open_display(
    output: Output, report: Report, *, as_json: bool, quiet: bool, verbose: bool, watch: bool
) -> Display:
    """The display for this output; ``report`` receives the warnings about the run as a whole."""
    if as_json:
        return JsonStream(output, report)
    terminal = is_terminal(sys.stdout)
    if terminal and not quiet:
        return LiveTable(output, watch=watch)
    return Lines(output, report, quiet=quiet, verbose=verbose, bell=watch and terminal)


class JsonStream:
    """Prints every event of every board as a line of JSON; ``device`` is the board's port."""

    def __init__(self, output: Output, report: Report) -> None:
        self.output, self._report = output, report

    def add(self, board: Board) -> None:
        """Nothing to print."""

    def event(self, board: Board, event: Event) -> None:
        """Print."""
        self.output.line(dump(to_json(event)))

    def end(self, board: Board) -> None:
        """Its last event is printed already."""

    def warn(self, warning: Warned) -> None:
        """Print."""
        self._report(warning)

    def close(self) -> None:
        """Nothing to do."""


class Lines:
    """Prints lines that start with the board's port."""

    def __init__(
        self,
        output: Output,
        report: Report,
        *,
        quiet: bool = False,
        verbose: bool = False,
        bell: bool = False,
    ) -> None:
        self.output, self._report = output, report
        self.quiet, self.verbose, self.bell = quiet, verbose, bell

    def add(self, board: Board) -> None:
        """Nothing to print."""

    def event(self, board: Board, event: Event) -> None:
        """Print what is important; with ``--verbose``, all but progress."""
        if isinstance(event, Warned):
            self.output.error_line(f"{printable(board.port)}: {describe(event, verbose=False)}")
        elif self.verbose or (isinstance(event, ChipFound | Finished) and not self.quiet):
            text = describe(event, verbose=self.verbose)
            for line in (text or "").splitlines():
                self.output.line(f"{printable(board.port)}: {line}")

    def end(self, board: Board) -> None:
        """Print how it ended."""
        print_verdict(self.output, board, bell=self.bell)

    def warn(self, warning: Warned) -> None:
        """Print."""
        self._report(warning)

    def close(self) -> None:
        """Nothing to do."""


def print_verdict(output: Output, board: Board, *, bell: bool = False) -> None:
    """A line that starts with PASS or FAIL, in colour, and below it a long result, or a hint and where the log is."""
    verdict = VERDICTS[board.state]
    coloured = wants_colour(sys.stdout, os.environ)
    shown = f"\x1b[{verdict.sgr}m{verdict.word}\x1b[0m" if coloured else verdict.word
    output.line(f"{shown} {describe_end(board)}", styled=True)
    for line in describe_more(board):
        output.line(f"  {line}")
    if bell:
        output.write(sys.stdout, "\a")


def describe_more(board: Board) -> list[str]:
    """The lines below a verdict."""
    if board.state is State.FAILED and board.error is not None:
        log = [f"log: {printable(str(board.log.path))}"] if board.log.path else []
        return [f"hint: {printable(board.error.hint, MAX_MESSAGE)}", *log]
    lines = board.result.text.splitlines() if board.result else []
    return lines if len(lines) > 1 else []


def describe_end(board: Board) -> str:
    """Port, board and result in a line; text of files and chips is escaped."""
    who = " ".join(filter(None, (board.chip, board.mac)))
    named = printable(f"{board.port} ({who})" if who else board.port)
    error = board.error
    if error is not None:
        return f"{named}: {printable(error.message, MAX_MESSAGE)} [{error.code}]"
    text = board.result.text.splitlines() if board.result else []
    single = f": {printable(text[0])}" if len(text) == 1 else ""
    return f"{named}, {board.seconds:.1f} s{single}"


class LiveTable:
    """A table that is updated in place: all boards, or with ``watch`` those under way, and verdicts above it."""

    def __init__(self, output: Output, *, watch: bool) -> None:
        from rich.console import Console
        from rich.live import Live

        self.output, self.watch = output, watch
        self._boards: list[Board] = []
        self._final = False  # the last drawing stays, so it shows all rows
        self._console = Console(
            file=cast(TextIO, StdoutForBar(output)),
            no_color=not wants_colour(sys.stdout, os.environ),
            highlight=False,
        )
        self._live = Live(
            get_renderable=self._draw,
            console=self._console,
            refresh_per_second=REFRESH_HZ,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def add(self, board: Board) -> None:
        """Add a row."""
        self._boards.append(board)

    def event(self, board: Board, event: Event) -> None:
        """Print warnings above the table, which shows everything else."""
        if isinstance(event, Warned):
            self._print_above(f"{board.port}: {describe(event, verbose=False)}")

    def end(self, board: Board) -> None:
        """With ``watch``, print how the board's run ended, and remove its row."""
        if not self.watch:
            return
        self._boards.remove(board)
        verdict = VERDICTS[board.state]
        self._print_above(f"{verdict.word} {describe_end(board)}", style=verdict.style)
        for line in describe_more(board):
            self._print_above(f"  {line}")
        self.output.write(sys.stdout, "\a")

    def warn(self, warning: Warned) -> None:
        """Print above the table."""
        self._print_above(describe(warning, verbose=False) or "")

    def _print_above(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text), style=style))

    def _draw(self) -> Table | str:
        boards = list(self._boards)
        if not boards:
            return "" if self._final else "No board is under way."
        rows = self._console.height - 3  # a table that is higher than the terminal would flicker
        if self._final:
            rows = len(boards)
        return draw_table(choose_rows(boards, rows), len(boards), self._console.width)

    def close(self) -> None:
        """Leave the table on the screen as it is now, and print below it what it has no room for."""
        self._final = True
        self._live.stop()
        for board in self._boards:
            moved_no_data = board.percent == 0 and board.state is State.PASSED
            if board.state is State.FAILED or moved_no_data:
                print_verdict(self.output, board)


def choose_rows(boards: Sequence[Board], rows: int) -> list[Board]:
    """At most ``rows`` boards in their order: failed ones first, then those under way, then those that wait."""
    order = (State.FAILED, State.RUNNING, State.WAITING, State.STOPPED, State.PASSED)
    urgent = sorted(boards, key=lambda board: order.index(board.state))[: max(rows, 1)]
    return [board for board in boards if board in urgent]


def draw_table(boards: Sequence[Board], count: int, width: int) -> Table:
    """The boards, in a terminal of ``width`` columns; ``count`` is the number of all boards."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    wide, has_bar = width >= WIDE, width >= BAR_FROM
    # where the terminal shows ^C at Ctrl-C: a further line would move the table
    table = Table(box=None, width=width - len("^C"), pad_edge=False, header_style="bold")
    table.add_column("Board", no_wrap=True, max_width=width // 3)
    if wide:
        table.add_column("Chip", no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column("MAC address", no_wrap=True, width=17)
    table.add_column("Status", no_wrap=True, overflow="ellipsis", ratio=3)
    if has_bar:
        table.add_column("", width=BAR_WIDTH if wide else NARROW_BAR)
    table.add_column("", justify="right", no_wrap=True, width=5)
    if wide:
        table.add_column("Rate, time left", no_wrap=True, width=24)
    table.add_column("Time", justify="right", no_wrap=True, width=7)
    for board in boards:
        verdict = VERDICTS.get(board.state)
        waits = board.state is State.WAITING
        table.add_row(
            Text(shorten_port(board.port, width // 3)),
            *((Text(printable(board.chip)), Text(board.mac)) if wide else ()),
            Text(printable(describe_state(board)), style=verdict.style if verdict else ""),
            *(["" if waits else ProgressBar(100, board.percent, width=None)] if has_bar else []),
            "" if waits else f"{board.percent:.0f} %",
            *([board.pace if board.state is State.RUNNING else ""] if wide else []),
            "" if waits else f"{board.seconds:.1f} s",
        )
    if count > len(boards):
        table.add_row(f"and {count - len(boards)} more")
    return table


def describe_state(board: Board) -> str:
    """A board's state in a few words."""
    if board.error is not None and board.state in (State.FAILED, State.RUNNING):
        return f"FAIL {board.error.code}: {board.error.message}"
    verdict = VERDICTS.get(board.state)
    return verdict.word if verdict else board.step


def shorten_port(port: str, most: int) -> str:
    """A port's name in at most ``most`` characters; the end distinguishes boards, so it is kept."""
    port = printable(port)
    return port if len(port) <= most else f"…{port[1 - most :]}"
