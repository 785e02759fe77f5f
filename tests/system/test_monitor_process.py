"""`espwire monitor` without a terminal: pipes, signals, a server that comes back, and command lines it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.monitor.keys import MonitorCommand
from espwire.monitor.loop import Monitor

PROGRAM = [sys.executable, "-m", "espwire"]


def start(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    line = [*PROGRAM, "monitor", *words]
    return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, text=True, encoding="utf-8")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_pipe_gets_the_chip_s_text_alone_and_a_signal_ends_it(number: int, code: int) -> None:
    with start("-p", "virtual:esp32?boot=app", "--reset") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        said = [process.stdout.readline() for _ in range(3)]
        notes = "".join(process.stderr.readline() for _ in range(3))
        process.send_signal(number)
        rest, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert said[0].startswith("ets ")
    assert "---" not in "".join(said) + rest
    assert "--- boot:0x13 means start from flash: GPIO0 was high at reset (power-on)\n" in notes
    assert errors == ""


def test_a_reader_who_leaves_ends_it() -> None:
    with start("-p", "virtual:esp32?boot=app", "--reset") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        notes = process.stderr.read()
    assert process.returncode == 1
    assert "Traceback" not in notes
    assert "Exception ignored" not in notes


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_a_server_that_comes_back_is_followed(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with start("-p", f"socket://127.0.0.1:{port}", "--log", str(log)) as process:
            assert process.stdout is not None
            for text in (b"one\r\ntw", b"three\r\n"):
                client, _ = server.accept()
                with client:
                    client.sendall(text)
                    assert process.stdout.readline() in ("one\n", "twthree\n")
                    if text.startswith(b"three"):
                        process.terminate()
                        process.wait(30)
    said = log.read_text("utf-8").splitlines()
    assert [line for line in said if not line.startswith("---")] == ["one", "tw", "three"]
    assert process.returncode == 143


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_a_busy_port_is_an_error_and_raw_bytes_pass_as_they_come() -> None:
    import pty
    import tty

    master, slave = pty.openpty()
    tty.setraw(slave)
    words = ["monitor", "-p", os.ttyname(slave)]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(
            [*PROGRAM, *words, "--raw"], stdin=pipe, stdout=pipe, stderr=pipe
        ) as process:
            assert process.stderr is not None
            assert process.stdout is not None
            assert b"115200" in process.stderr.readline()
            assert main(words) == 3
            os.write(master, bytes(range(256)))
            said = process.stdout.read(256)
            process.terminate()
        assert said == bytes(range(256))
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    "words",
    [
        ["--json"],
        ["--append"],
        ["--raw", "--timestamps"],
        ["--eol", "none"],
    ],
)
def test_what_makes_no_sense_is_refused(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-p", "virtual:esp32", "monitor", *words]) == 2
    said = capsys.readouterr()
    assert "usage" in said.out + said.err


def test_a_port_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert main(["-p", str(tmp_path / "nothing"), "monitor"]) == 3


@pytest.mark.parametrize(("words", "baud"), [((), 115200), (("-b", "74880"), 74880)])
def test_only_a_rate_given_on_the_command_line_counts(
    words: tuple[str, ...], baud: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate from a variable is for flashing; at it the chip's text would be noise."""
    seen: list[int] = []

    def run(self: Monitor) -> MonitorCommand:
        seen.append(self._options.baud)
        return MonitorCommand.QUIT

    monkeypatch.setattr(Monitor, "run", run)
    monkeypatch.setenv("ESPWIRE_BAUD", "921600")
    assert main(["-p", "virtual:esp32", *words, "monitor", "--no-input"]) == 0
    assert seen == [baud]
