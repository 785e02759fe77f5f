"""The registers of a virtual chip decode, by the rules of the chip data, to exactly its configuration."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.model import BitField, BitPart, Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import UsageError
from espwire.protocol.slip import Decoder
from espwire.virtual.build import build_chip
from espwire.virtual.config import parse_options
from espwire.virtual.efuses import (
    build_strapping,
    default_config,
    effective_purposes,
    encode_field,
    find_divider,
    find_rom_clock,
    fuse_registers,
    security_info,
)

TRACES = Path(__file__).parents[2] / "golden" / "traces"
CHIPS = chip_ids()


# a second implementation of the rules in chips/data, independent of the encoder


def decode(bits: BitField, words: dict[int, int]) -> int:
    return sum(((words.get(p.address, 0) >> p.shift) % (1 << p.bits)) << p.to for p in bits)


def decode_mac(chip: Chip, words: dict[int, int]) -> bytes:
    if chip.mac.words:
        mac0, mac1, mac3 = (words.get(chip.mac.words[name], 0) for name in ("mac0", "mac1", "mac3"))
        if mac3:
            oui = bytes((mac3 >> 16 & 255, mac3 >> 8 & 255, mac3 & 255))
        else:
            oui = bytes.fromhex({0: "18fe34", 1: "acd074"}[mac1 >> 16 & 255])
        return oui + bytes((mac1 >> 8 & 255, mac1 & 255, mac0 >> 24))
    high, low = words[chip.mac.high_word], words[chip.mac.low_word]
    return (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")


def decode_revision(chip: Chip, words: dict[int, int]) -> int:
    rule = chip.revision
    if rule.constant is not None:
        return rule.constant
    signs = rule.treat_as_zero_when
    if signs and all(decode(chip.fields[name], words) == value for name, value in signs.items()):
        return 0
    if rule.major_from_raw:
        major = rule.major_from_raw.get(
            decode(chip.fields["major_revision_raw"], words), rule.major_otherwise
        )
    else:
        major = decode(chip.fields["major_revision"], words)
    return major * 100 + decode(chip.fields["minor_revision"], words)


def settable(chip: Chip) -> list[str]:
    return [name for name in chip.fields if "revision" not in name]


def room(bits: BitField) -> int:
    return sum(((1 << part.bits) - 1) << part.to for part in bits)


parts = st.builds(
    BitPart,
    address=st.sampled_from([0, 4, 8]),
    shift=st.integers(0, 24),
    bits=st.integers(1, 8),
    to=st.just(0),
)


@given(bits=parts, value=st.integers(0, 255), before=st.integers(0, 0xFFFFFFFF))
def test_an_encoded_field_decodes_and_its_neighbours_stay(bits: BitPart, value: int, before: int):
    words = {bits.address: before}
    mask = (1 << bits.bits) - 1
    if value > mask:
        with pytest.raises(UsageError):
            encode_field((bits,), value, words)
        assert words == {bits.address: before}
        return
    encode_field((bits,), value, words)
    assert decode((bits,), words) == value
    assert words[bits.address] & ~(mask << bits.shift) == before & ~(mask << bits.shift)


@pytest.mark.parametrize("chip_id", CHIPS)
@given(data=st.data())
def test_every_field_of_every_chip_holds_all_its_values(chip_id: str, data):
    chip = load_chip(chip_id)
    for name, bits in chip.fields.items():
        value = data.draw(st.integers(0, room(bits)), name) & room(bits)
        words: dict[int, int] = {}
        encode_field(bits, value, words)
        assert decode(bits, words) == value


@pytest.mark.parametrize("chip_id", CHIPS)
@given(mac=st.binary(min_size=6, max_size=6).filter(lambda mac: any(mac[:3])), data=st.data())
def test_mac_revision_and_a_field_round_trip_together(chip_id: str, mac: bytes, data):
    chip = load_chip(chip_id)
    config = dataclasses.replace(default_config(chip), mac=mac)
    names = settable(chip)
    if names:
        name = data.draw(st.sampled_from(names))
        value = data.draw(st.integers(0, room(chip.fields[name]))) & room(chip.fields[name])
        config = dataclasses.replace(config, fields={name: value})
    words = fuse_registers(chip, config)
    assert decode_mac(chip, words) == mac
    assert decode_revision(chip, words) == config.revision
    for name, value in config.fields.items():
        assert decode(chip.fields[name], words) == value
    assert all(0 <= word <= 0xFFFFFFFF for word in words.values())


@pytest.mark.parametrize("chip_id", CHIPS)
@given(revision=st.integers(0, 320))
def test_a_revision_decodes_or_is_refused(chip_id: str, revision: int):
    chip = load_chip(chip_id)
    config = dataclasses.replace(default_config(chip), revision=revision)
    try:
        words = fuse_registers(chip, config)
    except UsageError:
        return
    assert decode_revision(chip, words) == revision


@pytest.mark.parametrize(("revision", "raw"), [(0, 0), (100, 1), (200, 3), (300, 7), (301, 7)])
def test_the_esp32_major_is_three_bits_in_three_words(revision: int, raw: int):
    chip = load_chip("esp32")
    words = fuse_registers(chip, dataclasses.replace(default_config(chip), revision=revision))
    assert decode(chip.fields["major_revision_raw"], words) == raw
    assert words[0x3FF6607C] >> 31 == raw >> 2


def test_an_esp32_s3_of_revision_0_is_recognised_by_its_block_version():
    chip = load_chip("esp32s3")
    config = dataclasses.replace(default_config(chip), revision=0)
    words = fuse_registers(chip, config)
    assert decode(chip.fields["major_revision"], words) == 3
    assert decode_revision(chip, words) == 0
    signs = {"block2_version_major": 1, "block2_version_minor": 1}
    with pytest.raises(UsageError, match="reads as revision 0"):
        fuse_registers(chip, dataclasses.replace(config, revision=100, fields=signs))
    later = dataclasses.replace(config, revision=2, fields=signs)
    assert decode_revision(chip, fuse_registers(chip, later)) == 2


@pytest.mark.parametrize(("oui", "number"), [("18fe34", 0), ("acd074", 1)])
def test_early_esp8266_ouis_are_encoded_as_a_number(oui: str, number: int):
    chip = load_chip("esp8266")
    mac = bytes.fromhex(oui + "010203")
    words = fuse_registers(chip, dataclasses.replace(default_config(chip), mac=mac))
    assert words[0x3FF0005C] == 0
    assert words[0x3FF00054] >> 16 == number
    esp8285 = dataclasses.replace(
        default_config(chip), mac=mac, fields={"esp8285_bits": 2, "flash_capacity": 2}
    )
    assert decode_mac(chip, fuse_registers(chip, esp8285)) == mac


def test_fields_that_share_bits_must_agree():
    chip = load_chip("esp8266")
    with pytest.raises(UsageError, match="contradicts"):
        fuse_registers(
            chip,
            dataclasses.replace(
                default_config(chip), fields={"esp8285_bits": 1, "flash_capacity": 2}
            ),
        )


def test_the_esp32_mac_has_its_crc():
    chip = load_chip("esp32")
    words = fuse_registers(chip, default_config(chip))
    assert words[0x3FF5A008] == 0x00B9240A  # as in the traces, for 24:0A:C4:00:01:10
    assert words[0x3FF5A004] == 0xC4000110


def test_the_eui64_extension_lies_above_the_mac():
    chip = load_chip("esp32c6")
    words = fuse_registers(chip, dataclasses.replace(default_config(chip), extension=b"\x12\x34"))
    assert words[chip.mac.high_word] >> 16 == 0x1234
    other = load_chip("esp32c3")
    assert fuse_registers(other, default_config(other))[other.mac.high_word] == 0x240A


def trace_words(name: str) -> dict[int, int]:
    """Every register that a recorded client read, with its last value."""
    host, device, asked, words = Decoder(), Decoder(), [], {}
    for line in (TRACES / name).read_text().splitlines():
        row = json.loads(line)
        for frame in (host if row["dir"] == "host" else device).feed(bytes.fromhex(row["hex"])):
            if row["dir"] == "host" and frame[1] == 0x0A:
                asked.append(int.from_bytes(frame[8:12], "little"))
            elif row["dir"] == "chip" and frame[1] == 0x0A:
                words[asked.pop(0)] = int.from_bytes(frame[4:8], "little")
    return words


def test_the_traces_esp32_is_made_of_the_same_words():
    chip = load_chip("esp32")
    config = dataclasses.replace(
        default_config(chip), revision=300, fields={"ck8m_frequency": 0x50}, divider=0x15A
    )
    words = fuse_registers(chip, config)
    seen = trace_words("esp32-rom-flash-id.jsonl") | trace_words("esp32-rom-baud.jsonl")
    for address, value in seen.items():
        if (
            address >> 12 != 0x3FF42 and address != 0x3FF48074
        ):  # the SPI controller, the flash voltage override
            assert words.get(address, 0) == value, hex(address)


def test_the_traces_esp32_c3_is_made_of_the_same_words():
    chip = load_chip("esp32c3")
    config = dataclasses.replace(default_config(chip), revision=3)
    words = fuse_registers(chip, config)
    for address, value in trace_words("esp32c3-rom-flash-id.jsonl").items():
        if address >> 12 == 0x60008:
            assert words.get(address, 0) == value, hex(address)
    assert (
        security_info(chip, config).hex()
        == "00000000" + "00" + "0000000000000c" + "05000000" + "03000000"
    )


@pytest.mark.parametrize("chip_id", CHIPS)
def test_the_crystal_is_derived_from_the_divider(chip_id: str):
    chip = load_chip(chip_id)
    for mhz in chip.crystal.mhz or (26, 40, 48):
        config = dataclasses.replace(default_config(chip), crystal_mhz=mhz)
        for baud in (74880, 115200, 921600):
            divider = fuse_registers(chip, config, baud=baud)[chip.uart.clock_divider_address]
            assert divider == find_divider(chip, mhz, baud)
            estimate = baud * divider / 1e6 / chip.crystal.clock_multiple
            if chip.crystal.method == "uart_divider":
                assert (
                    next(mhz for above, mhz in chip.crystal.thresholds.items() if estimate > above)
                    == mhz
                )


def test_a_crystal_the_chip_cannot_have_is_refused():
    chip = load_chip("esp32c3")
    with pytest.raises(UsageError, match="26 MHz"):
        fuse_registers(chip, dataclasses.replace(default_config(chip), crystal_mhz=26))


@given(crystal=st.sampled_from([26, 40]), ck8m=st.integers(40, 120), off=st.floats(0.97, 1.03))
def test_the_esp32s_clock_is_derived_from_its_calibration(crystal: int, ck8m: int, off: float):
    chip = load_chip("esp32")
    fields = {"ck8m_frequency": ck8m}
    config = dataclasses.replace(
        default_config(chip), crystal_mhz=crystal, fields=fields, rom_clock_hz=crystal * 1e6 * off
    )
    fact = chip.crystal.rom_calibration
    calibration = fuse_registers(chip, config)[fact.address] >> fact.shift & fact.mask
    clock = calibration * 15625 * ck8m / 40
    assert clock == find_rom_clock(chip, config)
    assert clock == pytest.approx(crystal * 1e6 * off, rel=0.001)
    assert (clock > fact.threshold_hz) == (crystal == 40)


def test_a_blank_calibration_gives_no_clock():
    chip = load_chip("esp32")
    config = dataclasses.replace(default_config(chip), fields={})
    assert find_rom_clock(chip, config) is None
    assert fuse_registers(chip, config)[0x3FF5F06C] == 0x28000
    assert find_rom_clock(load_chip("esp32c3"), default_config(load_chip("esp32c3"))) is None


@pytest.mark.parametrize(("chip_id", "mhz"), [("esp32c5", 48), ("esp32h21", 32), ("esp32h4", 32)])
def test_the_roms_crystal_setting_is_encoded(chip_id: str, mhz: int):
    chip = load_chip(chip_id)
    at = chip.crystal.rom_setting
    words = fuse_registers(chip, default_config(chip))
    assert words[at.address] >> at.shift & 0x7F == mhz
    wrong = fuse_registers(chip, dataclasses.replace(default_config(chip), rom_crystal_mhz=40))
    assert wrong[at.address] >> at.shift & 0x7F == 40


@pytest.mark.parametrize("chip_id", CHIPS)
def test_security_is_seen_where_the_chip_has_it(chip_id: str):
    chip = load_chip(chip_id)
    facts, plain = chip.security, default_config(chip)
    wanted = {
        "flash_encryption": facts.flash_encryption,
        "secure_boot": facts.secure_boot or facts.secure_boot_v2,
        "secure_boot_v1": facts.secure_boot_v1,
        "manual_encrypt_disabled": facts.manual_encrypt_disable,
        "secure_download": facts.secure_download,
        "key_manager": facts.key_manager_flash_key,
    }
    for name, fact in wanted.items():
        config = dataclasses.replace(plain, **{name: True})
        if fact is None:
            with pytest.raises(UsageError):
                fuse_registers(chip, config)
            continue
        on, off = fuse_registers(chip, config), fuse_registers(chip, plain)
        if name == "flash_encryption":
            mask = ((1 << fact.bits) - 1) << fact.shift
            assert (on[fact.address] & mask).bit_count() % 2 == 1
        else:
            mask = fact.test_mask << fact.shift if name == "key_manager" else 1 << fact.bit
            assert on[fact.address] & mask
        assert not off.get(fact.address, 0) & mask


def test_esp32_secure_boot_v2_needs_revision_300():
    chip = load_chip("esp32")
    with pytest.raises(UsageError, match="secure boot"):
        fuse_registers(
            chip, dataclasses.replace(default_config(chip), revision=100, secure_boot=True)
        )


@pytest.mark.parametrize("chip_id", CHIPS)
def test_encrypted_flash_has_a_key(chip_id: str):
    chip = load_chip(chip_id)
    facts = chip.security
    if facts.flash_encryption is None:
        return
    words = fuse_registers(chip, dataclasses.replace(default_config(chip), flash_encryption=True))
    if facts.key_readable is not None:
        assert words[facts.key_readable.read_disable_address] >> facts.key_readable.bit & 1
    elif facts.key_valid is not None:
        key = facts.key_valid
        assert words[key.read_disable_address] & key.read_disable_mask == key.short_needs
        assert not words[key.long_key_address] >> key.long_key_bit & 1
    else:
        held = {words[s.address] >> s.shift & (1 << s.bits) - 1 for s in facts.key_purpose_slots}
        rules = facts.flash_key_valid_if
        assert any(
            held & set(rule.any_of) or (rule.all_of and held >= set(rule.all_of)) for rule in rules
        )


@pytest.mark.parametrize("chip_id", CHIPS)
@given(data=st.data())
def test_key_purposes_round_trip(chip_id: str, data):
    chip = load_chip(chip_id)
    slots = chip.security.key_purpose_slots
    if not slots:
        with pytest.raises(UsageError, match="0 key slots"):
            effective_purposes(chip, dataclasses.replace(default_config(chip), key_purposes=(4,)))
        return
    purposes = tuple(data.draw(st.integers(0, (1 << slot.bits) - 1)) for slot in slots)
    config = dataclasses.replace(default_config(chip), key_purposes=purposes)
    words = fuse_registers(chip, config)
    assert tuple(words.get(s.address, 0) >> s.shift & (1 << s.bits) - 1 for s in slots) == purposes
    info = security_info(chip, config)
    assert info[5 : 5 + len(slots)] == bytes(purposes)


def test_a_purpose_beyond_the_bits_is_refused():
    chip = load_chip("esp32c3")
    with pytest.raises(UsageError, match="16"):
        fuse_registers(chip, dataclasses.replace(default_config(chip), key_purposes=(16,)))


@pytest.mark.parametrize("chip_id", CHIPS)
def test_security_info_has_the_chips_length_and_flags(chip_id: str):
    chip = load_chip(chip_id)
    plain = default_config(chip)
    info = security_info(chip, plain)
    assert len(info) == chip.identity.security_info_bytes
    if not info:
        return
    assert info[:5] == bytes(5)
    if len(info) == 20:
        eco = chip.security.rom_eco
        assert info[12:] == struct.pack(
            "<II", chip.identity.image_chip_id, eco.value if eco is not None else 0
        )
    config = dataclasses.replace(plain, secure_boot=True, secure_download=True)
    assert security_info(chip, config)[0] == 0b101


def test_secure_download_only_where_the_rom_has_it():
    chip = load_chip("esp32")
    with pytest.raises(UsageError, match="Secure Download"):
        fuse_registers(chip, dataclasses.replace(default_config(chip), secure_download=True))


@pytest.mark.parametrize("chip_id", CHIPS)
def test_magic_words_identify(chip_id: str):
    chip = load_chip(chip_id)
    words = fuse_registers(chip, default_config(chip))
    known = chip.identity.magic_values or chip.identity.legacy_magic_values or (0,)
    assert words[0x40001000] in known
    other = chip.identity.alternate_detect
    assert other is None or words[other.address] & other.mask == other.value


def test_straps_tell_the_boot_mode():
    assert build_strapping(load_chip("esp32"), download=True) == 0x0F
    assert build_strapping(load_chip("esp32"), download=False) == 0x1F
    assert build_strapping(load_chip("esp32c3"), download=True) == 0x04
    assert build_strapping(load_chip("esp32c3"), download=False) == 0x0C
    assert build_strapping(load_chip("esp32c5"), download=True) == 0x08
    assert build_strapping(load_chip("esp32s2"), download=True) == 0x00
    assert build_strapping(load_chip("esp32s2"), download=False) == 0x08


@pytest.mark.parametrize(
    "change",
    [
        {"fields": {"nonsense": 1}},
        {"fields": {"minor_revision": 1}},
        {"fields": {"package": 16}},
        {"fields": {"package": -1}},
        {"mac": b"\x24\x0a\xc4"},
        {"revision": 400},
        {"revision": 304},
    ],
)
def test_what_the_bits_cannot_hold_is_refused(change):
    chip = load_chip("esp32")
    with pytest.raises(UsageError) as caught:
        fuse_registers(chip, dataclasses.replace(default_config(chip), **change))
    assert caught.value.hint


def test_chips_that_do_not_tell_a_revision_have_one():
    chip = load_chip("esp8266")
    with pytest.raises(UsageError, match="revision 1"):
        fuse_registers(chip, dataclasses.replace(default_config(chip), revision=1))
    with pytest.raises(UsageError, match="00:00:00"):
        fuse_registers(chip, dataclasses.replace(default_config(chip), mac=bytes(6)))
    other = load_chip("esp32c6")
    with pytest.raises(UsageError, match="extension"):
        fuse_registers(other, dataclasses.replace(default_config(other), extension=b"\xff"))


def test_no_flash_file_is_made_for_a_chip_that_cannot_be(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    with pytest.raises(UsageError, match="does not fit"):
        build_chip(parse_options(f"virtual:esp32s3?revision=65535&flash={flash}"))
    assert not flash.exists()
