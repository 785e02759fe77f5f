"""The library as a program first meets it: reading in one call, parts from anything, our stub by default, short texts."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path

import pytest

import espwire
from espwire.cli.main import main
from espwire.errors import FileError, UsageError, VerifyError
from espwire.events import ChipFound
from espwire.image.read_any import read_input

PORT = "virtual:esp32c3?profile=instant&size=4MB"
DATA = bytes(range(256)) * 40


def test_flash_is_written_verified_and_read_in_three_calls() -> None:
    events: list[espwire.Event] = []
    with espwire.connect(PORT) as device:
        part = espwire.Blob(0x10000, DATA)
        with pytest.raises(VerifyError):
            espwire.verify_flash(device, [part])  # attaches the flash by itself
        espwire.write_flash(device, [part])
        espwire.verify_flash(device, [part])
        assert espwire.read_flash(device, 0x10000, len(DATA), report=events.append) == DATA
        assert espwire.read_flash(device, 0x3FF000) == b"\xff" * 0x1000
    last = events[-1]
    assert isinstance(last, espwire.Finished)
    assert (last.task, last.size, last.percent) == ("read", len(DATA), 100.0)


@pytest.mark.parametrize("stub", [True, False])
def test_verify_attaches_the_flash(stub: bool) -> None:
    with espwire.connect(PORT, stub=stub) as device:
        espwire.verify_flash(device, [espwire.Blob(0x1000, b"\xff" * 64)])
        assert device.flash is not None


@pytest.mark.parametrize(
    ("chip", "stub"),
    [
        ("esp32c3", True),
        ("esp32", True),
        ("esp8266", True),
        ("esp32h21", True),
        ("esp32e22", False),
    ],
)
def test_our_stub_runs_by_default_where_there_is_one(chip: str, stub: bool) -> None:
    with espwire.connect(f"virtual:{chip}?profile=instant") as device:
        assert (device.loader.dialect.capabilities is not None) is stub
    with espwire.connect(f"virtual:{chip}?profile=instant", stub=False) as device:
        assert device.loader.dialect.capabilities is None


def test_a_blob_takes_bytes_a_path_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "app.bin"
    path.write_bytes(DATA)
    with path.open("rb") as file:
        sources = [DATA, bytearray(DATA), memoryview(DATA), path, str(path), file, io.BytesIO(DATA)]
        parts = [espwire.Blob(0x1000, source) for source in sources]
    assert all(part.data == DATA and type(part.data) is bytes for part in parts)
    assert [part.name for part in parts] == ["", "", "", "app.bin", "app.bin", "app.bin", ""]
    assert espwire.Blob(0, path, "mine").name == "mine"
    assert espwire.Blob(0, DATA, previous=path).previous == DATA
    moved = replace(parts[3], address=0x2000)
    assert (moved.address, moved.data, moved.name) == (0x2000, DATA, "app.bin")
    assert moved == espwire.Blob(0x2000, DATA, "app.bin")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "data must be bytes, a path or a binary file, got int"),
        ((0, None), "data must be bytes, a path or a binary file, got NoneType"),
        ((0, [1, 2]), "data must be bytes, a path or a binary file, got list"),
        ((0, io.StringIO("text")), "data must be a binary file, got str"),
        (("0x1000", b"a"), "the address must be an integer, got str"),
        ((1.0, b"a"), "the address must be an integer, got float"),
        ((True, b"a"), "the address must be an integer, got bool"),
        ((0, b"a", b"name"), "the name must be a string, got bytes"),
        ((0, b"a", "", False, 7), "previous must be bytes, a path or a binary file, got int"),
    ],
)
def test_a_blob_rejects_anything_else_at_once(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$") as caught:
        espwire.Blob(*arguments)  # type: ignore[arg-type]
    assert caught.value.code == "part"


def test_a_blob_of_a_missing_file_is_a_file_error() -> None:
    with pytest.raises(FileError, match="no-such-file"):
        espwire.Blob(0, "no-such-file.bin")


def test_texts_are_short_whatever_the_object_holds() -> None:
    big = bytes(1 << 20)
    part = espwire.Blob(0x10000, big, "app.bin")
    assert repr(part) == "<Blob 0x10000, 1,048,576 bytes, 'app.bin'>"
    assert repr(espwire.load_chip("esp32c3")) == "<Chip esp32c3>"
    with espwire.connect(PORT) as device:
        assert repr(device) == f"<Device ESP32-C3 (QFN32) v1.1 MAC 24:0a:c4:00:01:10 at {PORT}>"
        plan = espwire.write_flash(device, [part], dry_run=True)
        assert len(repr(plan)) < 2000
        assert all(len(repr(packet)) < 500 for packet in device.loader.packets)
    pieces = read_input(big, "app.bin")
    assert all(len(repr(value)) < 500 for value in (*pieces, espwire.Blob(0, big, "a.bin")))


def test_a_revision_is_one_text_everywhere(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    found: list[str] = []
    with espwire.connect(
        PORT,
        report=lambda e: found.append(e.revision) if isinstance(e, ChipFound) else None,
    ) as d:
        assert (str(d.revision), repr(d.revision), f"{d.revision}") == ("v1.1", "v1.1", "v1.1")
        assert d.revision == 101
        assert espwire.Revision(3) < d.revision < espwire.Revision(300)
        assert (d.revision.major, d.revision.minor) == (1, 1)
    assert found == ["v1.1"]
    assert main(["-p", PORT, "chip-info", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["data"]["revision"] == "v1.1"
    assert [line["revision"] for line in lines if line["event"] == "ChipFound"] == ["v1.1"]


def test_json_has_structured_steps_and_the_percentage_of_the_whole(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import json

    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(DATA)
    words = ["write-flash", "0x10000", str(tmp_path / "a.bin"), "0x20000", str(tmp_path / "b.bin")]
    assert main(["-p", PORT, "--json", *words]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (plan,) = [line for line in lines if line["event"] == "PlanReady"]
    size = len(DATA)
    assert plan["actions"] == [
        {"kind": "write", "address": 0x10000, "size": size, "name": "a.bin"},
        {"kind": "verify", "address": 0x10000, "size": size, "name": "a.bin"},
        {"kind": "write", "address": 0x20000, "size": size, "name": "b.bin"},
        {"kind": "verify", "address": 0x20000, "size": size, "name": "b.bin"},
    ]
    assert len(plan["steps"]) == 4
    percents = [line["percent"] for line in lines if line["event"] in ("Progress", "Finished")]
    assert percents == sorted(percents)
    assert percents[0] == 0
    assert percents[-1] == 100
    finished = [(line["task"], line["percent"]) for line in lines if line["event"] == "Finished"]
    assert finished == [("write", 48.6), ("verify", 50.0), ("write", 98.6), ("verify", 100.0)]
    progress = [line for line in lines if line["event"] == "Progress"]
    assert {line["job_total"] for line in progress} == {2 * size}
    done = [line["job_done"] for line in progress]
    assert (done, done[-1]) == (sorted(done), 2 * size)
    assert all(line["rate"] > 0 for line in progress if line["job_done"])
    left = [line["seconds_left"] for line in progress]
    assert plan["seconds"] - 0.1 <= left[0] <= plan["seconds"] + 0.1
    assert 0 <= left[-1] < 0.1


def test_a_safety_stop_has_the_code_of_its_finding(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    import json

    page = tmp_path / "index.bin"
    page.write_bytes(b"<!DOCTYPE html>" + bytes(5000))
    assert main(["-p", PORT, "--json", "write-flash", "0x0", str(page)]) == 8
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (error["event"], error["code"], error["exit_code"]) == ("Error", "not-an-image", 8)
    assert error["details"]["findings"][0]["code"] == error["code"]
