"""The pytest plugin on virtual chips: in a pytest of its own, as users run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FIRMWARE_TESTS = """
import pytest

def test_starts(flashed, console):
    assert console.expect(r"boot:0x\\w+ \\((\\w+)\\)")[1] == "SPI_FAST_FLASH_BOOT"

def test_starts_again(console, flashed):
    console.expect("SPI_FAST_FLASH_BOOT", fail="Guru")

def test_flash(flashed):
    import espwire
    assert espwire.read_flash(flashed, 0x20000, 4) == b"data"
    assert flashed.chip.name == "ESP32-C3"

def test_missing(console):
    console.expect("never printed", timeout=1.5)
"""


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_firmware_is_flashed_and_listened_to(tmp_path: Path) -> None:
    (tmp_path / "test_firmware.py").write_text(FIRMWARE_TESTS)
    (tmp_path / "data.bin").write_bytes(b"data")
    port = "virtual:esp32c3?profile=instant&size=2MB"
    code, out = run(
        tmp_path, "--espwire-port", port, "--espwire-firmware", "0x20000=data.bin", "-rA"
    )
    assert code == 1, out
    assert "3 passed, 1 failed" in out or "1 failed, 3 passed" in out, out
    assert "no line with 'never printed' within 1.5 s" in out
    assert "[no-line] Its last line was: " in out
    assert "src/espwire" not in out  # no traceback through the library


def test_a_missing_port_or_firmware_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_firmware.py").write_text("def test_it(flashed): pass\n")
    code, out = run(tmp_path)
    assert code == 1
    assert "this test needs a board: give its port with --espwire-port" in out
    code, out = run(tmp_path, "--espwire-port", "virtual:esp32c3?profile=instant")
    assert code == 1
    assert "this test needs firmware: give it with --espwire-firmware" in out
    code, out = run(
        tmp_path, "--espwire-port", "virtual:esp32c3?profile=instant", "--espwire-firmware", "x"
    )
    assert "--espwire-firmware x: neither a build nor ADDRESS=FILE" in out
    code, out = run(tmp_path, "--espwire-port", "no-such-port")
    assert "port no-such-port not found" in out
    report, _, _ = out.partition(
        "short test summary info"
    )  # in CI, pytest repeats the message there
    assert report.count("[port-not-found] ") == 1
    assert "src/espwire" not in out
