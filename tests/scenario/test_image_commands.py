"""image-info, merge-bin, split-image and image-diff as commands: exit codes, text, JSON, every older spelling."""

import json
from pathlib import Path

import pytest

from espwire.cli.main import main

DATA = Path(__file__).parents[1] / "data"
BOOT = str(DATA / "esp32/esp32-bootloader.bin")
C5 = DATA / "esp32c5"


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def result(capsys, *words):
    code, out, _ = run(capsys, "--json", *words)
    events = [json.loads(line) for line in out.splitlines()]
    return code, next(event["data"] for event in events if event["event"] == "Result"), events[-1]


def merge(capsys, *more):
    pairs = [
        "0x2000",
        str(C5 / "marauder_c5_bootloader.bin"),
        "0x8000",
        str(C5 / "marauder_c5_partitions.bin"),
    ]
    assert run(capsys, "merge-bin", "-o", "merged", *more, *pairs)[0] == 0


@pytest.mark.parametrize(
    "words", [["image-info"], ["image_info", "--version", "2"], ["image_info", "--version=1"]]
)
def test_a_whole_image_ends_well(capsys, words):
    code, out, _ = run(capsys, *words, BOOT)
    assert code == 0
    assert "Checksum:            0x52 (valid)" in out
    assert "ESP32" in out


def test_a_damaged_image_is_shown_and_then_an_error(capsys):
    data = bytearray(Path(BOOT).read_bytes())
    data[0x100] ^= 1
    Path("damaged.bin").write_bytes(data)
    code, out, err = run(capsys, "image-info", "damaged.bin")
    assert code == 6
    assert "0x52 (invalid, should be 0x53)" in out
    assert "[image-damaged]" in err
    code, data, last = result(capsys, "image-info", "damaged.bin")
    assert (code, data["intact"], last["code"]) == (6, False, "image-damaged")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["image-info", "cut.bin"], "image-truncated"),
        (["image-info", "count.bin"], "image-segment-count"),
        (["elf2image", "cut.bin"], "elf-magic"),
        (["elf2image", "cut.elf"], "elf-truncated"),
        (["image-diff", BOOT, "bad.hex"], "hex-record"),
        (["image-diff", "bad.hex", BOOT], "hex-record"),
        (["image-diff", BOOT, "cut.uf2"], "image-uf2-size"),
    ],
)
def test_a_complaint_about_a_file_begins_with_its_name(capsys, words, code):
    data = Path(BOOT).read_bytes()
    Path("cut.bin").write_bytes(data[:1000])
    Path("count.bin").write_bytes(data[:1] + b"\x11" + data[2:])
    Path("cut.elf").write_bytes(b"\x7fELF\x01\x01")
    Path("bad.hex").write_text(":00000001FE\n", "utf-8")
    Path("cut.uf2").write_bytes(bytes.fromhex("5546320a57515d9e"))
    end, _, err = run(capsys, *words)
    name = next(word for word in words[1:] if word != BOOT)
    assert (end, f"[{code}]" in err, err.startswith(f"error: {name}")) == (6, True, True)


def test_a_chunk_size_may_be_written_in_any_base(capsys):
    merge(capsys, "-f", "uf2", "--chunk-size", "256")
    decimal = Path("merged").read_bytes()
    merge(capsys, "-f", "uf2", "--chunk-size", "0x100")
    assert Path("merged").read_bytes() == decimal


@pytest.mark.parametrize(
    "words",
    [
        ["merge-bin", "--chip", "esp32", "-o", "x", "0x1000", BOOT, "0x10000", "./x"],
        ["make-image", "--chip", "esp32c3", "-f", "x", "-a", "0x40380000", "x"],
        ["image", "map", "x", "--svg", "x"],
        ["partitions", "build", "x", "-o", "x"],
        ["partitions", "read", "--from", "x", "x"],
    ],
)
def test_what_is_read_is_not_overwritten(capsys, words):
    table = (C5 / "marauder_c5_partitions.bin").read_bytes()
    Path("x").write_bytes(table)
    code, _, err = run(capsys, *words)
    assert (code, "[output-is-input]" in err, Path("x").read_bytes() == table) == (2, True, True)


@pytest.mark.parametrize(
    "words", [["merge-bin", "--chip", "esp32", "-o", "o"], ["-p", "virtual:esp32", "write-flash"]]
)
def test_a_hex_file_of_no_data_is_told(capsys, words):
    Path("e.hex").write_text(":00000001FF\n", "utf-8")
    code, _, err = run(capsys, *words, "0x1000", "e.hex")
    assert (code, "e.hex contains no data" in err, Path("o").exists()) == (6, True, False)


def test_parts_past_the_size_to_pad_to_are_told(capsys):
    words = ["--chip", "esp32", "merge-bin", "--pad-to-size", "256KB", "-o", "o"]
    code, out, err = run(capsys, *words, "0x3F000", BOOT)
    assert (code, "[merge-past-pad]" in err, ": 284,160 bytes from 1 part for" in out) == (
        0,
        True,
        True,
    )
    code, out, err = run(capsys, *words, "0x1000", BOOT)
    assert (code, err, len(Path("o").read_bytes())) == (0, "", 0x40000)


def test_the_chip_can_stand_before_and_after_the_command(capsys):
    for words in (["--chip", "esp32c3", "image-info"], ["image-info", "--chip", "esp32c3"]):
        code, data, _ = result(capsys, *words, BOOT)
        assert (code, data["items"][0]["image"]["chip"]) == (0, "esp32c3")


def test_json_tells_header_segments_and_descriptor(capsys):
    _, data, _ = result(capsys, "image-info", BOOT)
    image = data["items"][0]["image"]
    assert image["extended_header"]["chip_id"] == 0
    assert image["segments"][1] == {
        "address": 0x40078000,
        "size": 0x3DCC,
        "offset": 0x1888,
        "memory": ["CACHE_APP"],
        "hidden": False,
    }
    assert image["bootloader_descriptor"]["idf_version"].startswith("v6.1")
    assert (image["checksum_valid"], image["sha256_valid"], image["crc32_valid"]) == (
        True,
        True,
        None,
    )


@pytest.mark.parametrize("kind", ["raw", "hex", "uf2"])
def test_merging_inspecting_splitting_and_merging_again_is_a_circle(capsys, kind):
    merge(capsys, "-f", kind)
    code, data, _ = result(capsys, "image-info", "merged")
    assert (code, [item["kind"] for item in data["items"]]) == (
        0,
        ["bootloader", "partition-table"],
    )
    assert data["items"][1]["partitions"][0]["name"] == "nvs"
    assert run(capsys, "split-image", "merged", "-o", "parts")[0] == 0
    arguments = Path("parts/flash_args").read_text("utf-8").split()
    assert arguments == ["0x2000", "bootloader.bin", "0x8000", "partition-table.bin"]
    pairs = [f"parts/{word}" if word.endswith(".bin") else word for word in arguments]
    assert run(capsys, "merge-bin", "-o", "again", "-f", kind, *pairs)[0] == 0
    assert run(capsys, "image-diff", "merged", "again")[0] == 0


def test_a_folder_that_holds_something_is_left_alone(capsys):
    merge(capsys)
    Path("parts").mkdir()
    Path("parts/mine.txt").write_text("mine", "utf-8")
    code, _, err = run(capsys, "split-image", "merged", "-o", "parts")
    assert (code, "[folder-not-empty]" in err) == (6, True)
    assert [path.name for path in Path("parts").iterdir()] == ["mine.txt"]
    assert sorted(path.name for path in Path().iterdir()) == ["merged", "parts"]


def test_an_empty_folder_is_taken(capsys):
    merge(capsys)
    Path("parts").mkdir()
    assert run(capsys, "split-image", "merged", "-o", "parts")[0] == 0
    assert len(list(Path("parts").iterdir())) == 3


def test_splitting_a_single_image_is_an_error(capsys):
    code, _, err = run(capsys, "split-image", BOOT, "-o", "parts")
    assert (code, "[split-no-table]" in err, Path("parts").exists()) == (6, True, False)


def test_equal_files_end_with_0_and_different_ones_with_7(capsys):
    code, out, _ = run(capsys, "image-diff", BOOT, BOOT)
    assert (code, "the same 26,112 bytes" in out) == (0, True)
    code, out, err = run(capsys, "image-diff", BOOT, str(C5 / "marauder_c5_bootloader.bin"))
    assert (code, "[images-differ]" in err) == (7, True)
    assert "chip: esp32 → esp32c5" in out
    code, data, last = result(capsys, "image-diff", BOOT, str(C5 / "marauder_c5_bootloader.bin"))
    assert (data["same"], last["details"]["ranges"]) == (False, data["sectors"])


@pytest.mark.parametrize(
    "words",
    [
        ["merge-bin", "--output", "o", "--pad-to-size", "256KB"],
        ["merge_bin", "-o", "o", "--fill-flash-size", "256KB"],
        ["merge_bin", "-oo", "--fill-flash-si", "256KB", "--target-off", "0"],
        ["merge_bin", "-o", "o", "-sc", "SPI", "--pad-to-size=256KB", "--format", "raw"],
        [
            "merge_bin",
            "-o",
            "o",
            "--pad-to-size",
            "256KB",
            "--flash_mode",
            "keep",
            "-ff",
            "keep",
            "-fs",
            "keep",
        ],
    ],
)
def test_every_spelling_merges_alike(capsys, words):
    assert run(capsys, "--chip", "esp32", *words, "0x1000", BOOT)[0] == 0
    data = Path("o").read_bytes()
    assert len(data) == 0x40000
    assert data[0x1000:].startswith(Path(BOOT).read_bytes())


def test_a_failed_merge_leaves_no_file(capsys):
    code, _, err = run(capsys, "merge-bin", "-o", "o", "0x1000", BOOT, "0x2000", BOOT)
    assert (code, "[merge-overlap]" in err, Path("o").exists()) == (2, True, False)


def test_without_an_image_the_chip_must_be_named(capsys):
    Path("raw.bin").write_bytes(b"raw")
    code, _, err = run(capsys, "merge-bin", "-o", "o", "0x1000", "raw.bin")
    assert (code, "[merge-chip]" in err) == (2, True)
    assert run(capsys, "--chip", "esp32", "merge-bin", "-o", "o", "0x1000", "raw.bin")[0] == 0


def test_flash_settings_of_a_damaged_boot_loader_are_not_touched_and_that_is_said(capsys):
    Path("damaged.bin").write_bytes(Path(BOOT).read_bytes()[:-1] + b"\0")
    code, out, err = run(capsys, "merge-bin", "-o", "o", "-fm", "qio", "0x1000", "damaged.bin")
    assert code == 0
    assert "left unchanged" in out + err
    assert Path("o").read_bytes()[0x1000:] == Path("damaged.bin").read_bytes()
