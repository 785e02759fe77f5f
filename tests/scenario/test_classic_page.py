"""What esptool.py's classic page (versions 1.x) names, in its spelling, through ``esptool.py`` on a virtual ESP8266.

docs/classic-page.md maps the page's statements to these tests; ``test_the_map_names_tests_that_there_are`` holds it to that.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from pathlib import Path

import pytest
from docs_examples import ROOT, find_main, parse_only

DATA = ROOT / "tests/data/esp8266"
BOOT = (DATA / "boot_v1.7.bin").read_bytes()
INIT = (DATA / "esp_init_data_default_v08.bin").read_bytes()
MAC = "5c:cf:7f:01:02:03"
MEGABITS = {"4m": 0, "2m": 1, "8m": 2, "16m": 3, "32m": 4, "16m-c1": 5, "32m-c1": 6, "32m-c2": 7}
BYTES = "512KB 256KB 1MB 2MB 4MB 2MB-c1 4MB-c1 4MB-c2 8MB 16MB"
HEADER_SIZES = MEGABITS | {name: code for code, name in enumerate(BYTES.split())}
FREQUENCIES = {"40m": 0, "26m": 1, "20m": 2, "80m": 15}
MODES = {"qio": 0, "qout": 1, "dio": 2, "dout": 3}

TEST_ID = re.compile(r"`(?:tests/)?([\w/]+\.py)(?:::(\w+))?`")


class Page:
    """The page's command lines, run in a folder with its files."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        self.main = find_main("esptool.py")
        monkeypatch.chdir(folder)
        self.plug("size=4MB")
        for name, data in {
            "boot_v1.7.bin": BOOT,
            "bootloader.bin": BOOT,
            "my_app.bin": INIT,
            "my_app-0x01000.bin": INIT,
            "my_app.elf-0x00000.bin": BOOT,
            "my_app.elf-0x40000.bin": INIT,
            "app.text.bin": bytes(range(256)),
            "app.data.bin": b"data" * 5,
            "app.rodata.bin": b"rodata.." * 3,
        }.items():
            (folder / name).write_bytes(data)

    def plug(self, query: str) -> None:
        """Put this ESP8266 behind every port."""
        self.port = f"virtual:esp8266?flash=the.flash&mac={MAC}&profile=instant&{query}"
        self.monkeypatch.setenv("ESPTOOL_PORT", self.port)

    def __call__(self, line: str, code: int = 0) -> str:
        """Run a line of the page; its output."""
        words = shlex.split(line)
        assert words.pop(0) == "esptool.py"
        words = [
            re.sub(r"(/dev/(ttyUSB|tty\.)\w+|COM\d+)$", lambda _: self.port, word) for word in words
        ]
        got = self.main(words)
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        assert got == code, (got, out, err)
        return out + err

    def held(self, address: int, size: int) -> bytes:
        """What the flash holds."""
        return (self.folder / "the.flash").read_bytes()[address : address + size]


@pytest.fixture
def page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Page:
    return Page(tmp_path, capsys, monkeypatch)


# ---- installing and usage


def test_pip_installs_esptool_py() -> None:
    import tomllib

    compat = tomllib.loads((ROOT / "compat/pyproject.toml").read_text("utf-8"))
    assert (
        "esptool.py"
        in compat["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-scripts"].values()
    )


def test_help_lists_commands_and_options(page: Page) -> None:
    said = page("esptool.py -h")
    for word in (
        "--port",
        "--baud",
        "write-flash",
        "read-mac",
        "flash-id",
        "chip-id",
        "dump-mem",
        "verify-flash",
    ):
        assert word in said
    assert page("esptool.py --help") == said


@pytest.mark.parametrize(
    "command",
    [
        "write_flash",
        "verify_flash",
        "read_flash",
        "dump_mem",
        "read_mac",
        "flash_id",
        "chip_id",
        "erase_flash",
    ],
)
def test_help_of_a_command(page: Page, command: str) -> None:
    said = page(f"esptool.py {command} -h")
    assert said.startswith("Usage: ")
    assert "-fm" in said or command != "write_flash"


def test_version(page: Page) -> None:
    assert re.search(r"\d+\.\d+", page("esptool.py version"))


# ---- port and rate


@pytest.mark.parametrize(
    "option", ["-p /dev/ttyUSB0", "-p COM1", "--port COM4", "--port /dev/tty.usbserial", ""]
)
def test_the_port_is_named_by_an_option(page: Page, option: str) -> None:
    assert MAC in page(f"esptool.py {option} read_mac")


@pytest.mark.parametrize("port", ["COM1", "/dev/ttyS0", "/dev/ttyUSB0", "/dev/tty.usbserial"])
def test_port_names_of_every_system_are_taken_as_they_are(port: str) -> None:
    assert parse_only(["-p", port, "read_mac"]) == 0


@pytest.mark.parametrize(
    "baud", ["9600", "74880", "115200", "230400", "460800", "921600", "1500000"]
)
def test_any_rate_is_accepted(page: Page, baud: str) -> None:
    assert MAC in page(f"esptool.py -b {baud} read_mac")
    assert MAC in page(f"esptool.py --baud {baud} read_mac")


def test_slow_rates_are_used_from_the_start(page: Page) -> None:
    assert '"baud": 9600' in page("esptool.py --json -b 9600 read_mac")


def test_the_first_contact_is_at_115200_at_most(page: Page) -> None:
    assert '"baud": 115200' in page("esptool.py --json -b 921600 read_mac")


def test_data_goes_at_the_higher_rate(page: Page) -> None:
    assert "no-baud-change" not in page("esptool.py -b 921600 read_mac")


def test_esptool_baud_is_the_default_rate(page: Page) -> None:
    page.monkeypatch.setenv("ESPTOOL_BAUD", "57600")
    assert '"baud": 57600' in page("esptool.py --json read_mac")
    assert '"baud": 9600' in page("esptool.py --json -b 9600 read_mac")


# ---- elf2image, make_image, image_info


def write_app(folder: Path) -> None:
    """A program for the ESP8266 as a linker leaves it: RAM code, data, and code in flash."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        from elf_writer import XTENSA, Part, Program, write_elf
    finally:
        sys.path.pop(0)
    parts = [
        Part(".text", 0x40100000, bytes(range(64)) * 4),
        Part(".data", 0x3FFE8000, b"data" * 8, flags=3),
        Part(".rodata", 0x3FFE8400, b"rodata!!" * 6, flags=2),
        Part(".irom0.text", 0x40240000, bytes(range(255, -1, -1)) * 8),
    ]
    (folder / "my_app.elf").write_bytes(write_elf(Program(parts, machine=XTENSA, entry=0x40100004)))


def test_elf2image_makes_two_files_named_by_address(page: Page) -> None:
    write_app(page.folder)
    page("esptool.py --chip esp8266 elf2image my_app.elf")
    first, second = (page.folder / f"my_app.elf-0x{at}.bin" for at in ("00000", "40000"))
    assert first.read_bytes()[0] == 0xE9
    assert first.read_bytes() != BOOT
    assert bytes(range(255, -1, -1)) * 8 in second.read_bytes()


@pytest.mark.parametrize("option", ["-o", "--output"])
def test_elf2image_takes_a_prefix(page: Page, option: str) -> None:
    write_app(page.folder)
    page(f"esptool.py --chip esp8266 elf2image {option} out- my_app.elf")
    assert len(list(page.folder.glob("out-*0x*.bin"))) == 2


@pytest.mark.parametrize("option", ["--version=2", "--version 2", "-e 2"])
def test_elf2image_version_2_is_one_file(page: Page, option: str) -> None:
    write_app(page.folder)
    page(f"esptool.py --chip esp8266 elf2image {option} -o my_app-ota.bin my_app.elf")
    assert (page.folder / "my_app-ota.bin").read_bytes()[0] == 0xEA


def test_elf2image_takes_flash_settings(page: Page) -> None:
    write_app(page.folder)
    page("esptool.py --chip esp8266 elf2image -fm dio -ff 80m -fs 32m my_app.elf")
    assert (page.folder / "my_app.elf-0x00000.bin").read_bytes()[2:4] == bytes([2, 0x4F])


def test_make_image_puts_segments_together(page: Page) -> None:
    page(
        "esptool.py --chip esp8266 make_image -f app.text.bin -a 0x40100000 -f app.data.bin -a 0x3ffe8000"
        " -f app.rodata.bin -a 0x3ffe8c00 app.flash.bin"
    )
    made = next(page.folder.glob("app.flash.bin*")).read_bytes()
    assert made[:2] == b"\xe9\x03"
    assert bytes(range(256)) in made


def test_make_image_takes_an_entry_point(page: Page) -> None:
    page(
        "esptool.py --chip esp8266 make_image -f app.text.bin -a 0x40100000 -e 0x40100010 app.flash.bin"
    )
    made = next(page.folder.glob("app.flash.bin*")).read_bytes()
    assert made[4:8] == bytes.fromhex("10001040")


def test_image_info_shows_an_image(page: Page) -> None:
    said = page("esptool.py --chip esp8266 image_info boot_v1.7.bin")
    assert "4010057c" in said.lower()


def test_merge_bin_makes_one_file(page: Page) -> None:
    page("esptool.py --chip esp8266 merge_bin -o merged.bin 0x0 bootloader.bin 0x1000 my_app.bin")
    merged = (page.folder / "merged.bin").read_bytes()
    assert merged[: len(BOOT)] == BOOT
    assert merged[0x1000 : 0x1000 + len(INIT)] == INIT


# ---- write_flash


def test_version_1_images_are_two_pairs(page: Page) -> None:
    page(
        "esptool.py --port COM4 write_flash 0x00000 my_app.elf-0x00000.bin 0x40000 my_app.elf-0x40000.bin"
    )
    assert page.held(0, len(BOOT)) == BOOT
    assert page.held(0x40000, len(INIT)) == INIT


def test_a_version_2_image_is_one_pair(page: Page) -> None:
    page("esptool.py --port COM4 write_flash 0x1000 my_app-0x01000.bin")
    assert page.held(0x1000, len(INIT)) == INIT


def test_settings_stand_after_the_command(page: Page) -> None:
    page(
        "esptool.py --port /dev/ttyUSB0 write_flash --flash_mode qio --flash_size 32m 0x0 bootloader.bin 0x1000 my_app.bin"
    )
    assert page.held(0, 4) == b"\xe9\x03\x00\x40"
    assert page.held(0x1000, len(INIT)) == INIT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("option", ["-fm {}", "--flash_mode {}", "-fm{}", "--flash_mode={}"])
def test_flash_modes(page: Page, mode: str, option: str) -> None:
    page(f"esptool.py write_flash {option.format(mode)} 0x0 boot_v1.7.bin")
    assert page.held(2, 1)[0] == MODES[mode]


@pytest.mark.parametrize("size", HEADER_SIZES)
@pytest.mark.parametrize("option", ["-fs {}", "--flash_size={}"])
def test_flash_sizes(page: Page, size: str, option: str) -> None:
    page.plug("size=16MB")
    page(f"esptool.py write_flash {option.format(size)} 0x0 boot_v1.7.bin")
    assert page.held(3, 1)[0] >> 4 == HEADER_SIZES[size]


@pytest.mark.parametrize(
    "real, code", [("512KB", 0), ("1MB", 2), ("2MB", 3), ("4MB", 4), ("16MB", 9)]
)
def test_the_size_is_detected(page: Page, real: str, code: int) -> None:
    page.plug(f"size={real}")
    page("esptool.py write_flash -fs detect 0x0 boot_v1.7.bin")
    assert page.held(3, 1)[0] >> 4 == code


@pytest.mark.parametrize("frequency", FREQUENCIES)
@pytest.mark.parametrize("option", ["-ff {}", "--flash_freq {}"])
def test_flash_frequencies(page: Page, frequency: str, option: str) -> None:
    page(f"esptool.py write_flash {option.format(frequency)} 0x0 boot_v1.7.bin")
    assert page.held(3, 1)[0] & 15 == FREQUENCIES[frequency]


def test_variables_give_the_settings_and_options_win(page: Page) -> None:
    for name, value in {"ESPTOOL_FM": "dio", "ESPTOOL_FS": "32m-c1", "ESPTOOL_FF": "26m"}.items():
        page.monkeypatch.setenv(name, value)
    page("esptool.py write_flash 0x0 boot_v1.7.bin")
    assert page.held(2, 2) == bytes([2, 0x61])
    page("esptool.py write_flash -fm qout -fs 8m -ff 20m 0x0 boot_v1.7.bin")
    assert page.held(2, 2) == bytes([1, 0x22])


def test_only_what_goes_to_0x0_is_changed(page: Page) -> None:
    page("esptool.py write_flash -fm dio -fs 32m -ff 80m 0x10000 boot_v1.7.bin 0x0 my_app.bin")
    assert page.held(0x10000, len(BOOT)) == BOOT


def test_by_default_the_image_s_own_settings_are_kept(page: Page) -> None:
    page("esptool.py write_flash 0x0 boot_v1.7.bin")
    assert page.held(0, len(BOOT)) == BOOT


@pytest.mark.parametrize("option", ["-p", "--no-progress"])
def test_progress_can_be_left_out(page: Page, option: str) -> None:
    assert "% of" not in page(f"esptool.py write_flash {option} 0x0 boot_v1.7.bin")


def test_no_compress_is_what_a_rom_does_anyway(page: Page) -> None:
    page("esptool.py write_flash -u 0x1000 my_app.bin")
    page("esptool.py write_flash --no-compress 0x0 boot_v1.7.bin")
    assert page.held(0, len(BOOT)) == BOOT


# ---- verifying and reading flash


def test_verify_option(page: Page) -> None:
    page("esptool.py write_flash --verify 0x40000 my_app.elf-0x40000.bin")


def test_verify_flash(page: Page) -> None:
    page("esptool.py write_flash 0x40000 my_app.elf-0x40000.bin")
    page("esptool.py verify_flash 0x40000 my_app.elf-0x40000.bin")


def test_verify_flash_with_the_settings_of_the_writing(page: Page) -> None:
    page("esptool.py write_flash -fm dio 0x0 boot_v1.7.bin")
    page("esptool.py verify_flash -fm dio --diff yes 0x0 boot_v1.7.bin")


def test_read_flash(page: Page) -> None:
    page("esptool.py write_flash 0x1000 my_app.bin")
    page("esptool.py -b 921600 read_flash 0x1000 128 out.bin")
    assert (page.folder / "out.bin").read_bytes() == INIT[:128]


def test_what_the_rom_cannot_verify_is_refused_not_passed(page: Page) -> None:
    """An error, and nothing is written by ``--verify``."""
    page("esptool.py --no-stub write_flash --verify 0x40000 my_app.elf-0x40000.bin", 2)
    assert not (page.folder / "the.flash").exists() or set(page.held(0x40000, 128)) == {0xFF}
    page("esptool.py --no-stub verify_flash 0x40000 my_app.elf-0x40000.bin", 2)


def test_erase_flash(page: Page) -> None:
    page("esptool.py write_flash 0x1000 my_app.bin")
    page("esptool.py erase_flash")
    assert set(page.held(0, 0x400000)) == {0xFF}


def test_erase_region(page: Page) -> None:
    page("esptool.py write_flash 0x1000 my_app.bin 0x10000 my_app.bin")
    page("esptool.py erase_region 0x10000 0x1000")
    assert set(page.held(0x10000, 0x1000)) == {0xFF}
    assert page.held(0x1000, len(INIT)) == INIT


# ---- memory, identity, control


def test_dump_mem_reads_the_rom(page: Page) -> None:
    page("esptool.py dump_mem 0x40000000 65536 iram0.bin")
    dump = (page.folder / "iram0.bin").read_bytes()
    assert len(dump) == 65536
    assert dump[0x1000:0x1004] == bytes.fromhex("01c1f0ff")


def test_read_mem_and_write_mem(page: Page) -> None:
    assert "0xfff0c101" in page("esptool.py read_mem 0x40001000")
    page("esptool.py write_mem 0x3ffe8000 0x12345678 0xffffffff")


def test_load_ram(page: Page) -> None:
    assert "0x4010057c" in page("esptool.py load_ram boot_v1.7.bin")


def test_run(page: Page) -> None:
    page("esptool.py run")


def test_read_mac(page: Page) -> None:
    assert f"MAC: {MAC}" in page("esptool.py read_mac")


def test_flash_id(page: Page) -> None:
    said = page("esptool.py flash_id")
    assert re.search(r"Manufacturer: +ef\b", said)
    assert re.search(r"Device: +4016\b", said)
    assert re.search(r"flash size: +4MB", said, re.IGNORECASE)


def test_chip_id_ends_like_the_mac(page: Page) -> None:
    assert "0x00010203" in page("esptool.py chip_id")


# ---- the map


def find_tests(path: Path) -> set[str]:
    """The test functions of a file."""
    tree = ast.parse(path.read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def is_there(file: str, name: str) -> bool:
    """Whether a test, or a file of tests, exists."""
    path = ROOT / "tests" / file
    return path.exists() and (not name or name in find_tests(path))


def find_bad_rows(text: str, headings: str) -> list[str]:
    """Rows of the map that name no test, no heading of differences.md, or one that is not there."""
    bad = []
    rows = [
        row
        for row in text.splitlines()
        if row.startswith("| ") and not row.startswith(("| ---", "| The page"))
    ]
    for row in rows:
        shown_by = row.strip("| ").rsplit(" | ", 1)[1]
        ids = TEST_ID.findall(shown_by)
        links = re.findall(r"\]\(([\w./-]+\.md)(#[\w-]+)?\)", shown_by)
        ok = bool(ids or links)
        ok = ok and all(is_there(file, name) for file, name in ids)
        for target, anchor in links:
            path = ROOT / "docs" / target
            ok = ok and path.exists()
            if target == "differences.md":
                ok = ok and anchor.removeprefix("#") in headings
        if not ok:
            bad.append(row)
    return bad


def anchors_of_differences() -> str:
    heads = re.findall(
        r"^#+ +(.*)$", (ROOT / "docs/differences.md").read_text("utf-8"), re.MULTILINE
    )
    return "\n".join(re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)


def test_the_map_names_tests_that_there_are() -> None:
    text = (ROOT / "docs/classic-page.md").read_text("utf-8")
    assert find_bad_rows(text, anchors_of_differences()) == []
    assert len(re.findall(r"^\| [^-T]", text, re.MULTILINE)) >= 60


def test_differences_names_tests_that_there_are() -> None:
    ids = [
        one
        for one in TEST_ID.findall((ROOT / "docs/differences.md").read_text("utf-8"))
        if "test_" in one[0]
    ]
    assert len(ids) >= 3
    assert [one for one in ids if not is_there(*one)] == []


def test_every_test_of_the_page_is_in_the_map() -> None:
    text = (ROOT / "docs/classic-page.md").read_text("utf-8")
    others = {
        "test_the_map_names_tests_that_there_are",
        "test_differences_names_tests_that_there_are",
        "test_every_test_of_the_page_is_in_the_map",
        "test_a_bad_row_is_found",
    }
    assert [name for name in sorted(find_tests(Path(__file__)) - others) if name not in text] == []


@pytest.mark.parametrize(
    "row",
    [
        "| Port | a | `scenario/test_classic_page.py::test_no_such_thing` |",
        "| Port | a | `scenario/no_such_file.py::test_run` |",
        "| Port | a | [why](differences.md#no-such-heading) |",
        "| Port | a | somewhere |",
    ],
)
def test_a_bad_row_is_found(row: str) -> None:
    assert find_bad_rows(row, anchors_of_differences()) == [row]
