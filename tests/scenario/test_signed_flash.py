"""`secure signature-info` and `verify-signature` on the images in a device's flash, plain and encrypted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_host_key import FLASH_SIZE, KEYS, Board, boot_image, build_partitions, codes

from espwire.chips.registry import load_chip
from espwire.cli.main import main
from espwire.image.codec import build, create_image
from espwire.image.model import Segment


@pytest.fixture
def board(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Board:
    """An ESP32-C3 without flash encryption, with a signed bootloader and a signed application."""
    board = Board(tmp_path, capsys)
    board.query = "size=1MB&profile=instant"
    fill(board)
    return board


def fill(board: Board, *, encrypted: bool = False) -> None:
    """Bootloader signed by key a, application by keys a and b."""
    offline(board, "generate-signing-key", "-v", "2", "-s", "ecdsa256", board.path("a.pem"))
    offline(board, "generate-signing-key", "-v", "2", "-s", "ecdsa256", board.path("b.pem"))
    boot = board.file("boot.bin", board.boot)
    app = board.file("app.bin", boot_image(board.chip))
    offline(board, "sign-data", "-v", "2", "-k", board.path("a.pem"), boot)
    offline(
        board, "sign-data", "-v", "2", "-k", board.path("a.pem"), "-k", board.path("b.pem"), app
    )
    flash = bytearray(b"\xff" * FLASH_SIZE)
    for at, data in (
        (board.offset, boot.read_bytes()),
        (0x8000, build_partitions()),
        (0x10000, app.read_bytes()),
    ):
        padded = data + b"\xff" * (-len(data) % 16)
        held = board.cipher.encrypt(padded, at) if encrypted else padded
        flash[at : at + len(held)] = held
    board.flash_path.write_bytes(flash)


def offline(board: Board, *words: object) -> None:
    assert main(["secure", *map(str, words)]) == 0
    board.capsys.readouterr()


def damage(board: Board, address: int) -> None:
    flash = bytearray(board.flash_path.read_bytes())
    flash[address] ^= 1
    board.flash_path.write_bytes(flash)


def states(board: Board, *words: object) -> dict[str, list[str]]:
    images = board.run("secure", "signature-info", *words)[-1]["data"]["images"]
    return {image["name"]: [block["state"] for block in image["blocks"]] for image in images}


BOTH = {"bootloader": ["valid", "absent", "absent"], "app0": ["valid", "valid", "absent"]}


def test_all_three_blocks_of_every_image_are_shown(board: Board) -> None:
    before = board.flash_path.read_bytes()
    assert states(board) == BOTH
    assert states(board, "--at", "app0") == {"app0": BOTH["app0"]}
    assert states(board, "--at", "bootloader", "--at", "0x10000") == {
        "bootloader": BOTH["bootloader"],
        "0x10000": BOTH["app0"],
    }
    damage(board, 0x11000 + 600)  # block 0 of the application; block 1 still counts
    assert states(board, "--at", "app0") == {"app0": ["damaged", "valid", "absent"]}
    damage(board, 0x10040)
    assert states(board, "--at", "app0") == {"app0": ["damaged", "other data", "absent"]}
    damage(board, 0x11000 + 600)
    damage(board, 0x10040)
    assert board.flash_path.read_bytes() == before


def test_every_image_must_be_signed_by_the_key(board: Board) -> None:
    a, b = board.path("a.pem"), board.path("b.pem")
    rows = board.run("secure", "verify-signature", "-v", "2", "-k", a)[-1]["data"]["images"]
    assert rows == [
        {"name": "bootloader", "address": 0, "block": 0},
        {"name": "app0", "address": 0x10000, "block": 0},
    ]
    error = board.run("secure", "verify-signature", "-v", "2", "-k", b, code=6)[-1]
    assert error["code"] == "signature-invalid"
    assert error["message"].startswith("bootloader at 0x0: no signature is by this key")
    assert error["details"]["verified"] == [{"name": "app0", "address": 0x10000, "block": 1}]
    board.run("secure", "verify-signature", "-v", "2", "-k", b, "--at", "app0")


def test_version_1_is_found_right_behind_the_application(board: Board) -> None:
    key, app = board.path("v1.pem"), board.file("v1.bin", boot_image(board.chip))
    offline(board, "generate-signing-key", key)
    offline(board, "sign-data", "-v", "1", "-k", key, app)
    board.run("write-flash", "--no-keep", "0x10000", app)
    rows = board.run("secure", "verify-signature", "-v", "1", "-k", key)[-1]["data"]["images"]
    assert rows == [{"name": "app0", "address": 0x10000, "block": 0}]
    error = board.run("secure", "verify-signature", "-v", "1", "-k", board.path("a.pem"), code=6)[
        -1
    ]
    assert error["code"] == "signature-invalid"


@pytest.mark.parametrize(("chip", "size"), [("esp32", 32), ("esp32c3", 32), ("esp32s3", 64)])
def test_encrypted_flash_needs_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chip: str, size: int
) -> None:
    board = Board(tmp_path, capsys, chip=chip, key=KEYS[size])
    fill(board, encrypted=True)
    assert board.run("secure", "signature-info", code=5)[-1]["code"] == "flash-encrypted"
    assert states(board, "--key", board.path("key.bin")) == BOTH
    words = ("secure", "verify-signature", "-v", "2", "-k", board.path("a.pem"))
    board.run(*words, "--key", board.path("key.bin"))
    damage(board, board.offset + 64)
    error = board.run(*words, "--key", board.path("key.bin"), code=6)[-1]
    assert "bootloader at" in error["message"]
    assert "made for other data" in error["message"]


def test_what_cannot_be_shown_is_one_error(board: Board) -> None:
    for words, code, exit_code in (
        (("--at", "missing"), "partition-unknown", 6),
        (("--at", "0x20000"), "image-magic", 6),
        (("--at", "0x20000000"), "image-magic", 6),
        (("--skip-padding",), "usage", 2),
        ((board.path("app.bin"), "--at", "app0"), "usage", 2),
    ):
        assert board.run("secure", "signature-info", *words, code=exit_code)[-1]["code"] == code
    board.run("erase-region", "0x11000", "0x1000")
    board.run("erase-region", "0x2000", "0x1000")
    board.run("erase-region", "0x1000", "0x1000")
    assert board.run("secure", "signature-info", code=6)[-1]["code"] == "not-signed"
    board.query += "&secure-download=1"
    assert board.run("secure", "signature-info", code=5)[-1]["code"] == "cannot-read-flash"


def test_a_signed_bootloader_must_not_reach_the_partition_table(board: Board) -> None:
    code = Segment(0x3FC80000, bytes(0x7800))
    boot = board.file(
        "boot.bin", build(create_image([code], code.address, chip=load_chip("esp32c3")))
    )
    offline(board, "sign-data", "-v", "2", "-k", board.path("a.pem"), boot)
    assert boot.stat().st_size == 0x9000
    before = board.flash_path.read_bytes()
    error = board.run("write-flash", "0", boot, code=8)[-1]
    assert error["details"]["consents"] == ["bootloader-size"]
    assert (
        "ends at 0x9000, behind 0x8000, where the partition table is in flash" in error["message"]
    )
    assert board.flash_path.read_bytes() == before
    elsewhere = board.file("table.bin", build_partitions(0xA000))
    board.run("write-flash", "0", boot, "0xa000", elsewhere)
    board.run("write-flash", "0", boot)  # no table is at 0x8000 now
    board.query += "&secure-download=1"
    events = board.run("write-flash", "--flash-size", "keep", "0", boot, "--no-keep")
    assert "bootloader-size" in codes(events)


@pytest.mark.parametrize("secure", [True, False])
def test_an_older_security_version_is_a_warning(tmp_path: Path, capsys: Any, secure: bool) -> None:
    board = Board(tmp_path, capsys)
    board.query = f"size=1MB&profile=instant&efuse={board.path('fuses.bin').as_posix()}"
    fill(board)
    app = bytearray(256)
    app[:8] = (0xABCD5432).to_bytes(4, "little") + (1).to_bytes(4, "little")
    code = Segment(0x3C000020, bytes(app) + bytes(64))
    path = board.file(
        "app.bin", build(create_image([code], code.address, chip=load_chip("esp32c3")))
    )
    offline(board, "generate-signing-key", "-v", "2", board.path("rsa.pem"))
    offline(board, "sign-data", "-v", "2", "-k", board.path("rsa.pem"), path)
    burn = ("efuse", "--do-not-confirm")
    if not secure:
        assert "older-security-version" not in codes(board.run("write-flash", "0x10000", path))
        board.run(*burn, "burn-efuse", "SECURE_VERSION", "3")
        assert "older-security-version" in codes(board.run("write-flash", "0x10000", path))
        return
    board.run(*burn, "burn-key-digest", "BLOCK_KEY0", board.path("rsa.pem"), "SECURE_BOOT_DIGEST0")
    board.run(*burn, "burn-efuse", "SECURE_BOOT_EN", "1", "SECURE_VERSION", "1")
    assert "older-security-version" not in codes(board.run("write-flash", "0x10000", path))
    board.run(*burn, "burn-efuse", "SECURE_VERSION", "3")  # two bits: version 2
    events = board.run("write-flash", "0x10000", path)
    text = next(event["text"] for event in events if event.get("code") == "older-security-version")
    assert "has security version 1, below the 2 in the eFuses" in text
