"""Programs from PyPI that import esptool, unmodified, with espwire-compat in esptool's place: they flash virtual chips.

``make clients`` installs them; ``ESPWIRE_CLIENTS`` names its folder. Without it these tests skip, unless
``ESPWIRE_REQUIRE_PEERS`` is set. The drivers in ``clients/`` call what the client's own command would.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import espwire

DRIVERS = Path(__file__).parent / "clients"
HELLO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"


@pytest.fixture(scope="session")
def clients() -> Path:
    path = os.environ.get("ESPWIRE_CLIENTS")
    if not path:
        if os.environ.get("ESPWIRE_REQUIRE_PEERS"):
            pytest.fail(
                "ESPWIRE_REQUIRE_PEERS is set, but ESPWIRE_CLIENTS does not name the folder of `make clients`"
            )
        pytest.skip(
            "needs the programs that `make clients` installs: set ESPWIRE_CLIENTS to its folder"
        )
    return Path(path).resolve()


def run(client: Path, *command: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """The command as the client's environment runs it: with the folder of its programs in front, as for those."""
    programs = client / ("Scripts" if os.name == "nt" else "bin")
    environment = os.environ | {
        "PYTHONPATH": str(programs),
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
    }
    program = shutil.which(str(command[0]), path=str(programs))
    assert program, command[0]
    return subprocess.run(
        [program, *map(str, command[1:])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def image_for(chip: str, folder: Path) -> tuple[Path, int]:
    """A file to flash, and where its chip boots from."""
    path = folder / "firmware.bin"
    if chip == "esp32c3":
        path.write_bytes(HELLO.read_bytes())
    else:  # ESPHome and mpflash pass raw data on as it is
        path.write_bytes(bytes([0x55]) + os.urandom(9_999))
    return path, 0x1000 if chip == "esp32" else 0


@pytest.mark.parametrize("chip", ["esp32c3", "esp8266", "esp32s3"])
def test_esphome_uploads(clients: Path, chip: str, tmp_path: Path) -> None:
    file, _ = image_for(chip, tmp_path)
    flash = tmp_path / "flash.bin"
    port = f"virtual:{chip}?size=4MB&flash={flash}"
    done = run(
        clients / "esphome",
        "python",
        DRIVERS / "esphome_upload.py",
        chip,
        port,
        file,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hash of data verified." in done.stdout
    assert flash.read_bytes()[: file.stat().st_size] == file.read_bytes()


def test_esphome_reports_an_upload_that_failed(clients: Path, tmp_path: Path) -> None:
    file, _ = image_for("esp32c3", tmp_path)
    driver = DRIVERS / "esphome_upload.py"
    done = run(
        clients / "esphome", "python", driver, "esp32c3", "virtual:esp32", file, folder=tmp_path
    )
    assert done.returncode not in (0, None)
    assert "not an ESP32-C3" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("chip", ["esp32c3", "esp32", "esp8266"])
def test_mpflash_erases_and_flashes(clients: Path, chip: str, tmp_path: Path) -> None:
    file, offset = image_for(chip, tmp_path)
    flash = tmp_path / "flash.bin"
    flash.write_bytes(b"old!" * 0x100000)
    port = f"virtual:{chip}?size=4MB&flash={flash}"
    done = run(
        clients / "mpflash",
        "python",
        DRIVERS / "mpflash_flash.py",
        chip,
        port,
        file,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    content, size = flash.read_bytes(), file.stat().st_size
    assert content[offset : offset + size] == file.read_bytes()
    assert content[:offset] + content[offset + size :] == b"\xff" * (0x400000 - size)


def test_pytest_embedded_finds_erases_and_resets_the_board(clients: Path, tmp_path: Path) -> None:
    shutil.copy(DRIVERS / "embedded_dut.py", tmp_path / "test_dut.py")
    flash = tmp_path / "flash.bin"
    flash.write_bytes(b"old!" * 0x100000)
    options = [
        "--embedded-services",
        "esp,serial",
        "--port",
        f"virtual:esp32c3?size=4MB&flash={flash}",
    ]
    done = run(
        clients / "pytest-embedded",
        "pytest",
        "-p",
        "no:cacheprovider",
        "test_dut.py",
        *options,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    assert flash.read_bytes() == b"\xff" * 0x400000


@pytest.mark.parametrize("chip", ["esp32", "esp32p4"])
def test_esp_coredump_detects_the_chip(clients: Path, chip: str, tmp_path: Path) -> None:
    driver = DRIVERS / "coredump_detect.py"
    done = run(clients / "esp-coredump", "python", driver, f"virtual:{chip}", folder=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"target {chip}" in done.stdout


def test_esp_coredump_detects_a_chip_behind_a_server(clients: Path, tmp_path: Path, serve) -> None:
    served = serve("esp32c6", "--tcp", "127.0.0.1:0")
    done = run(
        clients / "esp-coredump",
        "python",
        DRIVERS / "coredump_detect.py",
        served.port,
        folder=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "target esp32c6" in done.stdout
