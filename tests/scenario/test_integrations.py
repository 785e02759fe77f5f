"""The commands of docs/guide/integrations.md, taken from the page, on virtual chips and the builds in tests/data."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.virtual.config import parse_options

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/guide/integrations.md").read_text("utf-8")
BUILDS = ROOT / "tests/data/builds"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
FIRMWARE_TEST = """
def test_it_starts(flashed, console):
    console.expect("SPI_FAST_FLASH_BOOT")
"""


def find_blocks(kind: str) -> list[str]:
    return [text for tag, text in BLOCKS if tag == kind]


def flash(words: list[str], chip: str, folder: Path) -> bytes:
    """Run espwire with a virtual chip in place of the port; what its flash holds then."""
    file = folder / "the.flash"
    port = f"virtual:{chip}?profile=instant&flash={file}"
    parse_options(port)
    assert words[:2] == ["espwire", "-p"]
    assert main(["--no-state", "-p", port, *words[3:]]) == 0
    return file.read_bytes()


def test_the_upload_command_of_platformio(tmp_path: Path) -> None:
    ini = configparser.ConfigParser()
    ini.read_string(find_blocks("ini")[0])
    section = ini["env:esp32dev"]
    assert section["upload_protocol"] == "custom"
    build = BUILDS / "platformio-esp32/.pio/build/esp32dev"
    command = section["upload_command"].replace("$UPLOAD_PORT", section["upload_port"])
    words = shlex.split(command.replace("$BUILD_DIR", str(build)))
    assert words[2] == "/dev/ttyUSB0"
    held = flash(words, "esp32", tmp_path)
    app = (build / "firmware.bin").read_bytes()
    assert held[0x10000 : 0x10000 + len(app)] == app


def test_the_task_of_vs_code(tmp_path: Path) -> None:
    task = json.loads(find_blocks("json")[0])["tasks"][0]
    workspace = shutil.copytree(BUILDS / "esp-idf", tmp_path / "hello")
    args = [word.replace("${workspaceFolder}", str(workspace)) for word in task["args"]]
    held = flash([task["command"], *args], "esp32c3", tmp_path)
    app = (workspace / "build/hello_world.bin").read_bytes()
    assert held[0x10000 : 0x10000 + len(app)] == app


@pytest.mark.parametrize(("build", "chip"), [("arduino-esp32", "esp32c3"), ("esp-idf", "esp32c3")])
def test_the_folder_of_an_arduino_sketch_and_of_esp_idf(
    build: str, chip: str, tmp_path: Path
) -> None:
    line = next(line for line in PAGE.splitlines() if line.endswith("flash Blink"))
    words = [*shlex.split(line)[:-1], str(BUILDS / build)]
    image = next((BUILDS / build).rglob("*.partitions.bin" if build[0] == "a" else "*table.bin"))
    table = image.read_bytes()
    assert flash(words, chip, tmp_path)[0x8000 : 0x8000 + len(table)] == table


def find_steps() -> list[str]:
    """The commands of the CI recipes that need no installation and no board."""
    found = re.findall(r"- (?:run: )?((?:espwire|pytest) .*)", "".join(find_blocks("yaml")))
    return [line for line in found if "labgrid" not in line]


def test_the_steps_of_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(BUILDS / "esp-idf/build", tmp_path / "build")
    (tmp_path / "test_firmware.py").write_text(FIRMWARE_TEST)
    steps = find_steps()
    assert [step.split()[0] for step in steps] == ["espwire", "pytest"] * 2
    assert steps[0] == steps[2]
    assert main(["--no-state", *shlex.split(steps[0])[1:]]) == 0
    assert steps[3].startswith(steps[1])
    command = [sys.executable, "-m", *shlex.split(steps[3]), "-p", "no:xdist"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
    assert 'tests="1"' in (tmp_path / "report.xml").read_text("utf-8")
