"""Build folders and single files → what goes where. The trees of tests/data/builds are laid out as the tools lay them out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import DataError, ElfError, FileError, ToolError, UsageError
from espwire.image.build_dir import find_candidates, plan_flasher_args, read_build
from espwire.image.build_file import BuildRequest, plan_file
from espwire.image.flasher_args import parse_flash_args, parse_flasher_args
from espwire.image.header import HeaderSettings
from espwire.image.uf2 import build_uf2

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests/data"
BUILDS = DATA / "builds"
BOOT_APP0 = "01000000" + "ff" * 24 + "9a984347" + "ff" * 32
EXPECTED = {
    "esp-idf": ("ESP-IDF", "esp32c3", {0: "bootloader/bootloader.bin", 0x8000: "partition_table/partition-table.bin",
                                       0x10000: "hello_world.bin"}),
    "esp-idf-ota": ("ESP-IDF", "esp32", {0x1000: "bootloader/bootloader.bin", 0x8000: "partition_table/partition-table.bin",
                                         0xE000: "ota_data_initial.bin", 0x10000: "native_ota_example.bin"}),
    "platformio-esp32": ("PlatformIO", "esp32", {0x1000: "bootloader.bin", 0x8000: "partitions.bin",
                                                 0xE000: "OTA data (selects app0)", 0x10000: "firmware.bin"}),
    "platformio-esp32s3": ("PlatformIO", "esp32s3", {0: "bootloader.bin", 0x8000: "partitions.bin",
                                                     0xE000: "OTA data (selects ota_0)", 0x10000: "firmware.bin"}),
    "platformio-esp8266": ("PlatformIO", "esp8266", {0: "firmware.bin"}),
    "arduino-esp32": ("Arduino", "esp32c3", {0: "Blink.ino.bootloader.bin", 0x8000: "Blink.ino.partitions.bin",
                                             0xE000: "OTA data (selects app0)", 0x10000: "Blink.ino.bin"}),
    "arduino-esp32-merged": ("Arduino", "esp32", {0: "Blink.ino.merged.bin"}),
    "arduino-esp8266": ("Arduino", "esp8266", {0: "Blink.ino.bin"}),
    "release": ("set of parts", "esp32", {0x1000: "bootloader.bin", 0x8000: "partitions.bin", 0xE000: "boot_app0.bin",
                                          0x10000: "sensor-1.2.bin"}),
}  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path):
    """A copy of one of the trees, to be spoilt."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(BUILDS / name, tmp_path / name))

    return copy


def test_the_trees_are_what_their_tool_makes() -> None:
    done = subprocess.run(
        [sys.executable, "tools/make_build_trees.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", EXPECTED)
def test_a_project_s_build_is_found_and_each_part_goes_where_the_build_s_own_tool_puts_it(
    name: str,
) -> None:
    plan = read_build(BUILDS / name)
    kind, chip, files = EXPECTED[name]
    assert (plan.kind, plan.chips) == (kind, (chip,))
    assert {file.address: file.name for file in plan.blobs} == files
    for file in plan.blobs:
        assert file.data
        found = list((BUILDS / name).rglob(Path(file.name).name))
        assert not found or file.data == found[0].read_bytes()


def test_a_build_folder_itself_can_be_named_too() -> None:
    inside = read_build(BUILDS / "platformio-two/.pio/build/c3mini")
    assert inside.chips == ("esp32c3",)
    assert read_build(BUILDS / "esp-idf/build").blobs == read_build(BUILDS / "esp-idf").blobs


def test_esp_idf_s_settings_and_resets_are_taken_over() -> None:
    plan = read_build(BUILDS / "esp-idf/build/flasher_args.json")
    assert plan.settings == HeaderSettings(mode="dio", size="4MB", frequency="40m")
    assert (plan.before, plan.after, plan.stub) == ("default-reset", "hard-reset", True)


@pytest.mark.parametrize("name", ["flash_args", "flash_project_args"])
def test_the_text_file_of_esp_idf_gives_the_same_files(name: str) -> None:
    one, other = read_build(BUILDS / "esp-idf/build" / name), read_build(BUILDS / "esp-idf/build")
    assert [(file.address, file.data) for file in one.blobs] == [
        (file.address, file.data) for file in other.blobs
    ]
    assert one.settings == other.settings


def test_without_boot_app0_ota_data_is_generated_so_that_no_older_application_boots() -> None:
    plan = read_build(BUILDS / "platformio-esp32")
    (ota,) = [file for file in plan.blobs if file.kind == "ota-data"]
    assert len(ota.data) == 0x2000
    assert ota.data.hex().startswith(BOOT_APP0)
    assert "is generated" in plan.notes[0]


def test_data_images_are_left_out_with_a_note() -> None:
    plan = read_build(BUILDS / "release")
    assert any(note.startswith("littlefs.bin is left out") for note in plan.notes)


def test_several_builds_are_listed(tree) -> None:
    with pytest.raises(DataError) as caught:
        read_build(BUILDS / "platformio-two")
    assert caught.value.code == "build-unclear"
    assert caught.value.details["candidates"] == [
        ".pio/build/c3mini (PlatformIO)",
        ".pio/build/esp32dev (PlatformIO)",
    ]
    assert all(name in str(caught.value) for name in caught.value.details["candidates"])


def test_two_sketches_in_one_folder_are_listed(tree) -> None:
    folder = tree("arduino-esp8266") / "build/esp8266.esp8266.nodemcuv2"
    shutil.copy(folder / "Blink.ino.bin", folder / "Fade.ino.bin")
    with pytest.raises(
        DataError, match=r"Blink\.ino\.bin \(Arduino\), .*Fade\.ino\.bin \(Arduino\)"
    ):
        read_build(folder)


def test_a_folder_without_a_build_lists_what_could_be_meant() -> None:
    with pytest.raises(
        DataError, match=r"not a build folder of a known kind; it contains: a\.bin, sub/b\.hex"
    ) as caught:
        read_build(BUILDS / "no-build")
    assert caught.value.code == "build-unclear"


def test_a_folder_inside_another_build_is_not_another_build() -> None:
    files = [
        "build/flasher_args.json",
        "build/bootloader/flasher_args.json",
        "build2/flasher_args.json",
    ]
    assert [one.folder for one in find_candidates(files)] == ["build", "build2"]


@pytest.mark.parametrize(
    "folders",
    [
        (
            "esp-idf/examples/get-started/hello_world/build",
            "app/build",
        ),  # a checkout of ESP-IDF beside a project
        ("esp-idf", "other"),
        ("core/build", "libraries/demo/build", "deps"),
        ("one/.pio/build/esp32dev", "two/build"),
        ("a/b/c/d/e/build", "x"),
    ],
)
def test_every_build_below_a_folder_is_counted(tmp_path: Path, folders: tuple[str, ...]) -> None:
    for folder in folders:
        place = tmp_path / folder
        place.mkdir(parents=True)
        for name in (
            ("firmware.bin", "bootloader.bin") if ".pio" in folder else ("flasher_args.json",)
        ):
            (place / name).write_bytes(b"{}")
    with pytest.raises(DataError) as caught:
        read_build(tmp_path)
    assert sorted(one.split(" (")[0] for one in caught.value.details["candidates"]) == sorted(
        folders
    )


def test_the_intermediate_folders_of_a_build_are_not_looked_into(tree) -> None:
    folder = tree("esp-idf")
    for below in ("esp-idf/main", "CMakeFiles/x", "bootloader/esp-idf/y"):
        (folder / "build" / below).mkdir(parents=True)
        (folder / "build" / below / "flasher_args.json").write_bytes(b"{}")
    assert read_build(folder).kind == "ESP-IDF"


def test_a_set_of_parts_does_not_hide_a_build_below_it() -> None:
    files = ["bootloader.bin", "partitions.bin", "app.bin", "build/flasher_args.json"]
    assert [one.folder for one in find_candidates(files)] == ["", "build"]


def test_a_platformio_build_with_esp_idf_inside_counts_as_platformio_s() -> None:
    names = ["firmware.bin", "bootloader.bin", "partitions.bin", "flasher_args.json"]
    (found,) = find_candidates([f".pio/build/x/{name}" for name in names])
    assert found.kind == "PlatformIO"


@pytest.mark.parametrize("missing", ["bootloader/bootloader.bin", "hello_world.bin"])
def test_a_missing_file_of_flasher_args_is_named(tree, missing: str) -> None:
    folder = tree("esp-idf") / "build"
    (folder / missing).unlink()
    with pytest.raises(
        DataError, match=rf"flasher_args\.json: {missing} for 0x.* does not exist"
    ) as caught:
        read_build(folder)
    assert caught.value.code == "build-incomplete"


@pytest.mark.parametrize(
    ("missing", "what"), [("bootloader.bin", "bootloader"), ("partitions.bin", "partition table")]
)
def test_the_error_for_an_incomplete_platformio_build_names_what_is_missing(
    tree, missing: str, what: str
) -> None:
    folder = tree("platformio-esp32") / ".pio/build/esp32dev"
    (folder / missing).unlink()
    with pytest.raises(DataError, match=f"firmware.bin has no {what} in the folder") as caught:
        read_build(folder)
    assert caught.value.code == "build-incomplete"


def test_files_for_two_chips_in_one_build_are_an_error(tree) -> None:
    folder = tree("esp-idf") / "build"
    shutil.copy(BUILDS / "esp-idf-ota/build/native_ota_example.bin", folder / "hello_world.bin")
    with pytest.raises(
        DataError, match=r"the build is for esp32c3.*hello_world\.bin is for esp32"
    ) as caught:
        read_build(folder)
    assert caught.value.code == "build-mixed"


def test_an_application_larger_than_its_partition_is_an_error(tree) -> None:
    folder = tree("platformio-esp32") / ".pio/build/esp32dev"
    app = (folder / "firmware.bin").read_bytes()
    (folder / "firmware.bin").write_bytes(app + bytes(0x140000))
    with pytest.raises(
        DataError, match=r"firmware\.bin has 0x1400.. bytes, but partition 'app0' at 0x10000"
    ) as caught:
        read_build(folder)
    assert caught.value.code == "build-oversize"


@pytest.mark.parametrize("name", ["bootloader/bootloader.bin", "hello_world.bin"])
def test_an_empty_file_in_a_build_is_an_error(tree, name: str) -> None:
    folder = tree("esp-idf") / "build"
    (folder / name).write_bytes(b"")
    for path in (folder, folder / "flash_args"):
        with pytest.raises(DataError, match=f"{name} is empty") as caught:
            read_build(path)
        assert caught.value.code == "build-empty"


def test_a_file_s_name_in_a_plan_can_do_no_harm_to_a_terminal() -> None:
    text = json.dumps({"flash_files": {"0x0": "a\x1b[2J.bin"}}).encode()
    plan = plan_flasher_args(
        "flasher_args.json",
        lambda name: text if name.endswith(".json") else b"abc",
        "x",
        BuildRequest(),
    )
    assert plan.blobs[0].name == "a\\x1b[2J.bin"


def test_overlapping_files_are_an_error(tree) -> None:
    folder = tree("esp-idf") / "build"
    (folder / "bootloader/bootloader.bin").write_bytes(
        (folder / "bootloader/bootloader.bin").read_bytes() + bytes(0x8000)
    )
    with pytest.raises(
        DataError, match=r"bootloader\.bin ends at 0x80.. and overlaps partition_table"
    ) as caught:
        read_build(folder)
    assert caught.value.code == "build-overlap"


def test_a_build_for_another_chip_than_requested_is_an_error() -> None:
    with pytest.raises(UsageError, match="is a build for esp32c3, not for esp32") as caught:
        read_build(BUILDS / "esp-idf", BuildRequest(chip=load_chip("esp32")))
    assert caught.value.code == "build-chip"


def test_a_folder_without_firmware_is_an_error(tree) -> None:
    folder = tree("arduino-esp8266") / "build/esp8266.esp8266.nodemcuv2"
    (folder / "Blink.ino.bin").write_bytes(b"<html>404</html>")
    with pytest.raises(DataError, match=r"Blink\.ino\.bin is not a firmware image") as caught:
        read_build(folder)
    assert caught.value.code == "build-broken"


def test_a_folder_with_too_many_files_is_an_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("espwire.image.build_dir.MAX_FILES", 3)
    with pytest.raises(FileError, match="contains more than 3 files") as caught:
        read_build(BUILDS)
    assert caught.value.code == "folder-too-large"


def test_files_marked_as_encrypted_are_recognised() -> None:
    table = json.loads((BUILDS / "esp-idf/build/flasher_args.json").read_text())
    table["app"]["encrypted"] = "true"
    args = parse_flasher_args(json.dumps(table).encode())
    assert [file.encrypted for file in args.files] == [False, False, True]


BROKEN_JSON = {
    "cut short": (b'{"flash_files": {', "line 1, column 18"),
    "not an object": (b"[1]", "not a JSON object"),
    "no files": (b"{}", "flash_files is missing"),
    "files are a list": (b'{"flash_files": []}', r"flash_files is an array, not an object"),
    "empty": (b'{"flash_files": {}}', "lists 0 files"),
    "a number for a file": (b'{"flash_files": {"0x0": 7}}', "must be a string, got 7"),
    "a negative address": (
        b'{"flash_files": {"-0x1000": "a"}}',
        "'-0x1000' in flash_files is not a flash address",
    ),
    "an address twice": (
        b'{"flash_files": {"0": "a", "0x0": "b"}}',
        "'a' and 'b' have the same address 0x0",
    ),
    "an unknown chip": (
        b'{"flash_files": {"0": "a"}, "extra_esptool_args": {"chip": "esp99"}}',
        "is not a known chip",
    ),
    "a size that is none": (
        b'{"flash_files": {"0": "a"}, "flash_settings": {"flash_size": "big"}}',
        "not a flash size",
    ),
    "stub is a text": (
        b'{"flash_files": {"0": "a"}, "extra_esptool_args": {"stub": "no"}}',
        "not true or false",
    ),
    "nested without end": (b"[" * 100_000, "nested too deep"),
    "a file name with half a surrogate pair": (
        b'{"flash_files": {"0x0": "\\ud800.bin"}}',
        "must be a string",
    ),
    "a number of many digits": (
        b'{"flash_files": {"0x0": ' + b"9" * 5000 + b"}}",
        "too many digits$",
    ),
    "not UTF-8": (b"\xff\xfe{", "is not JSON"),
    "above 1 MiB": (b" " * (1 << 20) + b"{}", "more than 1 MiB"),
}


@pytest.mark.parametrize("case", BROKEN_JSON)
def test_a_broken_flasher_args_is_one_clear_error(case: str) -> None:
    data, says = BROKEN_JSON[case]
    with pytest.raises(DataError, match=says) as caught:
        parse_flasher_args(data)
    assert caught.value.code == "flasher-args"
    assert str(caught.value).startswith("flasher_args.json")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"0x1000", "value after '0x1000' is missing"),
        (b"", "lists 0 files"),
        (b"'0 a", "an unclosed quote"),
        (b"x a.bin", "not a flash address"),
    ],
)
def test_a_broken_flash_args_is_one_clear_error(text: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says):
        parse_flash_args(text)


def test_flags_and_short_options_of_flash_args() -> None:
    args = parse_flash_args(
        b"-z --force -fm qio --flash-freq=80m --flash_size 8MB 0x10000 'my app.bin' 0 b.bin"
    )
    assert args.settings == HeaderSettings(mode="qio", size="8MB", frequency="80m")
    assert [(file.address, file.path) for file in args.files] == [
        (0, "b.bin"),
        (0x10000, "my app.bin"),
    ]


@pytest.mark.parametrize(
    "text",
    [b'{"extra": 1}', b'{"extra": {"flash_images": [1]}}', b'{"extra": {"flash_images": [{}]}}', b"{",
     b'{"extra": {"flash_images": [{"path": "a", "offset": "?"}]}}', b'{"extra": {"application_offset": []}}'],
)  # fmt: skip
def test_a_broken_idedata_is_one_clear_error(tree, text: bytes) -> None:
    folder = tree("platformio-esp32s3") / ".pio/build/feather"
    (folder / "idedata.json").write_bytes(text)
    with pytest.raises(DataError, match=r"^idedata\.json") as caught:
        read_build(folder)
    assert caught.value.code == "idedata"


@pytest.mark.parametrize(
    ("name", "address"),
    [("esp32c3/micropython-head.bin", 0), ("esp32s2/micropython-head.bin", 0x1000)],
)
def test_a_real_merged_file_goes_where_its_boot_loader_belongs(name: str, address: int) -> None:
    plan = plan_file((DATA / name).read_bytes(), "firmware.bin")
    assert [(file.address, file.name) for file in plan.blobs] == [(address, "firmware.bin")]
    assert plan.chips == (name.split("/", maxsplit=1)[0],)


def test_a_single_image_needs_an_address() -> None:
    data = (BUILDS / "esp-idf/build/hello_world.bin").read_bytes()
    with pytest.raises(DataError, match=r"bootloader \(0x0\) or app \(0x10000\)") as caught:
        plan_file(data, "app.bin")
    assert caught.value.code == "build-unclear"
    (file,) = plan_file(data, "app.bin", BuildRequest(app_address=0x20000)).blobs
    assert file.address == 0x20000


def test_data_that_are_no_image_are_unclear() -> None:
    with pytest.raises(DataError, match="neither a merged binary nor an image") as caught:
        plan_file(b"some text", "a.bin")
    with pytest.raises(DataError, match="it is an HTML page, neither"):
        plan_file(b"<!doctype html><title>404</title>", "a.bin")
    assert caught.value.code == "build-unclear"


def test_uf2_goes_to_its_own_addresses() -> None:
    plan = plan_file(
        build_uf2([Blob(0x0, b"a" * 16), Blob(0x10000, b"b" * 16)], 0xD42BA06C), "x.uf2"
    )
    assert [(file.address, file.name) for file in plan.blobs] == [
        (0, "x.uf2 at 0x0"),
        (0x10000, "x.uf2 at 0x10000"),
    ]
    assert plan.chips == ("esp32c3",)


def test_an_elf_for_ram_alone_is_not_flashed_by_guess() -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from elf_writer import RISCV, Part, Program, write_elf

    data = write_elf(Program([Part(".text", 0x40380000, b"code" * 8)], RISCV, 0x40380000))
    with pytest.raises(ElfError, match="program for RAM") as caught:
        plan_file(data, "boot.elf", BuildRequest(chip=load_chip("esp32c3")))
    assert caught.value.code == "elf-not-for-flash"
    request = BuildRequest(chip=load_chip("esp32c3"), app_address=0)
    assert plan_file(data, "boot.elf", request).blobs[0].address == 0


@pytest.mark.parametrize("content", [b"", b":00000001FF\n"])
def test_a_file_without_data_is_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.hex").write_bytes(content)
    with pytest.raises(ToolError) as caught:
        read_build(tmp_path / "x.hex")
    assert caught.value.code == "build-empty"
