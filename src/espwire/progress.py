"""The progress of a whole operation over all its tasks, also after an interruption: percentage, bytes, rate, time left."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from espwire.events import Event, Finished, Progress, Report, Thinned, silent

ALMOST = 99.9  # percent, until the last task has finished
EXPECTED_S = 1.0  # of an estimate count as much as that time measured
TRANSFERS = ("write", "read")


class Task(NamedTuple):
    """A task of an operation. ``kind`` and ``name`` are those of its events (an empty name matches all).

    ``size`` in bytes. ``seconds``: how long it will take, or its share of the operation in any unit.
    """

    kind: str
    name: str
    size: int
    seconds: float


class Overall:
    """Adds the progress of the whole operation to its events.

    Bytes and rate are those of the transfers (``write``, ``read``), or of all tasks if there are none.

    :param clock: seconds
    :param tasks: in order; none: each task that reports is an operation of its own
    :param timed: the tasks' ``seconds`` are estimates, and are used for the time left
    """

    def __init__(
        self,
        report: Report,
        clock: Callable[[], float],
        tasks: Iterable[Task] = (),
        *,
        timed: bool = False,
    ) -> None:
        self.report, self.clock = report, clock
        self._trust = EXPECTED_S if timed else 0.0
        tasks = tuple(tasks)
        self._single = not tasks
        self._start(tasks)

    def _start(self, tasks: tuple[Task, ...]) -> None:
        self.tasks = tasks
        transfers = any(task.kind in TRANSFERS and task.size for task in tasks)
        self._counts = [not transfers or task.kind in TRANSFERS for task in tasks]
        self._total = sum(task.size for task, counts in self._counted() if counts)
        self._whole = sum(task.seconds for task in tasks)
        self._at, self._bytes, self._spent = 0, 0, 0.0
        self._percent = 0.0
        self._began = self._then = self.clock()
        self._counting = False  # the time since the last event belongs to a transfer

    def _counted(self) -> Iterable[tuple[Task, bool]]:
        return zip(self.tasks, self._counts, strict=True)

    def __call__(self, event: Event) -> None:
        """Report the event. The percentage never decreases, even if a task is repeated."""
        if isinstance(event, Progress | Finished) and event.percent is None:
            event = self._add(event)
        self.report(event)

    def _add(self, event: Progress | Finished) -> Event:
        size = event.total if isinstance(event, Progress) else event.size
        if self._single and not any(_fits(task, event) for task in self.tasks):
            self._start((Task(event.task, event.name, size, 1.0),))
        now = self.clock()
        if self._counting:
            self._spent += now - self._then
        self._then = now
        at = next((n for n in range(self._at, len(self.tasks)) if _fits(self.tasks[n], event)), -1)
        finished = isinstance(event, Finished)
        if at >= 0:
            share = event.done / event.total if isinstance(event, Progress) and event.total else 1.0
            self._advance(at, share, finished=finished)
            self._counting = self._counts[at] and not finished
        if isinstance(event, Finished):
            return event.replace(percent=self._percent)
        return event.replace(
            percent=self._percent,
            job_done=self._bytes,
            job_total=self._total,
            rate=round(self._bytes / self._spent) if self._spent > 0 else None,
            seconds_left=self._estimate_left(now),
        )

    def _advance(self, at: int, share: float, *, finished: bool) -> None:
        self._at = at + finished
        done = sum(task.seconds for task in self.tasks[:at]) + share * self.tasks[at].seconds
        percent = min(100 * done / self._whole, ALMOST) if self._whole else 0.0
        if self._at == len(self.tasks):
            percent = 100.0
        self._percent = max(self._percent, round(percent, 1))
        count = sum(task.size for task, counts in [*self._counted()][:at] if counts)
        if self._counts[at]:
            count += round(share * self.tasks[at].size)
        self._bytes = max(self._bytes, count)

    def _estimate_left(self, now: float) -> float | None:
        """Seconds: what is left of the estimate, corrected by the pace so far."""
        done = self._percent / 100 * self._whole
        if not done + self._trust:
            return None
        pace = (now - self._began + self._trust) / (done + self._trust)
        return round((self._whole - done) * pace, 1)


def _fits(task: Task, event: Progress | Finished) -> bool:
    return task.kind == event.task and task.name in ("", event.name)


class Continued:
    """Adds up the progress of an operation that is run again after an interruption, and then does only what is left."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self._percent = self._base = 0.0
        self._bytes = self._base_bytes = 0

    def restart(self) -> None:
        """The operation was interrupted, and its next event is of another run."""
        self._base, self._base_bytes = self._percent, self._bytes

    def __call__(self, event: Event) -> None:
        """Report the event."""
        if isinstance(event, Progress | Finished) and event.percent is not None:
            left = 100 - self._base
            percent = round(self._base + event.percent * left / 100, 1)
            self._percent = percent if event.percent == 100 else min(percent, ALMOST)
            event = event.replace(percent=self._percent)
        if isinstance(event, Progress) and event.job_done is not None:
            self._bytes = self._base_bytes + event.job_done
            total = self._base_bytes + (event.job_total or 0)
            event = event.replace(job_done=self._bytes, job_total=total)
        self.report(event)


class Parts:
    """Adds up the progress of an operation in parts that are carried out one after another, each with tasks of its own.

    :param sizes: bytes that each part transfers, as far as known before; the percentage is by these
    """

    def __init__(self, report: Report, sizes: Iterable[int]) -> None:
        self.report, self._sizes = report, tuple(sizes)
        self._at, self._percent = 0, 0.0

    def begin(self, number: int) -> None:
        """The next events are of part ``number``, from 0."""
        self._at = number

    def __call__(self, event: Event) -> None:
        """Report the event."""
        before, later = sum(self._sizes[: self._at]), sum(self._sizes[self._at + 1 :])
        whole = sum(self._sizes)
        if isinstance(event, Progress | Finished) and event.percent is not None:
            done = before + self._sizes[self._at] * event.percent / 100
            percent = round(100 * done / whole, 1) if whole else 0.0
            last = event.percent == 100 and self._at == len(self._sizes) - 1
            percent = 100.0 if last else min(percent, ALMOST)
            self._percent = max(self._percent, percent)
            event = event.replace(percent=self._percent)
        if isinstance(event, Progress) and event.job_done is not None:
            left = event.seconds_left
            if left is not None and later:
                left = round(left + later / event.rate, 1) if event.rate else None
            done_here, total_here = event.job_done, event.job_total or 0
            if not self._sizes[self._at]:  # an erase or a check: not bytes of the operation
                done_here = total_here = 0
            event = event.replace(
                job_done=before + done_here,
                job_total=before + total_here + later,
                seconds_left=left,
            )
        self.report(event)


def track(
    report: Report,
    clock: Callable[[], float],
    tasks: Iterable[Task] = (),
    *,
    timed: bool = False,
) -> Report:
    """``report`` for the events of an operation: with the progress of the whole, at most 20 per second of ``clock``."""
    if report is silent:
        return report
    return Thinned(Overall(report, clock, tasks, timed=timed), clock=clock)
