"""ELF to image: what the formats promise, and each refusal. That bytes equal esptool's is held by tests/peers."""

import hashlib
import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from elf_generator import generate
from elf_writer import XTENSA, Part, Program, write_elf
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import ElfError, ToolError, UsageError
from espwire.image.codec import build, parse
from espwire.image.elf2image import ElfOptions, convert_elf, elf2image
from espwire.image.header import HeaderSettings

C3, C6, ESP8266 = load_chip("esp32c3"), load_chip("esp32c6"), load_chip("esp8266")
DESCRIPTOR = bytes.fromhex("3254cdab") + bytes(252)
APP = [
    Part(".flash.appdesc", 0x3C000020, DESCRIPTOR),
    Part(".iram0.text", 0x40380000, b"c" * 5000),
    Part(".dram0.data", 0x3FC90000, b"d" * 300),
    Part(".flash.text", 0x42010020, b"t" * 999),
]
OLD = [
    Part(".text", 0x40100000, b"c" * 41),
    Part(".data", 0x3FFE8000, b"d" * 9),
    Part(".irom0.text", 0x40240000, b"i" * 50),
]


def convert(parts, chip=C3, options=None, **keywords):
    machine = chip.cpu.elf_machine
    return convert_elf(
        write_elf(Program(parts, machine=machine)), chip, options or ElfOptions(**keywords)
    )


def refusal(parts, chip=C3, options=None, **keywords):
    with pytest.raises(ToolError) as caught:
        convert(parts, chip, options, **keywords)
    assert caught.value.hint
    return caught.value.code


def test_the_offset_of_each_mapped_segment_equals_its_address_within_a_page():
    image = parse(convert(APP)[0].data, C3)
    mapped = [s for s in image.segments if s.address >> 24 in (0x3C, 0x42)]
    assert [s.offset % 0x10000 for s in mapped] == [0x20, 0x20]
    assert image.intact
    assert image.segments[0].address == 0x3C000020


@pytest.mark.parametrize("options", [{}, {"ram_only_header": True}, {"append_digest": False}])
def test_padding_goes_behind_an_image_with_or_without_a_digest(options):
    """Without one, esptool 5.6 writes it over the image's beginning."""
    plain = convert(APP, **options)[0].data
    padded = convert(APP, **options, pad_to_size=0x100000)[0].data
    assert padded == plain.ljust(0x100000, b"\xff")


def test_padding_that_the_chip_does_not_have_asks_for_no_digest():
    assert convert(APP, secure_pad=1, append_digest=False) == convert(APP, append_digest=False)
    assert refusal(APP, secure_pad=2, append_digest=False) == "elf-secure-pad"
    esp32 = [Part(".iram0.text", 0x40080000, b"c" * 64)]
    assert refusal(esp32, load_chip("esp32"), secure_pad=1, append_digest=False) == "elf-secure-pad"


def test_the_segment_that_pads_for_a_signature_counts():
    """esptool 5.6 makes an image of 17 segments, which no boot loader takes."""
    full = [Part(".a", 0x40380000 + 64 * n, b"1234") for n in range(16)]
    assert parse(convert(full)[0].data, C3).intact
    assert refusal(full, secure_pad=2) == "elf-segments"
    assert parse(convert(full[1:], secure_pad=2)[0].data, C3).intact


def test_sections_with_an_address_that_are_not_loaded_are_a_warning(tmp_path):
    note = Part(".note.build-id", 0x3C000400, b"n" * 20, type=7)
    (tmp_path / "a.elf").write_bytes(
        write_elf(Program([*APP, note, Part(".debug", 0x400, b"d", type=7, flags=0)]))
    )
    made = elf2image(tmp_path / "a.elf", chip="esp32c3")
    assert [doubt for doubt in made.doubts if "left out" in doubt] == [
        "sections left out because their type is not loaded: .note.build-id"
    ]
    made = elf2image(tmp_path / "a.elf", chip="esp32c3", options=ElfOptions(use_segments=True))
    assert not any("left out" in doubt for doubt in made.doubts)


def test_a_part_that_goes_past_the_address_space_is_refused():
    top = Part(".top", 0xFFFFFFF0, b"x" * 16)
    assert parse(convert([*APP, top])[0].data, C3).intact
    assert refusal([*APP, Part(".top", 0xFFFFFFF0, b"x" * 17)]) == "elf-address"


@pytest.mark.parametrize("chip", chip_ids())
def test_an_image_holds_every_byte_of_the_program_and_checks_out(chip):
    """Whatever is cut up to fill gaps: put together again it is what the ELF said."""
    checked = 0
    for seed in range(8):
        program, options = generate(load_chip(chip), 1000 + seed)
        if options.version != 1 or options.use_segments or options.ram_only_header:
            continue
        try:
            files = convert_elf(write_elf(program), load_chip(chip), options)
        except ToolError:
            continue
        image = parse(files[0].data, load_chip(chip))
        assert image.intact
        assert build(image) == files[0].data
        memory = {}
        for segment in image.segments:
            memory |= dict(enumerate(segment.data, segment.address)) if segment.address else {}
        for part in program.parts:
            if part.type not in (7, 8) and part.address in memory:
                there = bytes(memory[part.address + n] for n in range(len(part.data)))
                assert (
                    there == part.data
                    or part.name == ".flash.appdesc"
                    or options.digest_offset is not None
                )
                checked += 1
    assert checked


def test_the_sha256_of_the_elf_is_in_the_descriptor():
    elf = write_elf(Program(APP))
    assert convert_elf(elf, C3)[0].data[0xB0:0xD0] == hashlib.sha256(elf).digest()


def test_with_a_ram_only_header_it_is_in_the_descriptor_too_and_the_header_hides_flash():
    elf = write_elf(Program(APP))
    data = convert_elf(elf, C3, ElfOptions(ram_only_header=True))[0].data
    assert data[1] == 2
    at = data.index(DESCRIPTOR[:144])
    assert data[at + 144 : at + 176] == hashlib.sha256(elf).digest()


def test_the_page_size_comes_from_the_descriptor():
    descriptor = DESCRIPTOR[:180] + b"\x0e" + DESCRIPTOR[181:]
    parts = [
        Part(".flash.appdesc", 0x42000020, descriptor),
        Part(".flash.text", 0x42004020, b"t" * 99),
    ]
    image = parse(convert(parts, C6)[0].data, C6)
    assert image.segments[-1].offset == 0x4020


def test_a_signature_of_secure_boot_v2_will_start_on_a_page():
    assert len(convert(APP, secure_pad=2)[0].data) % 0x10000 == 0
    esp32 = load_chip("esp32")
    assert (
        len(convert([Part(".iram", 0x40080000, b"c" * 77)], esp32, secure_pad=1)[0].data) % 0x10000
        == 0x10000 - 80
    )


def test_padding_to_a_size_adds_ff():
    data = convert(APP, pad_to_size=0x8000)[0].data
    assert (len(data) % 0x8000, data[-1]) == (0, 0xFF)


def test_revisions_and_settings_go_into_the_header():
    settings = HeaderSettings(mode="dio", size="4MB", frequency="80m")
    header = convert(
        APP, min_revision=3, max_revision=199, min_revision_legacy=1, settings=settings
    )[0].data[:24]
    assert header[2:4] == b"\x02\x2f"
    assert struct.unpack_from("<BHH", header, 14) == (1, 3, 199)


def test_version_1_gives_the_pair_and_version_2_one_file_that_checks_out():
    ram, irom = convert(OLD, ESP8266)
    assert [(f.address, f.name) for f in (ram, irom)] == [
        (0, "0x00000.bin"),
        (0x40000, "0x40000.bin"),
    ]
    assert irom.data == b"i" * 50 + bytes(2)
    (both,) = convert(OLD, ESP8266, version=2)
    image = parse(both.data, ESP8266)
    assert (image.version, image.crc_valid, both.address) == (2, True, 0x40000)
    (third,) = convert(OLD, ESP8266, version=3)
    assert third.data[-32:] == hashlib.sha256(third.data[:-32]).digest()


@pytest.mark.parametrize(
    ("parts", "keywords", "code"),
    [
        ([Part(".a", 0, b"1234")], {}, "elf-empty"),
        ([Part(".a", 0x40380000 + 64 * n, b"1234") for n in range(17)], {}, "elf-segments"),
        ([Part(".a", 0x40380000, b"1" * 64), Part(".b", 0x40380020, b"2" * 4)], {}, "elf-overlap"),
        ([Part(".a", 0x42000020, bytes(0x1000004))], {}, "elf-segment"),
        (APP, {"digest_offset": 0x20}, "elf-digest-place"),
        (APP, {"digest_offset": 0x10}, "elf-digest-place"),
        (APP, {"secure_pad": 2, "append_digest": False}, "elf-secure-pad"),
        (APP, {"settings": HeaderSettings(size="2MB-c1")}, "flash-setting"),
        (APP, {"settings": HeaderSettings(frequency="60m")}, "flash-setting"),
    ],
)
def test_what_no_boot_loader_could_start_is_refused(parts, keywords, code):
    assert refusal(parts, **keywords) == code


def test_a_page_size_that_the_chip_lacks_is_refused():
    assert refusal([Part(".a", 0x42000020, b"1")], C6, mmu_page_size=0x40000) == "mmu-page-size"
    wrong = Part(".flash.appdesc", 0x42000020, DESCRIPTOR[:180] + b"\x14" + DESCRIPTOR[181:])
    assert refusal([wrong], C6) == "elf-page-size"


def test_version_1_rejects_two_mapped_sections_or_one_at_the_start_of_flash():
    assert refusal([*OLD, Part(".irom1", 0x40250000, b"x")], ESP8266) == "elf-irom"
    assert refusal([Part(".irom0.text", 0x40200000, b"x")], ESP8266) == "elf-irom"


def test_a_program_for_another_machine_is_refused():
    with pytest.raises(ElfError) as caught:
        convert_elf(write_elf(Program(APP, machine=XTENSA)), C3)
    assert caught.value.code == "elf-machine"


def test_sections_in_one_page_become_one_segment():
    parts = [
        Part(".a", 0x42000020, b"a" * 10),
        Part(".m", 0x40380000, b"m"),
        Part(".b", 0x42000100, b"b" * 10),
    ]
    image = parse(convert(parts)[0].data, C3)
    assert image.segments[0].data == b"a" * 10 + bytes(0xD6) + b"b" * 10 + bytes(2)


def test_files_are_named_after_the_elf_and_are_all_there_or_none(tmp_path):
    elf = tmp_path / "app.elf"
    elf.write_bytes(write_elf(Program(OLD, machine=XTENSA, entry=0x40100004)))
    made = elf2image(elf)
    names = ["app.elf-0x00000.bin", "app.elf-0x40000.bin"]
    assert (made.chip, [Path(f.name).name for f in made.files]) == ("esp8266", names)
    elf2image(elf, options=ElfOptions(version=2))
    elf2image(elf, options=ElfOptions(version=3))
    assert {p.name for p in tmp_path.iterdir()} == {"app.elf", *names, "app-0x40000.bin", "app.bin"}
    (tmp_path / "new0x40000.bin").mkdir()
    with pytest.raises(ToolError):
        elf2image(elf, output=str(tmp_path / "new"))
    assert not (tmp_path / "new0x00000.bin").exists()


def test_the_elf_itself_is_not_overwritten(tmp_path):
    elf = tmp_path / "app.bin"
    elf.write_bytes(write_elf(Program(APP)))
    with pytest.raises(UsageError) as caught:
        elf2image(elf, chip="esp32c3")
    assert caught.value.code == "elf-output"


def test_a_chip_that_the_program_does_not_fit_is_a_doubt(tmp_path):
    elf = tmp_path / "a.elf"
    elf.write_bytes(write_elf(Program(APP)))
    (doubt,) = elf2image(elf, chip="esp32c6", output=tmp_path / "a").doubts
    assert "the program is for the ESP32-C3" in doubt
    assert "but converted for the ESP32-C6" in doubt
    assert elf2image(elf, chip="esp32c3", output=tmp_path / "a").doubts == ()


def test_doubtful_options_are_warnings(tmp_path):
    elf = tmp_path / "a.elf"
    elf.write_bytes(write_elf(Program([Part(".a", 0x10000000, b"1234")])))
    options = ElfOptions(version=2, secure_pad=1, mmu_page_size=0x8000)
    assert len(elf2image(elf, chip="esp32c3", options=options).doubts) == 4
