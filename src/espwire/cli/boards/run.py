"""Runs a command on several boards at once, or on each board that is plugged in.

The loop in ``Fleet.work`` starts one process per board (board.py), at most ``limit`` at a time and ``stagger`` seconds
apart, and passes their events to the display. It ends when all boards have ended, with ``--watch`` at Ctrl-C. Ctrl-C
ends all processes; one that does not end in time is killed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from espwire.cli.boards.board import Board, State
from espwire.cli.boards.display import Display, open_display
from espwire.cli.boards.log import Log, open_folder
from espwire.cli.boards.select import (
    PlugWatch,
    check_watched,
    choose_all,
    open_watch,
    resolve_ports,
)
from espwire.cli.command_table import Boards
from espwire.cli.inputs import STDIN
from espwire.cli.output import printable
from espwire.errors import Cancelled, FileError, ToolError, UsageError
from espwire.events import Warned

if TYPE_CHECKING:
    from espwire.cli.context import Context

POLL_S = 0.1
LOOK_S = 0.25  # between two looks at the ports of the system
STOP_S = 5.0  # for the processes to end after Ctrl-C; then they are killed
BURST_S = 1.0  # boards lost within this time probably share the cause
MOST_NAMED = 20  # boards in an error message


def run_boards(context: Context, command: str, boards: Boards, options: Mapping[str, Any]) -> None:
    """Run the context's command line on each of its boards.

    :raises ToolError: code ``boards-failed``: a board failed; ``details.boards`` has the result of each board
    :raises UsageError: the command, or the choice of boards, is not possible
    :raises Cancelled: Ctrl-C
    """
    _check_command(context, command, boards, options)
    watch = bool(context.options.get("watch"))
    every, place = context.options.get("all_boards"), context.options.get("place")
    port = context.get("port") if place is None else context.options.get("port")
    if port is not None and every:
        raise UsageError("--all and --port exclude each other", hint="Use only one of them.")
    if place is not None and (port is not None or watch or every):
        raise UsageError("--place excludes --port, --all and --watch", hint="Leave them out.")
    context.options["port"] = ""  # the run's own events are not about one port
    names = list(resolve_ports(context, port)) if port is not None else []
    ports = names if not every or watch else choose_all(context)
    if place is not None:
        from espwire.transport.place import list_places

        ports = list_places(place)
    if watch:
        check_watched(names)
    folder = open_folder(context.get("log_dir"), not context.get("no_state"))
    if watch:
        context.note("Waiting for boards. Press Ctrl-C to end.")
    display = open_display(
        context.output,
        context.report,
        as_json=context.json,
        quiet=context.quiet,
        verbose=context.verbose,
        watch=watch,
    )
    look = open_watch(context, names, display.warn) if watch else None
    fleet = Fleet(
        context.line, display, folder, limit=context.get("limit"), stagger=context.get("stagger")
    )
    connected_too = bool(names or every)
    stopped = False
    try:
        for name in ports if look is None else ():
            fleet.add(name)
        fleet.work(look, connected_too)
    except KeyboardInterrupt:
        stopped = True
    finally:
        fleet.stop()
        display.close()
    _summarize(context, command, fleet, stopped)


def _check_command(
    context: Context, command: str, boards: Boards, options: Mapping[str, Any]
) -> None:
    if not context.program.many_boards:
        raise UsageError(
            "--all and --watch need the program espwire",
            hint=f"Use `espwire` instead of `{context.program.name}`.",
        )
    if boards is Boards.ONE or options.get("monitor"):
        what = "--monitor" if boards is not Boards.ONE else command
        raise UsageError(
            f"{what} works on one board at a time",
            hint="Select one board with --port.",
            code="one-board",
        )
    if boards is Boards.NAMED_FILES and not any(
        field in word for word in context.line for field in ("{mac}", "{port}")
    ):
        raise UsageError(
            f"{command} would write the same file for each board",
            hint="Put {mac} or {port} into the name of the file, such as 'board-{mac}.bin'.",
            code="one-file",
        )
    if STDIN in context.line:
        raise UsageError(
            "'-' reads standard input, which several boards cannot share",
            hint="Save the data in a file.",
            code="one-input",
        )


class Fleet:
    """The boards of a run and their processes."""

    def __init__(
        self,
        line: Sequence[str],
        display: Display,
        folder: Path | None,
        *,
        limit: int = 16,
        stagger: float = 0.0,
    ) -> None:
        self.boards: list[Board] = []
        self.hub_suspected = False
        self._line, self._display, self._folder = line, display, folder
        self._limit, self._stagger = limit, stagger
        self._lines: SimpleQueue[tuple[Board, bytes | None]] = SimpleQueue()
        self._next_start = 0.0
        self._in_warning: set[Board] = set()  # about the hub

    def add(self, port: str, *, needs_log: bool = True) -> Board:
        """Add a board, which is started as soon as limit and stagger permit.

        :param needs_log: False: if its log cannot be created, warn and do without it
        :raises FileError: its log cannot be created
        """
        try:
            log = Log(self._folder, port)
        except FileError as error:
            if needs_log:
                raise
            self._display.warn(Warned(code="no-log", text=f"{port} has no log: {error}"))
            log = Log(None, port)
        board = Board(port, log)
        self.boards.append(board)
        self._display.add(board)
        return board

    def find(self, *states: State) -> list[Board]:
        """The boards in these states."""
        return [board for board in self.boards if board.state in states]

    def work(self, look: Callable[[], Mapping[str, str]] | None, connected_too: bool) -> None:
        """Work until all boards have ended; with ``look`` until Ctrl-C.

        :param look: returns the places where boards are connected, with their ports
        :param connected_too: include boards that are connected at the start
        """
        watch, places = PlugWatch(), dict[str, Board]()
        if look is not None and not connected_too:
            watch.ignore(look(), time.monotonic())
        next_look = 0.0
        while look is not None or self.find(State.WAITING, State.RUNNING):
            now = time.monotonic()
            if look is not None and now >= next_look:
                next_look = now + LOOK_S
                busy = [place for place, board in places.items() if not _has_ended(board)]
                watch.ignore(busy, now)
                for place, port in watch.look(look(), now).items():
                    places[place] = self.add(port, needs_log=False)  # others are under way
            self._start_some()
            self._take_lines()
            self._check_hub()
        self._check_hub(at_end=True)

    def _start_some(self) -> None:
        for board in self.find(State.WAITING):
            now = time.monotonic()
            if now < self._next_start or len(self.find(State.RUNNING)) >= self._limit:
                return
            self._next_start = now + self._stagger
            try:
                board.start(self._line, self._lines)
            except OSError as error:
                self._end(board, 1, f"the system cannot start a process: {error.strerror}")

    def _take_lines(self) -> None:
        """Handle the output that has arrived; wait a moment for the first line."""
        wait = POLL_S
        while True:
            try:
                board, line = self._lines.get(timeout=wait) if wait else self._lines.get_nowait()
            except Empty:
                return
            wait = 0.0
            if line is None:
                self._end(board)
            elif (event := board.take(line)) is not None:
                self._display.event(board, event)

    def _end(self, board: Board, code: int = 0, why: str = "") -> None:
        missing = board.finish(code, why) if why else board.end()
        if missing is not None:
            self._display.event(board, missing)
        self._display.end(board)

    def _check_hub(self, *, at_end: bool = False) -> None:
        """Warn once about boards that were lost at about the same time."""
        lost = [
            board
            for board in self.boards
            if board.lost_at is not None and board not in self._in_warning
        ]
        if not lost:
            return
        first = min(board.lost_at or 0.0 for board in lost)
        if time.monotonic() - first < BURST_S and not at_end:
            return  # more may follow
        self._in_warning.update(lost)
        if len(lost) > 1:
            self.hub_suspected = True
            ports = ", ".join(board.port for board in lost)
            text = f"{len(lost)} boards were lost within a second: {ports}; check their USB hub and its power supply"
            self._display.warn(Warned(code="hub-suspected", text=text))

    def stop(self) -> None:
        """End all processes. A second Ctrl-C kills them at once."""
        for board in self.find(State.WAITING):
            board.state = State.STOPPED
            board.log.close()
        end = time.monotonic() + STOP_S
        try:
            for board in self.find(State.RUNNING):
                board.interrupt()
            while self.find(State.RUNNING) and time.monotonic() < end:
                self._take_lines()
        finally:
            for board in self.find(State.RUNNING):
                board.kill()
            end = time.monotonic() + STOP_S
            while self.find(State.RUNNING) and time.monotonic() < end:
                self._take_lines()


def _has_ended(board: Board) -> bool:
    return board.state not in (State.WAITING, State.RUNNING)


def _summarize(context: Context, command: str, fleet: Fleet, stopped: bool) -> None:
    """Report the result of all boards.

    :raises ToolError: a board failed
    :raises Cancelled: Ctrl-C, unless every board had ended
    """
    failed, passed = fleet.find(State.FAILED), fleet.find(State.PASSED)
    unfinished = fleet.find(State.STOPPED)
    watch = bool(context.options.get("watch"))
    count = len(fleet.boards)
    boards = [board.describe() for board in fleet.boards]
    numbers = f"{len(passed)} of {count} boards passed"
    if stopped and (unfinished or not watch):
        raise Cancelled(
            f"stopped by Ctrl-C: {numbers}, {len(failed)} failed, {len(unfinished)} not finished",
            boards=boards,
        )
    if failed:
        named = [f"{printable(b.port)} ({b.error.code if b.error else '?'})" for b in failed]
        more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
        hint = "Look into their logs, then repeat the command for these boards."
        hints = {board.error.hint for board in failed if board.error}
        if len(hints) == 1 and count == len(failed):
            hint = hints.pop()  # such as a file that is missing
        if fleet.hub_suspected:
            hint = "Check the USB hub and its power supply; use --limit to work on fewer boards at once."
        raise ToolError(
            f"{len(failed)} of {count} boards failed: {', '.join(named[:MOST_NAMED])}{more}",
            hint=hint,
            code="boards-failed",
            boards=boards,
        )
    text = f"Done: {numbers}." if count else "No board was plugged in."
    context.result(command, text, {"boards": boards})
