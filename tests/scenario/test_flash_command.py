"""``espwire flash PATH``, and files of every format given to the commands that take files, on virtual chips."""

from __future__ import annotations

import io
import json
import shutil
import struct
import sys
from pathlib import Path

import pytest

import espwire
from espwire.blob import Blob
from espwire.cli.main import main
from espwire.errors import SafetyStop
from espwire.image.uf2 import build_uf2
from espwire.transport.base import CancelToken
from espwire.virtual.transport import open_virtual

sys.path.insert(0, str(Path(__file__).parents[1]))
from elf_writer import RISCV, Part, Program, write_elf
from espwire.image.build_dir import build_ota_data
from espwire.image.build_file import BuildPlan
from espwire.image.partition_csv import parse_csv
from espwire.image.partition_table import build_table
from espwire.image.read_any import read_input

DATA = Path(__file__).parents[1] / "data"
BUILDS = DATA / "builds"
CHIPS = {
    "esp-idf": "esp32c3", "esp-idf-ota": "esp32", "platformio-esp32": "esp32", "platformio-esp32s3": "esp32s3",
    "platformio-esp8266": "esp8266", "arduino-esp32": "esp32c3", "arduino-esp32-merged": "esp32",
    "arduino-esp8266": "esp8266", "release": "esp32",
}  # fmt: skip
APP = [
    Part(".flash.appdesc", 0x3C000020, struct.pack("<I", 0xABCD5432) + bytes(252)),
    Part(".flash.text", 0x42010020, b"code" * 40),
    Part(".iram0.text", 0x40380000, b"iram" * 16),
]
HEX = b":10001000000102030405060708090A0B0C0D0E0F68\n:00000001FF\n"
SREC = b"S1130010000102030405060708090A0B0C0D0E0F64\nS9030000FC\n"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command line on a chip with a flash file; gives exit code, JSON lines and the flash."""

    def call(chip: str, *words: str, query: str = ""):
        flash = tmp_path / f"{chip}.flash"
        code = main(
            ["--json", "--port", f"virtual:{chip}?flash={flash.as_posix()}&size=4MB{query}", *words]
        )
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        return code, lines, flash.read_bytes() if flash.exists() else b""

    return call


@pytest.mark.parametrize("tree", CHIPS)
def test_every_tool_s_build_is_written_where_it_belongs_and_verified(run, tree: str) -> None:
    code, lines, flash = run(CHIPS[tree], "flash", str(BUILDS / tree))
    assert code == 0, lines[-1]
    assert lines[-1]["data"]["verified"] is True
    plan = espwire.read_build(BUILDS / tree)
    for file in plan.blobs:
        there = flash[file.address : file.end]
        differs = [at for at, (a, b) in enumerate(zip(there, file.data, strict=True)) if a != b]
        assert not differs or (file.kind == "bootloader" and max(differs) < len(file.data)), (
            file.name
        )
    if plan.settings.keep_all:
        assert all(flash[file.address : file.end] == file.data for file in plan.blobs)
    told = [line["text"] for line in lines if line["event"] == "Note"]
    assert all(line in told for line in plan.describe())


def test_the_second_time_nothing_is_written_and_a_change_costs_its_sectors(run) -> None:
    tree = str(BUILDS / "esp-idf-ota")
    assert run("esp32", "flash", tree)[1][-1]["data"]["bytes_written"] > 0
    code, lines, flash = run("esp32", "flash", tree)
    assert (code, lines[-1]["data"]["bytes_written"], lines[-1]["data"]["verified"]) == (0, 0, True)
    assert lines[-1]["text"].startswith("Done: already up to date")
    assert "--no-diff" in lines[-1]["text"]
    assert run("esp32", "flash", "--no-diff", tree)[1][-1]["data"]["bytes_written"] > 0
    assert run("esp32", "flash", tree)[2] == flash


def test_only_the_application_is_written(run) -> None:
    code, lines, flash = run("esp32c3", "flash", "--app", str(BUILDS / "esp-idf"))
    assert code == 0
    parts = lines[-1]["data"]["parts"]
    assert [(part["address"], part["role"]) for part in parts] == [(0x10000, "app")]
    assert not any("change no header" in line.get("text", "") for line in lines)
    assert flash[:0x10000] == b"\xff" * 0x10000


def test_a_file_without_roles_has_no_application_to_choose(run, tmp_path) -> None:
    (tmp_path / "x.hex").write_bytes(HEX)
    code, lines, _ = run("esp32c3", "flash", "--app", str(tmp_path / "x.hex"))
    assert (code, lines[-1]["code"]) == (2, "no-app")


def test_partitions_are_erased_by_name_before_the_files_are_compared(run, tmp_path) -> None:
    tree = str(BUILDS / "esp-idf")
    (tmp_path / "nvs.bin").write_bytes(b"settings")
    assert run("esp32c3", "flash", tree)[0] == 0
    assert run("esp32c3", "write-flash", "nvs=" + str(tmp_path / "nvs.bin"))[0] == 0
    code, lines, flash = run("esp32c3", "flash", "--erase", "nvs", tree)
    assert code == 0
    assert flash[0x9000:0xF000] == b"\xff" * 0x6000
    assert lines[-1]["data"]["bytes_written"] == 0
    assert "were erased" in lines[-1]["text"]
    code, lines, _ = run("esp32c3", "flash", "--erase", "factory", tree)
    assert (code, lines[-1]["data"]["verified"]) == (0, True)
    assert lines[-1]["data"]["bytes_written"] > 0
    code, lines, _ = run("esp32c3", "flash", "--erase", "nothing", tree)
    assert (code, lines[-1]["code"]) == (6, "partition-unknown")


SLOTS = "nvs,data,nvs,0x9000,0x4000\notadata,data,ota,0xd000,0x2000\nphy,data,phy,,4K\nfactory,app,factory,0x10000,256K\nota_0,app,ota_0,,256K\nota_1,app,ota_1,,256K\n"


def run_other_slot(run, tmp_path: Path) -> str:
    """A board that boots ota_1; the path of a build whose application belongs into factory."""
    image = (BUILDS / "esp-idf/build/hello_world.bin").read_bytes()
    table = build_table(parse_csv(SLOTS))
    build = tmp_path / "build"
    shutil.copytree(BUILDS / "esp-idf/build", build)
    (build / "partition_table/partition-table.bin").write_bytes(table)
    (tmp_path / "ota.bin").write_bytes(build_ota_data(1))
    (tmp_path / "app1.bin").write_bytes(image)
    assert run("esp32c3", "flash", str(build))[0] == 0
    words = ("0xd000", str(tmp_path / "ota.bin"), "0x90000", str(tmp_path / "app1.bin"))
    assert run("esp32c3", "write-flash", *words)[0] == 0
    return str(build)


def test_another_application_that_boots_is_named_at_the_end_and_can_be_replaced(run, tmp_path):
    build = run_other_slot(run, tmp_path)
    for _ in range(2):  # written, or up to date
        code, lines, flash = run("esp32c3", "flash", build)
        assert code == 0
        assert [line["code"] for line in lines if line["event"] == "Warned"] == ["not-booted"]
        assert lines[-1]["data"]["unbooted"] == {"written": "factory", "boots": "ota_1"}
        assert " ota_1 boots, not factory. " in lines[-1]["text"]
        assert flash[0xD000:0xF000] == build_ota_data(1)
    code, lines, flash = run("esp32c3", "flash", "--select-written", build)
    assert (code, lines[-1]["data"]["unbooted"]) == (0, None)
    assert "boots, not" not in lines[-1]["text"]
    assert flash[0xD000:0xF000] == b"\xff" * 0x2000
    assert run("esp32c3", "flash", build)[1][-1]["data"]["unbooted"] is None


@pytest.mark.parametrize(("answer", "selects"), [("y\n", True), ("\n", False), ("", False)])
def test_on_a_terminal_there_is_a_question(run, tmp_path, monkeypatch, capsys, answer, selects):
    build = run_other_slot(run, tmp_path)
    monkeypatch.setattr("espwire.cli.run_output.is_terminal", lambda stream: True)
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    flash = tmp_path / "esp32c3.flash"
    assert (
        main(["--port", f"virtual:esp32c3?flash={flash.as_posix()}&size=4MB", "flash", build]) == 0
    )
    out = capsys.readouterr().out
    assert out.count("Have factory boot instead? [y/N]") == 1
    assert ("factory, which boots from now on" in out) == selects
    assert ("ota_1 boots, not factory." in out) != selects
    assert (flash.read_bytes()[0xD000:0xF000] == b"\xff" * 0x2000) == selects


def test_the_current_folder_is_the_default(run, monkeypatch) -> None:
    monkeypatch.chdir(BUILDS / "esp-idf")
    code, lines, _ = run("esp32c3", "flash")
    assert (code, len(lines[-1]["data"]["parts"])) == (0, 3)


def test_the_monitor_has_no_json_and_says_so_before_anything_is_written(run) -> None:
    code, lines, flash = run("esp32c3", "flash", "--monitor", str(BUILDS / "esp-idf"))
    assert (code, lines[-1]["code"], flash) == (2, "usage", b"")


def test_a_build_for_another_chip_is_told_before_anything_is_written(run) -> None:
    code, lines, flash = run("esp32", "flash", str(BUILDS / "arduino-esp32"))
    assert code == 8
    assert lines[-1]["code"] == "wrong-chip-image"
    assert lines[-1]["message"].startswith("Blink.ino.bootloader.bin is for esp32c3, not for esp32")
    assert "wrong-chip-image" in lines[-1]["details"]["consents"]
    assert lines[-1]["hint"].startswith("Use a build for esp32, or connect another board. If you")
    assert not flash.strip(b"\xff")


def test_a_dry_run_shows_the_plan_and_writes_nothing(run) -> None:
    code, lines, flash = run("esp32c3", "flash", str(BUILDS / "esp-idf"), "--dry-run")
    assert code == 0
    assert any(line["event"] == "PlanReady" and len(line["steps"]) > 2 for line in lines)
    assert lines[-1]["data"]["written"] is False
    assert not flash.strip(b"\xff")


def test_what_the_chip_encrypts_is_not_said_to_be_verified(run, tmp_path, capsys) -> None:
    build = tmp_path / "build"
    shutil.copytree(BUILDS / "esp-idf/build", build)
    arguments = json.loads((build / "flasher_args.json").read_text("utf-8"))
    del arguments["flash_files"]["0x8000"], arguments["partition-table"]
    arguments["app"]["encrypted"] = "true"
    (build / "flasher_args.json").write_text(json.dumps(arguments), "utf-8")
    query = f"&flash-encryption=1&flash-key={bytes(range(32)).hex()}"
    words = ("flash", "--encrypt", "--allow", "plaintext", str(build))
    code, lines, _ = run("esp32c3", *words, query=query)
    assert code == 0, lines[-1]
    assert (lines[-1]["data"]["verified"], lines[-1]["data"]["unchecked"]) == (
        False,
        ["hello_world.bin"],
    )
    assert lines[-1]["text"].endswith(", but only partly verified. The board was reset.")
    assert main(["--port", f"virtual:esp32c3?size=4MB{query}", *words]) == 0
    out = capsys.readouterr()
    assert "but only partly verified." in out.out
    assert "hello_world.bin: written, but not verified" in out.out + out.err


def test_show_needs_no_device(capsys) -> None:
    assert main(["--port", "/no/such/port", "flash", "--show", str(BUILDS / "esp-idf")]) == 0
    out = capsys.readouterr().out
    assert "0x00010000        160 bytes  hello_world.bin" in out
    assert "Nothing was written (--show): 3 files" in out


def test_erase_all_leaves_nothing_else(run) -> None:
    run("esp32c3", "write-flash", "0x200000", str(BUILDS / "esp-idf/build/hello_world.bin"))
    code, _, flash = run("esp32c3", "flash", "--erase-all", str(BUILDS / "esp-idf"))
    assert code == 0
    assert flash[0x200000:0x201000] == b"\xff" * 0x1000


def test_an_unclear_folder_lists_the_candidates(run) -> None:
    code, lines, _ = run("esp32", "flash", str(BUILDS / "platformio-two"))
    assert (code, lines[-1]["code"]) == (6, "build-unclear")
    assert len(lines[-1]["details"]["candidates"]) == 2


def test_header_options_win_over_the_build_s_own(run) -> None:
    code, _, flash = run("esp32c3", "flash", "--flash-mode", "qio", str(BUILDS / "esp-idf"))
    assert code == 0
    assert flash[2] == 0


def test_the_library_does_the_same(tmp_path) -> None:
    transport = open_virtual("virtual:esp32c3?size=4MB", CancelToken())
    with espwire.connect(transport, stub=False) as device:
        build = espwire.read_build(BUILDS / "arduino-esp32")
        plan = espwire.write_build(device, build)
        assert plan.steps
        with pytest.raises(SafetyStop):
            espwire.write_build(device, espwire.read_build(BUILDS / "arduino-esp8266"))
    flash = transport.chip.flash.contents
    assert all(bytes(flash[file.address : file.end]) == file.data for file in build.blobs)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.hex", HEX),
        ("a.srec", SREC),
        ("a.uf2", build_uf2([Blob(0x10, bytes(range(16)))], 0xD42BA06C)),
    ],
)
def test_own_addresses_of_a_file_win_over_the_typed_one(
    run, tmp_path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    for command in ("write-flash", "verify-flash"):
        code, lines, flash = run("esp32c3", command, "0x5000", str(tmp_path / name))
        assert code == 0, lines[-1]
        assert flash[0x10:0x20] == bytes(range(16))
        assert not flash[0x5000:0x6000].strip(b"\xff")


def test_an_elf_is_converted_written_to_the_typed_address_and_said(run, tmp_path) -> None:
    (tmp_path / "app.elf").write_bytes(write_elf(Program(APP, RISCV, 0x40380000)))
    for command in ("write-flash", "verify-flash"):
        code, lines, flash = run(
            "esp32c3", "--chip", "esp32c3", command, "0x10000", str(tmp_path / "app.elf")
        )
        assert code == 0, lines[-1]
        assert any(
            line["text"].startswith("app.elf was converted to an image for esp32c3")
            for line in lines[:3]
        )
    image = read_input(
        (tmp_path / "app.elf").read_bytes(), "app.elf", chip=espwire.load_chip("esp32c3")
    )
    assert flash[0x10000 : 0x10000 + len(image[0].data)] == image[0].data


def test_a_uf2_for_another_chip_is_refused(run, tmp_path) -> None:
    (tmp_path / "a.uf2").write_bytes(build_uf2([Blob(0x10000, b"data")], 0x1C5F21B0))
    code, lines, flash = run("esp32c3", "write-flash", "0", str(tmp_path / "a.uf2"))
    assert (code, lines[-1]["message"]) == (8, "a.uf2 is for esp32, not for esp32c3")
    assert not flash.strip(b"\xff")
    assert (
        run("esp32c3", "write-flash", "0", str(tmp_path / "a.uf2"), "--allow", "wrong-chip-image")[
            0
        ]
        == 0
    )


def test_a_program_for_ram_may_be_an_elf_or_hex(run, tmp_path) -> None:
    elf = write_elf(
        Program([Part(".text", 0x40390000, b"\x6f\x00\x00\x00" * 8)], RISCV, 0x40390000)
    )
    (tmp_path / "ram.elf").write_bytes(elf)
    code, lines, _ = run("esp32c3", "--chip", "esp32c3", "load-ram", str(tmp_path / "ram.elf"))
    assert code == 0, lines[-1]
    assert lines[-1]["data"]["entry"] == 0x40390000
    (tmp_path / "two.hex").write_bytes(HEX.splitlines()[0] + b"\n:0120000001DE\n:00000001FF\n")
    code, lines, _ = run("esp32c3", "load-ram", str(tmp_path / "two.hex"))
    assert (code, lines[-1]["code"]) == (6, "image-not-for-ram")
    assert "two.hex has data for 2 addresses" in lines[-1]["message"]


class Stdin:
    def __init__(self, data: bytes, *, keyboard: bool = False) -> None:
        self.buffer, self._keyboard = io.BytesIO(data), keyboard

    def isatty(self) -> bool:
        return self._keyboard


def test_standard_input_stands_for_a_file(run, monkeypatch) -> None:
    monkeypatch.setattr(sys, "stdin", Stdin(b"piped data"))
    code, lines, flash = run("esp32c3", "write-flash", "0x9000", "-")
    assert code == 0, lines[-1]
    assert flash[0x9000:0x900A] == b"piped data"
    assert lines[-1]["data"]["parts"][0]["name"] == "standard input"
    for stdin in (Stdin(b""), Stdin(b"x", keyboard=True), None):
        monkeypatch.setattr(sys, "stdin", stdin)
        assert run("esp32c3", "write-flash", "0x9000", "-")[0] == 2


BAD = {  # what is wrong → command line with {file}, its content, exit code, words of the one error
    "negative padding": (["elf2image", "--chip", "esp32c3", "--pad-to-size", "-4MB", "{file}", "-o", "{out}"],
                         write_elf(Program(APP, RISCV, 0x40380000)), 2, ("-4MB",)),
    "truncated": (["elf2image", "--chip", "esp32c3", "{file}", "-o", "{out}"],
                  write_elf(Program(APP, RISCV, 0x40380000))[:300], 6, ("offset", "bytes")),
    "wrong machine": (["elf2image", "--chip", "esp32", "{file}", "-o", "{out}"],
                      write_elf(Program(APP, RISCV, 0x40380000)), 6, ("riscv", "xtensa")),
    "ELF without segments": (["elf2image", "--chip", "esp32c3", "{file}", "-o", "{out}"],
                             write_elf(Program([], RISCV)), 6, ("file",)),
    "wrong chip": (["image-info", "--chip", "esp32", "{file}"], b"\x7fELF", 6, ("in",)),
    "CSV with overlaps": (["partitions", "build", "{file}", "-o", "{out}"],
                          b"a, app, ota_0, 0x10000, 1M\nb, data, nvs, 0x20000, 16K\n", 6, ("line 2", "overlap")),
    "overlapping": (["merge-bin", "--chip", "esp32c3", "-o", "{out}", "0", "{file}", "0x10", "{file}"], bytes(64), 2,
                    ("overlap",)),
    "oversize": (["merge-bin", "--chip", "esp32c3", "-o", "{out}", "0", "{file}", "0x20000000", "{file}"], b"x", 2,
                 ("in.x", "0x20000000", "beyond the end of any flash")),
    "HEX with bad sums": (["merge-bin", "--chip", "esp32c3", "-o", "{out}", "--input-format", "hex", "0", "{file}"], b":0400000001020304FF\n", 6,
                          ("in.x", "line 1", "checksum")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_error_and_no_output(capsys, tmp_path, case: str) -> None:
    words, content, exit_code, says = BAD[case]
    (tmp_path / "in.x").write_bytes(content)
    out = tmp_path / "out.bin"
    for before in (None, b"what was there"):
        if before is not None:
            out.write_bytes(before)
        code = main(["--json", *(word.format(file=tmp_path / "in.x", out=out) for word in words)])
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert code == exit_code, lines
        assert [line["event"] for line in lines].count("Error") == 1
        assert all(word in lines[-1]["message"] for word in says), lines[-1]["message"]
        assert (out.read_bytes() if out.exists() else None) == before
        assert {path.name for path in tmp_path.iterdir()} <= {"in.x", "out.bin"}


def test_resets_that_the_build_asks_for_count_unless_the_command_line_says_something_else() -> None:
    from espwire.cli.commands.flash_build import set_build_defaults
    from espwire.cli.context import Context

    build = BuildPlan(
        kind="x", name="x", blobs=(), before="usb-reset", after="no-reset", stub=False
    )
    context = Context()
    set_build_defaults(context, build)
    names = ("before", "after", "no_stub")
    assert [context.get(name) for name in names] == ["usb-reset", "no-reset", True]
    context = Context(options={"after": "hard-reset"})
    set_build_defaults(context, build)
    assert [context.get(name) for name in names] == ["usb-reset", "hard-reset", True]


def test_only_files_that_the_build_marks_are_encrypted_and_only_when_asked_for() -> None:
    from espwire.flash.prepare import list_build_blobs

    blobs = (espwire.Blob(0, b"a", "a", encrypted=True), espwire.Blob(0x1000, b"b", "b"))
    build = BuildPlan(kind="x", name="x", blobs=blobs, chips=("esp32",))
    assert [part.encrypted for part in list_build_blobs(build, encrypt=True)] == [True, False]
    assert [part.encrypted for part in list_build_blobs(build)] == [False, False]
    assert list_build_blobs(build)[0].chips == ("esp32",)


def test_a_flasher_args_that_names_a_file_elsewhere_that_is_not_there_is_one_error(
    run, tmp_path
) -> None:
    (tmp_path / "flasher_args.json").write_bytes(
        b'{"flash_files": {"0x0": "../../../../no/such/file"}}'
    )
    code, lines, _ = run("esp32", "flash", str(tmp_path / "flasher_args.json"))
    assert (code, lines[-1]["code"]) == (8, "build-outside")
    code, lines, _ = run(
        "esp32", "flash", str(tmp_path / "flasher_args.json"), "--allow", "outside-build"
    )
    assert (code, lines[-1]["code"]) == (6, "build-incomplete")
