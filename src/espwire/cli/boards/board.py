"""A board of a run on several boards: what is known about it, and its process.

The process runs the same command line with this port only and prints its events as JSON lines. A crash, or a port that
blocks, therefore concerns one board.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from enum import Enum
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from espwire.cli.failures import EXIT_BUG
from espwire.cli.render import DONE, VERBS, describe_pace
from espwire.errors import Cancelled
from espwire.events import (
    ChipFound,
    Connecting,
    Error,
    Event,
    Finished,
    Progress,
    Result,
    StubStarted,
    Warned,
    from_json,
)
from espwire.text import hide_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espwire.cli.boards.log import Log

# the child gets the parent's module path, so that no module of the current folder is imported instead
START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n');"
    " from espwire.cli.main import run_board; run_board()"
)
EXIT_S = 10.0  # for a process that has closed its output
LOST_CODES = frozenset({"board-lost", "link-lost", "port-not-back"})


class State(Enum):
    """What a board's run has come to."""

    WAITING = "waiting"
    RUNNING = "running"
    PASSED = "passed"
    FAILED = "failed"
    STOPPED = "stopped"  # by Ctrl-C


class Board:
    """One board and its run."""

    def __init__(self, port: str, log: Log) -> None:
        self.port, self.log = hide_token(port), log
        self._target = port
        self.state, self.step, self.percent = State.WAITING, "waiting", 0.0
        self.chip = self.mac = self.pace = ""
        self.result: Result | None = None
        self.error: Error | None = None
        self.lost_at: float | None = None
        self.last: Event | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._started = self._ended = 0.0
        self._killed = False

    @property
    def seconds(self) -> float:
        """How long the run took, or takes already."""
        return (self._ended or time.monotonic()) - self._started if self._started else 0.0

    def start(self, line: Sequence[str], lines: SimpleQueue[tuple[Board, bytes | None]]) -> None:
        """Start the process. Its lines of output arrive in ``lines``, with None at the end.

        :raises OSError: the system cannot start it
        """
        self.state, self.step, self._started = State.RUNNING, "starting", time.monotonic()
        path = "\n".join(sys.path)
        process = subprocess.Popen(
            [sys.executable, "-c", START, path, self._target, *line],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log.descriptor,
            # Ctrl-C reaches only this process, which passes it on
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._process = process
        threading.Thread(target=self._read, args=(process, lines), daemon=True).start()

    def _read(
        self, process: subprocess.Popen[bytes], lines: SimpleQueue[tuple[Board, bytes | None]]
    ) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                lines.put((self, line))
        lines.put((self, None))

    def take(self, line: bytes) -> Event | None:
        """The event in a line of output; None if it is not one, and is only kept in the log."""
        try:
            event = from_json(json.loads(line))
        except (ValueError, KeyError, TypeError, RecursionError):
            self.log.line(line.decode("utf-8", "backslashreplace").rstrip())
            return None
        self.log.event(event)
        self.note(event)
        return event

    def note(self, event: Event) -> None:
        """Keep what an event shows about the board."""
        self.last = event
        match event:
            case Connecting():
                self.step = "connecting"
            case ChipFound():
                self.chip, self.mac = event.description, event.mac
            case StubStarted():
                self.step = "comparing"
            case Progress():
                self.step = f"{VERBS.get(event.task, event.task)} {event.name}".rstrip()
                self.percent, self.pace = event.percent or 0.0, ", ".join(describe_pace(event))
            case Finished():
                self.step = f"{DONE.get(event.task, event.task)} {event.name}".rstrip()
                self.percent = event.percent or 0.0
            case Warned(code="board-lost"):
                self.step, self.pace = "lost, waiting for it", ""
            case Result():
                self.result = event
            case Error():
                self.error = event
        if isinstance(event, Warned | Error) and event.code in LOST_CODES:
            self.lost_at = time.monotonic()

    def end(self) -> Error | None:
        """Called after the last line: the run has passed or failed. An error if the process did not report one."""
        assert self._process is not None
        try:
            code = self._process.wait(EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return self.finish(code)

    def finish(self, code: int, why: str = "") -> Error | None:
        """As ``end``, for a process with this exit code, or for one that could not be started, and ``why``."""
        self._ended = time.monotonic()
        missing = None
        if self.error is None and (code or self.result is None):
            text = why or f"the process of this board ended with {describe_exit(code)}"
            if not code:
                code, text = EXIT_BUG, "the process of this board ended without a result"
            missing = Error(
                code="board-process",
                message=text,
                hint=f"See the log{f' {self.log.path}' if self.log.path else ' (--log-dir)'}.",
                exit_code=EXIT_BUG,
                details={},
            ).replace(device=self.port, seq=self.last.seq + 1 if self.last else 1)
            self.log.event(missing)
            self.note(missing)
        stopped = self._killed or (self.error is not None and self.error.code == Cancelled.code)
        self.state = State.STOPPED if stopped else State.FAILED if code else State.PASSED
        self.log.close()
        return missing

    def interrupt(self) -> None:
        """Have the process end as by Ctrl-C: it closes the port and removes unfinished files."""
        if self._process is None:
            return
        with suppress(OSError):  # it has just ended
            if sys.platform == "win32":
                self._process.send_signal(signal.CTRL_BREAK_EVENT)
            else:
                self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End the process at once."""
        if self._process is not None:
            self._killed = True
            with suppress(OSError):
                self._process.kill()

    def describe(self) -> dict[str, Any]:
        """The board for programs."""
        error = self.error
        return {
            "port": self.port,
            "state": self.state.value,
            "chip": self.chip,
            "mac": self.mac,
            "seconds": round(self.seconds, 1),
            "code": error.code if error else "",
            "message": error.message if error else "",
            "exit_code": error.exit_code if error else 0,
            "log": str(self.log.path or ""),
            "data": self.result.data if self.result else {},
        }


def describe_exit(code: int) -> str:
    """An exit code of ``subprocess``, which is negative for signals."""
    if code < 0:
        with suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit code {code}"
