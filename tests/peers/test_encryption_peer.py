"""espsecure and esptool 5.6.0 against ours: ciphertext byte by byte, encrypted and partial writes, pins on the wire."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from espwire.chips.registry import load_chip
from espwire.device.flash_id import build_attach_word, parse_connection
from espwire.secure.flash_encryption import encrypt_esp32, encrypt_xts

DATA = bytes(range(256)) * 64
KEY = bytes(range(100, 132))


@pytest.fixture
def espsecure(esptool):
    path = Path(esptool).with_name("espsecure")
    if not path.exists():
        path = path.with_name("espsecure.py")
    assert path.exists(), "espsecure comes with esptool"
    return str(path)


def ask(espsecure, folder, data, address, key, *words):
    (folder / "key").write_bytes(key)
    (folder / "plain").write_bytes(data)
    command = [
        espsecure,
        "encrypt-flash-data",
        *words,
        "-k",
        "key",
        "-a",
        hex(address),
        "-o",
        "out",
        "plain",
    ]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return (folder / "out").read_bytes()


@pytest.mark.parametrize(
    ("size", "address", "length"),
    [(32, 0x10, 48), (32, 0x20070, 160), (64, 0, 256), (64, 0x7FFF80, 1024)],
)
def test_xts_ciphertext_is_espsecure_s(espsecure, tmp_path, size, address, length):
    chance = random.Random(size + address)
    key, data = chance.randbytes(size), chance.randbytes(length)
    assert encrypt_xts(data, address, key) == ask(
        espsecure, tmp_path, data, address, key, "--aes-xts"
    )


@pytest.mark.parametrize(("size", "address", "config"), [(32, 0xABCDE0, 0xF), (24, 0x10000, 0x5)])
def test_the_esp32_s_ciphertext_is_espsecure_s(espsecure, tmp_path, size, address, config):
    chance = random.Random(size)
    key, data = chance.randbytes(size), chance.randbytes(512)
    assert encrypt_esp32(data, address, key, config) == ask(
        espsecure, tmp_path, data, address, key, "--flash-crypt-conf", hex(config)
    )


def write(program, port, *words):
    command = [
        *program,
        "--no-stub",
        "--chip",
        "esp32c3",
        "--before",
        "no-reset",
        "--after",
        "no-reset",
    ]
    return subprocess.run(
        [*command, "--port", port, "write-flash", *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "words",
    [
        ("--encrypt", "0x10000", "{a}"),
        ("0x10000", "{a}", "--encrypt-files", "0x20000", "{b}", "0x30000", "{odd}"),
        ("-z", "--encrypt", "0x10000", "{odd}"),
        ("--encrypt", "0x10008", "{a}"),
        ("0x10000", "{b}", "--diff-with", "{a}"),
        ("-s", "0x10000", "{a}"),
        ("0x10000", "{a}", "--trust-flash-content"),
    ],
)
def test_esptool_and_espwire_leave_the_same_flash(esptool, serve, tmp_path, words):
    (tmp_path / "a.bin").write_bytes(DATA)
    (tmp_path / "b.bin").write_bytes(DATA[:0x1800] + b"!" + DATA[0x1801:])
    (tmp_path / "odd.bin").write_bytes(b"0123456789")
    names = {name: str(tmp_path / f"{name}.bin") for name in ("a", "b", "odd")}
    left = []
    for program in ([esptool], [sys.executable, "-m", "espwire", "--no-state"]):
        flash = tmp_path / f"flash{len(left)}"
        served = serve(
            "esp32c3", "--size", "4MB", "--flash", str(flash), "--profile", "instant",
            "--set", "flash-encryption=1", "--set", f"flash-key={KEY.hex()}",
        )  # fmt: skip
        done = write(program, served.port, *(word.format(**names) for word in words))
        left.append((done.returncode == 0, flash.read_bytes()))
    assert left[0] == left[1]


@pytest.mark.parametrize(
    ("chip", "text"), [("esp32", "6,17,8,11,16"), ("esp32", "HSPI"), ("esp32s3", "1,2,3,46,48")]
)
def test_pins_are_sent_in_the_same_word(esptool, serve, chip, text):
    port = serve(chip, "--size", "4MB", "--profile", "instant").port
    command = [
        esptool,
        "--no-stub",
        "--trace",
        "-c",
        chip,
        "--before",
        "no-reset",
        "--after",
        "no-reset",
        "-p",
        port,
    ]
    done = subprocess.run(
        [*command, "flash-id", "-sc", text], capture_output=True, text=True, timeout=60, check=False
    )
    sent = re.search(r"SPI_ATTACH.*?data ([0-9a-f]{8})", done.stdout + done.stderr)
    assert sent, done.stdout + done.stderr
    assert int.from_bytes(bytes.fromhex(sent[1]), "little") == build_attach_word(
        load_chip(chip), parse_connection(text)
    )
