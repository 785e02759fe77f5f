"""Files that look like another format, and files in the wrong place: whole commands on virtual chips."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import espwire
from espwire.blob import Blob
from espwire.cli.esptool import program as esptool
from espwire.cli.main import main
from espwire.image.uf2 import build_uf2

DATA = Path(__file__).parents[1] / "data"
INPUTS = DATA / "inputs"
RAW = ("style.css", "colon.bin", "app-enc.bin")
MERGED_C3, MERGED_32 = DATA / "esp32c3/micropython-head.bin", DATA / "esp32/micropython-head.bin"
HEX = b":0400000001020304F2\n:00000001FF\n"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys, tmp_path):
    """Runs a command on a virtual chip: exit code, events by name, and the flash then."""

    def run(chip: str, *words: object, program=main):
        flash = tmp_path / f"{chip}.flash"
        url = f"virtual:{chip}?size=4MB&flash={flash.as_posix()}"
        capsys.readouterr()
        code = program(["--json", "--port", url, *map(str, words)])
        events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, events, flash.read_bytes() if flash.exists() else b""

    return run


def codes(events) -> set[str]:
    return {event["code"] for event in events if event["event"] in ("Warned", "Error")}


def pipe(monkeypatch, data: bytes) -> None:
    monkeypatch.setattr(
        sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data), isatty=lambda: False)
    )


@pytest.mark.parametrize("name", RAW)
def test_a_raw_file_is_written_and_verified_as_it_is(run, monkeypatch, name):
    data = (INPUTS / name).read_bytes()
    assert run("esp32s3", "write-flash", "0x20000", INPUTS / name)[0] == 0
    code, _, flash = run("esp32s3", "verify-flash", "0x20000", INPUTS / name)
    assert (code, flash[0x20000 : 0x20000 + len(data)]) == (0, data)
    pipe(monkeypatch, data)
    code, _, flash = run("esp32s3", "write-flash", "0x30000", "-")
    assert (code, flash[0x30000 : 0x30000 + len(data)]) == (0, data)


@pytest.mark.parametrize("name", RAW)
def test_a_raw_file_is_merged_compared_and_drawn_as_it_is(capsys, monkeypatch, name):
    path, data = str(INPUTS / name), (INPUTS / name).read_bytes()
    assert main(["-c", "esp32", "merge-bin", "-o", "out.bin", "0x20000", path]) == 0
    assert Path("out.bin").read_bytes()[0x20000:] == data
    assert main(["image-diff", path, path]) == 0
    assert main(["image", "map", path]) == 0
    assert main(["image-info", path]) == 6
    said = capsys.readouterr().err
    assert any(code in said for code in ("[image-magic]", "[image-encrypted]"))
    pipe(monkeypatch, data)
    assert main(["image", "map", "-"]) == 0


def test_a_damaged_file_with_its_extension_is_refused_unless_it_is_to_be_raw(run):
    Path("fw.hex").write_bytes(HEX[:-13])
    code, events, flash = run("esp32", "write-flash", "0x20000", "fw.hex")
    assert (code, codes(events), flash.strip(b"\xff")) == (6, {"hex-truncated"}, b"")
    assert "--format raw" in events[-1]["hint"]
    code, _, flash = run("esp32", "write-flash", "--format", "raw", "0x20000", "fw.hex")
    assert (code, flash[0x20000 : 0x20000 + len(HEX[:-13])]) == (0, HEX[:-13])


@pytest.mark.parametrize("name", ["fw.hex", "fw.bin"])
def test_under_esptool_s_name_a_damaged_file_is_written_as_it_is(run, name):
    data = HEX.replace(b"F2", b"F3")
    Path(name).write_bytes(data)
    code, _, flash = run("esp32", "write_flash", "0x20000", name, program=esptool.main)
    assert (code, flash[0x20000 : 0x20000 + len(data)]) == (0, data)


def test_an_elf_for_no_chip_is_reported_and_under_esptool_s_name_written(run):
    path, data = INPUTS / "module.so", (INPUTS / "module.so").read_bytes()
    code, events, flash = run("esp32", "write-flash", "0x310000", path)
    assert (code, codes(events), flash.strip(b"\xff")) == (6, {"elf-type"}, b"")
    assert "--format raw" in events[-1]["hint"]
    for words, program in ((["--format", "raw"], main), ([], esptool.main)):
        code, _, flash = run("esp32", "write-flash", *words, "0x310000", path, program=program)
        assert (code, flash[0x310000 : 0x310000 + len(data)]) == (0, data)


@pytest.mark.parametrize(("chip", "first"), [("esp32s2", 0), ("esp32s3", 8)])
def test_uf2_for_two_chips_the_connected_one_gets_its_blocks(run, chip, first):
    path, data = INPUTS / "two_families.uf2", (INPUTS / "two_families.uf2").read_bytes()
    wanted = b"".join(data[at * 512 + 32 : at * 512 + 288] for at in range(first, first + 8))
    code, events, flash = run(chip, "write-flash", "0x0", path)
    start = int.from_bytes(data[first * 512 + 12 : first * 512 + 16], "little")
    assert (code, flash[start : start + 2048]) == (0, wanted)
    assert not flash[:start].strip(b"\xff")
    assert events[-1]["data"]["bytes"] == 2048
    assert run(chip, "verify-flash", "0x0", path)[0] == 0
    code, events, flash = run(chip, "flash", path)
    assert (code, events[-1]["data"]["bytes"], flash[start : start + 2048]) == (0, 2048, wanted)
    other = {"esp32s2": "esp32s3", "esp32s3": "esp32s2"}[chip]
    assert run(other, "verify-flash", "0x0", path)[0] == 7


def test_uf2_blocks_for_another_chip_may_lie_past_the_end_of_this_flash(run):
    data = bytearray((INPUTS / "two_families.uf2").read_bytes())
    for at in range(8 * 512, 16 * 512, 512):
        address = int.from_bytes(data[at + 12 : at + 16], "little") + 0x1000000
        data[at + 12 : at + 16] = address.to_bytes(4, "little")
    Path("two.uf2").write_bytes(data)
    assert run("esp32s2", "write-flash", "0x0", "two.uf2")[0] == 0
    assert run("esp32s2", "verify-flash", "0x0", "two.uf2")[0] == 0


def test_uf2_for_other_chips_is_one_error(run, capsys):
    path = str(INPUTS / "two_families.uf2")
    code, events, flash = run("esp32c3", "write-flash", "0x0", path)
    assert (code, codes(events), flash.strip(b"\xff")) == (6, {"image-uf2-family"}, b"")
    assert main(["merge-bin", "-o", "out.bin", "0x0", path]) == 6
    assert "Select the chip with --chip" in capsys.readouterr().err
    assert main(["-c", "esp32s3", "merge-bin", "-o", "out.bin", "0x0", path]) == 0
    assert len(Path("out.bin").read_bytes()) == 0x10800
    assert main(["image-diff", path, path]) == 6
    assert main(["image-diff", "-c", "esp32s2", path, path]) == 0


def test_each_command_that_reads_files_takes_a_format(run, capsys):
    Path("t.bin").write_bytes((DATA / "partitions/two-slots.bin").read_bytes())
    Path("m.txt").write_bytes(MERGED_C3.read_bytes())
    for words in (
        ["image-info", "--format", "raw", "m.txt"],
        ["image-diff", "--format", "raw", "m.txt", "m.txt"],
        ["split-image", "--format", "raw", "-o", "parts", "m.txt"],
        ["image", "map", "--format", "raw", "m.txt"],
        ["partitions", "show", "--format", "raw", "m.txt"],
        ["partitions", "check", "--format", "raw", "t.bin"],
        ["partitions", "read", "--input-format", "raw", "--from", "m.txt", "out.csv"],
        ["partitions", "build", "--format", "raw", "-o", "out.bin", "t.bin"],
        ["ota", "status", "--format", "raw", "m.txt"],
        ["-c", "esp32c3", "merge-bin", "--input-format", "raw", "-o", "merged.bin", "0x0", "m.txt"],
    ):
        assert main(words) == 0, (words, capsys.readouterr().err)
        wrong = ["uf2" if word == "raw" else word for word in words]
        assert main(wrong) == 6, wrong


@pytest.mark.parametrize(
    ("chip", "address", "path", "code"),
    [
        ("esp32c3", "0x0", MERGED_C3, "wrong-revision"),
        ("esp32c3", "0x1000", MERGED_C3, "wrong-offset"),
        ("esp32", "0x0", MERGED_32, "wrong-offset"),
        ("esp32c3", "0x0", INPUTS / "download.bin", "not-an-image"),
    ],
)
def test_what_does_not_belong_there_needs_consent_and_under_esptool_s_name_is_a_warning(
    run, chip, address, path, code
):
    exit_code, events, flash = run(chip, "write-flash", address, path)
    assert (exit_code, flash.strip(b"\xff")) == (8, b"")
    assert events[-1]["details"]["consents"] == [code]
    exit_code, events, flash = run(chip, "write-flash", "--allow", code, address, path)
    assert exit_code == 0
    assert code in codes(events)
    assert flash.strip(b"\xff")
    if code != "wrong-revision":  # esptool checks that itself
        exit_code, events, _ = run(chip, "write_flash", address, path, program=esptool.main)
        assert exit_code == 0
        assert code in codes(events)


@pytest.mark.parametrize(
    ("chip", "address", "path", "code"),
    [
        ("esp32c3", "0x1000", MERGED_C3, "wrong-offset"),
        ("esp32", "0x0", MERGED_32, "wrong-offset"),
        ("esp32", "0x0", MERGED_C3, "wrong-offset"),
    ],
)
def test_merging_needs_consent_too(capsys, chip, address, path, code):
    words = ["--json", "-c", chip, "merge-bin", "-o", "out.bin", address, str(path)]
    assert main(words) == 8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["details"]["consents"] == [code]
    assert not Path("out.bin").exists()
    for program, more in ((main, ["--allow", code]), (main, ["--force"]), (esptool.main, [])):
        assert program([*words, *more]) == 0
        assert code in codes(map(json.loads, capsys.readouterr().out.splitlines()))
        Path("out.bin").unlink()


def test_merging_something_else_to_the_boot_offset_is_a_warning(capsys):
    words = [
        "--json",
        "-c",
        "esp32c3",
        "merge-bin",
        "-o",
        "out.bin",
        "0x0",
        str(INPUTS / "download.bin"),
    ]
    assert main(words) == 0
    (warned,) = [
        e for e in map(json.loads, capsys.readouterr().out.splitlines()) if e["event"] == "Warned"
    ]
    assert (warned["code"], "an HTML page" in warned["text"]) == ("not-an-image", True)


def test_an_unsigned_image_for_a_chip_with_secure_boot_needs_consent(capsys):
    image = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
    words = [
        "--json",
        "-p",
        "virtual:esp32c3?size=4MB&secure-boot=1",
        "write-flash",
        "0x0",
        str(image),
    ]
    assert main(words) == 8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["details"]["consents"] == [
        "unsigned-image"
    ]
    for program, more in ((main, ["--allow", "unsigned-image"]), (esptool.main, [])):
        assert program([*words, *more]) == 0
        assert "unsigned-image" in codes(map(json.loads, capsys.readouterr().out.splitlines()))


def test_a_program_for_ram_out_of_uf2_for_two_chips(run):
    parts = [Blob(0x0, MERGED_C3.read_bytes())]
    Path("x.uf2").write_bytes(build_uf2(parts, 0xD42BA06C) + build_uf2(parts, 0xBFDD4EEE))
    code, events, _ = run("esp32s3", "load-ram", "x.uf2")
    assert (code, codes(events)) == (6, {"image-uf2-family"})
