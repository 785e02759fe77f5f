"""The baud rate without ``--baud``: trials before a long transfer, and what happens when a transfer loses data.

The links of ``tuned_links.py`` have an error rate per baud rate. Ten of them are run here; `pytest -m soak` runs 500.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from tuned_links import (
    CLOSE,
    FalseSuccess,
    Link,
    count_steps,
    find_best,
    make_data,
    make_link,
    run,
)

from espwire.blob import Blob
from espwire.cli.context import Context
from espwire.cli.esptool.program import build_program
from espwire.cli.main import main
from espwire.cli.state import State
from espwire.device import stub_upload
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.device.line_tuner import PROBE_BUDGET_S, RATES, LineTuner, RateMemory
from espwire.device.loader import Direction, Loader
from espwire.errors import NoReply
from espwire.events import Event, Note, Warned, silent
from espwire.flash.read import read_flash
from espwire.flash.write import write_flash
from espwire.protocol.stub import TrialBaudrate
from espwire.transport.ports import PortIdentity, names_one_port
from espwire.virtual import nor_flash
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.transport import VirtualTransport, open_virtual

SIZE, BASE = 0x40000, 0x10000
DATA = make_data()[:SIZE]
DEAD = "2000000:1,1500000:1,1000000:1,921600:1"


class Board:
    """A device on a virtual link, tuned; ``trials`` are the rates that were tried, in order."""

    def __init__(self, query: str, chip: str = "esp32", **options: object) -> None:
        self.transport: VirtualTransport = open_virtual(
            f"virtual:{chip}?size=1MB&profile=instant&seed=3&{query}"
        )
        self.events: list[Event] = []
        self.trials: list[int] = []
        settings = {"baud": "auto", "report": self.events.append, "on_packet": self._see}
        self.device: Device = connect(self.transport, **settings | options)  # type: ignore[arg-type]

    def _see(self, packet: object) -> None:
        command = getattr(packet, "command", None)
        if isinstance(command, TrialBaudrate):
            self.trials.append(command.new)

    @property
    def rate(self) -> int:
        return self.device.loader.baud

    def write(self, data: bytes = DATA) -> None:
        """Write and compare."""
        write_flash(self.device, [Blob(BASE, data)], report=self.events.append)
        assert self.transport.chip.flash.contents[BASE : BASE + len(data)] == data

    def read(self) -> None:
        """Read and compare."""
        self.transport.chip.flash.contents[BASE : BASE + SIZE] = DATA
        assert read_flash(self.device, BASE, SIZE) == DATA


class Memory(RateMemory):
    """A memory that can be looked at."""

    def __init__(self, **rates: int) -> None:
        self.rates: dict[str, int] = rates

    def find_rate(self, direction: Direction) -> int | None:
        return self.rates.get(direction)

    def note_rate(self, direction: Direction, rate: int) -> None:
        self.rates[direction] = rate


def use_memory(board: Board, **rates: int) -> Memory:
    memory = Memory(**rates)
    board.device.loader.tuner = LineTuner(board.device.loader, silent, memory=memory)
    return memory


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp8266"])
def test_a_clean_line_takes_one_trial(chip: str) -> None:
    board = Board("", chip)
    upload = 460_800 if chip == "esp8266" else 921_600
    assert board.rate == upload, "a reset can undo it"
    board.write()
    assert (board.rate, board.trials) == (2_000_000, [2_000_000])
    assert Note(text="changed the baud rate to 2000000") in board.events


@pytest.mark.parametrize(
    ("query", "stable", "uploaded", "rate"),
    [
        ("", 2_000_000, [921_600], 2_000_000),
        ("", 921_600, [921_600], 2_000_000),
        ("errors=2000000:1,1500000:1,1000000:1,921600:1,460800:1", 230_400, [230_400], 230_400),
        ("errors=921600:1", 1_000_000, [460_800], 1_000_000),  # reset, and uploaded at a lower rate
        ("errors=921600:1,460800:1", 1_000_000, [115_200], 1_000_000),
        ("errors=921600:3e-4/0", 0, [921_600, 460_800], 2_000_000),  # answers, but loses blocks
        ("", 123_456, [921_600], 2_000_000),  # not a rate of the list
    ],
)
def test_the_stub_is_uploaded_at_the_rate_that_was_stable_last(
    query: str, stable: int, uploaded: list[int], rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espwire.device.connect._find_memory", lambda *_: Memory(write=stable))
    rates: list[int] = []
    upload = stub_upload.upload

    def note(loader: Loader, *arguments: Any, **options: Any) -> None:
        rates.append(loader.baud)
        upload(loader, *arguments, **options)

    monkeypatch.setattr(stub_upload, "upload", note)
    board = Board(query)
    assert rates == uploaded
    capabilities = board.device.loader.dialect.capabilities
    assert capabilities is not None
    assert capabilities.cpu_hz, "its clock is raised"
    assert not [event for event in board.events if isinstance(event, Warned)]
    board.write()
    assert board.rate in (rate, stable)


def test_a_remembered_rate_is_not_used_with_the_rom_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espwire.device.connect._find_memory", lambda *_: Memory(write=921_600))
    assert Board("", stub=False).rate == 460_800


@pytest.mark.parametrize(
    ("query", "rate"),
    [
        ("adapter=cp2102", 921_600),  # refuses higher rates, and does not report it
        ("adapter=ch340", 2_000_000),
        ("adapter=pl2303", 921_600),  # rounds the others by more than a UART tolerates
        ("errors=2000000:1,1500000:1,921600:1", 1_000_000),  # errors do not grow with the rate
        (f"errors={DEAD}", 460_800),
        ("errors=460800:1", 2_000_000),  # the upload fails, and is repeated after a reset
    ],
)
def test_the_fastest_rate_that_works_is_found_within_the_budget(query: str, rate: int) -> None:
    board = Board(query)
    board.device.attach_flash()
    began = board.transport.now()
    board.device.tune_line("write", SIZE)
    assert board.transport.now() - began <= PROBE_BUDGET_S
    board.write()
    assert board.rate == rate


def test_a_short_transfer_needs_no_trial() -> None:
    board = Board("")
    board.write(DATA[:0x4000])
    assert (board.rate, board.trials) == (921_600, [])


@pytest.mark.parametrize(
    ("query", "options"),
    [
        ("kind=usb-jtag", {}),
        ("", {"stub": False}),
        ("", {"baud": 460_800}),  # the user's rate
    ],
)
def test_without_a_choice_nothing_is_tried(query: str, options: dict[str, object]) -> None:
    board = Board(query, "esp32c3", **options)
    board.write(DATA[:0x10000])
    assert board.trials == []


def test_a_rom_loader_works_at_a_rate_that_it_answers_reliably() -> None:
    assert Board("", stub=False).rate == 460_800
    assert Board("errors=460800:0.05", stub=False).rate == 115_200
    assert Board("", "esp8266", stub=False).rate == 115_200, "it could not prove a write"
    assert Board("circuit=none&boot=download", stub=False, before="no-reset").rate == 115_200


def test_a_transfer_that_loses_data_goes_on_at_another_rate_and_that_is_remembered() -> None:
    board = Board("errors=2000000:3e-4,1500000:3e-4")
    memory = use_memory(board)
    board.write()
    board.write(bytes(DATA[::-1]))
    assert board.rate in (921_600, 1_000_000)
    assert memory.rates == {"write": board.rate}
    again = Board("errors=2000000:3e-4,1500000:3e-4")
    use_memory(again, **memory.rates)
    again.write()
    assert again.trials == [board.rate], "what failed is not tried first again"


def test_the_users_rate_is_left_for_a_lower_one_only() -> None:
    board = Board("errors=921600:6e-4,460800:6e-4", baud=921_600)
    board.write()
    assert board.rate == 230_400
    assert max(board.trials) <= 921_600


def test_each_direction_has_its_rate() -> None:
    board = Board("errors=2000000:0/1e-3,1500000:0/1e-3")
    board.write()
    written = board.rate
    board.read()
    assert written >= 1_500_000, "reports are short"
    assert board.rate in (921_600, 1_000_000)


@pytest.mark.parametrize("job", ["read", "write"])
def test_an_adapter_that_loses_long_bursts_gets_a_small_window(job: Direction) -> None:
    board = Board("burst=9000", baud=1_500_000)
    getattr(board, job)()
    tuner = board.device.loader.tuner
    assert tuner is not None
    assert tuner.has_small_window(job)
    assert board.rate == 1_500_000, "the window comes before the rate"


def test_a_lost_confirmation_does_not_lose_the_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    confirm, lost = LineTuner._confirm, []

    def lose(self: LineTuner, rate: int) -> bool:
        result = confirm(self, rate)
        if not lost:
            lost.append(rate)
            return False
        return result

    monkeypatch.setattr(LineTuner, "_confirm", lose)
    board = Board("")
    board.write()
    assert lost == [2_000_000]
    assert board.rate in RATES


def test_a_number_that_several_adapters_have_is_not_remembered() -> None:
    def port(path: str, serial: str) -> PortIdentity:
        return PortIdentity(path, vid=0x10C4, pid=0xEA60, serial=serial)

    ports = [
        port("/dev/a", "0123456789AB"),
        port("/dev/b", "54D2000001"),
        port("/dev/c", "54D2000001"),
    ]
    assert names_one_port("0123456789AB", ports)
    assert not names_one_port("54D2000001", ports), "shared"
    assert not names_one_port("0001", ports)
    assert not names_one_port("", ports)


def test_rates_are_kept_in_the_state_file(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    State(path, silent).note_rate("10C4:EA60:0123456789AB 24:0a:c4:00:01:10 write", 921_600)
    assert (
        State(path, silent).find_rate("10C4:EA60:0123456789AB 24:0a:c4:00:01:10 write") == 921_600
    )
    assert State(None, silent).find_rate("10C4:EA60:0123456789AB 24:0a:c4:00:01:10 write") is None
    path.write_text(path.read_text().replace("921600", "fast"))
    assert State(path, silent).find_rate("10C4:EA60:0123456789AB 24:0a:c4:00:01:10 write") is None


def test_the_guide_lists_the_rates() -> None:
    page = Path(__file__).parents[2] / "docs/guide/settings.md"
    listed = ", ".join(map(str, RATES))
    assert f"tries these rates: {listed}." in " ".join(page.read_text("utf-8").split())


URL = "virtual:esp32?size=1MB&profile=instant&adapter=cp2102"


def test_the_last_line_and_json_name_the_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(DATA)
    words = ["-p", URL, "write-flash", "0x10000", str(file)]
    assert main(words) == 0
    assert "Stable at 921600 baud." in capsys.readouterr().out.splitlines()[-1]
    assert main(["--json", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["data"]["baud"] == 921_600


def test_esptool_stays_at_115200(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "data.bin"
    file.write_bytes(DATA[:0x8000])
    trace = ["--trace", "-p", URL, "write_flash", "0x10000", str(file)]
    assert main(trace, Context(build_program("esptool.py"))) == 0
    assert "CHANGE_BAUDRATE" not in capsys.readouterr().err


QUICK = (1, 6, 8, 10, 12, 13, 16, 253, 254, 262)  # seeds whose links take little time to simulate


LINKS, PART = 500, 25
NEAR = 0.95  # of all links end at most one step from their best rate


def count_ends(seeds: Iterable[int]) -> Counter[str]:
    """Run the links of ``seeds``: how many end ``near`` the best rate (at most one step), ``far`` from it, or in an ``error``.

    :raises FalseSuccess: one succeeds with the wrong content
    """
    counts: Counter[str] = Counter()
    for seed in seeds:
        link = make_link(seed)
        outcome = run(link)
        if outcome.error:
            print(link, outcome)
            counts["error"] += 1
            continue
        steps = count_steps(outcome.rate, find_best(link), CLOSE)
        counts["near" if steps <= 1 else "far"] += 1
    return counts


def check(counts: Counter[str]) -> None:
    """Enough links end near the best rate, and none in an error."""
    assert not counts["error"], counts
    assert counts["near"] >= NEAR * counts.total(), counts


def test_the_rate_at_the_end_is_near_the_best_one() -> None:
    counts = count_ends(QUICK)
    assert not counts["error"], counts
    assert counts["near"] >= 9, counts


@pytest.mark.soak
def test_on_500_links_the_rate_at_the_end_is_near_the_best_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prints the counts of each part to standard error."""
    total: Counter[str] = Counter()
    for start in range(0, LINKS, PART):
        counts = count_ends(range(start, start + PART))
        total += counts
        share = 100 * total["near"] / total.total()
        with capsys.disabled():
            text = f"links {start} to {start + PART - 1}: {dict(counts)}; so far {dict(total)}, {share:.1f} % near"
            print(text, file=sys.stderr, flush=True)
    check(total)


@pytest.mark.parametrize(
    ("counts", "good"),
    [
        ({"near": 475, "far": 25}, True),
        ({"near": 474, "far": 26}, False),
        ({"near": 499, "error": 1}, False),
    ],
)
def test_the_harness_notices_too_many_links_that_end_far_away(
    counts: dict[str, int], good: bool
) -> None:
    with nullcontext() if good else pytest.raises(AssertionError):
        check(Counter(counts))


HIDDEN = Link(1, "write", "esp32", "instant", "0.001", errors=((2_000_000, 3e-4, 3e-4),))


def test_the_harness_notices_a_tuner_that_never_leaves_a_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        LineTuner, "_exchange", lambda self, frames, trip, heard: (len(frames), heard)
    )
    good = run(HIDDEN)
    monkeypatch.setattr(LineTuner, "is_bad", lambda *_: False)
    monkeypatch.setattr(LineTuner, "leave", lambda *_: False)
    bad, best = run(HIDDEN), {1_000_000: 1.0}
    assert count_steps(good.rate, best) <= 1
    assert bad.error or count_steps(bad.rate, best) > 1


def test_the_harness_notices_trials_that_check_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Link(1, "write", "esp32", "instant", "0.001", errors=tuple((r, 1, 1) for r in RATES[3:]))
    assert not run(link).error
    monkeypatch.setattr(
        LineTuner, "_exchange", lambda self, frames, trip, heard: (len(frames), heard)
    )
    monkeypatch.setattr(LineTuner, "_confirm", lambda self, rate: True)
    assert run(link).error


@pytest.mark.parametrize("checked", [True, False])
def test_the_harness_notices_a_false_success(
    checked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Link(1, "write", "esp32", "instant", "0.001")
    program = NorFlash._program

    def spoil(self: NorFlash, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        program(self, t, opcode, address, data, read)
        self.contents[0x20000] = (
            make_data()[0x20000 - BASE] ^ 0xFF
        )  # as if a damaged frame had been accepted

    for name in ("_ACTIONS", "_SMALL_ACTIONS"):
        monkeypatch.setattr(nor_flash, name, getattr(nor_flash, name) | {0x02: spoil})
    if checked:
        assert run(link).error == "verify"
        return
    monkeypatch.setattr("espwire.flash.write.has_content", lambda *_, **__: True)
    with pytest.raises(FalseSuccess):
        run(link)


@pytest.mark.parametrize("loses", [False, True])
def test_an_adapter_that_carries_nothing_for_2_s_after_a_change_of_its_rate(
    monkeypatch: pytest.MonkeyPatch, loses: bool
) -> None:
    deaf_until = [0.0]

    class Deaf(VirtualTransport):
        """Delays what it receives; with ``loses``, both directions lose it."""

        def set_baud(self, baud: int) -> None:
            super().set_baud(baud)
            deaf_until[0] = self.now() + 2.0

        def read(self, timeout: float) -> bytes:
            left = deaf_until[0] - self.now()
            if left <= 0:
                return super().read(timeout)
            self.sleep(min(timeout, left))
            if loses:
                self.discard_input()
            return b""

        def write(self, data: bytes, deadline: float) -> None:
            if not loses or self.now() >= deaf_until[0]:
                super().write(data, deadline)

    monkeypatch.setattr("espwire.virtual.transport.VirtualTransport", Deaf)
    board = Board("")
    before = board.rate
    board.write()
    assert board.rate == before
    assert board.trials == [460_800]


def test_a_chip_that_resets_in_a_trial_is_an_error_and_nothing_was_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exchange = LineTuner._exchange

    def reset_first(self: LineTuner, *arguments: Any) -> tuple[int, float]:
        transport = self._loader.transport
        transport.set_lines(dtr=False, rts=True)
        transport.sleep(0.1)
        transport.set_lines(rts=False)
        return exchange(self, *arguments)

    monkeypatch.setattr(LineTuner, "_exchange", reset_first)
    board = Board("")
    contents = bytes(board.transport.chip.flash.contents)
    with pytest.raises(NoReply, match="no longer replies at any baud rate") as caught:
        board.write()
    assert caught.value.code == "line-bad", "after which the commands connect again"
    assert board.transport.chip.flash.contents == contents


@pytest.mark.parametrize(
    ("burst", "ends"),
    [(7000, ["115200 baud"]), (1500, ["115200 baud", "the ROM loader"])],
)
@pytest.mark.parametrize("stated", [(), ("-b", "921600")])
def test_a_line_that_is_bad_at_every_rate_is_left_step_by_step(
    burst, ends, stated, tmp_path, capsys
):
    """Such an adapter loses whatever exceeds so many bytes without a pause; the ROM's blocks are the smallest."""
    data, flash = make_data()[:30_000], tmp_path / "flash.bin"
    (tmp_path / "app.bin").write_bytes(data)
    port = f"virtual:esp32c3?burst={burst}&latency=0.002&size=1MB&flash={flash}"
    assert (
        main(["--no-state", "-p", port, "write-flash", "0x10000", str(tmp_path / "app.bin")]) == 0
    )
    shown = capsys.readouterr()
    assert [w for w in shown.err.splitlines() if "stepped-down" in w] == [
        f"warning: the line loses too much{' with the stub' if 'ROM' in end else ''}; continuing"
        f" {'with' if 'ROM' in end else 'at'} {end} [stepped-down]"
        for end in ends
    ]
    assert flash.read_bytes()[0x10000 : 0x10000 + len(data)] == data
