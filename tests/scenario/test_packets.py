"""The last packets: kept by the loader, written to a file by the command line when port or chip fail, and only then."""

from __future__ import annotations

import json
import random
import re
from itertools import cycle
from pathlib import Path

import pytest

import espwire
from espwire.cli.main import main
from espwire.cli.trace import KEPT_FILES, describe_packet
from espwire.device.loader import PACKETS_KEPT, Packet
from espwire.protocol.commands import ReadReg, Reply
from espwire.virtual.transport import VirtualTransport

CHIP = "virtual:esp32c3?size=4MB"
MUTE = "virtual:esp32c3?circuit=none&boot=app"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's program keeps its state."""
    place = tmp_path / "state"
    monkeypatch.setattr("espwire.cli.state.find_state_file", lambda: place / "state.json")
    monkeypatch.chdir(tmp_path)
    return place


def test_the_loader_keeps_the_last_packets_by_name() -> None:
    with espwire.connect(CHIP, stub=False) as device:
        address = device.chip.flash.bootloader_offset + 0x40001000
        device.loader.read_reg(address)
        request, reply = list(device.loader.packets)[-2:]
        assert request.command == ReadReg(address)
        assert isinstance(reply.content, Reply)
        assert reply.command is None
        assert reply.time >= request.time
        for _ in range(PACKETS_KEPT):
            device.loader.read_reg(address)
        assert len(device.loader.packets) == PACKETS_KEPT
        assert len(list(device.loader.packets)) == PACKETS_KEPT


def test_a_caller_sees_the_packets_of_a_connection_that_failed() -> None:
    packets: list[Packet] = []
    with pytest.raises(espwire.ConnectError):
        espwire.connect(
            MUTE,
            on_packet=packets.append,
            settings=espwire.Settings(retry=espwire.RetryPolicy(connect_attempts=1)),
            stub=False,
        )
    assert packets
    assert all("> SYNC" in describe_packet(packet) for packet in packets)


def test_a_failure_of_the_chip_leaves_a_file_and_names_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--port", CHIP, "--chip", "esp32", "read-mac"]) == 4
    told = re.search(r"^trace: (.*) contains", capsys.readouterr().err, re.MULTILINE)
    assert told is not None
    text = Path(told[1]).read_text("utf-8")
    assert Path(told[1]).parent == folder
    assert "[wrong-chip]" in text
    assert "> SYNC" in text
    assert "< SYNC value=" in text
    assert main(["--json", "--port", CHIP, "--chip", "esp32", "read-mac"]) == 4
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "[wrong-chip]" in Path(last["details"]["trace_file"]).read_text("utf-8")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--port", CHIP, "read-mac"], 0),
        (["--port", CHIP, "read-flash", "0x400000", "1", "out.bin"], 2),
        (["--port", CHIP, "write-flash", "0", "missing.bin"], 6),
        (["--port", CHIP, "read-flash", "0", "16", "no-such-folder/out.bin"], 6),
        (
            ["--port", "virtual:esp8266", "--no-stub", "read-flash", "0", "16", "out.bin"],
            5,
        ),  # nothing was sent that could tell
        (["--port", CHIP, "--no-state", "--chip", "esp32", "read-mac"], 4),
        (["--port", "no-such-port", "read-mac"], 3),
        (["no-such-command"], 2),
    ],
)
def test_success_wrong_words_and_wrong_files_leave_none(
    folder: Path, words: list[str], code: int
) -> None:
    assert main(words) == code
    assert not list(folder.glob("espwire-trace-*")) if folder.exists() else True


def test_a_bug_leaves_one_too(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espwire.flash.write.execute", lambda *_, **__: 1 / 0)
    Path("a.bin").write_bytes(b"abcd")
    assert main(["--port", CHIP, "write-flash", "0x10000", "a.bin"]) == 70
    assert "trace: " in capsys.readouterr().err


def test_only_the_newest_files_stay(folder: Path) -> None:
    folder.mkdir()
    for number in range(KEPT_FILES + 3):
        (folder / f"espwire-trace-2000010{number:03}.txt").write_text("old")
    (folder / "state.json").write_text("{}")
    assert main(["--port", CHIP, "--chip", "esp32", "read-mac"]) == 4
    left = sorted(path.name for path in folder.glob("espwire-trace-*"))
    assert len(left) == KEPT_FILES
    assert not left[-1].startswith("espwire-trace-2000")
    assert (folder / "state.json").exists()


def test_a_folder_that_cannot_be_made_changes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_text("in the way")
    assert main(["--port", CHIP, "--chip", "esp32", "read-mac"]) == 4
    err = capsys.readouterr().err
    assert "[wrong-chip]" in err
    assert "trace: " not in err


@pytest.mark.parametrize("stub", [[], ["--no-stub"]])
@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_a_traced_run_sends_the_same_bytes(
    folder: Path, chip: str, stub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    write = VirtualTransport.write

    def record(self: VirtualTransport, data: bytes, deadline: float) -> None:
        sent.append(data)
        write(self, data, deadline)

    monkeypatch.setattr(VirtualTransport, "write", record)
    # transfer ids come from a counter that runs on over connections
    for module in ("loader", "backends.stub"):
        monkeypatch.setattr(f"espwire.device.{module}._TOKENS", cycle([0x5A0001]))
    Path("a.bin").write_bytes(random.Random(chip).randbytes(24_000))
    runs: list[list[bytes]] = []
    for trace in ([], ["--trace"]):
        port = ["--port", f"virtual:{chip}?size=4MB"]
        assert main([*port, *trace, *stub, "write-flash", "0x10000", "a.bin"]) == 0
        assert main([*port, *trace, *stub, "--no-state", "flash-id"]) == 0
        runs.append(sent.copy())
        sent.clear()
    assert runs[0] == runs[1]
    assert sum(map(len, runs[0])) > 1000
