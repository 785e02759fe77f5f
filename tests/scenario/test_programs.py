"""Real programs, built by real compilers, become images that load into the RAM of virtual chips."""

import shutil
import subprocess
from pathlib import Path

import pytest

from espwire.chips.registry import load_chip
from espwire.cli.main import main
from espwire.image.codec import parse

PROGRAMS = Path(__file__).parents[1] / "data/programs"
COMMON = ["-Os", "-ffreestanding", "-nostdlib", "-nostartfiles", "-Wl,--build-id=none"]
COMPILERS = {
    "esp32c3": [
        "riscv64-unknown-elf-gcc",
        "-march=rv32imc",
        "-mabi=ilp32",
        "-Wl,--no-relax",
        *COMMON,
    ],
    "esp8266": ["xtensa-lx106-elf-gcc", "-mlongcalls", *COMMON],
}


def build(chip, folder, *flags):
    command = COMPILERS[chip]
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} on this machine")
    elf = folder / "app.elf"
    subprocess.run(
        [*command, *flags, "-T", PROGRAMS / f"{chip}.ld", PROGRAMS / "hello.c", "-o", elf],
        check=True,
    )
    return elf


@pytest.mark.parametrize("chip", COMPILERS)
def test_a_compiled_program_loads_into_ram(chip, tmp_path, capsys):
    elf = build(chip, tmp_path)
    assert main(["elf2image", "-o", str(tmp_path / "app"), str(elf)]) == 0  # the chip is found out
    image = tmp_path / ("app0x00000.bin" if chip == "esp8266" else "app")
    assert main(["--port", f"virtual:{chip}", "load-ram", str(image)]) == 0
    entry = parse(image.read_bytes(), load_chip(chip)).entry
    assert f"started the program at {entry:#010x}" in capsys.readouterr().out


@pytest.mark.parametrize("chip", COMPILERS)
def test_a_compiled_program_with_mapped_code_becomes_what_its_chip_boots(chip, tmp_path):
    elf = build(chip, tmp_path, "-DMAPPED", "-DDESCRIPTOR")
    assert main(["elf2image", str(elf)]) == 0
    if chip == "esp8266":
        assert (tmp_path / "app.elf-0x40000.bin").stat().st_size > 0
        return
    image = parse((tmp_path / "app.bin").read_bytes(), load_chip(chip))
    assert image.intact
    assert [s.address for s in image.segments if s.address >> 24 in (0x3C, 0x42)] == [
        0x3C000020,
        0x42010020,
    ]


@pytest.mark.parametrize("chip", COMPILERS)
def test_a_program_that_was_built_before_loads_into_ram_without_a_compiler(chip, tmp_path, capsys):
    options = ["-e", "1"] if chip == "esp8266" else []
    out = str(tmp_path / "app")
    assert (
        main(
            ["--chip", chip, "elf2image", *options, "-o", out, str(PROGRAMS / f"{chip}-hello.elf")]
        )
        == 0
    )
    image = out + ("0x00000.bin" if chip == "esp8266" else "")
    assert main(["--port", f"virtual:{chip}", "load-ram", image]) == 0


def test_chip_may_follow_the_command_and_json_tells_the_files(tmp_path, capsys):
    out = str(tmp_path / "app.bin")
    assert (
        main(
            [
                "elf2image",
                "--chip",
                "esp32c3",
                "--json",
                "-o",
                out,
                str(PROGRAMS / "esp32c3-app.elf"),
            ]
        )
        == 0
    )
    assert '"chip": "esp32c3"' in capsys.readouterr().out


def test_make_image_for_a_newer_chip_has_its_extended_header(tmp_path):
    (tmp_path / "code").write_bytes(b"c" * 33)
    out = tmp_path / "app.bin"
    words = ["-f", str(tmp_path / "code"), "-a", "0x40380000", "-e", "0x40380000", str(out)]
    assert main(["--chip", "esp32c3", "make-image", *words]) == 0
    image = parse(out.read_bytes(), load_chip("esp32c3"))
    assert (image.intact, image.entry, image.extended.chip_id) == (True, 0x40380000, 5)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-f", "{code}"], "1 files but 0 addresses"),
        ([], "no segment given"),
        (["-f", "{code}", "-a", "0x40100000", "-f", "{code}", "-a", "0x40100010"], "image-overlap"),
        (["-f", "{code}", "-a", "0x40200000"], "image-irom"),
        (["-f", "{code}", "-a", "0xffffffff"], "image-segment"),
    ],
)
def test_make_image_refuses_what_makes_no_image_and_leaves_nothing(words, said, tmp_path, capsys):
    (tmp_path / "code").write_bytes(b"c" * 33)
    filled = [word.format(code=tmp_path / "code") for word in words]
    assert main(["make-image", *filled, str(tmp_path / "out")]) in (2, 6)
    assert said in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_make_image_takes_a_part_that_ends_with_the_address_space_and_tells_of_too_many():
    from espwire.errors import ImageError
    from espwire.image.elf2image import build_segments

    chip = load_chip("esp8266")
    assert build_segments([(0xFFFFFFFC, b"code")], chip)
    for parts, code in (
        ([(0xFFFFFFFC, b"codes")], "image-segment"),
        ([(64 * n, b"") for n in range(17)], "image-segment-count"),
    ):
        with pytest.raises(ImageError) as caught:
            build_segments(parts, chip)
        assert caught.value.code == code
        assert "linker" not in caught.value.hint


def test_make_image_refuses_an_entry_address_of_more_than_32_bits():
    from espwire.errors import UsageError
    from espwire.image.elf2image import build_segments

    with pytest.raises(UsageError) as caught:
        build_segments([(0x40100000, b"code")], load_chip("esp8266"), entry=1 << 32)
    assert caught.value.code == "image-entry"
