"""The format of backups: its parts, what a common tool finds in it, and every kind of damage."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from espwire.errors import DataError, FileError
from espwire.files import open_output
from espwire.image import backup_file
from espwire.image.backup_file import (
    Backup,
    Board,
    parse_backup,
    plan_parts,
    read_backup,
    write_backup,
)
from espwire.image.partial_read import PartialRead
from espwire.image.partition_csv import decode_csv, parse_csv
from espwire.image.partition_table import build_table

SIZE, FUZZ_CASES = 0x100000, 600
BOARD = Board("esp32c3", "24:6f:28:aa:bb:cc", "ef4014", SIZE, False)
ROWS = b"nvs,data,nvs,0x9000,0x5000,\nphy,data,phy,0xe000,0x1000\napp0,app,ota_0,0x10000,0x80000\n"


def make_flash(rows: bytes = ROWS) -> bytes:
    flash = bytearray(b"\xff" * SIZE)
    flash[0:0x1000] = random.Random(1).randbytes(0x1000)
    table = build_table(parse_csv(decode_csv(rows)))
    flash[0x8000 : 0x8000 + len(table)] = table
    flash[0x9000:0x9800] = random.Random(2).randbytes(0x800)
    flash[0x10000:0x14001] = random.Random(3).randbytes(0x4001)
    return bytes(flash)


FLASH = make_flash()


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("backup") / "board.zip"
    with open_output(path) as file:
        write_backup(file, BOARD, FLASH, plan_parts(FLASH))
    return path.read_bytes()


def rebuild(packed: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The zip file with its files changed, and their CRCs right."""
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return target.getvalue()


def edit(packed: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The zip file with its manifest changed."""

    def change_file(files: dict[str, bytes]) -> None:
        manifest = json.loads(files["manifest.json"])
        change(manifest)
        files["manifest.json"] = json.dumps(manifest).encode()

    return rebuild(packed, change_file)


def test_a_backup_reads_back_as_it_was_written(packed: bytes) -> None:
    backup = parse_backup(packed)
    assert (backup.board, backup.flash) == (BOARD, FLASH)
    assert [
        (part.name, part.kind, part.address, part.size, part.stored) for part in backup.parts
    ] == [
        ("bootloader", "bootloader", 0, 0x8000, 0x1000),
        ("partition-table", "partition-table", 0x8000, 0x1000, 0x1000),
        ("nvs", "data/nvs", 0x9000, 0x5000, 0x1000),
        ("phy", "data/phy", 0xE000, 0x1000, 0),
        ("gap", "gap", 0xF000, 0x1000, 0),
        ("app0", "app/ota_0", 0x10000, 0x80000, 0x5000),
        ("gap", "gap", 0x90000, 0x70000, 0),
    ]


def test_a_common_tool_finds_a_file_per_partition(packed: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            "manifest.json",
            "0x000000-bootloader.bin",
            "0x008000-partition-table.bin",
            "0x009000-nvs.bin",
            "0x010000-app0.bin",
        ]
        assert archive.read("0x010000-app0.bin") == FLASH[0x10000:0x15000]
        assert all(entry.external_attr == 0o644 << 16 for entry in archive.infolist())
        manifest = json.loads(archive.read("manifest.json"))
    assert (manifest["chip"], manifest["mac"], manifest["flash_id"]) == BOARD[:3]
    assert [row["name"] for row in manifest["partitions"]] == ["nvs", "phy", "app0"]
    assert len(manifest["parts"][5]["sector_md5"]) == 5


def test_blank_flash_takes_no_space(tmp_path: Path) -> None:
    flash = b"\xff" * 0x1000000
    with open_output(tmp_path / "b.zip") as file:
        write_backup(file, BOARD._replace(flash_size=len(flash)), flash, plan_parts(flash))
    assert (tmp_path / "b.zip").stat().st_size < 1000
    assert read_backup(tmp_path / "b.zip").flash == flash


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (b"a,data,nvs,0x9000,0x5000\nb,data,fat,0xa000,0x2000\n", ["a", "gap"]),  # overlap
        (b"a,data,fat,0x9000,0x4000\nb,data,fat,0xd000,0x1000000\n", ["a", "gap"]),  # past the end
        (b"../x,data,fat,0x9000,0xf7000\n", ["../x"]),
    ],
)
def test_odd_tables_still_give_parts_that_cover_the_flash(
    rows: bytes, names: list[str], tmp_path: Path
) -> None:
    flash = make_flash(rows)
    parts = plan_parts(flash)
    assert [part.name for part in parts[2:]] == names
    with open_output(tmp_path / "b.zip") as file:
        write_backup(file, BOARD, flash, parts)
    assert read_backup(tmp_path / "b.zip").flash == flash
    assert all("/" not in part.file and ".." not in part.file for part in parts)


def test_without_a_table_the_calibration_at_the_end_is_a_part() -> None:
    parts = plan_parts(b"\xff" * SIZE, calibration_size=0x5000)
    assert [(part.name, part.address) for part in parts] == [
        ("flash", 0),
        ("rf-calibration", SIZE - 0x5000),
    ]


def set_part(number: int, **values: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest["parts"][number].update(values)


def set_key(**values: object) -> Callable[[dict[str, Any]], None]:
    return lambda manifest: manifest.update(values)


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        (set_key(format="other"), "backup-damaged", "is not the manifest of a backup"),
        (set_key(version=2), "backup-version", "has version 2 of the format"),
        (set_key(version="1" * 500), "backup-version", "has version '111"),
        (set_key(complete=False), "backup-partial", "is a partial backup"),
        (set_key(complete=1), "backup-partial", "is a partial backup"),
        (set_key(flash_size=SIZE * 2), "backup-damaged", "do not cover the flash"),
        (set_key(flash_size=1 << 60), "backup-damaged", "flash_size in its manifest"),
        (set_key(flash_size=True), "backup-damaged", "flash_size in its manifest"),
        (set_key(encrypted="no"), "backup-damaged", "encrypted"),
        (set_key(chip="esp99"), "backup-damaged", "chip in its manifest"),
        (set_key(mac="x"), "backup-damaged", "mac in its manifest"),
        (set_key(parts={}), "backup-damaged", "no list of parts"),
        (set_key(parts=[[]]), "backup-damaged", "is not an object"),
        (set_key(flash_sha256="0" * 64), "backup-damaged", "SHA-256 of the whole flash"),
        (set_part(2, address=0xA000), "backup-damaged", "must be named 0x00a000-nvs.bin"),
        (set_part(3, address=0xA000), "backup-damaged", "do not cover the flash"),
        (set_part(0, size=0x8001), "backup-damaged", "multiple of 4 KiB"),
        (set_part(0, stored=0x9000), "backup-damaged", "stored in its manifest"),
        (set_part(2, sector_md5=[]), "backup-damaged", "wrong number of sector_md5"),
        (set_part(2, sector_md5=[7]), "backup-damaged", "MD5 of the sector at 0x9000"),
        (set_part(2, sha256="0" * 64), "backup-damaged", "SHA-256 of 0x009000-nvs.bin"),
        (set_part(2, file="../../nvs.bin"), "backup-damaged", "must be named 0x009000-nvs.bin"),
        (set_part(2, file="/etc/passwd"), "backup-damaged", "must be named 0x009000-nvs.bin"),
    ],
)
def test_a_wrong_manifest_is_refused(
    packed: bytes, change: Callable[[dict[str, Any]], None], code: str, text: str
) -> None:
    with pytest.raises(DataError, match=text) as caught:
        parse_backup(edit(packed, change), "b.zip")
    assert caught.value.code == code
    assert str(caught.value).startswith("b.zip ")


def add_file(name: str) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: b"x"})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (add_file("../../.bashrc"), "contains '../../.bashrc'"),
        (lambda files: files.pop("0x009000-nvs.bin"), "does not contain '0x009000-nvs.bin'"),
        (lambda files: files.pop("manifest.json"), "has no manifest.json"),
        (lambda files: files.update({"0x009000-nvs.bin": bytes(0x1000)}), "sector at 0x9000"),
        (lambda files: files.update({"0x009000-nvs.bin": b""}), "has 0 bytes instead of 4,096"),
        (lambda files: files.update({"0x009000-nvs.bin": bytes(1 << 24)}), "larger than it may"),
        (lambda files: files.update({"manifest.json": bytes(1 << 25)}), "larger than it may"),
        (lambda files: files.update({"manifest.json": b"[" * 100_000}), "not a usable backup"),
        (lambda files: files.update({"manifest.json": b"\xff"}), "not a usable backup"),
        (lambda files: files.update({f"{n}": b"" for n in range(2000)}), "is too large"),
    ],
)
def test_wrong_files_are_refused(
    packed: bytes, change: Callable[[dict[str, bytes]], None], text: str
) -> None:
    with pytest.raises(DataError, match=text) as caught:
        parse_backup(rebuild(packed, change))
    assert caught.value.code == "backup-damaged"


@pytest.mark.parametrize(
    "data", [b"", b"PK", b"hello" * 100, b"PK\x05\x06" + bytes(18), bytes([0xE9]) * 4096]
)
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        parse_backup(data)
    assert caught.value.code == "backup-damaged"


def test_a_truncated_file_is_refused(packed: bytes) -> None:
    for size in range(0, len(packed), 97):
        with pytest.raises(DataError):
            parse_backup(packed[:size])


def test_an_entry_that_states_less_than_it_unpacks_to_is_refused(packed: bytes) -> None:
    bomb = bytearray(
        rebuild(packed, lambda files: files.update({"0x009000-nvs.bin": bytes(1 << 24)}))
    )
    for magic, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        name = bomb.index(b"0x009000-nvs.bin", bomb.index(magic))
        while True:
            head = bomb.rindex(magic, 0, name)
            if b"0x009000" in bomb[head : head + 62]:
                break
            name = bomb.index(b"0x009000-nvs.bin", name + 1)
        struct.pack_into("<I", bomb, head + at, 0x1000)
    with pytest.raises(DataError) as caught:
        parse_backup(bytes(bomb))
    assert caught.value.code == "backup-damaged"


def find_accepted(packed: bytes, seed: int) -> str:
    """Whether a damaged backup is accepted although its flash is not the original, as text."""
    rng = random.Random(seed)
    damaged: bytes | bytearray
    if seed % 3 == 0:  # the content of a file, with a right CRC

        def change(files: dict[str, bytes]) -> None:
            name = rng.choice(sorted(files))
            data = bytearray(files[name])
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            files[name] = bytes(data)

        damaged = rebuild(packed, change)
    else:
        damaged = bytearray(packed)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(damaged))
            if rng.random() < 0.3:
                at = max(len(damaged) - 1 - rng.randrange(400), 0)  # the directory
            if rng.random() < 0.2:
                del damaged[at : at + rng.randrange(1, 64)]
            else:
                damaged[at] = rng.randrange(256)
    try:
        backup: Backup = parse_backup(bytes(damaged))
    except DataError as error:
        return "" if error.code.startswith("backup-") else f"seed {seed}: {error.code}"
    return "" if backup.flash == FLASH else f"seed {seed}: another flash content was accepted"


def test_no_damage_goes_unnoticed(packed: bytes) -> None:
    faults = [find_accepted(packed, seed) for seed in range(FUZZ_CASES)]
    assert [fault for fault in faults if fault] == []


def test_the_fuzz_test_notices_a_missing_check(
    packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_file, "_check_digests", lambda *arguments: None)
    real = backup_file.hashlib.sha256
    wanted = json.loads(zipfile.ZipFile(io.BytesIO(packed)).read("manifest.json"))["flash_sha256"]

    class Digest:
        def hexdigest(self) -> str:
            return str(wanted)

    monkeypatch.setattr(
        backup_file.hashlib,
        "sha256",
        lambda data: Digest() if len(data) == SIZE else real(data),
    )
    assert any(find_accepted(packed, seed) for seed in range(0, 60, 3))


BLOCKS = {0: random.Random(4).randbytes(0x10000), 0x10000: bytes(0x10000)}


def make_partial(path: Path) -> None:
    with PartialRead(str(path), BOARD) as partial:
        for address, data in BLOCKS.items():
            partial.append(address, data)


def test_a_partial_backup_has_its_blocks_when_it_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "b.partial"
    make_partial(path)
    assert path.stat().st_size < 0x10000 + 1000  # blocks are compressed
    with PartialRead(str(path), BOARD) as partial:
        assert {address: partial.read(address) for address in partial.addresses} == BLOCKS
        partial.append(0, bytes(100))
        assert partial.read(0) == bytes(100)
        assert partial.read(0x20000) is None
        partial.remove()
    assert not path.exists()


def test_a_partial_backup_that_was_cut_off_keeps_its_complete_blocks(tmp_path: Path) -> None:
    path = tmp_path / "b.partial"
    make_partial(path)
    whole = path.read_bytes()
    counts = set()
    for size in (0, 30, *range(200, len(whole), 7001), len(whole) - 1):
        path.write_bytes(whole[:size])
        with PartialRead(str(path), BOARD) as partial:
            counts.add(len(partial.addresses))
            for address in partial.addresses:
                assert partial.read(address) == BLOCKS[address]
            partial.append(0x10000, BLOCKS[0x10000])
        with PartialRead(str(path), BOARD) as partial:
            assert partial.read(0x10000) == BLOCKS[0x10000]
    assert counts == {0, 1}


def test_a_damaged_block_is_not_used(tmp_path: Path) -> None:
    path = tmp_path / "b.partial"
    make_partial(path)
    with PartialRead(str(path), BOARD) as partial:
        content = bytearray(path.read_bytes())
        content[0x5000] ^= 1
        path.write_bytes(content)
        assert partial.read(0) is None
        assert partial.read(0x10000) == BLOCKS[0x10000]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"my own file\n", "is not the partial file"),
        (b"espwire partial read\n{}\n", "belongs to another board"),
    ],
)
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "b.partial"
    path.write_bytes(content)
    with pytest.raises(DataError, match=text) as caught:
        PartialRead(str(path), BOARD)
    assert caught.value.code == "partial-of-other-board"
    assert path.read_bytes() == content


def test_a_partial_backup_belongs_to_its_board_and_to_one_process(tmp_path: Path) -> None:
    path = tmp_path / "b.partial"
    with PartialRead(str(path), BOARD), pytest.raises(FileError) as locked:
        PartialRead(str(path), BOARD)
    assert locked.value.code == "file-locked"
    with pytest.raises(DataError) as caught:
        PartialRead(str(path), BOARD._replace(mac="24:6f:28:00:00:00"))
    assert caught.value.code == "partial-of-other-board"


def test_a_partial_backup_is_never_read_as_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "b.zip"
    make_partial(path)
    with pytest.raises(DataError) as caught:
        read_backup(path)
    assert caught.value.code == "backup-partial"
