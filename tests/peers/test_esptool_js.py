"""esptool-js from npm, unmodified, with its own stub, over RFC 2217: resets, rate, flash id, write, verify, read.

``ESPWIRE_PEER_JS`` names the folder with its ``node_modules``. The serial port that it gets is ``esptool_js/serial.mjs``.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "esptool_js"
PAYLOAD = bytes(range(256)) * 30 + b"the end of an odd-sized file"
WRITTEN = ("esp8266", "esp32", "esp32c3", "esp32s3")
# it has no stub for the ESP32-E22 and the ESP32-H21
OTHERS = (
    "esp32s2",
    "esp32c2",
    "esp32c5",
    "esp32c6",
    "esp32c61",
    "esp32h2",
    "esp32h4",
    "esp32p4",
    "esp32s31",
)
WINBOND_4_MB = 0x1640EF


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """The client's program, beside its modules."""
    if shutil.which("node") is None:
        pytest.skip("there is no node on this machine")
    modules = Path(os.environ.get("ESPWIRE_PEER_JS", ""), "node_modules")
    if not (modules / "esptool-js").is_dir():
        assert not os.environ.get("ESPWIRE_REQUIRE_PEERS"), (
            "ESPWIRE_PEER_JS does not name a folder with esptool-js"
        )
        pytest.skip("needs esptool-js from npm: make peer-clients, and set ESPWIRE_PEER_JS")
    folder = tmp_path_factory.mktemp("esptool-js")
    for file in HERE.iterdir():
        shutil.copy(file, folder)
    (folder / "node_modules").symlink_to(modules.resolve())
    return folder / "client.mjs"


def start(script, served, address="-", file=""):
    port = served.port.rpartition(":")[2]
    command = ["node", str(script), "127.0.0.1", port, "default_reset", address, file]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process):
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0, out
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("chip", WRITTEN)
def test_a_file_is_written_verified_and_read(chip, script, serve, tmp_path):
    flash, file = tmp_path / "flash.bin", tmp_path / "payload.bin"
    file.write_bytes(PAYLOAD)
    served = serve(chip, "--rfc2217", "--flash", str(flash), "--size", "4MB", "--set", "boot=app")
    result = finish(start(script, served, "0x10000", str(file)))
    assert result["stub"]
    assert result["md5"] == result["fileMd5"]
    assert result["same"]
    if (
        chip != "esp8266"
    ):  # there esptool-js sets the length of the answer in a register that this chip does not have
        assert result["flashId"] == WINBOND_4_MB
    served.close()
    assert flash.read_bytes()[0x10000 : 0x10000 + len(PAYLOAD)] == PAYLOAD


@pytest.mark.parametrize("chips", [OTHERS[:5], OTHERS[5:]], ids=lambda chips: chips[0])
def test_the_flash_id_is_read_on_every_other_chip(chips, script, serve):
    running = {
        chip: start(script, serve(chip, "--rfc2217")) for chip in chips
    }  # mostly they wait: all at once
    for chip, process in running.items():
        result = finish(process)
        assert (chip, result["stub"], result["flashId"]) == (chip, True, WINBOND_4_MB)
