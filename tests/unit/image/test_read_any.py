"""What a file is: only what parses as a whole, what its extension says, or raw binary."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[2]))
from elf_writer import RISCV, Part, Program, write_elf
from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import DataError, ElfError, HexError, ImageError, ToolError
from espwire.image.diff import diff_images
from espwire.image.inspect import inspect_bytes
from espwire.image.read_any import find_named_format, read_any, read_input
from espwire.image.split import flatten, lay_out
from espwire.image.uf2 import build_uf2, parse_uf2

INPUTS = Path(__file__).parents[2] / "data/inputs"
RAW = [(INPUTS / name).read_bytes() for name in ("style.css", "colon.bin", "app-enc.bin")]
HEX = b":0400000001020304F2\n:00000001FF\n"
SREC = b"S1130000285F245F2212226A000424290008237C2A\nS9030000FC\n"
UF2 = build_uf2([Blob(0x1000, bytes(300))], 0xD42BA06C)
TWO = (INPUTS / "two_families.uf2").read_bytes()
S2, S3 = 0xBFDD4EEE, 0xC47E5767
WHOLE = {"hex": HEX, "srecord": SREC, "uf2": UF2}
DAMAGED = {
    "hex": (
        HEX[:-13],
        HEX.replace(b"F2", b"F3"),
        HEX + b"text\n",
        b"\n\xff" + HEX,
        b"",
        b"\xe9raw",
    ),
    "srecord": (SREC[:-11], SREC.replace(b"2A\n", b"2B\n"), SREC + SREC, b"", b"S1 text"),
    "uf2": (
        UF2[:-1],
        UF2[:-512] if len(UF2) > 512 else UF2[:511],
        UF2[:40] + b"\xff" + UF2[41:],
        b"",
        HEX[:-13],
    ),
}
EXTENSIONS = {
    "hex": ("hex", "ihex", "HEX"),
    "srecord": ("srec", "s19", "s37", "mot"),
    "uf2": ("uf2", "UF2"),
}


@pytest.mark.parametrize(
    "data", [*RAW, b"S1", b"S1 is text", b"S19 rifle\n", b"::", b"UF2\n", b"UF2\nWQ]\x9e"]
)
def test_what_only_begins_like_a_format_is_raw(data: bytes) -> None:
    assert read_any(data, "firmware.bin").format == "raw"
    assert read_input(data, "firmware.bin")[0].data == data
    assert flatten(read_any(data, "x.bin")) == (0, data)
    assert lay_out(data, "x.bin") == data
    assert diff_images(data, data, names=("a.bin", "b.css")).same


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_with_the_extension_is_an_error_and_without_it_is_raw(kind: str) -> None:
    for data in DAMAGED[kind]:
        for extension in EXTENSIONS[kind]:
            with pytest.raises((HexError, ImageError)) as caught:
                read_any(data, f"fw.{extension}")
            assert "--format raw" in caught.value.hint
            assert "fw." in str(caught.value)
        assert read_any(data, "fw.bin").format == "raw"
        assert read_input(data, "fw", format="raw") == (Blob(0, data),)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_file_is_recognized_under_any_name(kind: str) -> None:
    for name in ("x", "x.bin", "x.hex", "x.uf2", "standard input"):
        assert read_any(WHOLE[kind], name).format == kind


def test_a_file_that_goes_wrong_after_its_first_record_is_raw_with_a_note() -> None:
    (piece,) = read_input(HEX.replace(b":00000001FF", b":00000001FE"), "fw.txt")
    assert (
        piece.note
        == "fw.txt, line 2: its checksum is wrong; fw.txt is used as raw data, not as Intel HEX"
    )
    assert read_input(RAW[0], "style.css")[0].note == ""


@pytest.mark.parametrize("choice", ["hex", "srecord", "uf2", "elf"])
def test_a_named_format_is_required(choice: str) -> None:
    with pytest.raises(ToolError, match=r"x\.bin"):
        read_any(b"\xe9raw", "x.bin", choice)  # type: ignore[arg-type]


def test_the_same_byte_twice_is_an_error_under_any_name() -> None:
    twice = b":0400000001020304F2\n:0400020001020304F0\n:00000001FF\n"
    for name in ("x.bin", "x.hex"):
        with pytest.raises(HexError, match="0x2 twice"):
            read_any(twice, name)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (HEX, "hex"),
        (HEX[:-13], "hex"),
        (HEX + b"text", "hex"),
        (HEX.replace(b"F2", b"F3"), "raw"),
        (b"\n" + HEX, "raw"),
        (SREC, "raw"),
        (UF2, "raw"),
        (b"\x7fELF", "raw"),
        *((data, "raw") for data in RAW),
    ],
)
def test_esptool_s_rules_know_intel_hex_only(data: bytes, kind: str) -> None:
    """As esptool 5.6.0 does it: run on such files with merge-bin."""
    for name in ("fw.bin", "fw.hex", "fw.uf2"):
        assert read_any(data, name, "esptool").format == kind


def test_an_elf_that_is_not_for_a_chip_is_reported_with_the_way_to_write_it_raw() -> None:
    data = (INPUTS / "module.so").read_bytes()
    for name, chip in (("module.so", None), ("data.bin", None), ("x.elf", load_chip("esp32"))):
        with pytest.raises(ElfError, match=r"ELF file is not a program for a known chip") as caught:
            read_input(data, name, chip=chip)
        assert "--format raw" in caught.value.hint
    assert read_input(data, "module.so", format="raw") == (Blob(0, data),)


def test_an_elf_program_is_converted_only_if_it_is_named_as_one() -> None:
    parts = [
        Part(".flash.text", 0x42010020, b"code" * 40),
        Part(".iram0.text", 0x40380000, b"iram" * 16),
    ]
    data = write_elf(
        Program([*parts, Part(".espressif.metadata", 0, b"chip esp32c3")], RISCV, 0x40380000)
    )
    for name in ("app.elf", "app", "standard input", "app.out"):
        assert read_input(data, name)[0].chips == ("esp32c3",)
    with pytest.raises(
        ElfError, match=r"plugin\.bin: this is an ELF program for esp32c3"
    ) as caught:
        read_input(data, "plugin.bin")
    assert "--format elf" in caught.value.hint
    assert "--format raw" in caught.value.hint
    assert read_input(data, "plugin.bin", format="elf")[0].chips == ("esp32c3",)


def test_uf2_for_two_chips_gives_each_its_blocks() -> None:
    by_chip = {
        chip: read_input(TWO, "x.uf2", chip=load_chip(chip)) for chip in ("esp32s2", "esp32s3")
    }
    assert [(piece.address, len(piece.data)) for piece in by_chip["esp32s3"]] == [(0x10000, 2048)]
    assert by_chip["esp32s2"] != by_chip["esp32s3"]
    assert len(read_input(TWO, "x.uf2")) == 2
    with pytest.raises(
        DataError, match=r"x\.uf2 is a UF2 file for esp32s2 and esp32s3, not for esp32c3"
    ) as caught:
        read_input(TWO, "x.uf2", chip=load_chip("esp32c3"))
    assert caught.value.code == "image-uf2-family"


def test_uf2_for_two_chips_requires_a_chip_where_only_one_can_be_meant() -> None:
    with pytest.raises(DataError, match="several chips: esp32s2, esp32s3") as caught:
        flatten(read_any(TWO, "x.uf2"))
    assert caught.value.hint == "Select the chip with --chip."
    assert flatten(read_any(TWO, "x.uf2"), load_chip("esp32s3"))[0] == 0x10000


def test_families_that_are_not_known_are_passed_over_beside_known_ones() -> None:
    mixed = build_uf2([Blob(0, b"pico" * 64)], 0xE48BFF56) + build_uf2(
        [Blob(0x8000, b"c3")], 0xD42BA06C
    )
    assert [(piece.address, piece.chips) for piece in read_input(mixed, "x.uf2")] == [
        (0x8000, ("esp32c3",))
    ]
    with pytest.raises(DataError, match="families 0x00000007, 0x00000008"):
        read_input(build_uf2([Blob(0, b"a")], 7) + build_uf2([Blob(0, b"a")], 8), "x.uf2")


def test_each_family_must_be_whole() -> None:
    size = 512
    blocks = [TWO[at : at + size] for at in range(0, len(TWO), size)]
    assert list(parse_uf2(TWO)) == [S2, S3]
    for missing in (0, 9, 15):
        with pytest.raises(ImageError, match="is missing"):
            parse_uf2(b"".join(blocks[:missing] + blocks[missing + 1 :]))
    both = [blocks[at] for pair in zip(range(8), range(8, 16), strict=True) for at in pair]
    assert parse_uf2(b"".join(both)) == parse_uf2(TWO)  # in turns
    shared = [
        block[:20] + number.to_bytes(4, "little") + (16).to_bytes(4, "little") + block[28:]
        for number, block in enumerate(blocks)
    ]
    assert parse_uf2(b"".join(shared)) == parse_uf2(TWO)  # one numbering for all
    with pytest.raises(ImageError, match="is missing"):
        parse_uf2(b"".join(shared[:3] + shared[4:]))


def test_blocks_without_a_family_are_for_all_chips_of_the_file() -> None:
    loose = bytearray(build_uf2([Blob(0x9000, b"nvs!")], S3))
    loose[9] &= ~0x20 & 0xFF
    for_s3 = build_uf2([Blob(0x10000, b"app!")], S3)
    parts = parse_uf2(bytes(loose) + for_s3)
    assert parts == {S3: (Blob(0x9000, b"nvs!"), Blob(0x10000, b"app!"))}


def test_image_info_shows_the_images_of_all_chips() -> None:
    boot = (INPUTS.parent / "esp32c3/micropython-head.bin").read_bytes()
    other = (INPUTS.parent / "esp32s2/micropython-head.bin").read_bytes()
    data = build_uf2([Blob(0, boot)], 0xD42BA06C) + build_uf2([Blob(0x1000, other)], S2)
    shown = {item.info.chip for item in inspect_bytes(data, "x.uf2").items if item.info}
    assert shown == {"esp32c3", "esp32s2"}


@pytest.mark.parametrize(
    "name", ["a.hex", "A.IHEX", "b.s19", "c.uf2", "d.elf", "e.bin", "hex", "x.y.mot", ""]
)
def test_extensions(name: str) -> None:
    wanted = {
        "hex": "hex",
        "ihex": "hex",
        "s19": "srecord",
        "mot": "srecord",
        "uf2": "uf2",
        "elf": "elf",
    }
    assert find_named_format(name) == (
        wanted.get(name.lower().rpartition(".")[2]) if "." in name else None
    )


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b":", b"S1", UF2[:8], UF2[:40], b"\x7fELF", HEX, SREC]),
)
def test_any_bytes_without_an_extension_are_raw_whole_or_one_error(
    noise: bytes, start: bytes
) -> None:
    data = start + noise
    try:
        content = read_any(data, "x.bin")
    except ToolError:
        return
    assert content.format != "raw" or read_input(data, "x.bin")[0].data == data
