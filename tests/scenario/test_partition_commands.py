"""Partitions, OTA data and pictures on virtual chips: names in place of addresses, and what goes wrong with them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bincopy
import pytest

from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.errors import TableError, ToolError, VerifyError
from espwire.flash.partitions import read_map, read_ota_status, switch_ota
from espwire.flash.read_table import read_partition_table
from espwire.image.flash_map import map_dump
from espwire.image.ota import find_boot, parse_ota_data
from espwire.image.partition_csv import parse_csv
from espwire.image.partition_table import build_table, parse_table
from espwire.transport.base import CancelToken
from espwire.virtual.transport import open_virtual

DATA = Path(__file__).parents[1] / "data"
BOOT = (DATA / "esp32/esp32-bootloader.bin").read_bytes()
CSV = (
    "nvs,data,nvs,,0x4000\notadata,data,ota,,0x2000\nkeys,data,nvs_keys,,4K,encrypted\n"
    "main,app,factory,,256K\napp0,app,ota_0,,256K\napp1,app,ota_1,,256K\n"
)
TABLE = parse_csv(CSV)
OTADATA = 0xD000

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def flash(tmp_path: Path) -> Path:
    """A flash file with boot loader and table."""
    content = bytearray(b"\xff" * 0x200000)
    for at, piece in ((0x1000, BOOT), (0x8000, build_table(TABLE)), (0x10000, BOOT)):
        content[at : at + len(piece)] = piece
    path = tmp_path / "flash"
    path.write_bytes(content)
    return path


@pytest.fixture
def run(
    flash: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Runs a command line on an ESP32 with that flash; exit code and the last JSON line."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text(CSV)
    (tmp_path / "small.bin").write_bytes(bytes(range(256)) * 8)
    (tmp_path / "large.bin").write_bytes(bytes(0x5000))

    def call(
        *words: str, port: str = "virtual:esp32?size=2MB&profile=instant&flash=flash"
    ) -> tuple[int, dict[str, Any]]:
        code = main(["--json", "--port", port, *words])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        call.lines = lines  # type: ignore[attr-defined]
        results = [line for line in lines if line["event"] in ("Result", "Error")]
        return code, results[-1]

    return call


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no names for open files here")
@pytest.mark.parametrize("place", ["app0", "0x50000"])
def test_a_pipe_is_read_once(run: Run, flash: Path, place: str) -> None:
    """As the shell's ``<(command)`` gives it: what is read to check it is gone when it is to be written."""
    reading, writing = os.pipe()
    os.write(writing, bytes(range(256)))
    os.close(writing)
    code, told = run("write-flash", place, f"/dev/fd/{reading}")
    os.close(reading)
    assert (code, told["data"]["bytes"]) == (0, 256)
    assert flash.read_bytes()[0x50000:0x50100] == bytes(range(256))


def test_names_stand_for_addresses_in_all_four_commands(
    run: Run, flash: Path, tmp_path: Path
) -> None:
    code, told = run("write-flash", "nvs=small.bin", "app0", "large.bin")
    assert (code, [part["address"] for part in told["data"]["parts"]]) == (0, [0x9000, 0x50000])
    assert run("verify-flash", "0x9000=small.bin", "app0=large.bin")[0] == 0
    assert run("verify-flash", "app1=large.bin")[0] == 7
    code, told = run("read-flash", "nvs", "out.bin")
    assert (code, told["data"]["address"], told["data"]["size"]) == (0, 0x9000, 0x4000)
    small = (tmp_path / "small.bin").read_bytes()
    assert (tmp_path / "out.bin").read_bytes() == small + b"\xff" * (0x4000 - len(small))
    assert run("read-flash", "nvs", "16", "out.bin")[0] == 0
    assert (tmp_path / "out.bin").read_bytes() == small[:16]
    assert run("erase-region", "nvs")[0] == 0
    assert flash.read_bytes()[0x9000:0xD000] == b"\xff" * 0x4000
    assert flash.read_bytes()[0x50000:0x55000] == bytes(0x5000)


@pytest.mark.parametrize(
    ("words", "exit_code", "error"),
    [
        (["write-flash", "nvs=large.bin"], 6, "partition-too-small"),
        (["write-flash", "nothing=small.bin"], 6, "partition-unknown"),
        (["write-flash", "nvs=missing.bin"], 6, "file-read"),
        (["write-flash", "nvs"], 2, "usage"),
        (["write-flash", "--partitions", "small.bin", "nvs=small.bin"], 6, "no-partition-table"),
        (
            ["write-flash", "--partition-table-offset", "0x100000", "nvs=small.bin"],
            6,
            "no-partition-table",
        ),
        (["read-flash", "nvs", "0x4001", "out.bin"], 6, "partition-too-small"),
        (["read-flash", "0x9000", "out.bin"], 2, "usage"),
        (["read-flash", "nvs"], 2, "usage"),
        (["erase-region", "nvs", "0x1000", "more"], 2, "usage"),
        (["ota", "switch", "app7"], 6, "ota-slot"),
    ],
)
def test_what_goes_wrong_with_names_is_told_and_nothing_is_written(
    run: Run, flash: Path, words: list[str], exit_code: int, error: str
) -> None:
    before = flash.read_bytes()
    code, told = run(*words)
    assert (code, told["code"]) == (exit_code, error), told
    assert flash.read_bytes() == before


def test_a_hex_file_must_stay_inside_the_partition_it_is_named_for(
    run: Run, tmp_path: Path
) -> None:
    record = bytes([4, 0x90, 0x00, 0, 1, 2, 3, 4])
    line = f":{record.hex()}{-sum(record) & 0xFF:02X}\n:00000001FF\n"
    (tmp_path / "some.hex").write_text(line.upper())
    assert run("write-flash", "nvs=some.hex")[0] == 0
    code, told = run("write-flash", "app0=some.hex")
    assert (code, told["code"]) == (6, "partition-outside")


def test_a_partition_flagged_encrypted_is_warned_of(run: Run) -> None:
    assert run("write-flash", "keys=small.bin")[0] == 0
    warned = [line["code"] for line in run.lines if line["event"] == "Warned"]  # type: ignore[attr-defined]
    assert "partition-encrypted" in warned


def test_where_the_loader_cannot_read_a_file_gives_the_names(run: Run) -> None:
    blind = "virtual:esp8266?size=2MB&profile=instant&flash=flash"
    code, told = run("--no-stub", "write-flash", "nvs=small.bin", port=blind)
    assert (code, told["code"]) == (5, "cannot-read-partitions")
    assert "--partitions" in told["hint"]
    assert "leave out --no-stub" in told["hint"]
    assert (
        run(
            "--no-stub",
            "write-flash",
            "--no-keep",
            "--partitions",
            "t.csv",
            "nvs=small.bin",
            port=blind,
        )[0]
        == 0
    )


def test_secure_download_mode_is_told(run: Run) -> None:
    closed = "virtual:esp32s3?size=2MB&profile=instant&flash=flash&secure-download=1"
    code, told = run("partitions", "show", port=closed)
    assert (code, told["code"]) == (5, "cannot-read-partitions")
    code, told = run("ota", "status", port=closed)
    assert (code, told["code"]) == (5, "cannot-read-partitions")


def test_encrypted_flash_has_no_readable_ota_data(run: Run) -> None:
    code, told = run(
        "ota", "status", port="virtual:esp32s3?size=2MB&flash=flash&flash-encryption=1"
    )
    assert (code, told["code"]) == (5, "ota-encrypted")


def test_a_table_is_shown_checked_built_and_read(run: Run, flash: Path, tmp_path: Path) -> None:
    from_device = run("partitions", "show")[1]["data"]
    assert from_device["md5_valid"] is True
    assert from_device == run("partitions", "show", "flash")[1]["data"]
    assert run("partitions", "show", "t.csv")[1]["data"]["partitions"] == from_device["partitions"]
    code, told = run("partitions", "build", "t.csv", "-o", "t.bin", "--flash-size", "2MB")
    assert (code, told["data"]["size"]) == (0, 0xC00)
    assert (tmp_path / "t.bin").read_bytes() == flash.read_bytes()[0x8000:0x8C00]
    assert run("partitions", "read", "out.csv")[0] == 0
    assert parse_csv((tmp_path / "out.csv").read_text()).partitions == TABLE.partitions
    assert run("partitions", "read", "out.bin", "--from", "flash")[0] == 0
    assert (tmp_path / "out.bin").read_bytes() == (tmp_path / "t.bin").read_bytes()
    assert run("partitions", "check", "t.bin")[1]["data"] == {
        "sound": True,
        "problems": [],
        "end": TABLE.end,
    }


def test_a_table_at_another_offset(run: Run, tmp_path: Path) -> None:
    moved = ("--partition-table-offset", "0x10000")
    assert run("partitions", "build", "t.csv", "-o", "t.bin", *moved)[0] == 0
    assert run("write-flash", "0x10000", "t.bin")[0] == 0
    rows = run("partitions", "show", *moved)[1]["data"]["partitions"]
    assert rows[0] | {"flags": None} == {
        "name": "nvs",
        "type": "data",
        "subtype": "nvs",
        "offset": 0x11000,
        "size": 0x4000,
        "flags": None,
        "flaw": None,
    }
    assert run("read-flash", *moved, "nvs", "out.bin")[1]["data"]["address"] == 0x11000


def test_an_unsound_table_is_listed_and_not_built(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("a,app,ota_0,0x11000,1M\nb,data,fat,0x20000,4K\n")
    code, told = run("partitions", "check", "bad.csv", "--flash-size", "1MB")
    assert (code, told["code"]) == (6, "partition-unaligned")
    results = [line for line in run.lines if line["event"] == "Result"]  # type: ignore[attr-defined]
    assert [problem["code"] for problem in results[0]["data"]["problems"]] == [
        "partition-unaligned",
        "past-flash-end",
        "partition-overlap",
    ]
    assert run("partitions", "build", "bad.csv", "-o", "bad.bin")[0] == 6
    assert not (tmp_path / "bad.bin").exists()
    assert run("partitions", "build", "bad.csv", "-o", "bad.bin", "--no-check", "--no-md5")[0] == 0
    assert parse_table((tmp_path / "bad.bin").read_bytes()).md5_valid is None


def test_ota_switch_writes_one_sector_and_the_chip_then_boots_it(run: Run, flash: Path) -> None:
    assert run("ota", "status")[1]["data"]["boots"] == "main"
    before = flash.read_bytes()
    code, told = run("ota", "switch", "app1", "--dry-run")
    assert (code, told["data"]["written"], told["data"]["sequence"]) == (0, False, 2)
    assert flash.read_bytes() == before
    assert run("ota", "switch", "app1")[1]["data"]["sector"] == 0
    after = flash.read_bytes()
    assert [
        at
        for at in range(0, len(after), 0x1000)
        if after[at : at + 0x1000] != before[at : at + 0x1000]
    ] == [OTADATA]
    assert run("ota", "status")[1]["data"]["boots"] == "app1"
    assert run("ota", "switch", "ota_1")[1]["data"]["written"] is False
    assert run("ota", "switch", "app0", "--state", "new")[1]["data"]["sector"] == 1
    assert run("ota", "status")[1]["data"]["entries"][1]["state"] == "new"
    assert run("ota", "switch", "factory")[1]["data"]["erased"] == [0, 1]
    assert flash.read_bytes() == before


def test_ota_on_a_dump_gives_what_the_device_gets(run: Run, flash: Path, tmp_path: Path) -> None:
    (tmp_path / "dump").write_bytes(flash.read_bytes())
    for slot in ("app0", "app1", "app0", "factory", "app1"):
        assert run("ota", "switch", slot)[0] == 0
        assert run("ota", "switch", slot, "dump")[0] == 0
        assert (tmp_path / "dump").read_bytes() == flash.read_bytes()
        assert run("ota", "status", "dump")[1]["data"] == run("ota", "status")[1]["data"]
    (tmp_path / "short").write_bytes(flash.read_bytes()[: OTADATA + 0x1000])
    assert run("ota", "status", "short")[1]["code"] == "ota-data-size"


@pytest.mark.parametrize("kind", ["hex", "uf2", "srecord"])
def test_a_merged_file_of_any_format_is_looked_into_as_a_raw_one_is(
    run: Run, flash: Path, kind: str
) -> None:
    raw = flash.read_bytes()
    if kind == "srecord":
        text = bincopy.BinFile()
        text.add_binary(raw[0x1000:0x20000], 0x1000)
        Path("merged").write_text(text.as_srec())
    else:
        Path("rest").write_bytes(raw[0x1000:0x20000])
        assert (
            run("--chip", "esp32", "merge-bin", "-f", kind, "-o", "merged", "0x1000", "rest")[0]
            == 0
        )
    for words in (
        ["image", "map"],
        ["partitions", "show"],
        ["partitions", "check"],
        ["ota", "status"],
    ):
        size = ["--flash-size", "2MB"] if words[0] == "image" else []
        expected, found = run(*words, str(flash), *size), run(*words, "merged", *size)
        assert found[0] == expected[0] == 0
        assert found[1]["data"] == expected[1]["data"]
    assert run("partitions", "read", "--from", "merged", "read.bin")[0] == 0
    assert Path("read.bin").read_bytes() == build_table(TABLE)
    before = Path("merged").read_bytes()
    code, said = run("ota", "switch", "app1", "merged")
    assert (code, said["code"]) == (2, "ota-not-raw")
    assert Path("merged").read_bytes() == before


def test_a_picture_of_nothing_or_of_what_has_no_place_in_flash_is_refused(run: Run) -> None:
    for content, wanted in (
        (b"", "image-empty"),
        (b":00000001FF\n", "image-empty"),
        (b"\x7fELF\x01\x01", "image-elf"),
    ):
        Path("x").write_bytes(content)
        code, said = run("image", "map", "x", "--svg", "x.svg")
        assert (code, said["code"], Path("x.svg").exists()) == (6, wanted, False)


def test_a_table_without_otadata_says_so(run: Run, tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("main,app,factory,,1M\n")
    assert run("ota", "status", "--partitions", "one.csv")[1]["data"]["boots"] == "main"
    code, told = run("ota", "switch", "main", "--partitions", "one.csv")
    assert (code, told["code"]) == (6, "no-ota-data")


def test_whenever_the_power_fails_in_a_switch_the_old_or_the_new_slot_boots(flash: Path) -> None:
    """The supply is cut at every reply in turn, until one comes after the end."""
    place = next(row for row in TABLE.partitions if row.name == "otadata")
    url = f"virtual:esp32?size=2MB&profile=instant&flash={flash}"
    with connect(open_virtual(url, CancelToken()), stub=False) as device:
        switch_ota(device, "app0")
    start, outcomes = flash.read_bytes(), set()
    for moment in range(1, 400):
        flash.write_bytes(start)
        try:
            with connect(
                open_virtual(f"{url}&fault=power@{moment}", CancelToken()), stub=False
            ) as device:
                switch_ota(device, "app1", table=TABLE)
                ended = True
        except ToolError:
            ended = False
        held = flash.read_bytes()[place.offset : place.end]
        boots = find_boot(TABLE, parse_ota_data(held)).boots
        assert boots is not None
        assert boots.name in (("app1",) if ended else ("app0", "app1"))
        outcomes.add((ended, boots.name, held == start[place.offset : place.end]))
        if ended:
            break
    assert (False, "app0", True) in outcomes  # torn sectors: tests/unit/image/test_ota.py
    assert (True, "app1", False) in outcomes


def test_the_library_gives_values(flash: Path) -> None:
    transport = open_virtual(f"virtual:esp32?size=2MB&profile=instant&flash={flash}", CancelToken())
    with connect(transport, stub=False) as device:
        assert read_partition_table(device).partitions == TABLE.partitions
        change = switch_ota(device, "app1")
        assert (change.write, change.slot.name) == (0, "app1")
        assert read_ota_status(device).boots == change.slot
        with pytest.raises(TableError) as caught:
            read_partition_table(device, 0x100000)
        assert caught.value.code == "no-partition-table"


def test_the_picture_of_a_device_is_that_of_its_dump(run: Run, flash: Path, tmp_path: Path) -> None:
    code, told = run("image", "map", "--svg", "map.svg")
    assert code == 0
    assert (tmp_path / "map.svg").read_text("utf-8").startswith("<svg ")
    by_file = run("image", "map", "flash")[1]["data"]
    areas, others = told["data"]["areas"], by_file["areas"]
    where = ("kind", "name", "offset", "size", "boots", "overlaps")
    assert [[area[key] for key in where] for area in areas] == [
        [area[key] for key in where] for area in others
    ]
    dump = map_dump(flash.read_bytes())
    transport = open_virtual(f"virtual:esp32?size=2MB&profile=instant&flash={flash}", CancelToken())
    with connect(transport, stub=False) as device:
        seen = read_map(device)
    for start, end in dump.filled:  # a device is asked for larger stretches, but misses nothing
        assert any(low <= start and end <= high for low, high in seen.filled)
    code, told = run("--no-stub", "image", "map", "virtual:esp8266?size=1MB&profile=instant")
    assert (code, told["code"]) == (5, "cannot-read-partitions")


def test_an_ordinary_error_of_the_write_passes_through_a_switch(
    flash: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise VerifyError("differs", ranges=((0, 1),))

    monkeypatch.setattr("espwire.flash.partitions.write_flash", fail)
    transport = open_virtual(f"virtual:esp32?size=2MB&profile=instant&flash={flash}", CancelToken())
    with connect(transport, stub=False) as device, pytest.raises(VerifyError):
        switch_ota(device, "app0")


CASES = DATA / "cases"


def test_a_row_that_is_not_utf8_blocks_only_operations_on_itself(run: Run, flash: Path) -> None:
    content = bytearray(flash.read_bytes())
    content[0x8000:0x8C00] = (CASES / "gbk_name.bin").read_bytes()
    flash.write_bytes(content)
    code, told = run("partitions", "show")
    assert code == 0
    assert [(row["name"], row["flaw"]) for row in told["data"]["partitions"]] == [
        ("nvs", None),
        ("factory", None),
        (r"\xce\xc4\xbc\xfe", "its name is not UTF-8"),
    ]
    assert run("write-flash", "factory=small.bin")[0] == 0
    assert flash.read_bytes()[0x10000:0x10800] == bytes(range(256)) * 8
    code, told = run("erase-region", r"\xce\xc4\xbc\xfe")
    assert (code, told["code"]) == (6, "partition-flawed")
    assert run("erase-region", "0x110000", "0x10000")[0] == 0


def test_the_cases_of_odd_tables_end_as_they_should(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["partitions", "show", str(CASES / "gbk_name.bin")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == ["Name", "nvs", "factory", r"\xce\xc4\xbc\xfe"]
    assert shown[3].endswith("! its name is not UTF-8")
    assert main(["partitions", "build", str(CASES / "gbk.csv"), "-o", "o.bin"]) == 6
    told = capsys.readouterr().err
    assert "gbk.csv, line 1: the text is not UTF-8; it looks like GBK [csv-encoding]" in told
    assert main(["ota", "status", str(CASES / "ota_seq0.bin")]) == 0
    assert capsys.readouterr().out.startswith("boots app1: sector 0 has sequence 0\n")
