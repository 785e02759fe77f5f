"""The progress of a whole operation: it only rises, counts all tasks, and is 100 % only at the end."""

from __future__ import annotations

import random

import pytest

from espwire.events import Event, Finished, Note, Progress
from espwire.progress import Continued, Overall, Parts, Task, track


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(*tasks: Task, timed: bool = True) -> tuple[Overall, list[Event], Clock]:
    events: list[Event] = []
    clock = Clock()
    return Overall(events.append, clock, tasks, timed=timed), events, clock


def last(events: list[Event]) -> Progress:
    return next(event for event in reversed(events) if isinstance(event, Progress))


def step(task: str, done: int, total: int, name: str = "a") -> Progress:
    return Progress(task=task, name=name, done=done, total=total)


def end(task: str, name: str = "a") -> Finished:
    return Finished(task=task, name=name, size=0, seconds=0.0)


def test_percentage_and_time_left_count_all_tasks_and_bytes_only_the_writes():
    report, events, clock = make(
        Task("erase", "", 4000, 2.0),
        Task("write", "a", 1000, 4.0),
        Task("verify", "a", 1000, 1.0),
        Task("write", "b", 3000, 12.0),
        Task("verify", "b", 3000, 1.0),
    )
    clock.now = 2.0
    report(step("erase", 4000, 4000, "0x0..0xfa0"))
    assert (last(events).percent, last(events).job_done, last(events).rate) == (10.0, 0, None)
    report(end("erase", "0x0..0xfa0"))
    report(step("write", 0, 1000))
    clock.now = 4.0
    report(step("write", 500, 1000))
    seen = last(events)
    assert (seen.percent, seen.job_done, seen.job_total) == (20.0, 500, 4000)
    assert (seen.rate, seen.seconds_left) == (250, 16.0)
    clock.now = 6.0
    for event in (end("write"), step("verify", 0, 1000), end("verify"), step("write", 0, 1, "b")):
        report(event)
    assert (last(events).percent, last(events).job_done) == (35.0, 1000)
    clock.now = 12.0  # twice as fast as expected
    report(step("write", 3000, 3000, "b"))
    seen = last(events)
    assert (seen.percent, seen.job_done, seen.rate) == (95.0, 4000, 400)
    assert 0.6 <= (seen.seconds_left or 0) <= 0.7
    report(end("write", "b"))
    assert events[-1].percent == 95.0
    report(end("verify", "b"))
    assert events[-1].percent == 100.0


def test_a_task_that_is_done_but_not_checked_is_less_than_100_percent():
    report, events, _ = make(Task("write", "a", 10, 1.0), Task("verify", "a", 10, 0.0))
    report(step("write", 10, 10))
    report(end("write"))
    assert [event.percent for event in events] == [99.9, 99.9]
    report(end("verify"))
    assert events[-1].percent == 100.0


def test_files_of_one_name_are_tasks_of_their_own():
    report, events, _ = make(Task("write", "kept", 10, 1.0), Task("write", "kept", 10, 1.0))
    for event in (step("write", 10, 10, "kept"), end("write", "kept")):
        report(event)
    assert events[-1].percent == 50.0
    report(step("write", 5, 10, "kept"))
    assert (last(events).percent, last(events).job_done) == (75.0, 15)
    report(end("write", "kept"))
    assert events[-1].percent == 100.0


def test_a_repeated_task_does_not_go_back():
    report, events, _ = make(Task("write", "a", 10, 9.0), Task("verify", "a", 10, 1.0))
    for event in (step("write", 10, 10), end("write"), step("verify", 0, 10)):
        report(event)
    report(step("write", 0, 10))
    report(end("write"))
    assert {event.percent for event in events} == {90.0}
    assert last(events).job_done == 10


def test_an_operation_without_work_ends_at_100_percent():
    report, events, _ = make(Task("write", "a", 0, 0.0), Task("verify", "a", 0, 0.0))
    report(end("write"))
    assert events[-1].percent == 0.0
    report(end("verify"))
    assert events[-1].percent == 100.0


def test_without_tasks_each_task_is_an_operation():
    events: list[Event] = []
    clock = Clock()
    report = track(events.append, clock)
    report(step("read", 0, 1000))
    assert last(events).seconds_left is None
    clock.now = 1.0
    report(step("read", 250, 1000))
    seen = last(events)
    assert (seen.percent, seen.job_done, seen.rate, seen.seconds_left) == (25.0, 250, 250, 3.0)
    report(end("read"))
    assert events[-1].percent == 100.0
    report(step("read", 0, 500, "b"))
    assert (last(events).percent, last(events).job_total) == (0.0, 500)


@pytest.mark.parametrize("seed", range(20))
def test_an_operation_that_is_interrupted_again_and_again_never_goes_back(seed):
    draw = random.Random(seed)
    events: list[Event] = []
    clock = Clock()
    whole = Continued(events.append)
    left = 100_000
    while left:
        report = Overall(
            whole, clock, [Task("write", "a", left, 1.0), Task("verify", "a", left, 0.1)]
        )
        stop = draw.choice((left, draw.randrange(1, left + 1)))
        for done in sorted(draw.randrange(stop + 1) for _ in range(5)):
            clock.now += 0.1
            report(step("write", done, left))
        report(Note(text="passed on"))
        if stop < left:
            whole.restart()
            left -= stop // 2  # the rest has to be sent again
            continue
        report(end("write"))
        report(end("verify"))
        left = 0
    percents = [e.percent for e in events if isinstance(e, Progress | Finished)]
    assert percents == sorted(percents)
    assert percents.index(100.0) == len(percents) - 1
    done = [(e.job_done, e.job_total) for e in events if isinstance(e, Progress)]
    assert [count for count, _ in done] == sorted(count for count, _ in done)
    assert all(count <= total for count, total in done)


def test_parts_add_up_by_their_bytes_and_only_the_last_one_ends_at_100() -> None:
    events: list[Event] = []
    parts = Parts(events.append, (3000, 0, 1000))
    part = step("write", 0, 1).replace(percent=50.0, job_done=1500, job_total=3000, rate=500)
    parts(part.replace(seconds_left=3.0))
    assert isinstance(events[-1], Progress)
    assert (events[-1].percent, events[-1].job_done, events[-1].job_total) == (37.5, 1500, 4000)
    assert events[-1].seconds_left == 3.0 + 1000 / 500
    parts(end("write").replace(percent=100.0))
    parts.begin(1)
    erase = step("erase", 9, 9).replace(percent=100.0, job_done=4096, job_total=4096)
    parts(erase)
    assert isinstance(events[-1], Progress)
    assert (events[-1].percent, events[-1].job_done, events[-1].job_total) == (75.0, 3000, 4000)
    parts.begin(2)
    parts(end("write").replace(percent=100.0))
    parts(Note(text="x"))
    shown = [event.percent for event in events if isinstance(event, Progress | Finished)]
    assert shown == [37.5, 75.0, 75.0, 100.0]


def test_parts_without_bytes_are_complete_at_the_end_of_the_last() -> None:
    events: list[Event] = []
    parts = Parts(events.append, (0, 0))
    for number in (0, 1):
        parts.begin(number)
        parts(end("erase").replace(percent=100.0))
    assert [event.percent for event in events if isinstance(event, Finished)] == [0.0, 100.0]
