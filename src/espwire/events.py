"""What happened, as values. Whoever draws (terminal, JSON, web) decides how; nothing here prints."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from typing import Any

SCHEMA_VERSION = 1
MAX_EVENTS_PER_SECOND = 20


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base. ``device`` labels the board, ``seq`` counts per reporter, ``time`` is seconds since it began."""

    device: str = ""
    seq: int = 0
    time: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Opened(Event):
    """The port is open."""

    port: str
    baud: int


@dataclass(frozen=True, kw_only=True)
class Connecting(Event):
    """An attempt to reach the bootloader begins: number ``attempt`` (from 1) of ``attempts`` (0: no limit).

    ``how`` names the reset sequence; empty: the chip is not reset, because the port cannot or the caller forbids it.
    """

    attempt: int
    attempts: int
    how: str


@dataclass(frozen=True, kw_only=True)
class Resetting(Event):
    """About to reset the chip. ``how`` names the sequence; ``into`` is ``"loader"`` or ``"application"``."""

    how: str
    into: str


@dataclass(frozen=True, kw_only=True)
class ChipFound(Event):
    """A chip answered and was identified."""

    chip: str
    description: str
    revision: str
    mac: str


@dataclass(frozen=True, kw_only=True)
class StubStarted(Event):
    """A stub runs on the chip, in place of its ROM loader. ``build`` tells which of ours; empty for others' stubs."""

    stub: str
    build: str
    size: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """One step of a plan. ``kind`` is ``"erase"``, ``"write"``, ``"verify"`` or ``"skip"``; ``name`` is of a file."""

    kind: str
    address: int
    size: int
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class PlanReady(Event):
    """What is going to be done: ``actions``, and ``steps`` in words, one line each. ``seconds`` is an estimate."""

    steps: tuple[str, ...]
    wire_bytes: int
    seconds: float
    actions: tuple[PlannedStep, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Progress(Event):
    """``done`` of ``total`` bytes of one task (``write``, ``erase``, ``verify``, ``read``) at flash ``address``.

    ``percent``: how much of the whole job is done, all its tasks together, 0 to 100.
    """

    task: str
    name: str
    done: int
    total: int
    address: int | None = None
    percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """One task is over, successfully. ``seconds`` on the link's clock; ``address``: where in flash it began.

    ``percent``: how much of the whole job is done, all its tasks together, 0 to 100.
    """

    task: str
    name: str
    size: int
    seconds: float
    address: int | None = None
    percent: float | None = None


@dataclass(frozen=True, kw_only=True)
class Result(Event):
    """What a command found out, for people (``text``) and for programs (``data``, JSON types only)."""

    command: str
    text: str
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Note(Event):
    """Worth knowing."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Warned(Event):
    """Something is off. ``code`` is stable."""

    code: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Error(Event):
    """The command failed, and this is its last event. Of the command line only: the library raises a ToolError."""

    code: str
    message: str
    hint: str
    exit_code: int
    details: dict[str, Any]


Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """The default report: say nothing."""


def with_percent(event: Event) -> Event:
    """The event; a job's only task is the whole of it, so its percentage is that of the job."""
    if isinstance(event, Progress) and event.percent is None:
        return replace(
            event, percent=round(100 * event.done / event.total, 1) if event.total else 100.0
        )
    if isinstance(event, Finished) and event.percent is None:
        return replace(event, percent=100.0)
    return event


class Overall:
    """Puts the percentage of a whole job into its events.

    :param tasks: the tasks of the job in order, each with its name (empty: any) and its share of the work
    """

    def __init__(self, report: Report, tasks: Iterable[tuple[str, str, float]]) -> None:
        self.report, self.tasks = report, tuple(tasks)
        self._at, self._percent = 0, 0.0
        self._whole = sum(share for _, _, share in self.tasks) or 1.0

    def __call__(self, event: Event) -> None:
        """Pass on; the percentage never goes back, even if a task is repeated."""
        if isinstance(event, Progress):
            share = event.done / event.total if event.total else 1.0
            event = replace(event, percent=self._advance(event.task, event.name, share))
        elif isinstance(event, Finished):
            event = replace(event, percent=self._advance(event.task, event.name, 1.0))
        self.report(event)

    def _advance(self, task: str, name: str, share: float) -> float:
        for at in range(self._at, len(self.tasks)):
            if self.tasks[at][0] == task and self.tasks[at][1] in ("", name):
                self._at = at
                done = sum(part for _, _, part in self.tasks[:at]) + share * self.tasks[at][2]
                self._percent = max(self._percent, round(100 * done / self._whole, 1))
                break
        return self._percent


class Thinned:
    """Lets progress through at most 20 times a second of ``clock``; first and last always. Numbering comes after it.

    :param progress: False: none of what is between first and last
    """

    def __init__(
        self, report: Report, *, clock: Callable[[], float] = time.monotonic, progress: bool = True
    ) -> None:
        self.report, self.clock, self.progress = report, clock, progress
        self._last = -math.inf

    def __call__(self, event: Event) -> None:
        """Pass on, or not."""
        if isinstance(event, Progress) and 0 < event.done < event.total:
            now = self.clock()
            if not self.progress or now - self._last < 1 / MAX_EVENTS_PER_SECOND:
                return
            self._last = now
        self.report(with_percent(event))


def thin_out(report: Report, clock: Callable[[], float]) -> Report:
    """``report`` with progress at most 20 times a second of ``clock``, which is a link's: what the library promises."""
    return report if report is silent else Thinned(report, clock=clock)


@dataclass(eq=False, repr=False)
class Reporter:
    """Stamps events with device, sequence number and time, and hands them to ``sink``."""

    sink: Report = silent
    device: str = ""
    clock: Callable[[], float] = time.monotonic
    _seq: int = 0
    _start: float = field(default=-1.0)

    def __call__(self, event: Event) -> None:
        """Stamp and pass on."""
        now = self.clock()
        if self._start < 0:
            self._start = now
        self._seq += 1
        self.sink(
            replace(
                with_percent(event),
                device=self.device,
                seq=self._seq,
                time=round(now - self._start, 6),
            )
        )


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON types: ``v``, ``event`` (its class name) and every field."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    if isinstance(event, PlanReady):
        values["actions"] = [
            {f.name: getattr(step, f.name) for f in fields(step)} for step in event.actions
        ]
    return {"v": SCHEMA_VERSION, "event": type(event).__name__} | values
