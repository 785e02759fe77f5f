"""Several boards: which ports, when a board is plugged in, the run with processes that are scripted, the table."""

from __future__ import annotations

import io
import json
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from rich.console import Console

from espwire.cli import state as state_module
from espwire.cli.boards import board as board_module
from espwire.cli.boards import run as run_module
from espwire.cli.boards import select as select_module
from espwire.cli.boards.board import Board, State, describe_exit
from espwire.cli.boards.display import choose_rows, draw_table, shorten_port
from espwire.cli.boards.log import KEPT_LOGS, Log, open_folder
from espwire.cli.boards.run import Fleet
from espwire.cli.boards.select import PlugWatch, find_place, open_watch, sort_ports
from espwire.cli.command_table import GROUPS, SECTIONS, Boards
from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.cli.ports import split_ports
from espwire.cli.state import State as Remembered
from espwire.errors import FileError
from espwire.events import (
    ChipFound,
    Connecting,
    Error,
    Event,
    Finished,
    Note,
    Opened,
    PartitionChange,
    PlannedStep,
    PlanReady,
    Progress,
    Resetting,
    Result,
    StubStarted,
    Warned,
    from_json,
    to_json,
)
from espwire.transport.ports import ANY, PortIdentity, parse_filter

EVENTS: list[Event] = [
    Opened(port="a", baud=1),
    Connecting(attempt=1, attempts=7, how="tight"),
    Resetting(how="hard", into="loader"),
    ChipFound(chip="esp32", description="ESP32-D0WD", revision="v3.1", mac="24:0a:c4:00:01:10"),
    StubStarted(stub="stub", build="1", size=2, seconds=0.5),
    PlanReady(
        steps=("x",),
        wire_bytes=1,
        seconds=1.0,
        actions=(PlannedStep("erase", 0, 4096),),
        partitions=(PartitionChange("added", "nvs", "new", None, None, 0x9000, 0x6000),),
    ),
    Progress(task="write", name="app.bin", done=1, total=2, percent=50.0),
    Finished(task="write", name="app.bin", size=2, seconds=1.0, percent=100.0),
    Result(command="write-flash", text="Done.", data={"a": 1}),
    Note(text="note"),
    Warned(code="w", text="warning"),
    Error(code="verify", message="differs", hint="write again", exit_code=7, details={}),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_read_back_from_json_is_the_same(event: Event) -> None:
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


def test_every_kind_of_event_is_covered() -> None:
    assert {type(event) for event in EVENTS} == set(Event.__subclasses__())


@pytest.mark.parametrize(
    "values",
    [
        {"event": "NoSuch"},
        {"event": "Opened"},
        {"event": "Opened", "port": 1, "baud": 1},
        {"event": "Opened", "port": "a", "baud": True},
        {"event": "Opened", "port": "a", "baud": 1, "x": 2},
    ],
)
def test_values_that_are_no_event_are_refused_and_unknown_fields_ignored(
    values: dict[str, Any],
) -> None:
    if "x" in values:
        assert from_json(values) == Opened(port="a", baud=1)
    else:
        with pytest.raises(ValueError, match="event"):
            from_json(values)


# --- ports ---


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("a,b", ("a", "b")),
        ("COM3, COM10 ,", ("COM3", "COM10")),
        ("virtual:esp32?fault=flip:1e-5,drop:0.1", ("virtual:esp32?fault=flip:1e-5,drop:0.1",)),
        ("virtual:esp32?seed=1,virtual:esp32c3", ("virtual:esp32?seed=1", "virtual:esp32c3")),
        ("socket://h:1,24:0a:c4:00:01:10", ("socket://h:1", "24:0a:c4:00:01:10")),
    ],
)
def test_a_list_of_ports_is_split_at_its_commas(text: str, ports: tuple[str, ...]) -> None:
    assert split_ports(text) == ports


OWN = PortIdentity("/dev/ttyACM0", 0x303A, 0x1001, serial="24:0A:C4:00:01:10", location="1-1:1.0")
BRIDGE = PortIdentity("/dev/ttyUSB0", 0x10C4, 0xEA60, serial="8C5E21D0", location="1-2:1.0")
NO_SERIAL = PortIdentity("/dev/ttyUSB1", 0x1A86, 0x7523, location="1-3:1.0")
OTHER = PortIdentity("/dev/ttyACM9", 0x2341, 0x0043, serial="ARDUINO1", location="1-4:1.0")
UART = PortIdentity("/dev/ttyS0")


def remembered(tmp_path: Path, *ports: PortIdentity) -> Remembered:
    state = Remembered(tmp_path / "state.json", lambda event: None)
    for port in ports:
        state.note_sequence(port.key, "tight")
    return state


def test_espressif_ids_and_known_adapters_need_no_consent_and_bridges_do(tmp_path: Path) -> None:
    ports = [UART, OTHER, NO_SERIAL, BRIDGE, OWN]
    new = sort_ports(ports, remembered(tmp_path), port_filter=ANY)
    assert (new.sure, new.unsure) == ((OWN,), (BRIDGE, NO_SERIAL))
    # an adapter without a serial number of its own is not recognized again: all of its kind have the same key
    known = sort_ports(ports, remembered(tmp_path, BRIDGE, NO_SERIAL), port_filter=ANY)
    assert (known.sure, known.unsure) == ((OWN, BRIDGE), (NO_SERIAL,))
    every = sort_ports(ports, remembered(tmp_path / "new"), port_filter=ANY, any_port=True)
    assert every.unsure == (BRIDGE, NO_SERIAL, OTHER, UART)
    some = sort_ports(ports, remembered(tmp_path / "new"), port_filter=parse_filter(["vid=0x1A86"]))
    assert (some.sure, some.unsure) == ((), (NO_SERIAL,))


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Defines which ports the system lists, and what is typed."""

    def define(*ports: PortIdentity, typed: str | None = None) -> None:
        monkeypatch.setattr(select_module, "list_ports", lambda: ports)
        monkeypatch.setattr(select_module, "is_terminal", lambda stream: typed is not None)
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))

    return define


def test_bridges_that_were_never_used_are_used_after_a_typed_yes(
    connect: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    choose = select_module.choose_all
    connect(OWN, BRIDGE, typed="yes\n")
    assert choose(Context()) == ["/dev/ttyACM0", "/dev/ttyUSB0"]
    assert "/dev/ttyUSB0 (board with a CP2102" in capsys.readouterr().out
    connect(OWN, BRIDGE, typed="y\n")
    assert choose(Context()) == ["/dev/ttyACM0"]
    connect(OWN, BRIDGE)
    assert choose(Context(options={"yes": True})) == ["/dev/ttyACM0", "/dev/ttyUSB0"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--all", "chip-info"], "needs-yes"),
        (["--all", "--port-filter", "vid=0x2341", "chip-info"], "no-port"),
        (["--all", "-p", "/dev/ttyUSB0", "chip-info"], "usage"),
        (["--watch", "-p", "socket://h:1,/dev/ttyUSB0", "chip-info"], "usage"),
        (["-p", "/dev/ttyUSB0,/dev/ttyUSB0", "chip-info"], "port-twice"),
        (["-p", "/dev/ttyUSB0,8C5E21D0", "chip-info"], "port-twice"),
        (["-p", "/dev/a,00:00:00:00:00:01", "chip-info"], "mac-not-found"),
        (["-p", "/dev/a,/dev/b", "monitor"], "one-board"),
        (["-p", "/dev/a,/dev/b", "flash", "--monitor"], "one-board"),
        (["--all", "partitions", "show"], "one-board"),
        (["-p", "/dev/a,/dev/b", "backup", "x.zip"], "one-file"),
        (["-p", "/dev/a,/dev/b", "read-flash", "0", "1", "x.bin"], "one-file"),
        (["-p", "/dev/a,/dev/b", "write-flash", "0", "-"], "one-input"),
        (["-p", "/dev/a,/dev/b", "--limit", "0", "chip-info"], "usage"),
        (["-p", "/dev/a,/dev/b", "--stagger", "-1", "chip-info"], "usage"),
    ],
)
def test_what_cannot_be_done_on_several_boards_is_one_error_and_nothing_is_started(
    words: list[str],
    code: str,
    connect: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(OWN, BRIDGE, OTHER)
    lister = "espwire.transport.ports.list_system_ports"
    monkeypatch.setattr(lister, lambda: (OWN, BRIDGE, OTHER))
    monkeypatch.setattr(Board, "start", lambda *_: pytest.fail("started"))
    exit_code = main(["--json", *words])
    error = json.loads(capsys.readouterr().out)
    assert (error["event"], error["code"]) == ("Error", code)
    assert exit_code == error["exit_code"] != 0


def test_esptool_py_has_no_lists_of_ports(capsys: pytest.CaptureFixture[str]) -> None:
    from espwire.cli.esptool.program import main as esptool

    assert esptool(["-p", "/dev/none1,/dev/none2", "chip-id"]) != 0
    assert "/dev/none1,/dev/none2" in capsys.readouterr().err
    assert esptool(["--all", "chip-id"]) == 2
    assert "espwire" in capsys.readouterr().err


# --- boards that are plugged in ---


def test_a_board_is_new_once_its_port_has_settled_and_again_after_it_was_away() -> None:
    watch = PlugWatch()
    assert watch.look({"1-1": "ACM0"}, 0.0) == {}
    assert watch.look({"1-1": "ACM0"}, 0.6) == {"1-1": "ACM0"}
    assert watch.look({"1-1": "ACM0"}, 9.0) == {}
    watch = PlugWatch({"1-1": 0.0})
    # the board resets itself: away for a second, then back under another name
    assert watch.look({}, 1.0) == {}
    assert watch.look({"1-1": "ACM1"}, 2.0) == {}
    assert watch.look({"1-1": "ACM1"}, 3.0) == {}
    assert watch.look({}, 3.5) == {}
    assert watch.look({"1-1": "ACM0"}, 6.5) == {}
    assert watch.look({"1-1": "ACM0"}, 7.1) == {"1-1": "ACM0"}


def test_a_port_that_appears_for_a_moment_is_not_a_board() -> None:
    watch = PlugWatch()
    assert watch.look({"1-1": "ACM0"}, 0.0) == {}
    assert watch.look({}, 0.3) == {}
    assert watch.look({"1-1": "ACM0"}, 0.6) == {}
    assert watch.look({"1-1": "ACM0"}, 0.9) == {}


def test_boards_that_are_worked_on_or_connected_at_the_start_are_not_new() -> None:
    watch = PlugWatch()
    watch.ignore(["1-1", "1-2"], 0.0)
    assert watch.look({"1-1": "ACM0", "1-2": "USB0"}, 2.0) == {}
    assert watch.look({"1-1": "ACM0", "1-2": "USB0"}, 4.0) == {}


def test_the_interfaces_of_a_bridge_are_boards_and_those_of_a_chip_are_not() -> None:
    assert find_place(OWN) == "1-1"
    assert find_place(BRIDGE) == "1-2:1.0"
    assert find_place(UART) == "/dev/ttyS0"


# --- the run, with scripted processes ---


class Scripted:
    """Stands for the processes: what each port's prints, and its exit code."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.scripts: dict[str, tuple[Sequence[Event | bytes], int]] = {}
        self.now, self.most, self.starts = 0.0, 0, dict[str, float]()
        self.running: set[str] = set()

        def start(board: Board, *arguments: Any) -> None:
            self.start(board, *arguments)

        monkeypatch.setattr(Board, "start", start)
        monkeypatch.setattr(board_module.time, "monotonic", self.tick)
        monkeypatch.setattr(run_module, "POLL_S", 0.001)
        self.seen: list[tuple[str, Event]] = []
        self.warned: list[Warned] = []

    def tick(self) -> float:
        self.now += 0.01
        return self.now

    def start(
        self, board: Board, line: Sequence[str], lines: SimpleQueue[tuple[Board, bytes | None]]
    ) -> None:
        self.starts[board.port] = self.now
        self.running.add(board.port)
        self.most = max(self.most, len(self.running))
        script, code = self.scripts.get(board.port, ((RESULT,), 0))
        if code == 13:
            raise OSError(11, "Resource temporarily unavailable")
        board.state, board._started = State.RUNNING, self.now
        board._process = FakeProcess(code)  # type: ignore[assignment]
        for each in script:
            event = each if isinstance(each, bytes) else json.dumps(to_json(each)).encode()
            lines.put((board, event))
        lines.put((board, None))

    # the display
    def add(self, board: Board) -> None: ...
    def close(self) -> None: ...
    def event(self, board: Board, event: Event) -> None:
        self.seen.append((board.port, event))

    def end(self, board: Board) -> None:
        self.running.discard(board.port)

    def warn(self, warning: Warned) -> None:
        self.warned.append(warning)

    def run(self, *ports: str, **options: Any) -> Fleet:
        fleet = Fleet(["chip-info"], self, None, **options)
        for port in ports:
            fleet.add(port)
        fleet.work(None, False)
        return fleet


class FakeProcess:
    def __init__(self, code: int) -> None:
        self.code = code

    def wait(self, seconds: float) -> int:
        return self.code


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    return Scripted(monkeypatch)


RESULT = Result(command="chip-info", text="Done.", data={})
FAILURE = Error(code="verify", message="differs", hint="again", exit_code=7, details={})
LOST = Error(code="link-lost", message="gone", hint="plug in", exit_code=3, details={})


def test_a_board_that_fails_or_crashes_does_not_concern_the_others(scripted: Scripted) -> None:
    scripted.scripts = {
        "b": ([EVENTS[3], FAILURE], 7),
        "c": ([EVENTS[3], b"Fatal Python error\n"], -11),
        "d": ((), 13),
    }
    fleet = scripted.run("a", "b", "c", "d", "e")
    assert [board.state.value for board in fleet.boards] == [
        "passed",
        "failed",
        "failed",
        "failed",
        "passed",
    ]
    described = [board.describe() for board in fleet.boards]
    assert [each["code"] for each in described] == [
        "",
        "verify",
        "board-process",
        "board-process",
        "",
    ]
    assert [each["exit_code"] for each in described] == [0, 7, 70, 70, 0]
    assert described[1]["mac"] == "24:0a:c4:00:01:10"
    assert described[2]["message"] == "the process of this board ended with SIGSEGV"
    assert "Resource temporarily unavailable" in described[3]["message"]
    errors = [(port, event.code) for port, event in scripted.seen if isinstance(event, Error)]
    assert sorted(errors) == [("b", "verify"), ("c", "board-process"), ("d", "board-process")]


def test_a_process_that_ends_without_a_result_has_not_passed(scripted: Scripted) -> None:
    scripted.scripts = {"a": ([EVENTS[3], b"Python was replaced\n"], 0)}
    (board,) = scripted.run("a").boards
    assert (board.state, board.describe()["exit_code"]) == (State.FAILED, 70)
    assert board.describe()["message"] == "the process of this board ended without a result"


def test_with_watch_a_log_that_cannot_be_created_does_not_stop_the_boards_under_way(
    scripted: Scripted, tmp_path: Path
) -> None:
    fleet = Fleet(["chip-info"], scripted, tmp_path / "removed")
    looks = [{"1-1": "a"}] * 200

    def look() -> dict[str, str]:
        if not looks:
            raise KeyboardInterrupt
        return looks.pop()

    with pytest.raises(KeyboardInterrupt):
        fleet.work(look, True)
    assert [board.state for board in fleet.boards] == [State.PASSED]
    assert [warning.code for warning in scripted.warned] == ["no-log"]
    with pytest.raises(FileError):
        fleet.add("b")


def test_the_number_of_boards_under_way_is_limited_and_their_starts_are_staggered(
    scripted: Scripted,
) -> None:
    scripted.run(*"abcdef", limit=2)
    assert scripted.most == 2
    scripted.run(*"abcdef", stagger=0.5)
    times = list(scripted.starts.values())
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("lost", "named"), [("abc", "3 boards were lost within a second: a, b, c;"), ("b", None)]
)
def test_boards_that_are_lost_together_point_to_the_hub(
    scripted: Scripted, lost: str, named: str | None
) -> None:
    scripted.scripts = dict.fromkeys(lost, ([LOST], 3))
    fleet = scripted.run(*"abcd")
    assert fleet.hub_suspected == (named is not None)
    assert [warning.code for warning in scripted.warned] == ["hub-suspected"] * (named is not None)
    assert all((named or "") in warning.text for warning in scripted.warned)


def test_ports_that_do_not_exist_do_not_point_to_the_hub(scripted: Scripted) -> None:
    missing = LOST.replace(code="port-not-found")
    scripted.scripts = dict.fromkeys("abcd", ([missing], 3))
    assert not scripted.run(*"abcd").hub_suspected


def test_a_process_that_does_not_end_after_ctrl_c_is_killed(scripted: Scripted) -> None:
    signals: list[str] = []

    class Blocked(FakeProcess):
        def send_signal(self, number: int) -> None:
            signals.append("interrupt")

        def kill(self) -> None:
            signals.append("kill")
            fleet._lines.put((board, None))

    fleet = Fleet(["chip-info"], scripted, None)
    board, waiting = fleet.add("a"), fleet.add("b")
    board.state, board._process = State.RUNNING, Blocked(-9)  # type: ignore[assignment]
    fleet.stop()
    assert signals == ["interrupt", "kill"]
    assert (board.state, waiting.state) == (State.STOPPED, State.STOPPED)
    assert board.describe()["message"] == "the process of this board ended with SIGKILL"


def test_boards_that_are_lost_one_after_the_other_do_not_point_to_the_hub(
    scripted: Scripted,
) -> None:
    scripted.scripts = dict.fromkeys("abcd", ([LOST], 3))
    assert not scripted.run(*"abcd", stagger=2.0).hub_suspected
    assert scripted.warned == []


def test_a_board_that_is_lost_and_comes_back_passes(scripted: Scripted) -> None:
    lost = Warned(code="board-lost", text="disconnected; waiting 30 s for the board")
    scripted.scripts = {"a": ([EVENTS[3], lost, EVENTS[8]], 0)}
    (board,) = scripted.run("a").boards
    assert (board.state, board.describe()["data"]) == (State.PASSED, {"a": 1})


NATIVE = PortIdentity("/dev/ttyACM1", 0x303A, 0x1001, serial="24:0A:C4:00:01:11", location="1-5")


def test_watch_starts_each_board_that_is_plugged_in_and_not_one_that_resets_itself(
    scripted: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # simulated time of a look: the ports of the system then; the board at 1-5 gets another name when it is reset
    renamed = replace(NATIVE, path="/dev/ttyACM7")
    events: list[tuple[float, tuple[PortIdentity, ...]]] = [
        (0.0, (OWN,)),
        (1.0, (OWN, NATIVE, BRIDGE)),
        (4.0, (OWN, BRIDGE)),
        (5.0, (OWN, renamed, BRIDGE)),
        (9.0, (BRIDGE,)),
        (15.0, (OWN, BRIDGE)),
    ]

    def list_now() -> tuple[PortIdentity, ...]:
        if scripted.now > 20.0:
            raise KeyboardInterrupt
        return [ports for start, ports in events if start <= scripted.now][-1]

    monkeypatch.setattr(select_module, "list_ports", list_now)
    look = open_watch(Context(options={"no_state": True}), [], scripted.warn)
    fleet = Fleet(["chip-info"], scripted, None)
    with pytest.raises(KeyboardInterrupt):
        fleet.work(look, False)
    assert [board.port for board in fleet.boards] == ["/dev/ttyACM1", "/dev/ttyACM0"]
    assert [board.state for board in fleet.boards] == [State.PASSED, State.PASSED]
    # a bridge that was never used is named once
    (warning,) = scripted.warned
    assert warning.code == "port-left-out"
    assert warning.text.startswith("/dev/ttyUSB0 (board with a CP2102")


def test_exit_codes_of_signals_are_named() -> None:
    assert [describe_exit(code) for code in (-9, 3, -99)] == [
        "SIGKILL",
        "exit code 3",
        "exit code -99",
    ]


# --- logs ---


def test_a_log_has_the_events_as_lines_and_later_runs_do_not_replace_it(tmp_path: Path) -> None:
    logs = [Log(tmp_path, "/dev/ttyUSB0") for _ in range(2)]
    for event in EVENTS:
        logs[0].event(event)
    for log in logs:
        log.close()
    assert len(list(tmp_path.iterdir())) == 2
    assert logs[0].path is not None
    lines = [line.partition(" ")[2] for line in logs[0].path.read_text("utf-8").splitlines()]
    assert lines[0] == "port /dev/ttyUSB0"
    assert "Found ESP32-D0WD, revision v3.1, MAC 24:0a:c4:00:01:10." in lines
    assert "Writing app.bin: 50 % of the job" in lines
    assert lines[-2:] == ["error: differs [verify]", "hint: write again"]


def test_a_log_that_cannot_be_written_does_not_stop_a_run(tmp_path: Path) -> None:
    log = Log(tmp_path, "a")
    log.close()
    log.line("more")
    log.event(EVENTS[0])
    assert Log(None, "a").descriptor == subprocess.DEVNULL


def test_a_folder_for_logs_that_cannot_be_created_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileError) as caught:
        open_folder(str(file / "logs"), True)
    assert str(file) in str(caught.value)


def test_only_the_newest_logs_of_the_own_folder_are_kept() -> None:
    assert open_folder(None, False) is None
    folder = state_module.find_state_file().with_name("boards")
    folder.mkdir(parents=True)
    for number in range(KEPT_LOGS + 5):
        (folder / f"{number:04}.log").write_text("")
    assert open_folder(None, True) == folder
    kept = sorted(path.name for path in folder.iterdir())
    assert (len(kept), kept[0]) == (KEPT_LOGS, "0005.log")


# --- the guide ---


def test_the_guide_names_every_command_that_works_on_several_boards() -> None:
    page = Path(__file__).parents[3] / "docs/guide/many-boards.md"
    paragraph = page.read_text("utf-8").partition("These commands work on several")[2]
    named = re.findall(r"`([a-z0-9-]+)`", paragraph.partition("\n\n")[0])
    entries = [entry for section in (SECTIONS | GROUPS).values() for entry in section.items()]
    assert sorted(named) == sorted(name for name, entry in entries if entry.boards != Boards.ONE)


# --- the table ---


def build_boards() -> list[Board]:
    boards = [Board(f"/dev/ttyUSB{number}", Log(None, "")) for number in range(4)]
    for board, state in zip(boards, State, strict=False):
        board.state = state
    boards[1].chip, boards[1].mac = "ESP32-C3 (QFN32)", "24:0a:c4:00:01:10"
    boards[1].step, boards[1].percent = "Writing application.bin", 42.0
    boards[3].error = FAILURE
    return boards


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_the_table_fits_into_the_terminal(width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(draw_table(build_boards(), 6, width))
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert max(map(len, lines)) <= width - len("^C"), "which a terminal shows at Ctrl-C"
    assert "/dev/ttyUSB1" in lines[2]
    assert "42 %" in lines[2]
    assert ("24:0a:c4:00:01:10" in lines[2]) == (width >= 120)
    assert "PASS" in lines[3]
    assert "FAIL ve" in lines[4]
    assert "and 2 more" in lines[5]


def test_in_a_low_terminal_failed_boards_and_those_under_way_are_shown() -> None:
    boards = build_boards()
    assert choose_rows(boards, 2) == [boards[1], boards[3]]
    assert choose_rows(boards, 9) == boards
    assert choose_rows(boards, 0) == [boards[3]]


def test_the_end_of_a_long_port_is_kept() -> None:
    assert shorten_port("/dev/serial/by-id/usb-1a86_1-if00-port0", 12) == "…-if00-port0"
    assert shorten_port("COM3", 12) == "COM3"
