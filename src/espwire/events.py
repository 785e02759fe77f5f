"""The events that espwire reports while it works, and the helpers between library and display."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, get_type_hints

from espwire.record import Record

SCHEMA_VERSION = 1
MAX_EVENTS_PER_SECOND = 20


class Event(Record):
    """Base class. ``device`` labels the board, ``seq`` counts per reporter, ``time`` is seconds since its first event."""

    device: str = ""
    seq: int = 0
    time: float = 0.0


class Opened(Event):
    """The port is open."""

    port: str
    baud: int


class Connecting(Event):
    """An attempt to reach the bootloader starts: number ``attempt`` (from 1) of ``attempts`` (0: no limit).

    ``how`` names the reset sequence; it is empty if the chip is not reset.
    """

    attempt: int
    attempts: int
    how: str


class Resetting(Event):
    """The chip is about to be reset. ``how`` names the sequence; ``into`` is ``"loader"`` or ``"application"``."""

    how: str
    into: str


class ChipFound(Event):
    """The chip was identified."""

    chip: str
    description: str
    revision: str
    mac: str


class StubStarted(Event):
    """A stub replaces the ROM loader. ``build`` identifies a build of espwire's stub; empty for vendor stubs."""

    stub: str
    build: str
    size: int
    seconds: float


class PlannedStep(NamedTuple):
    """One step of a plan. ``kind`` is ``"erase"``, ``"write"``, ``"verify"`` or ``"skip"``; ``name`` is the file's."""

    kind: str
    address: int
    size: int
    name: str = ""


class PartitionChange(NamedTuple):
    """What a new partition table changes.

    ``kind``: ``"added"``, ``"removed"``, ``"changed"`` (moved, resized, renamed, of another type), or ``"misread"``:
    partition ``name`` gets data of another one, which ``text`` names. Flash addresses and sizes in bytes, in the old
    and in the new table (None: not in it); the old ones of ``"misread"`` are those of the partition whose data it is.
    """

    kind: str
    name: str
    text: str
    old_address: int | None
    old_size: int | None
    new_address: int | None
    new_size: int | None


class PlanReady(Event):
    """The plan: ``actions`` for programs, ``steps`` for people, a line each.

    ``seconds`` is an estimate, and so is ``wire_bytes`` if ``wire_estimated``. ``partitions``: how a partition table
    that is written differs from the one in flash.
    """

    steps: tuple[str, ...]
    wire_bytes: int
    seconds: float
    actions: tuple[PlannedStep, ...] = ()
    wire_estimated: bool = False
    partitions: tuple[PartitionChange, ...] = ()


class Progress(Event):
    """``done`` of ``total`` bytes of one task (``write``, ``erase``, ``verify``, ``read``) at flash ``address``.

    Of the whole operation with all its tasks: ``percent``, 0 to 100, which is 100 only when the last task has finished;
    ``job_done`` of ``job_total`` bytes that are transferred; ``rate`` of the transfers so far in bytes per second;
    ``seconds_left``, an estimate. None: not known.
    """

    task: str
    name: str
    done: int
    total: int
    address: int | None = None
    percent: float | None = None
    job_done: int | None = None
    job_total: int | None = None
    rate: int | None = None
    seconds_left: float | None = None


class Finished(Event):
    """A task succeeded. ``seconds`` are on the transport's clock; ``address`` is the start of its flash range.

    ``written``: how many of the ``size`` bytes had to be written, the others were in flash; None: all.
    ``percent`` is the progress of the whole operation with all its tasks, 0 to 100.
    """

    task: str
    name: str
    size: int
    seconds: float
    address: int | None = None
    written: int | None = None
    percent: float | None = None


class Result(Event):
    """The result of a command, for people (``text``) and for programs (``data``, JSON types only)."""

    command: str
    text: str
    data: dict[str, Any]


class Note(Event):
    """Information for the user."""

    text: str


class Warned(Event):
    """A warning. ``code`` is stable."""

    code: str
    text: str


class Error(Event):
    """The command failed; its last event. Only the command line reports it: the library raises a ToolError."""

    code: str
    message: str
    hint: str
    exit_code: int
    details: dict[str, Any]


Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """The default report: ignore all events."""


class Thinned:
    """Limits progress events to 20 per second of ``clock``; the first and the last of a task always pass.

    :param progress: False: only the first and the last pass
    """

    def __init__(
        self, report: Report, *, clock: Callable[[], float] = time.monotonic, progress: bool = True
    ) -> None:
        self.report, self.clock, self.progress = report, clock, progress
        self._last = -math.inf

    def __call__(self, event: Event) -> None:
        """Report the event, unless it exceeds the limit."""
        if isinstance(event, Progress) and 0 < event.done < event.total:
            now = self.clock()
            if not self.progress or now - self._last < 1 / MAX_EVENTS_PER_SECOND:
                return
            self._last = now
        self.report(event)


@dataclass(eq=False, repr=False)
class Reporter:
    """Adds device, sequence number and time to events, and passes them to ``sink``."""

    sink: Report = silent
    device: str = ""
    clock: Callable[[], float] = time.monotonic
    _seq: int = 0
    _start: float = field(default=-1.0)

    def __call__(self, event: Event) -> None:
        """Add them and pass the event on."""
        now = self.clock()
        if self._start < 0:
            self._start = now
        self._seq += 1
        self.sink(
            event.replace(
                device=self.device,
                seq=self._seq,
                time=round(now - self._start, 6),
            )
        )


# fields of events that are tuples of rows
ROWS: dict[str, Callable[..., Any]] = {"actions": PlannedStep, "partitions": PartitionChange}


def to_json(event: Event) -> dict[str, Any]:
    """The event as JSON types: ``v``, ``event`` (its class name) and every field."""
    values = dict(vars(event))
    for name in ROWS.keys() & values.keys():
        values[name] = [row._asdict() for row in values[name]]
    return {"v": SCHEMA_VERSION, "event": type(event).__name__} | values


SCALARS: Mapping[Any, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    float: (float, int),
    bool: (bool,),
}


def from_json(values: Mapping[str, Any]) -> Event:
    """The event that ``to_json`` returned these values for; fields of later versions are ignored.

    :raises ValueError: they are not those of an event
    """
    kind = next((kind for kind in Event.__subclasses__() if kind.__name__ == values["event"]), None)
    if kind is None:
        raise ValueError(f"unknown event {values['event']!r}")
    known = {name: values[name] for name in kind._fields if name in values}
    try:
        for name in ROWS.keys() & known.keys():
            known[name] = tuple(ROWS[name](**row) for row in known[name])
        lists = {name: tuple(value) for name, value in known.items() if isinstance(value, list)}
        event = kind(**(known | lists))
    except (KeyError, TypeError) as error:
        raise ValueError(f"invalid event {kind.__name__}: {error}") from None
    for name, hint in get_type_hints(kind).items():
        wanted = SCALARS.get(hint)
        if wanted is not None and type(getattr(event, name)) not in wanted:
            raise ValueError(f"invalid event {kind.__name__}: {name} is not {hint.__name__}")
    return event
