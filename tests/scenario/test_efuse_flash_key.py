"""The flash encryption key in a file of eFuses is the one that the virtual chip encrypts with."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.efuse.store import VirtualStore, open_file
from espwire.secure.flash_encryption import encrypt_esp32, encrypt_xts

KEY = random.Random(3).randbytes(64)
MASK = (1 << 256) - 1
DATA = random.Random(4).randbytes(256)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for size in (16, 24, 32, 64):
        (tmp_path / f"key{size}").write_bytes(KEY[:size])
    (tmp_path / "data.bin").write_bytes(DATA)
    return tmp_path


def write_encrypted(port: str) -> bytes:
    """What the chip puts into flash."""
    options = "&size=1MB&flash=flash.bin&profile=instant"
    line = ["-p", f"virtual:{port}{options}", "write-flash", "--encrypt", "0x20000", "data.bin"]
    assert main([*line, "--no-state", "--allow", "no-flash-key"]) == 0
    return Path("flash.bin").read_bytes()[0x20000:0x20100]


@pytest.mark.parametrize(
    ("chip", "line", "size"),
    [
        ("esp32", "burn-key flash_encryption key32 burn-efuse FLASH_CRYPT_CONFIG 0xF", 32),
        (
            "esp32",
            "burn-efuse CODING_SCHEME 1 FLASH_CRYPT_CONFIG 0x7 burn-key flash_encryption key24",
            24,
        ),
        ("esp32c3", "burn-key BLOCK_KEY3 key32 XTS_AES_128_KEY", 32),
        ("esp32s3", "burn-key BLOCK_KEY1 key64 XTS_AES_256_KEY", 64),
        ("esp32c2", "burn-key BLOCK_KEY0 key32 XTS_AES_128_KEY", 32),
        (
            "esp32c2",
            "burn-key BLOCK_KEY0 key16 XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS",
            16,
        ),
    ],
)
def test_a_burned_key_encrypts(chip: str, line: str, size: int) -> None:
    words = ["efuse", "-c", chip, "--path-efuse-file", "fuses", "--do-not-confirm"]
    commands = line.split(" burn-key ")
    if len(commands) > 1:  # the coding scheme decides on the size of the key
        assert main([*words, *commands[0].split()]) == 0
        commands = [f"burn-key {commands[1]}"]
    assert main([*words, *commands[0].split()]) == 0
    config = open_file("fuses", chip).read().value_of("FLASH_CRYPT_CONFIG")
    if chip == "esp32":
        expected = encrypt_esp32(DATA, 0x20000, KEY[:size], config)
    else:
        expected = encrypt_xts(DATA, 0x20000, KEY[:size])
    assert write_encrypted(f"{chip}?efuse=fuses") == expected


def reverse_blocks(store: VirtualStore) -> list[bytes]:
    """The blocks, and their first halves, with the bytes in the order of a key file."""
    blocks = [(value & MASK).to_bytes(32, "little") for value in store.burned]
    return [block[:size][::-1] for block in blocks for size in (16, 32)]


@pytest.mark.parametrize(
    ("chip", "size"), [("esp32", 32), ("esp32c3", 32), ("esp32s3", 64), ("esp32c2", 16)]
)
def test_a_new_file_has_the_key_of_the_options_and_hides_it(chip: str, size: int) -> None:
    port = f"{chip}?efuse=fuses&flash-key={KEY[:size].hex()}"
    written = write_encrypted(port)
    store = open_file("fuses", chip)
    assert KEY[:16] in [part[:16] for part in reverse_blocks(store)]
    assert store.read().value_of("RD_DIS")
    Path("flash.bin").unlink()
    assert write_encrypted(f"{chip}?efuse=fuses") == written  # the file alone decides
    assert written != DATA


def test_a_key_that_is_burned_over_the_line_encrypts_after_the_next_connection() -> None:
    port = "esp32c3?efuse=fuses"
    line = ["-p", f"virtual:{port}&profile=instant", "efuse", "--do-not-confirm"]
    assert main([*line, "burn-key", "BLOCK_KEY0", "key32", "XTS_AES_128_KEY"]) == 0
    assert write_encrypted(port) == encrypt_xts(DATA, 0x20000, KEY[:32])
