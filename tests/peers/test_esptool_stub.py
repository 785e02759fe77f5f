"""esptool, unmodified, with its own stub, against virtual chips as they are by default. Versions 5.6.0, 4.8.1 and 3.3.3.

Its stub is uploaded, recognised by its layout and imitated.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from espwire.chips.registry import chip_ids, load_chip

MAC = "24:0a:c4:01:02:03"
PAYLOAD = bytes(range(256)) * 70 + bytes(3000) + b"the end of an odd-sized file"
NO_STUB = ("esp32e22",)  # esptool 5.6.0 brings none
# version → where its program is, and the chips to use it on: one of each kind of stub
VERSIONS = {
    "4.8.1": ("ESPWIRE_PEER_4_8_1", ("esp8266", "esp32c61", "esp32h2")),
    "3.3.3": ("ESPWIRE_PEER_3_3_3", ("esp8266", "esp32", "esp32s2")),
}


@pytest.fixture
def client(esptool, serve, tmp_path):
    """Start a virtual chip; gives esptool as a function, and the file with the flash's contents."""

    def start(chip, program=esptool, *options):
        flash = tmp_path / "flash.bin"
        flash.write_bytes(b"\x5a" * (4 << 20))
        served = serve(
            chip,
            "--tcp",
            "127.0.0.1:0",
            "--flash",
            str(flash),
            "--size",
            "4MB",
            "--mac",
            MAC,
            *options,
        )
        dash = "-" if program == esptool else "_"

        def run(command, *arguments):
            # the stub is still there for the next call, as on a board that nobody resets
            modes = ["--before", f"no{dash}reset", "--after", f"no{dash}reset"]
            line = [
                program,
                "--chip",
                chip,
                *modes,
                "--port",
                served.port,
                command.replace("-", dash),
                *arguments,
            ]
            done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        return run, flash

    return start


@pytest.mark.parametrize("chip", chip_ids())
def test_flash_id_works_with_the_stub(chip, client):
    run, _ = client(chip)
    out = run("flash-id")
    assert re.search(rf"Connected to {re.escape(load_chip(chip).name)} on", out), out
    assert ("Stub flasher running" in out) is (chip not in NO_STUB), out
    assert "Detected flash size: 4MB" in out
    assert re.search(r"Manufacturer: ef\b", out)


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3", "esp32s2"])
def test_every_command_works_with_the_stub(chip, client, tmp_path):
    run, flash = client(chip)
    payload = tmp_path / "payload.bin"
    payload.write_bytes(PAYLOAD)
    assert MAC in run("read-mac").lower()
    out = run("write-flash", "-z", "0x20000", str(payload))
    assert "Hash of data verified" in out
    whole = flash.read_bytes()
    assert whole[0x20000 : 0x20000 + len(PAYLOAD)] == PAYLOAD
    assert whole[:0x20000] == b"\x5a" * 0x20000
    run("write-flash", "-u", "0x10000", str(payload))
    assert flash.read_bytes()[0x10000 : 0x10000 + len(PAYLOAD)] == PAYLOAD
    assert "Verification successful" in run("verify-flash", "0x10000", str(payload))
    read = tmp_path / "read.bin"
    run("read-flash", "0x10000", str(len(PAYLOAD)), str(read))
    assert read.read_bytes() == PAYLOAD
    run("erase-region", "0x11000", "0x1000")
    after = flash.read_bytes()
    assert after[0x11000:0x12000] == b"\xff" * 0x1000
    assert after[0x10000:0x11000] == PAYLOAD[:0x1000]
    run("erase-flash")
    assert flash.read_bytes() == b"\xff" * (4 << 20)


def test_get_security_info_works_while_the_stub_of_an_earlier_run_is_active(client):
    run, _ = client("esp32c3")
    run("flash-id")
    out = run("get-security-info")
    assert "already running" in out
    assert "Chip ID: 5" in out


@pytest.mark.parametrize(
    ("version", "chip"), [(v, chip) for v, (_, chips) in VERSIONS.items() for chip in chips]
)
def test_older_versions_work_with_their_stubs(version, chip, client, tmp_path):
    variable, _ = VERSIONS[version]
    program = os.environ.get(variable, "")
    if not Path(program).is_file():
        assert not os.environ.get("ESPWIRE_REQUIRE_PEERS"), (
            f"{variable} does not name esptool {version}"
        )
        pytest.skip(f"needs esptool {version} from PyPI: set {variable} to its program")
    run, flash = client(chip, program)
    payload = tmp_path / "payload.bin"
    payload.write_bytes(PAYLOAD)
    out = run("flash-id")
    assert f"esptool.py v{version}" in out
    assert "Stub running" in out
    assert "Detected flash size: 4MB" in out
    assert "Hash of data verified" in run("write-flash", "0x20000", str(payload))
    assert flash.read_bytes()[0x20000 : 0x20000 + len(PAYLOAD)] == PAYLOAD
    assert "verify OK" in run("verify-flash", "0x20000", str(payload))
    read = tmp_path / "read.bin"
    run("read-flash", "0x20000", str(len(PAYLOAD)), str(read))
    assert read.read_bytes() == PAYLOAD


def test_esptool_resets_a_chip_over_rfc2217(esptool, serve):
    served = serve("esp32", "--rfc2217", "--set", "boot=app")
    line = [esptool, "--no-stub", "--chip", "esp32", "--port", served.port, "read-mac"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hard resetting via RTS pin" in done.stdout
