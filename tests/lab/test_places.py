"""``labgrid://PLACE`` and ``--place`` with a real coordinator and real exporters."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from laboratory import Chip, Laboratory

import espwire
from espwire.transport.place import HeldPlace, PlaceError, list_places

JOB = """
name = "lab"
chip = "esp32c3"

[[step]]
do = "write"
at = 0x10000
file = "app.bin"
"""
NAMES = [f"{host}-{board}" for host in ("left", "right") for board in ("b1", "b2", "b3")]


@pytest.fixture
def chips() -> Iterator[dict[str, Chip]]:
    slow = "virtual:esp32c3?pace=1&size=2MB"  # it is still at work when a test kills it
    found = {name: Chip(slow) if name == "left-b2" else Chip() for name in NAMES}
    yield found
    for chip in found.values():
        chip.kill()


@pytest.fixture
def lab(
    tmp_path: Path, chips: dict[str, Chip], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Laboratory]:
    monkeypatch.setenv("LG_COORDINATOR", "")
    groups: dict[str, dict[str, dict[str, object]]] = {"left": {}, "right": {}}
    for name, chip in chips.items():
        host, _, board = name.partition("-")
        groups[host][board] = chip.export()
    laboratory = Laboratory(tmp_path, groups)
    (tmp_path / "app.bin").write_bytes(os.urandom(20_000))
    (tmp_path / "lab.toml").write_text(JOB)
    yield laboratory
    laboratory.close()


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "espwire", "--no-state", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> dict[str, dict[str, object]]:
    """The boards of the last event, by place."""
    out, err = process.communicate(timeout=200)
    assert out, err
    last = json.loads(out.splitlines()[-1])
    boards = (last.get("details") or last.get("data"))["boards"]
    return {board["port"].removeprefix("labgrid://"): board for board in boards}


def test_a_killed_chip_fails_by_name_and_five_succeed(
    lab: Laboratory, chips: dict[str, Chip], tmp_path: Path
) -> None:
    process = start(tmp_path, "job", "lab.toml", "--place", "*-b?", "--json")
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if (event.get("device"), event["event"]) == ("labgrid://left-b2", "Opened"):
            chips["left-b2"].kill()
            break
    boards = finish(process)
    failed = {name: board["code"] for name, board in boards.items() if board["state"] != "passed"}
    assert sorted(boards) == NAMES
    assert set(failed) == {"left-b2"}, boards
    assert process.returncode == 1
    assert lab.find_acquired() == []
    data = (tmp_path / "app.bin").read_bytes()
    with espwire.connect("labgrid://right-b3", stub=False) as device:
        device.attach_flash()
        assert device.flash_md5(0x10000, 20_000) == hashlib.md5(data).digest()
        assert device.transport.info.name == "labgrid://right-b3"
        assert lab.find_acquired() == ["right-b3"]
    assert lab.find_acquired() == []


def test_the_places_of_a_killed_exporter_fail_by_name(lab: Laboratory, tmp_path: Path) -> None:
    lab.exporters["right"].kill()
    lab.wait_for(3)
    process = start(tmp_path, "job", "lab.toml", "--place", "*", "--json")
    boards = finish(process)
    assert {name: board["code"] for name, board in boards.items()} == {
        **{f"left-b{n}": "" for n in (1, 2, 3)},
        **{f"right-b{n}": "place-unavailable" for n in (1, 2, 3)},
    }
    assert "right/b1" in str(boards["right-b1"]["message"])
    assert process.returncode == 1
    assert lab.find_acquired() == []


def test_one_place_is_released_whatever_happens(lab: Laboratory, tmp_path: Path) -> None:
    url = "labgrid://left-b1"
    # killed while it holds the place
    program = (
        "import sys, time; from espwire.transport.place import HeldPlace;"
        f" print(HeldPlace({url!r}).url, flush=True); time.sleep(100)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().startswith("rfc2217://127.0.0.1:")
    with pytest.raises(PlaceError, match="is acquired by") as busy:
        HeldPlace(url)
    assert busy.value.code == "place-busy"
    assert "acquired=yes" in busy.value.hint
    shared = HeldPlace(url + "?acquired=yes")
    shared.release()
    assert lab.find_acquired() == ["left-b1"]
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    end = time.monotonic() + 20
    while lab.find_acquired():
        assert time.monotonic() < end
        time.sleep(0.2)
    # the exporter ends meanwhile
    held = HeldPlace(url)
    lab.exporters["left"].kill()
    lab.wait_for(3)
    held.release()
    assert lab.find_acquired() == []
    # a failing command
    process = start(tmp_path, "-p", "labgrid://right-b1", "write-flash", "0xffffff", "app.bin")
    process.communicate(timeout=100)
    assert process.returncode not in (0, 70)
    assert lab.find_acquired() == []


def test_every_mistake_is_named(lab: Laboratory, tmp_path: Path) -> None:
    assert list_places("left-*") == [f"labgrid://left-b{n}" for n in (1, 2, 3)]
    for url, code in (
        ("labgrid://nowhere", "no-place"),
        ("labgrid://left-b1?resource=other", "place-resource"),
        ("labgrid://left-b1?coordinator=127.0.0.1:1", "no-coordinator"),
    ):
        with pytest.raises(PlaceError) as error:
            HeldPlace(url)
        assert error.value.code == code
    with pytest.raises(PlaceError, match="no place fits x"):
        list_places("x*")
    assert lab.find_acquired() == []
