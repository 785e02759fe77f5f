"""Any file → pieces: what it is told by, where it goes, what is said about it."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from elf_writer import RISCV, XTENSA, Part, Program, write_elf
from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import DataError, ElfError, HexError, ImageError, ToolError
from espwire.image.codec import parse
from espwire.image.header import HeaderSettings
from espwire.image.hex import is_srecord, parse_srecord
from espwire.image.read_any import read_any, read_input
from espwire.image.uf2 import build_uf2

ESP32C3 = load_chip("esp32c3")
SREC = b"S00600004844521B\r\nS1130000285F245F2212226A000424290008237C2A\r\nS5030001FB\r\nS9030000FC\r\n"
C3_ELF = write_elf(
    Program(
        [
            Part(".flash.appdesc", 0x3C000020, struct.pack("<I", 0xABCD5432) + bytes(252)),
            Part(".flash.text", 0x42010020, b"code" * 40),
            Part(".iram0.text", 0x40380000, b"iram" * 16),
            Part(".espressif.metadata", 0, b"chip esp32c3"),
        ],
        RISCV,
        0x40380000,
    )
)
ESP8266_ELF = write_elf(
    Program(
        [Part(".text", 0x40100000, b"code" * 16), Part(".irom0.text", 0x40210000, b"irom" * 16)],
        XTENSA,
        0x40100000,
    )
)


def test_each_format_is_recognized() -> None:
    hexadecimal = b":0400000001020304F2\n:00000001FF\n"
    files = (b"\xe9raw", hexadecimal, b"\x7fELF", SREC, build_uf2([Blob(0, b"a")], 1), b"")
    found = [read_any(data, "x").format for data in files]
    assert found == ["raw", "hex", "elf", "srecord", "uf2", "raw"]


def test_raw_data_has_no_address_and_is_unchanged() -> None:
    assert read_input(b"S1 is not always text", "x") == (Blob(0, b"S1 is not always text"),)


def test_s_records_have_addresses() -> None:
    assert read_input(SREC, "x.srec") == (
        Blob(0, bytes.fromhex("285F245F2212226A000424290008237C")),
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SREC.replace(b"2A\r", b"2B\r"), "line 2: its checksum is wrong"),
        (
            SREC.replace(b"S5030001FB", b"S5030002FA"),
            "line 3: it counts 2 data records, but the file has 1",
        ),
        (SREC + SREC, "line 5: there is data after the end record"),
        (b"S10500001234B4\nXYZ\n", "line 2: it does not begin with 'S'"),
        (b"S10500001234B4\nS1\n", "line 2: it is too short"),
        (b"S10500001234B4\nS10500001234ZZ\n", "line 2: it is not hexadecimal"),
        (b"S10500001234B4\nS4050000123400\n", "line 2: its record type does not exist"),
        (
            b"S30500000000FA\nS307FFFFFFFF1234B6\n",
            "line 2: its data exceeds the 32-bit address space",
        ),
    ],
)
def test_the_error_for_a_broken_s_record_names_the_line(text: bytes, says: str) -> None:
    with pytest.raises(HexError, match="srec") as caught:
        parse_srecord(text, "x.srec")
    assert says in str(caught.value)
    assert caught.value.code == "srecord"


def test_an_s_record_file_without_end_or_count_is_cut_short() -> None:
    assert is_srecord(SREC)
    with pytest.raises(HexError, match="has neither an end record") as caught:
        parse_srecord(SREC.splitlines(keepends=True)[1], "x.srec")
    assert caught.value.code == "srecord-truncated"
    assert (
        len(parse_srecord(SREC[: SREC.index(b"S9")], "x.srec")) == 1
    )  # the count shows that it is whole


def test_uf2_brings_addresses_and_its_chip() -> None:
    data = build_uf2([Blob(0x1000, b"boot" * 200), Blob(0x8000, b"table")], 0xD42BA06C)
    pieces = read_input(data, "x.uf2")
    assert [(piece.address, piece.chips) for piece in pieces] == [
        (0x1000, ("esp32c3",)),
        (0x8000, ("esp32c3",)),
    ]
    assert pieces[0].data == b"boot" * 200


def test_uf2_for_another_maker_s_chip_is_refused() -> None:
    with pytest.raises(DataError, match=r"0xe48bff56.*not an Espressif chip") as caught:
        read_input(build_uf2([Blob(0x10000000, b"rp2040")], 0xE48BFF56), "x.uf2")
    assert caught.value.code == "image-uf2-foreign"


def test_an_elf_is_converted_for_its_chip_with_a_note() -> None:
    (piece,) = read_input(C3_ELF, "app.elf", settings=HeaderSettings(mode="dio", size="4MB"))
    image = parse(piece.data, ESP32C3)
    assert (piece.fixed, piece.chips, image.intact) == (False, ("esp32c3",), True)
    assert (image.mode_code, image.size_code) == (2, 0x20)
    assert piece.note == (
        "app.elf was converted to an image for esp32c3, flash mode dio, the default frequency, size 4MB"
    )


def test_a_size_to_be_detected_does_not_hinder_conversion() -> None:
    (piece,) = read_input(C3_ELF, "app.elf", settings=HeaderSettings(size="detect"))
    assert "size 1MB" in piece.note


def test_the_pair_of_an_esp8266_has_its_own_addresses() -> None:
    pieces = read_input(ESP8266_ELF, "app.elf")
    assert [piece.address for piece in pieces] == [0, 0x10000]
    assert pieces[1].data == b"irom" * 16


def test_an_elf_for_another_chip_names_the_file() -> None:
    with pytest.raises(ElfError, match=r"^app\.elf: the ELF file is for riscv") as caught:
        read_input(C3_ELF, "app.elf", chip=load_chip("esp32"))
    assert caught.value.code == "elf-machine"


BAD_INPUTS = {
    "truncated ELF": (C3_ELF[: len(C3_ELF) // 2], "elf-truncated", ("x", "offset")),
    "wrong machine": (C3_ELF[:18] + b"\x3e\x00" + C3_ELF[20:], "elf-chip", ("x", "machine 0x3e")),
    "ELF without segments": (write_elf(Program([], RISCV)), "elf-chip", ("x", "ELF")),
    "absurd counts": (C3_ELF[:48] + b"\xff\xff" + C3_ELF[50:], "elf-headers", ("x", "65,535")),
    "HEX with bad sums": (b":0400000001020304F2\n:0400040001020304FF\n:00000001FF\n", "hex-record", ("x", "line 2", "checksum")),
    "overlapping HEX": (b":0400000001020304F2\n:0400020001020304F0\n:00000001FF\n", "hex-overlap", ("x", "0x2")),
    "truncated HEX": (b":0400000001020304F2\n", "hex-truncated", ("x", "end record")),
    "truncated UF2": (build_uf2([Blob(0, bytes(900))], 0)[:700], "image-uf2-size", ("x", "700 bytes")),
    "overlapping UF2": (build_uf2([Blob(0, bytes(32)), Blob(16, bytes(32))], 0), "image-uf2-overlap", ("x", "0x10")),
    "oversize UF2 block": (build_uf2([Blob(0, b"a")], 0)[:16] + b"\xff\xff\0\0" + build_uf2([Blob(0, b"a")], 0)[20:], "image-uf2-block",
                           ("x", "offset 0x0", "65535 bytes")),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_one_error_with_file_position_and_rule(case: str) -> None:
    data, code, words = BAD_INPUTS[case]
    name = next((f"x.{kind.lower()}" for kind in ("HEX", "UF2") if kind in case), "x")
    with pytest.raises(ToolError) as caught:
        read_input(data, name)
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_the_error_for_a_truncated_image_names_the_offset() -> None:
    (piece,) = read_input(C3_ELF, "app.elf")
    with pytest.raises(
        ImageError, match=r"segment 0 needs \d+ bytes at offset 0x20, but only 68 follow"
    ):
        parse(piece.data[:100], ESP32C3)
