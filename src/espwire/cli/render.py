"""Draws events: plain lines, a progress bar on a terminal, or JSON lines."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TextIO, cast

from espwire.cli.output import Output, StdoutForBar, is_terminal, printable
from espwire.events import (
    ChipFound,
    Connecting,
    Event,
    Finished,
    Note,
    Opened,
    PlanReady,
    Progress,
    Resetting,
    Result,
    StubStarted,
    Warned,
    to_json,
)
from espwire.record import Record
from espwire.text import escape

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


VERBS = {"write": "Writing", "erase": "Erasing", "verify": "Verifying", "read": "Reading"}
LEAST_COLUMNS = 64  # of the bar without the name of a file
DONE = {"write": "Wrote", "erase": "Erased", "verify": "Verified", "read": "Read"}


class Renderer(Protocol):
    """Draws each event; ``close`` ends a drawing."""

    def __call__(self, event: Event) -> None: ...
    def close(self) -> None: ...


class Wording(Record):
    """The words for events: ``count`` for progress, in at most ``steps`` lines, ``describe`` for all others.

    ``per_task``: progress is that of each task, not of the whole operation.
    ``reset_last``: print the final reset after the command's results.
    """

    describe: Callable[[Event, bool], str | None]
    count: Callable[[Progress], str]
    steps: int
    per_task: bool = False
    reset_last: bool = False


def open_renderer(
    output: Output,
    *,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    progress: bool,
    terminal: bool | None = None,
    wording: Wording | None = None,
) -> Renderer:
    """The renderer for this output.

    :param wording: None: espwire's own
    """
    wording = wording or ESPWIRE
    if as_json:
        return JsonLines(output)
    if terminal is None:
        terminal = is_terminal(sys.stdout)
    renderer: Renderer
    if terminal and progress and not quiet:
        renderer = Bar(output, verbose=verbose, wording=wording)
    else:
        renderer = Plain(output, quiet=quiet, verbose=verbose, progress=progress, wording=wording)
    return ResetLast(renderer) if wording.reset_last else renderer


def describe(event: Event, *, verbose: bool) -> str | None:
    """The event in words; None if it is not printed."""
    match event:
        case Opened():
            return f"Port {event.port} is open."
        case Resetting():
            return f"Resetting into the {event.into} ({event.how})." if verbose else None
        case Connecting(attempt=2):
            return describe_attempt(event)
        case ChipFound():
            from espwire.device.identity import describe_mac

            mac = event.mac and describe_mac(event.mac)
            known = {"revision": event.revision, "MAC": mac}  # Secure Download Mode hides both
            return (
                ", ".join(
                    [f"Found {event.description}", *(f"{k} {v}" for k, v in known.items() if v)]
                )
                + "."
            )
        case StubStarted():
            return (
                f"Started the {event.stub} ({event.size:,} bytes, {event.seconds:.1f} s)."
                if verbose
                else None
            )
        case PlanReady():
            about = ("about ", "") if event.wire_estimated else ("", "about ")
            head = f"Plan: {about[0]}{event.wire_bytes:,} bytes to send, {about[1]}{event.seconds:.1f} s"
            kinds = {step.kind for step in event.actions}
            if kinds and not kinds & {"erase", "write"}:
                head = "Plan: nothing to write"
            lines = [head, *(f"  {printable(step)}" for step in event.steps)]
            lines += [f"  partition table: {change.text}" for change in event.partitions]
            return "\n".join(lines)
        case Finished(written=0):
            return f"{escape(event.name)}: all {event.size:,} bytes are in flash already."
        case Finished():
            return f"{DONE.get(event.task, event.task)} {_named(event.name)}{_speed(event)}."
        case Result():
            return event.text
        case Note():
            return printable(event.text)
        case Warned():
            return f"warning: {printable(event.text)} [{event.code}]"
    return None


def describe_attempt(event: Connecting) -> str:
    """The attempt to connect and, from the second one on, what the user can do."""
    if event.attempt == 1:
        return (
            f"Connecting (reset sequence {event.how})"
            if event.how
            else "Connecting (without a reset)"
        )
    number = f"attempt {event.attempt}" + (f" of {event.attempts}" if event.attempts else "")
    if not event.how:
        return f"Connecting, {number}, without a reset. Hold BOOT and press RESET on the board."
    return f"Connecting, {number} (reset sequence {event.how}). Hold BOOT until the chip is found."


def _named(name: str) -> str:
    return f"{escape(name)}: " if name else ""


def _speed(event: Finished) -> str:
    # a check by MD5 transfers no data
    size = event.size if event.written is None else event.written
    transferred = event.task in ("write", "read") and size and event.seconds > 0
    rate = f", {size * 8 / event.seconds / 1000:.0f} kbit/s" if transferred else ""
    took = f" in {event.seconds:.1f} s" if event.seconds >= 0.05 else ""
    some = "" if event.written is None else f"{event.written:,} of "
    return f"{some}{event.size:,} bytes{took}{rate if took else ''}"


def count(event: Progress) -> str:
    """Progress of the whole operation in espwire's words."""
    more = []
    if event.job_done is not None and event.job_total:
        more.append(f"{event.job_done:,} of {event.job_total:,} bytes")
    more += describe_pace(event)
    what = f"{_describe_task(event)}: {int(event.percent or 0)} % of the job"
    return ", ".join([what, *more])


def _describe_task(event: Progress) -> str:
    return f"{VERBS.get(event.task, event.task)} {escape(event.name)}".rstrip()


def describe_pace(event: Progress) -> list[str]:
    """Rate and time left, as far as they are known."""
    pace = [f"{event.rate * 8 / 1000:.0f} kbit/s"] if event.rate else []
    if event.seconds_left is not None:
        minutes, seconds = divmod(math.ceil(event.seconds_left), 60)
        pace.append(f"{minutes}:{seconds:02} left")
    return pace


def describe_bar(event: Progress) -> str:
    """What is right of the bar, in at most 48 columns."""
    done, total = (event.job_done or 0) >> 10, -(-(event.job_total or 0) >> 10)
    size = [f"{done:,}/{total:,} KiB"] if total else []
    return "  ".join([f"{int(event.percent or 0):3} %", *size, *describe_pace(event)])


ESPWIRE = Wording(
    describe=lambda event, verbose: describe(event, verbose=verbose), count=count, steps=10
)


class Plain:
    """Prints lines, for pipes and files; progress in as many lines as the wording has."""

    def __init__(
        self,
        output: Output,
        *,
        quiet: bool = False,
        verbose: bool = False,
        progress: bool = True,
        wording: Wording = ESPWIRE,
    ) -> None:
        self.output, self.quiet, self.verbose, self.progress, self.wording = (
            output,
            quiet,
            verbose,
            progress,
            wording,
        )
        self._step: tuple[str, str, int] | int = 0

    def __call__(self, event: Event) -> None:
        """Draw."""
        if isinstance(event, Progress):
            self._draw_progress(event)
            return
        if isinstance(event, PlanReady):
            self._step = 0
        text = self.wording.describe(event, self.verbose)
        if text is None or (self.quiet and not isinstance(event, Result | Warned)):
            return
        if isinstance(event, Warned):
            self.output.error_line(text)
        else:
            self.output.line(text)

    def _draw_progress(self, event: Progress) -> None:
        if self.quiet or not self.progress or not event.total:
            return
        if self.wording.per_task:
            part = event.done * self.wording.steps // event.total
            step: tuple[str, str, int] | int = (event.task, event.name, part)
        else:
            part = step = int((event.percent or 0) * self.wording.steps / 100)
        if step == self._step or not part:
            return
        self._step = step
        self.output.line(self.wording.count(event))

    def close(self) -> None:
        """Nothing to do."""


class ResetLast:
    """Draws a command's result before the final reset, although it is reported after it."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._reset: Resetting | None = None

    def __call__(self, event: Event) -> None:
        """Draw; keep a reset into the application until the result is reported."""
        if isinstance(event, Resetting) and event.into == "application":
            self._release()
            self._reset = event
            return
        self._renderer(event)
        if isinstance(event, Result):
            self._release()

    def _release(self) -> None:
        reset, self._reset = self._reset, None
        if reset is not None:
            self._renderer(reset)

    def close(self) -> None:
        """End the drawing."""
        self._release()
        self._renderer.close()


class JsonLines:
    """Prints one JSON object per line."""

    def __init__(self, output: Output) -> None:
        self.output = output

    def __call__(self, event: Event) -> None:
        """Print."""
        self.output.line(dump(to_json(event)))

    def close(self) -> None:
        """Nothing to do."""


def dump(values: dict[str, Any]) -> str:
    """A line of JSON; bytes in hexadecimal, other types as ``str``."""
    import json

    return json.dumps(
        values, default=lambda value: value.hex() if isinstance(value, bytes) else str(value)
    )


class Bar:
    """Draws a progress bar with rich, and lines above it."""

    def __init__(
        self, output: Output, *, verbose: bool = False, wording: Wording = ESPWIRE
    ) -> None:
        self.output, self.verbose, self.wording = output, verbose, wording
        self._bar: RichProgress | None = None
        self._status = 0  # columns of the status line, which is updated in place
        self._id: TaskID | None = None

    def __call__(self, event: Event) -> None:
        """Draw."""
        if isinstance(event, Progress):
            self._draw_progress(event)
            return
        if isinstance(event, Connecting):
            self._draw_status(describe_attempt(event))
            return
        text = self.wording.describe(event, self.verbose)
        if isinstance(event, Finished) or text is not None:
            self.close()
        if text is not None:
            (self.output.error_line if isinstance(event, Warned) else self.output.line)(text)

    def _draw_progress(self, event: Progress) -> None:
        if self._bar is None:
            self.close()
            self._open()
        if self._bar is not None and self._id is not None:
            room = max(self._bar.console.width - LEAST_COLUMNS, 0)
            task = _describe_task(event)
            verb = VERBS.get(event.task, event.task)
            if len(task) > len(verb) + room:
                task = f"{task[: len(verb) + room - 1]}…" if room > 2 else verb
            self._bar.update(
                self._id, completed=event.percent, description=task, right=describe_bar(event)
            )

    def _draw_status(self, text: str) -> None:
        """Replace the status line."""
        import shutil

        self.close()
        text = printable(text)[: shutil.get_terminal_size().columns - 1]
        self._status = len(text)
        self.output.write(sys.stdout, text)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[right]}", markup=False),
            expand=True,
            console=Console(file=cast(TextIO, StdoutForBar(self.output))),
            transient=True,
        )
        self._bar.start()
        self._id = self._bar.add_task("", total=100.0, right="")

    def close(self) -> None:
        """Remove the bar or the status line, and restore the cursor."""
        if self._status:
            self.output.write(sys.stdout, "\r" + " " * self._status + "\r")
            self._status = 0
        if self._bar is not None:
            self._bar.stop()
        self._bar = self._id = None
