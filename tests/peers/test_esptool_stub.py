"""esptool 5.6.0, unmodified, *with* its stub, against the virtual chip's imitation of that stub (``stub=vendor``)."""

import re
import subprocess

import pytest

from espwire.chips.registry import load_chip

MAC = "24:0a:c4:01:02:03"
PAYLOAD = bytes(range(256)) * 70 + bytes(3000) + b"the end of an odd-sized file"
CHIPS = ["esp8266", "esp32", "esp32c3"]


@pytest.fixture(params=CHIPS)
def board(request, esptool, serve, tmp_path):
    """esptool as a function, what stands in flash, and the chip's name."""
    chip, flash = request.param, tmp_path / "flash.bin"
    flash.write_bytes(b"\x5a" * (4 << 20))
    served = serve(
        chip, "--tcp", "127.0.0.1:0", "--flash", str(flash), "--size", "4MB", "--mac", MAC, "--set", "stub=vendor"
    )

    def run(*arguments):
        # the stub is still there for the next call, as on a board that nobody resets
        fixed = ["--chip", chip, "--before", "no-reset", "--after", "no-reset", "--port", served.port]
        done = subprocess.run([esptool, *fixed, *arguments], capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run, flash, load_chip(chip).name


def test_every_command_works_with_the_stub(board, tmp_path):
    run, flash, name = board
    payload = tmp_path / "payload.bin"
    payload.write_bytes(PAYLOAD)
    out = run("read-mac")
    assert re.search(rf"Connected to {re.escape(name)} on", out), out
    assert "Stub flasher running" in out, out
    assert MAC in out.lower()
    out = run("flash-id")
    assert "Detected flash size: 4MB" in out
    assert re.search(r"Manufacturer: ef\b", out)
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
