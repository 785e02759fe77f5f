"""The program as a process: readers that leave, signals, and consoles that lack signs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import espwire

DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
PROGRAM = [sys.executable, "-m", "espwire"]


def test_a_reader_who_leaves_does_not_stop_the_writing(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    line = [*PROGRAM, "-p", f"virtual:esp32c3?flash={flash.as_posix()}", "write-flash", "0", str(DEMO)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert errors == b""
    with flash.open("rb") as file:
        assert file.read(DEMO.stat().st_size) == DEMO.read_bytes()


def test_a_console_without_the_sign_still_gets_the_text() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, "é"], capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert b"\\xe9" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
def test_sigterm_unwinds_and_leaves_no_half_file(tmp_path: Path) -> None:
    out = tmp_path / "out.bin"
    # paced: 1 MB at 115200 would take minutes, so it is certainly still at work when the signal comes
    line = [*PROGRAM, "--json", "-p", "virtual:esp32c3?pace=1", "read-flash", "0", "1M", str(out)]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for event in process.stdout:
            if '"Progress"' in event:
                break
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, the test included")
def test_sigint_is_exit_130_with_one_clear_line(tmp_path: Path) -> None:
    line = [*PROGRAM, "-v", "-p", "virtual:esp32c3?pace=1", "read-flash", "0", "1M", str(tmp_path / "out.bin")]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if "Found" in text:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.startswith("error: stopped by Ctrl-C [cancelled]\nhint: ")
    assert list(tmp_path.iterdir()) == []
