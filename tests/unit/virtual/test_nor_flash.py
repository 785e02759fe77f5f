"""NorFlash behaves like a NOR flash chip, transaction by transaction, in simulated time."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.errors import DataError, FileError, UsageError
from espwire.sizes import KIB, MIB
from espwire.virtual.flash_file import open_flash_file
from espwire.virtual.flash_parts import PARTS, PROFILES, build_sfdp, find_part
from espwire.virtual.nor_flash import Mode, NorFlash

TYP, INSTANT = PROFILES["typ"], PROFILES["instant"]
SMALL = find_part(256 * KIB)


def make(part=SMALL, timing=INSTANT, **keywords) -> NorFlash:
    return NorFlash(part, timing=timing, **keywords)


def program(flash: NorFlash, address: int, data: bytes, t: float = 0.0) -> float:
    flash.execute(t, 0x06)
    flash.execute(t, 0x02, address=address, data=data)
    return max(t, flash.busy_until)


def erase(flash: NorFlash, opcode: int, address: int = 0, t: float = 0.0) -> float:
    flash.execute(t, 0x06)
    flash.execute(t, opcode, address=address)
    return max(t, flash.busy_until)


def status(flash: NorFlash, t: float = 0.0) -> int:
    return flash.execute(t, 0x05, read=1)[0]


def test_a_new_part_is_blank():
    flash = make()
    assert bytes(flash.contents) == b"\xff" * SMALL.size
    assert flash.execute(0, 0x03, address=0x123, read=4) == b"\xff" * 4


def test_programming_only_clears_bits():
    flash = make()
    program(flash, 0x10, b"\xf0\x0f")
    program(flash, 0x10, b"\x3c\xff")
    assert flash.execute(0, 0x03, address=0x0F, read=4) == b"\xff\x30\x0f\xff"


@given(old=st.binary(min_size=1, max_size=256), new=st.binary(min_size=1, max_size=256))
def test_a_page_holds_the_and_of_all_programs(old: bytes, new: bytes):
    flash = make()
    program(flash, 0, old)
    program(flash, 0, new)
    padded = zip(old.ljust(256, b"\xff"), new.ljust(256, b"\xff"), strict=True)
    assert bytes(flash.contents[:256]) == bytes(a & b for a, b in padded)


def test_without_write_enable_nothing_changes():
    flash = make()
    flash.execute(0, 0x02, address=0, data=b"\x00")
    program(flash, 0, b"\x55")
    for opcode in (0x20, 0x52, 0xD8, 0x60, 0xC7):
        flash.execute(0, opcode, address=0)
    flash.execute(
        0, 0x02, address=0, data=b"\x00"
    )  # the program operation above cleared the write enable
    assert flash.contents[0] == 0x55


def test_write_enable_shows_in_the_status_and_can_be_taken_back():
    flash = make()
    assert status(flash) == 0
    flash.execute(0, 0x06)
    assert status(flash) == 0x02
    flash.execute(0, 0x04)
    assert status(flash) == 0


def test_programming_wraps_inside_its_page():
    flash = make()
    program(flash, 0x1FE, b"\x01\x02\x03")
    assert bytes(flash.contents[0x100:0x102]) == b"\x03\xff"
    assert bytes(flash.contents[0x1FE:0x201]) == b"\x01\x02\xff"


def test_of_more_than_a_page_the_last_256_bytes_count():
    flash = make()
    data = bytes([0xAA] * 4) + bytes(range(256))
    program(flash, 0x2FE, data)
    expected = bytearray(256)
    for i, value in enumerate(data):
        expected[(0xFE + i) % 256] = value
    assert bytes(flash.contents[0x200:0x300]) == expected
    assert flash.contents[0x300] == 0xFF


@pytest.mark.parametrize(("opcode", "size"), [(0x20, 4 * KIB), (0x52, 32 * KIB), (0xD8, 64 * KIB)])
def test_an_erase_takes_the_aligned_block_around_its_address(opcode: int, size: int):
    flash = make()
    flash.contents[:] = bytes(SMALL.size)
    erase(flash, opcode, address=64 * KIB + size - 1)
    start = 64 * KIB
    assert bytes(flash.contents[start : start + size]) == b"\xff" * size
    assert flash.contents[start - 1] == 0
    assert flash.contents[start + size] == 0


@pytest.mark.parametrize("opcode", [0x60, 0xC7])
def test_a_chip_erase_takes_all(opcode: int):
    flash = make(find_part(2 * MIB))
    flash.contents[:] = bytes(2 * MIB)
    erase(flash, opcode, address=0x1234)
    assert bytes(flash.contents) == b"\xff" * (2 * MIB)


def test_addresses_wrap_at_the_size():
    flash = make()
    program(flash, SMALL.size + 4, b"\x11")
    assert flash.contents[4] == 0x11
    flash.contents[SMALL.size - 1] = 0x22
    flash.contents[0] = 0x33
    assert flash.execute(0, 0x03, address=SMALL.size - 1, read=2) == b"\x22\x33"
    assert flash.read_array(0, SMALL.size - 1, 2 * SMALL.size)[:2] == b"\x22\x33"


def test_while_busy_only_the_status_answers():
    flash = make(timing=TYP)
    end = erase(flash, 0x20)
    assert end == pytest.approx(0.045)
    assert status(flash, 0.04) == 0x03
    for opcode in (0x03, 0x9F, 0x5A):
        assert flash.execute(0.04, opcode, read=3) == b"\xff" * 3
    assert flash.read_array(0.04, 0, 2) == b"\xff\xff"
    flash.execute(0.04, 0x06)
    flash.execute(0.04, 0x02, address=0, data=b"\x00")
    assert status(flash, 0.0451) == 0
    assert flash.contents[0] == 0xFF
    assert flash.execute(0.0451, 0x9F, read=3) == SMALL.jedec


@pytest.mark.parametrize(
    ("profile", "short", "page", "sector", "block"),
    [
        ("typ", 110e-6, 0.0008, 0.045, 0.15),
        ("fast", 45e-6, 250e-6, 0.02, 0.06),
        ("slow", 150e-6, 700e-6, 0.06, 0.25),
    ],
)
def test_profiles_take_the_measured_times(
    profile: str, short: float, page: float, sector: float, block: float
):
    timing = PROFILES[profile]
    flash = make(timing=timing)
    assert program(flash, 0, bytes(32)) == pytest.approx(short, rel=0.02)
    assert timing.page_program_s == pytest.approx(page, rel=0.01)
    assert (timing.erase_s(4 * KIB), timing.erase_s(64 * KIB)) == (sector, block)
    assert timing.erase_s(MIB) == pytest.approx(16 * block)


def test_identification_and_sfdp():
    flash = make(find_part(4 * MIB, "gigadevice"))
    assert flash.execute(0, 0x9F, read=3) == b"\xc8\x40\x16"
    assert flash.execute(0, 0x5A, address=0, read=4) == b"SFDP"
    assert flash.execute(0, 0xAB, read=1) == b"\x15"


def test_power_down_accepts_only_the_wake_up_command():
    flash = make(timing=TYP)
    flash.contents[0] = 0x42
    flash.execute(0, 0xB9)
    flash.execute(0, 0x66)
    flash.execute(0, 0x99)
    assert flash.execute(0, 0x9F, read=3) == b"\xff" * 3
    assert flash.execute(0, 0x05, read=1) == b"\xff"
    assert flash.read_array(0, 0, 1) == b"\xff"
    program(flash, 0, b"\x00")
    flash.execute(0, 0xAB)
    assert flash.read_array(1e-6, 0, 1) == b"\xff"
    assert flash.read_array(30e-6, 0, 1) == b"\x42"


def test_a_software_reset_needs_both_opcodes_in_a_row():
    flash = make(timing=TYP)
    flash.execute(0, 0x06)
    flash.execute(0, 0x66)
    flash.execute(0, 0x05, read=1)
    flash.execute(0, 0x99)
    assert status(flash) == 0x02
    flash.execute(0, 0x66)
    flash.execute(0, 0x99)
    assert status(flash, 1e-3) == 0


def test_a_software_reset_aborts_an_erase_and_leaves_noise():
    flash = make(timing=TYP, seed=7)
    flash.contents[:] = bytes(SMALL.size)
    erase(flash, 0x20, 0x1000)
    flash.execute(0.01, 0x66)
    flash.execute(0.01, 0x99)
    assert flash.busy_until == pytest.approx(0.01 + 30e-6)
    block = bytes(flash.contents[0x1000:0x2000])
    assert len(set(block)) > 200
    assert bytes(flash.contents[:0x1000]) == bytes(0x1000)


def test_power_loss_in_an_erase_leaves_seeded_noise_in_its_range_only():
    def run(seed: int) -> bytes:
        flash = make(timing=TYP, seed=seed)
        flash.contents[:] = bytes(SMALL.size)
        erase(flash, 0xD8, 0x10000)
        flash.power_loss(0.1)
        assert flash.execute(0.1, 0x9F, read=3) == SMALL.jedec
        return bytes(flash.contents)

    first = run(1)
    assert first == run(1) != run(2)
    assert first[:0x10000] == bytes(0x10000) == first[0x20000:0x30000]
    assert first[0x10000:0x20000] not in (bytes(0x10000), b"\xff" * 0x10000)


def test_power_loss_in_a_program_mixes_old_and_new_bits():
    flash = make(timing=TYP, seed=3)
    end = program(flash, 0, b"\xf0" * 256)
    program(flash, 0, b"\x0f" * 256, t=end)
    flash.power_loss(end + 1e-5)
    left = bytes(flash.contents[:256])
    assert all(value & 0x0F == 0 for value in left)  # bits that were clear before stay clear
    assert 1 < len(set(left)) <= 16


def test_power_loss_after_the_end_changes_nothing():
    flash = make(timing=TYP)
    end = program(flash, 0, b"\x12" * 256)
    flash.power_loss(end)
    assert bytes(flash.contents[:256]) == b"\x12" * 256


@given(level=st.integers(1, 7))
def test_block_protection_guards_the_top(level: int):
    part = find_part(4 * MIB)
    flash = make(part)
    flash.execute(0, 0x06)
    flash.execute(0, 0x01, data=bytes((level << 2,)))
    low = part.size - (part.size >> (7 - level))
    program(flash, low, b"\x00")
    program(flash, part.size - 1, b"\x00")
    erase(flash, 0xC7)
    assert (flash.contents[low], flash.contents[part.size - 1]) == (0xFF, 0xFF)
    if low:
        program(flash, low - 1, b"\x00")
        assert flash.contents[low - 1] == 0


def test_protected_sectors_are_not_erased_and_the_enable_stays():
    flash = make()
    program(flash, 0, b"\x00")
    flash.execute(0, 0x06)
    flash.execute(0, 0x01, data=b"\x1c")
    erase(flash, 0x20)
    assert flash.contents[0] == 0
    assert status(flash) == 0x1E


def test_status_registers_keep_what_was_enabled_for_writing():
    flash = make(timing=TYP)
    flash.execute(0, 0x01, data=b"\x04")
    assert status(flash) == 0
    flash.execute(0, 0x06)
    flash.execute(0, 0x01, data=b"\x07\x02")
    assert status(flash, 0.001) == 0x07
    assert status(flash, 0.02) == 0x04
    assert flash.execute(0.02, 0x35, read=1) == b"\x02"
    flash.execute(0.02, 0x06)
    flash.execute(0.02, 0x11, data=b"\x60")
    assert flash.execute(0.04, 0x15, read=2) == b"\x60\x60"
    flash.power_loss(1.0)
    assert status(flash, 1.0) == 0x04


def test_a_volatile_status_write_is_quick_and_lost_with_power():
    flash = make(timing=TYP)
    flash.execute(0, 0x50)
    flash.execute(0, 0x31, data=b"\x02")
    assert flash.execute(0, 0x35, read=1) == b"\x02"
    flash.power_loss(1.0)
    assert flash.execute(1.0, 0x35, read=1) == b"\x00"


@pytest.mark.parametrize("opcode", [0x13, 0x0C, 0x12, 0x21, 0x5C, 0xDC])
def test_parts_of_up_to_16_mb_know_no_four_byte_opcodes(opcode):
    flash = make(find_part(16 * MIB))
    program(flash, 0, b"\x5a")
    flash.execute(0, 0x06)
    assert flash.execute(0, opcode, address=0, data=b"\0", read=1) == b"\xff"
    assert (flash.contents[0], status(flash) & 3) == (0x5A, 2)


def test_three_byte_opcodes_reach_16_mb_and_four_byte_ones_all():
    flash = make(find_part(32 * MIB))
    program(flash, 0x1000010, b"\xaa")  # only three bytes go over the wire
    assert flash.contents[0x10] == 0xAA
    flash.execute(0, 0x06)
    flash.execute(0, 0x12, address=0x1000010, data=b"\x55")
    assert flash.execute(0, 0x13, address=0x1000010, read=1) == b"\x55"
    assert flash.shape(0x03) == (3, 0)
    flash.execute(0, 0xB7)
    assert flash.shape(0x03) == (4, 0)
    assert flash.execute(0, 0x03, address=0x1000010, read=1) == b"\x55"
    erase(flash, 0x21, 0x1000000)
    assert flash.contents[0x1000010] == 0xFF
    assert flash.contents[0x10] == 0xAA
    flash.execute(0, 0xE9)
    assert flash.execute(0, 0x03, address=0x1000010, read=1) == b"\xaa"
    assert flash.read_array(0, 0x1000010, 1) == b"\xff"


def test_a_part_left_in_continuous_mode_identifies_but_does_no_work_until_reset():
    part = dataclasses.replace(SMALL, starts_in="continuous")
    flash = make(part)
    flash.contents[0:2] = b"\x12\x34"
    assert flash.execute(0, 0x9F, read=3) == part.jedec
    assert flash.execute(0, 0x5A, read=4) == b"SFDP"
    assert flash.execute(0, 0x03, read=2) != b"\x12\x34"
    assert flash.read_array(0, 0, 2) != b"\x12\x34"
    erase(flash, 0x20)
    program(flash, 0, b"\x00")
    assert bytes(flash.contents[0:2]) == b"\x12\x34"
    flash.execute(0, 0x66)
    flash.execute(0, 0x99)
    assert flash.execute(0, 0x03, read=2) == flash.read_array(0, 0, 2) == b"\x12\x34"
    program(flash, 0, b"\x00")
    assert flash.contents[0] == 0


WAKE_UP = ((0, 0xB9), (1e-4, 0x79), (2e-4, 0xFF), (2.2e-3, 0xAB))


def test_a_sleepy_xmc_part_does_no_work_until_it_is_woken():
    part = dataclasses.replace(find_part(4 * MIB, "xmc"), sleepy=True)
    flash = make(part, TYP)
    flash.contents[0] = 0x5A
    assert int.from_bytes(flash.execute(0, 0x9F, read=3), "little") == 0xFFFF3F
    assert flash.execute(0, 0x5A, address=0x10, read=1) == b"\x20"
    assert status(flash) == 0
    program(flash, 0, b"\x00")
    assert flash.contents[0] == 0x5A
    assert flash.read_array(0, 0, 1) == b"\xff"
    for t, opcode in WAKE_UP:
        flash.execute(t, opcode)
    assert flash.execute(2.21e-3, 0x9F, read=3) == b"\xff" * 3
    assert flash.execute(2.3e-3, 0x9F, read=3) == part.jedec
    assert flash.read_array(2.3e-3, 0, 1) == b"\x5a"
    flash.power_loss(1.0)
    assert flash.mode is Mode.SLEEPY


@pytest.mark.parametrize("missing", range(4))
def test_every_wake_up_step_is_needed(missing: int):
    part = dataclasses.replace(find_part(4 * MIB, "xmc"), sleepy=True)
    flash = make(part, TYP)
    for number, (t, opcode) in enumerate(WAKE_UP):
        if number != missing:
            flash.execute(t, opcode)
    assert flash.execute(1.0, 0x9F, read=3) != part.jedec


def test_a_wake_up_in_haste_does_not_wake():
    part = dataclasses.replace(find_part(4 * MIB, "xmc"), sleepy=True)
    flash = make(part, TYP)
    for t, opcode in ((0, 0xB9), (0, 0x79), (0, 0xFF), (1e-3, 0xAB)):
        flash.execute(t, opcode)
    assert flash.execute(1.0, 0x9F, read=3) == b"\xff" * 3


@pytest.mark.parametrize("maker", ["winbond", "xmc"])
def test_the_wake_up_steps_do_no_harm_to_others(maker: str):
    flash = make(find_part(4 * MIB, maker), TYP)
    for t, opcode in WAKE_UP:
        flash.execute(t, opcode)
    assert flash.execute(1.0, 0x9F, read=3) == flash.part.jedec


def test_a_part_without_power_answers_zeros():
    flash = make()
    flash.powered = False
    program(flash, 0, b"\x00")
    assert flash.execute(0, 0x9F, read=3) == bytes(3)
    assert flash.read_array(0, 0, 2) == bytes(2)
    flash.powered = True
    assert flash.read_array(0, 0, 2) == b"\xff\xff"


def test_contents_live_on_in_a_file(tmp_path):
    path = tmp_path / "flash.bin"
    flash = make(path=path)
    program(flash, 0x100, b"hello")
    flash.close()
    flash.close()
    assert path.read_bytes()[0x100:0x106] == b"hello\xff"
    assert [child.name for child in tmp_path.iterdir()] == ["flash.bin"]
    again = make(path=path)
    assert again.read_array(0, 0x100, 5) == b"hello"
    again.flush()
    piece = again.contents[0x100:0x105]
    again.close()
    assert bytes(piece) == b"hello"


def test_an_empty_file_is_refused_and_not_changed(tmp_path):
    path = tmp_path / "flash.bin"
    path.touch()
    with pytest.raises(DataError) as caught:
        make(path=path)
    assert caught.value.code == "flash-file-size"
    assert path.read_bytes() == b""


def test_a_file_of_another_size_is_refused(tmp_path):
    path = tmp_path / "flash.bin"
    path.write_bytes(b"\xff" * MIB)
    with pytest.raises(DataError) as caught:
        make(path=path)
    assert caught.value.code == "flash-file-size"
    assert caught.value.hint
    assert "1MB" in str(caught.value)


def test_a_path_that_cannot_be_made_is_a_file_error(tmp_path):
    with pytest.raises(FileError):
        make(path=tmp_path / "absent" / "flash.bin")


def test_every_size_has_parts_and_every_id_encodes_its_size():
    facts = tomllib.loads(
        files("espwire.chips").joinpath("data", "flash-ids.toml").read_text("utf-8")
    )
    codes = {row["code"]: row["bytes"] for row in facts["size_codes"]}
    makers = {row["id"] for row in facts["makers"]}
    sizes = {maker: [row[2] for row in rows.values()] for maker, (_, rows) in PARTS.items()}
    parts = [find_part(size, maker) for maker in sizes for size in sizes[maker]]
    assert {part.size for part in parts} == {256 * KIB << n for n in range(10)}
    assert len({part.jedec for part in parts}) == len({part.name for part in parts}) == len(parts)
    for part in parts:
        assert part.maker in makers
        assert codes[part.jedec[2]] == part.size


@given(size=st.sampled_from([256 * KIB << n for n in range(11)]), maker=st.integers(0, 255))
def test_sfdp_tables_say_what_the_part_can(size: int, maker: int):
    area = build_sfdp(size, maker)
    assert area[:4] == b"SFDP"
    assert area[0x10] == maker
    at = int.from_bytes(area[12:15], "little")
    words = [int.from_bytes(area[at + 4 * i : at + 4 * i + 4], "little") for i in range(area[11])]
    assert words[0] & 3 == 1
    assert words[0] >> 8 & 0xFF == 0x20
    assert words[0] >> 17 & 3 == (size > 16 * MIB)
    density = words[1] + 1 if not words[1] >> 31 else 1 << (words[1] & 0x7FFFFFFF)
    assert density == size * 8
    assert words[7].to_bytes(4, "little") == bytes((12, 0x20, 15, 0x52))
    assert words[8].to_bytes(4, "little")[:2] == bytes((16, 0xD8))
    assert 1 << (words[10] >> 4 & 15) == 256


def test_unknown_makers_and_sizes_are_named():
    with pytest.raises(UsageError, match="acme"):
        find_part(MIB, "acme")
    with pytest.raises(UsageError, match="256KB"):
        find_part(256 * KIB, "xmc")


def test_a_flash_file_whose_name_no_system_takes_is_an_error_of_ours():
    with pytest.raises(FileError, match="cannot be used"):
        open_flash_file(Path("a\0b"), MIB)
