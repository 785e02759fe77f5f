"""esptool 5.6.0, unmodified, as the client of our virtual chips: what two programs of different authors agree on."""

import random
import re
import subprocess

import pytest
from tests.roms import find_ports

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol import slip
from espwire.protocol.commands import (
    SdcGenBegin,
    SdcGenData,
    SdcGenEnd,
    SdcVerifBegin,
    SdcVerifData,
    SdcVerifEnd,
)
from espwire.secure.debug_certificate import build_certificate, build_chip_info
from espwire.secure.keys import P256, generate_key

DETECTABLE = chip_ids()
MAC = "24:0a:c4:01:02:03"
PAYLOAD = bytes(range(256)) * 20 + b"the end of an odd-sized file"


def run(esptool, port, *arguments, chip="auto", options=()):
    command = [
        esptool,
        *options,
        "--no-stub",
        "--chip",
        chip,
        "--before",
        "no-reset",
        "--after",
        "no-reset",
        "--port",
        port,
    ]
    done = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def use_every_command(esptool, port, chip, flash_file, tmp_path):
    """read-mac, flash-id, write-flash -u; -z, verify-flash, read-flash and erase-region where esptool offers them.

    For the ESP8266 without a stub it offers none of the latter four.
    """
    name = load_chip(chip).name
    payload = tmp_path / "payload.bin"
    payload.write_bytes(PAYLOAD)
    out = run(esptool, port, "read-mac")
    assert re.search(rf"Connected to {re.escape(name)} on", out), out
    assert MAC in out.lower()
    out = run(esptool, port, "flash-id")
    assert "Detected flash size: 4MB" in out
    assert re.search(r"Manufacturer: ef\b", out)
    run(esptool, port, "write-flash", "-u", "0x10000", str(payload))
    assert flash_file.read_bytes()[0x10000 : 0x10000 + len(PAYLOAD)] == PAYLOAD
    if chip != "esp8266":
        run(esptool, port, "write-flash", "-z", "0x20000", str(payload))
        assert flash_file.read_bytes()[0x20000 : 0x20000 + len(PAYLOAD)] == PAYLOAD
        assert "Verification successful" in run(
            esptool, port, "verify-flash", "0x10000", str(payload)
        )
        read = tmp_path / "read.bin"
        run(esptool, port, "read-flash", "0x10000", "0x1000", str(read))
        assert read.read_bytes() == PAYLOAD[:0x1000]
        run(esptool, port, "erase-region", "0x11000", "0x1000")
        after = flash_file.read_bytes()
        assert after[0x11000:0x12000] == b"\xff" * 0x1000
        assert after[0x10000:0x11000] == PAYLOAD[:0x1000]
        assert after[0x12000:0x13000] == b"\xff" * 0x1000


@pytest.mark.parametrize("chip", DETECTABLE)
def test_esptool_works_over_tcp(chip, esptool, serve, tmp_path):
    flash = tmp_path / "flash.bin"
    served = serve(
        chip, "--tcp", "127.0.0.1:0", "--flash", str(flash), "--size", "4MB", "--mac", MAC
    )
    use_every_command(esptool, served.port, chip, flash, tmp_path)
    code, rest, errors = served.close()
    assert (code, rest, errors) == (0, "", "")


@pytest.mark.parametrize("chip", ["esp32c3", "esp32c6", "esp32h2", "esp32s3", "esp32s31"])
def test_esptool_works_with_the_real_rom(chip, esptool, serve, tmp_path):
    roms = [port.split("rom=")[1] for port in find_ports(chip)]
    flash, payload = tmp_path / "flash.bin", tmp_path / "payload.bin"
    payload.write_bytes(random.Random(chip).randbytes(0x4000))
    served = serve(
        chip, "--flash", str(flash), "--mac", MAC, "--rom", roms[0], "--profile", "instant"
    )
    assert MAC in run(esptool, served.port, "read-mac").lower()
    assert "Detected flash size: 4MB" in run(esptool, served.port, "flash-id")
    run(esptool, served.port, "write-flash", "0x10000", str(payload))
    verified = run(esptool, served.port, "verify-flash", "0x10000", str(payload))
    assert "Verification successful" in verified
    assert served.close()[0] == 0
    assert flash.read_bytes()[0x10000:0x14000] == payload.read_bytes()


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_esptool_works_over_a_pty(chip, esptool, serve, tmp_path):
    flash = tmp_path / "flash.bin"
    served = serve(chip, "--pty", "--flash", str(flash), "--size", "4MB", "--mac", MAC)
    use_every_command(esptool, served.port, chip, flash, tmp_path)


def list_writes(trace, marker):
    """The frames that esptool sends from the request ``marker`` on, by its trace."""
    frames = []
    rest = trace[trace.index(marker) :]
    for match in re.finditer(r"Write (\d+) bytes: *", rest):
        size, digits = 2 * int(match[1]), ""
        for line in rest[match.end() :].splitlines():
            digits += re.sub(r"[^0-9a-f]", "", line.partition("|")[0])
            if len(digits) >= size:
                break
        frames.append(bytes.fromhex(digits[:size]))
    return frames


def test_debug_certificates_of_the_esp32s31(esptool, serve, tmp_path):
    served = serve("esp32s31", "--tcp", "127.0.0.1:0", "--mac", MAC)
    mac, info, file = bytes.fromhex(MAC.replace(":", "")), tmp_path / "info", tmp_path / "file"
    words = ("read-sdc-chip-info", "-o", str(info))
    trace = run(esptool, served.port, *words, chip="esp32s31", options=["--trace"])
    content = info.read_bytes()
    nonce = content[32:]
    assert content == b"".join(build_chip_info(mac, 0, nonce))
    requests = [SdcGenBegin(), SdcGenData(nonce), SdcGenEnd()]
    assert list_writes(trace, "SDC_GEN_BEGIN") == [slip.encode(r.packet()) for r in requests]
    certificate = build_certificate(
        generate_key(P256), build_chip_info(mac, 0, nonce), ["enable_jtag"]
    )
    file.write_bytes(certificate)
    words = ("verify-sdc-certificate", str(file))
    trace = run(esptool, served.port, *words, chip="esp32s31", options=["--trace"])
    requests = [SdcVerifBegin(1, 468), SdcVerifData(certificate), SdcVerifEnd()]
    assert list_writes(trace, "SDC_VERIF_BEGIN") == [slip.encode(r.packet()) for r in requests]
