"""Whatever an output's name stands for, and whatever goes wrong: it is complete or absent, and nothing else changed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import output_cases
import pytest

if sys.platform == "win32":
    pytest.skip("pipes, devices and signals of POSIX", allow_module_level=True)
from output_cases import (
    CASES,
    CONDITIONS,
    Case,
    Condition,
    Place,
    Snapshot,
    dangling_link,
    full_disk,
    full_disk_over_old,
    link_to_file,
    look,
    null_device,
    pipe_with_reader,
    spell,
    write_inputs,
)

from espwire import files, streams
from espwire.cli.main import main

SIGNALS_CI, SIGNALS_SOAK = 4, 50
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGXCPU)
BY_NAME = {case.name: case for case in CASES}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def expect(tmp_path_factory: pytest.TempPathFactory, inputs: Path) -> Callable[[Case], Snapshot]:
    """What a command makes when nothing is in its way."""
    known: dict[str, Snapshot] = {}

    def run(case: Case) -> Snapshot:
        if case.name not in known:
            folder = tmp_path_factory.mktemp("plain")
            if case.made == "change":
                shutil.copy(inputs / "dump.bin", folder / "out")
            assert main(spell(case, inputs, str(folder / "out"))) == 0
            known[case.name] = look(folder)
        return known[case.name]

    return run


@pytest.fixture
def open_place(
    tmp_path: Path,
    inputs: Path,
    expect: Callable[[Case], Snapshot],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(streams, "OPEN_S", 0.2)
    monkeypatch.setattr(streams, "STEP_S", 0.005)

    def open_it(case: Case, folder: Path = tmp_path) -> Place:
        (folder / "neighbour").write_bytes(b"of somebody else")
        return Place(folder, inputs, case, dict(expect(case)))

    return open_it


def try_condition(place: Place, condition: Condition) -> None:
    """Set it up, run the command, compare."""
    steps = contextlib.contextmanager(condition)(place)
    with steps as (out, refused):
        place.before = look(place.folder)
        code = main(spell(place.case, place.inputs, out))
    place.check(code, refused=refused)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.__name__)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_output_is_complete_or_absent(
    case: Case, condition: Condition, open_place, capsys
) -> None:
    try_condition(open_place(case), condition)
    said = capsys.readouterr()
    assert "bug" not in said.err
    assert said.err.count("error: ") <= 1


# the tests above see what they are for: each row takes one protection away
BROKEN: dict[str, tuple[str, Condition, Callable[[pytest.MonkeyPatch], None]]] = {
    "no temporary name": (
        "merge-bin",
        full_disk,
        lambda patch: patch.setattr(files, "unfinished", contextlib.nullcontext),
    ),
    "nothing is removed": (
        "merge-bin",
        full_disk,
        lambda patch: patch.setattr(files, "_remove", lambda place: None),
    ),
    "an old file is opened for writing": (
        "partitions build",
        full_disk_over_old,
        lambda patch: patch.setattr(files, "open_output", _open_plainly),
    ),
    "dangling links are followed": (
        "read-flash",
        dangling_link,
        lambda patch: patch.setattr(files, "_follow_links", os.path.realpath),
    ),
    "links are replaced": (
        "merge-bin",
        link_to_file,
        lambda patch: patch.setattr(files, "_follow_links", os.path.abspath),
    ),
    "pipes are replaced": (
        "merge-bin",
        pipe_with_reader,
        lambda patch: patch.setattr(files, "is_stream", lambda mode: False),
    ),
    "a flash file is created in place": (
        "flash file",
        full_disk,
        lambda patch: patch.setattr(
            "espwire.virtual.flash_file.unfinished", contextlib.nullcontext
        ),
    ),
    "an old flash file of another size is taken": (
        "flash file",
        null_device,
        lambda patch: patch.setattr("espwire.virtual.flash_file._open_regular", _make_blank),
    ),
}


@contextlib.contextmanager
def _open_plainly(path: str, **keywords: object) -> Iterator[object]:
    with open(path, "wb") as file:
        yield file


def _make_blank(path: Path) -> int:
    path.unlink()
    path.write_bytes(b"\xff" * 0x40000)
    return os.open(path, os.O_RDWR)


@pytest.mark.parametrize("name", BROKEN)
def test_a_protection_that_is_missing_is_noticed(
    name: str, open_place, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, condition, break_it = BROKEN[name]
    place = open_place(BY_NAME[case])
    break_it(monkeypatch)
    monkeypatch.setattr(output_cases, "READER_S", 0.1)
    with pytest.raises((AssertionError, OSError)):
        try_condition(place, condition)


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[None]:
    """A small disk."""
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("no disk can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_disk_that_is_full_keeps_what_it_held(case: Case, open_place, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, 1 << 20):
        place = open_place(case, disk)
        if case.made == "change":
            place.out.write_bytes(place.old)
        with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        place.before = look(disk)
        place.check(main(spell(case, place.inputs, str(place.out))), refused=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_read_only_folder_stays_as_it_is(case: Case, open_place, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:  # who may write anywhere
            stack.enter_context(mounted(disk, 4 << 20))
        place = open_place(case, disk)
        if case.made == "change":
            place.out.write_bytes(place.old)
        if os.geteuid() == 0:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        else:
            disk.chmod(0o555)
            stack.callback(disk.chmod, 0o755)
        place.before = look(disk)
        place.check(main(spell(case, place.inputs, str(place.out))), refused=True)


class Runner:
    """The program that forks; see ``output_signals.py``."""

    def __init__(self) -> None:
        program = Path(__file__).with_name("output_signals.py")
        self._process = subprocess.Popen(
            [sys.executable, program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def run(
        self, words: list[str], *, number: int = 0, delay: float = 0.0, breaks: str = ""
    ) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(
            json.dumps({"words": words, "signal": number, "delay": delay, "breaks": breaks}) + "\n"
        )
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(10)


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    found = Runner()
    yield found
    found.close()


def send_signals(place: Place, runner: Runner, *, count: int, seed: int, breaks: str = "") -> None:
    """The command, ended by a signal at random moments of the time it takes."""
    chance = random.Random(seed)
    words = spell(place.case, place.inputs, str(place.out))
    again = place.case.made == "change"

    def start_over() -> None:
        for path in sorted(place.folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        (place.folder / "neighbour").write_bytes(b"of somebody else")
        if again:
            place.out.write_bytes(place.old)
        place.before = look(place.folder)

    start_over()
    taken = min(runner.run(words, breaks=breaks)["seconds"] for _ in range(2))
    for _ in range(count):
        start_over()
        number = chance.choice(ENDING)
        ended = runner.run(words, number=number, delay=chance.uniform(0, taken), breaks=breaks)
        # -number: before the program could catch it, or after its work
        assert ended["status"] in (0, 128 + number, -number), ended
        assert "Traceback" not in ended["said"], ended["said"]
        assert "Exception ignored" not in ended["said"], ended["said"]
        place.check_broken_off()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_signal_at_a_random_moment_leaves_nothing_unfinished(
    case: Case, open_place, runner: Runner
) -> None:
    send_signals(open_place(case), runner, count=SIGNALS_CI, seed=len(case.name))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_signal_at_fifty_random_moments_leaves_nothing_unfinished(
    case: Case, open_place, runner: Runner
) -> None:
    send_signals(open_place(case), runner, count=SIGNALS_SOAK, seed=random.randrange(1 << 32))


@pytest.mark.parametrize("breaks", ["write-in-place", "lose-signals"])
def test_a_run_that_leaves_something_after_a_signal_is_noticed(
    breaks: str, open_place, runner: Runner
) -> None:
    with pytest.raises(AssertionError, match=r"left behind|neither"):
        send_signals(open_place(BY_NAME["merge-bin"]), runner, count=100, seed=1, breaks=breaks)
