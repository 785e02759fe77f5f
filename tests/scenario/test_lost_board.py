"""A board that is lost in the middle of an operation: how often and how long it is waited for. Real runs: test_fault_matrix.py."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from espwire.cli import context as module
from espwire.cli.context import Context
from espwire.cli.program import Program
from espwire.errors import (
    DeviceError,
    NoReply,
    PortNotFound,
    TransportLost,
    VerifyError,
)
from espwire.events import Finished, Progress
from espwire.progress import Overall, Task
from espwire.transport.base import CancelToken

MAC = "24:0a:c4:00:01:10"


class Board:
    """Connections in the order in which they are made: a MAC address, or the error that connecting ends in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *connections: str | Exception) -> None:
        self.connections = list(connections)
        self.now = 0.0
        monkeypatch.setattr(Context, "device", self.device)
        monkeypatch.setattr(Context, "report", lambda context, event: self.events.append(event))
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(CancelToken, "sleep", self.sleep)
        self.events: list[object] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    @contextmanager
    def device(self, **options: object):
        found = self.connections[0] if len(self.connections) == 1 else self.connections.pop(0)
        if isinstance(found, Exception):
            raise found
        info = SimpleNamespace(name="/dev/ttyUSB0")
        yield SimpleNamespace(mac=found, transport=SimpleNamespace(info=info))


def failing(*errors: Exception):
    """An operation that fails with each of the errors in turn, then succeeds."""
    left = list(errors)

    def operation(device):
        if left:
            raise left.pop(0)
        return "done"

    return operation


LOST = TransportLost("the cable was pulled")


def test_a_chip_that_was_silent_once_is_connected_again(monkeypatch):
    board, silent = Board(monkeypatch, MAC), NoReply("no answer")
    assert Context().run_operation(failing(silent)) == "done"
    assert [event.code for event in board.events] == ["board-lost"]
    with pytest.raises(NoReply):
        Context().run_operation(failing(silent, silent))


def test_a_board_that_stays_away_is_an_error_after_half_a_minute(monkeypatch):
    board = Board(monkeypatch, MAC, PortNotFound("no port"))
    with pytest.raises(PortNotFound):
        Context().run_operation(failing(LOST))
    assert 30 <= board.now <= 31


def test_a_board_that_is_lost_again_and_again_is_an_error(monkeypatch):
    Board(monkeypatch, MAC)
    with pytest.raises(TransportLost):
        Context().run_operation(failing(*[LOST] * 4))
    assert Context().run_operation(failing(*[LOST] * 3)) == "done"


@pytest.mark.parametrize(
    "error",
    [
        VerifyError("differs"),
        DeviceError("busy", code="flash-busy"),
        TransportLost("accepts no more data", code="write-timeout"),
    ],
)
def test_other_errors_end_the_operation_at_once(monkeypatch, error):
    board = Board(monkeypatch, MAC)
    with pytest.raises(type(error)):
        Context().run_operation(failing(error))
    assert board.events == []


@pytest.mark.parametrize(
    "context",
    [Context(Program(waits=False)), Context(options={"before": "no-reset"})],
    ids=["esptool.py", "no-reset"],
)
def test_what_cannot_connect_anew_does_not_wait(monkeypatch, context):
    board = Board(monkeypatch, MAC)
    with pytest.raises(TransportLost):
        context.run_operation(failing(LOST))
    assert board.events == []


def test_a_first_connection_that_fails_is_not_repeated(monkeypatch):
    board = Board(monkeypatch, PortNotFound("no port"))
    with pytest.raises(PortNotFound):
        Context().run_operation(failing())
    assert board.now == 0


def test_the_progress_of_an_operation_that_goes_on_does_not_go_back(monkeypatch, capsys):
    report = Context.report
    Board(monkeypatch, MAC)
    monkeypatch.setattr(Context, "report", report)
    left = [1000]

    def operation(device):
        size = left[0]
        overall = Overall(
            context.report,
            lambda: 0.0,
            [Task("write", "a", size, 1.0), Task("verify", "a", size, 0.0)],
        )
        overall(Progress(task="write", name="a", done=0, total=size))
        overall(Progress(task="write", name="a", done=min(600, size), total=size))
        if size > 600:
            left[0] = 500  # 100 bytes did not arrive
            raise LOST
        overall(Finished(task="write", name="a", size=size, seconds=0.0))
        overall(Finished(task="verify", name="a", size=size, seconds=0.0))

    context = Context(options={"json": True, "port": "x"})
    context.run_operation(operation)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    progress = [event for event in events if event["event"] == "Progress"]
    assert [event["percent"] for event in progress] == [0.0, 60.0, 60.0, 99.9]
    assert [event["job_done"] for event in progress] == [0, 600, 600, 1100]
    assert [event["job_total"] for event in progress] == [1000, 1000, 1100, 1100]
    assert events[-1]["percent"] == 100.0
