"""esptool 5.6.0, unmodified, through `serve-port` on a pseudo-terminal and on TCP, with 0 and 50 ms of network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from espwire.transport.url import open_transport
from serving import serving
from slow_network import slow_network

PAYLOAD = bytes(range(256)) * 20 + b"\xff" * 500 + b"the end"


def run(esptool, port, *arguments):
    done = subprocess.run(
        [esptool, "--no-stub", "--port", port, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("kind", ["--pty", "--tcp"])
def test_esptool_flashes_through_a_served_port(esptool, serve, tmp_path, kind, delay):
    flash, payload = tmp_path / "flash.bin", tmp_path / "payload.bin"
    payload.write_bytes(PAYLOAD)
    address = ("127.0.0.1:0",) if kind == "--tcp" else ()
    chip = serve("esp32c3", kind, *address, "--flash", str(flash), "--profile", "instant")
    with (
        serving(lambda: open_transport(chip.port)) as running,
        slow_network(running.address, delay) as near,
    ):
        out = run(
            *(esptool, f"rfc2217://{near}?ign_set_control", "--before", "no-reset"),
            *("write-flash", "0x10000", str(payload)),
        )
    assert "Hash of data verified" in out
    chip.close()
    assert flash.read_bytes()[0x10000 : 0x10000 + len(PAYLOAD)] == PAYLOAD


@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("options", ["", "&kind=usb-jtag"])
def test_esptool_resets_a_served_chip_into_loader_and_application(esptool, options, delay):
    with (
        serving(f"virtual:esp32c3?profile=instant&boot=app{options}") as running,
        slow_network(running.address, delay) as near,
    ):
        assert "ESP32-C3" in run(esptool, f"rfc2217://{near}", "read-mac")
    resets = [note.partition(": ")[2] for note in running.notes if "reset into" in note]
    names = ("usb_jtag", "hard_usb") if options else ("tight", "hard")
    assert resets == [
        f"reset into the loader ({names[0]})",
        f"reset into the application ({names[1]})",
    ]
