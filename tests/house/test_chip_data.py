"""Consistency of the chip data: unique ids, sane ranges, eFuse bits that do not overlap, agreement with the code."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol import slip
from espwire.protocol.commands import COMMANDS, checksum
from espwire.protocol.dialect import SECURE_DOWNLOAD_OPS
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import ROM_MEANINGS, STUB_MEANINGS
from espwire.record import Record
from espwire.settings import RetryPolicy, Timing

DATA = files("espwire.chips").joinpath("data")
PROTOCOL = tomllib.loads(DATA.joinpath("protocol.toml").read_text("utf-8"))
ADDRESS_LIMIT = 1 << 32


def text_of(chip: str) -> str:
    return DATA.joinpath(f"{chip}.toml").read_text("utf-8")


def fuses_of(chip: str) -> dict[str, Any]:
    return tomllib.loads(DATA.joinpath("efuses", f"{chip}.toml").read_text("utf-8"))


@pytest.fixture(params=chip_ids())
def chip(request: pytest.FixtureRequest) -> Chip:
    return load_chip(request.param)


def numbers(value: object, path: str) -> Iterator[tuple[str, str, int]]:
    """Every integer in a model: its path, its name, its value."""
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield path, path.rsplit(".", 1)[-1], value
    elif isinstance(value, Record):
        yield from numbers(vars(value), path)
    elif hasattr(value, "items"):
        for key, item in value.items():
            yield from numbers(item, f"{path}.{key}")
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from numbers(item, path)


def test_every_chip_has_an_efuse_table() -> None:
    assert {fuses_of(chip)["id"] for chip in chip_ids()} == set(chip_ids())


def test_chips_that_share_a_legacy_magic_value_can_be_told_apart() -> None:
    chips = [load_chip(chip) for chip in chip_ids()]
    plain = [chip for chip in chips if chip.identity.alternate_detect is None]
    values = Counter(value for chip in plain for value in chip.identity.legacy_magic_values)
    assert [hex(value) for value, count in values.items() if count > 1] == []


def test_uf2_families_are_unique_and_the_flash_controller_has_one_address() -> None:
    chips = [load_chip(chip) for chip in chip_ids()]
    families = [chip.image.uf2_family for chip in chips if chip.image.uf2_family is not None]
    assert len(families) == len(set(families))
    for chip in chips:
        assert chip.peripherals.get("spi_flash", chip.spi.base) == chip.spi.base, chip.id


def test_each_file_is_named_after_the_chip_in_it(chip: Chip) -> None:
    assert tomllib.loads(text_of(chip.id))["id"] == chip.id
    assert chip.name.lower().replace("-", "") == chip.id


def test_ids_magics_and_names_are_unique() -> None:
    chips = [load_chip(name) for name in chip_ids()]
    image_ids = [
        chip.identity.image_chip_id for chip in chips if chip.identity.image_chip_id is not None
    ]
    magics = [magic for chip in chips for magic in chip.identity.magic_values]
    assert len(image_ids) == len(set(image_ids)) >= len(chips) - 1  # the ESP8266's images have none
    assert len(magics) == len(set(magics))
    assert len({chip.name for chip in chips}) == len(chips)
    assert not set(image_ids) & {int(key) for key in PROTOCOL["detect"]["retired_chip_ids"]}


def test_addresses_fit_in_32_bits(chip: Chip) -> None:
    for path, name, value in numbers(chip, chip.id):
        if path.endswith(".to") or name in ("min_revision", "max_revision", "bit", "shift"):
            continue
        assert 0 <= value <= ADDRESS_LIMIT, path


def test_bit_fields_fit_their_registers(chip: Chip) -> None:
    slots = {f"key {i}": (slot,) for i, slot in enumerate(chip.security.key_purpose_slots)}
    assert chip.fields or chip.maturity == "preliminary"
    for path, field in {**chip.fields, **slots}.items():
        covered: set[int] = set()
        for part in field:
            assert part.address % 4 == 0, path
            assert part.bits >= 1, path
            assert part.shift >= 0, path
            assert part.shift + part.bits <= 32, path
            bits = set(range(part.to, part.to + part.bits))
            assert not covered & bits, f"{path}: two parts have the same bit"
            covered |= bits


def test_memory_regions_are_not_empty(chip: Chip) -> None:
    for region in chip.memory.map:
        assert region.start < region.end <= ADDRESS_LIMIT, region
    for window in (chip.mapped_flash,):
        assert window.irom_start < window.irom_end
        assert (window.drom_start is None) == (window.drom_end is None)
        if window.drom_start is not None and window.drom_end is not None:
            assert window.drom_start < window.drom_end


def test_our_stub_is_in_ram_that_the_rom_does_not_use(chip: Chip) -> None:
    own = chip.stub.own
    if own is None:
        return
    assert any(
        r.start <= own.data_start < own.data_end <= r.end
        for r in chip.memory.map
        if r.name == "DRAM"
    )
    # not all RAM for code is in the map: the ESP8266's cache is free while nothing runs from flash
    proven = any(layout["text_start"] == own.code_start for layout in chip.stub.reference_layouts)
    assert proven or any(
        r.start <= own.code_start < own.code_end <= r.end
        for r in chip.memory.map
        if "IRAM" in r.name
    )
    assert all(
        place % 16 == 0 for place in (own.code_start, own.code_end, own.data_start, own.data_end)
    )
    for known in chip.stub.rom_ram:
        taken = known.get("rom_buffers_start", known.get("uart_device", ADDRESS_LIMIT))
        older = (
            own.older if known.get("max_revision", ADDRESS_LIMIT) <= own.older_revision else None
        )
        room = older if older is not None else own
        assert room.data_end <= taken or room.data_start >= known.get("ram_end", ADDRESS_LIMIT)
        if alias := known.get("instruction_alias_offset"):
            assert (
                own.code_end <= own.data_start + alias or own.data_end + alias <= own.code_start
            ), "the same RAM twice"
            assert own.code_end <= taken + alias
    assert own.code_end <= own.data_start or own.data_end <= own.code_start


def test_our_stub_names_registers_and_functions_that_exist(chip: Chip) -> None:
    own = chip.stub.own
    if own is None:
        return
    assert {"uart0", "spi_flash"} <= set(chip.peripherals)
    assert set(own.rom_functions) <= set(chip.rom_addresses)
    assert own.can_encrypt == any("encrypted" in name for name in own.rom_functions)
    assert own.cpu_hz <= chip.cpu.max_mhz * 1_000_000
    for name, value in own.registers.items():
        assert name == name.lower()
        assert name.endswith("_key") or value % 4 == 0, name
    if chip.reset.watchdog is not None:
        assert chip.reset.watchdog.config0 not in own.registers.values(), "already in chip.reset"


def test_flash_codes_fit_byte_three_of_an_image_header(chip: Chip) -> None:
    assert all(code % 16 == 0 and 0 <= code <= 0xF0 for code in chip.flash.sizes.values())
    assert all(0 <= code <= 0xF for code in chip.flash.frequencies.values())
    assert all(0 <= code <= 0xFF for code in chip.flash.modes.values())
    assert chip.flash.default_frequency in chip.flash.frequencies
    assert chip.flash.sector_size == 0x1000
    assert chip.flash.bootloader_offset in (0, 0x1000, 0x2000)


def test_the_dialect_of_the_rom_is_consistent(chip: Chip) -> None:
    rom = chip.rom
    assert rom.secure_ops <= rom.ops
    assert rom.status_bytes in (2, 4)
    assert rom.begin_words in (4, 5)
    assert (Op.READ_FLASH_SLOW in rom.ops) == (rom.slow_read > 0)
    assert (Op.SPI_ATTACH in rom.ops) == (rom.attach_bytes > 0)
    assert (Op.CHANGE_BAUDRATE in rom.ops) == (rom.baud.value != "none")
    assert (Op.SPI_FLASH_MD5 in rom.ops) == (rom.md5.value != "none")
    assert (Op.GET_SECURITY_INFO in rom.ops) == (rom.security_info_bytes > 0)
    assert rom.security_info_bytes in (0, 12, 20)


def fuse_rows(chip: str) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(table["name"], table["fields"]) for table in fuses_of(chip)["table"]]


@pytest.mark.parametrize("chip_id", chip_ids())
def test_efuse_fields_fit_their_block(chip_id: str) -> None:
    data = fuses_of(chip_id)
    words = {block["id"]: block["words"] for block in data.get("blocks", [])}
    for table, rows in fuse_rows(chip_id):
        names = [row["name"] for row in rows]
        assert len(names) == len(set(names)), table
        for row in rows:
            where = f"{chip_id} {table} {row['name']}"
            assert row["bits"] >= 1, where
            if "block" in row:
                assert row["start"] + row["bits"] <= 32 * words[row["block"]], where
            else:
                assert row["start"] + row["bits"] <= 32 * len(data["words"]), where
            for lock in ("wr_dis", "rd_dis"):
                locks = row.get(lock, 0)
                assert all(
                    0 <= bit < 32 for bit in (locks if isinstance(locks, list) else [locks])
                ), where


@pytest.mark.parametrize("chip_id", chip_ids())
def test_efuse_fields_do_not_overlap_except_whole_key_blocks(chip_id: str) -> None:
    words = {block["id"]: block["words"] for block in fuses_of(chip_id).get("blocks", [])}
    for table, rows in fuse_rows(chip_id):
        owner: dict[tuple[int, int], str] = {}
        for row in rows:
            block = row.get("block", -1)
            whole = block > 0 and row["start"] == 0 and row["bits"] == 32 * words[block]
            if row.get("calculated") or whole:
                continue
            for bit in range(row["start"], row["start"] + row["bits"]):
                other = owner.setdefault((block, bit), row["name"])
                assert other == row["name"], (
                    f"{chip_id} {table}: {other} and {row['name']} share bit {bit} of {block}"
                )


@pytest.mark.parametrize("chip_id", chip_ids())
def test_efuse_blocks_do_not_overlap(chip_id: str) -> None:
    blocks = fuses_of(chip_id).get("blocks", [])
    spans = sorted((block["read"], block["read"] + 4 * block["words"]) for block in blocks)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
    assert [block["id"] for block in blocks] == list(range(len(blocks)))


def test_the_opcodes_are_those_of_the_data() -> None:
    opcodes = {row["name"]: row["opcode"] for row in PROTOCOL["command"]}
    # the data also has commands of other stubs' plug-ins and of old stubs, which espwire does not use
    assert {op.name: op.value for op in Op} == {
        name: code for name, code in opcodes.items() if name in Op.__members__
    }
    unused = set(opcodes) - set(Op.__members__)
    assert all(name.startswith("SPI_NAND_") or name == "FLASH_ENCRYPT_DATA" for name in unused)
    assert set(COMMANDS) == set(Op)


USED = [row for row in PROTOCOL["command"] if row["name"] in Op.__members__]


@pytest.mark.parametrize("row", USED, ids=lambda row: row["name"])
def test_the_commands_of_a_rom_are_those_of_the_protocol_data(row: dict[str, Any]) -> None:
    """For the chips that protocol.toml covers."""
    covered = set(PROTOCOL["chip_sets"]["all"]) & set(chip_ids())
    has = {chip for chip in covered if Op[row["name"]] in load_chip(chip).rom.ops}
    assert has == set(PROTOCOL["chip_sets"][row["rom"]])


def test_secure_download_mode_allows_what_the_data_says() -> None:
    assert {op.name for op in SECURE_DOWNLOAD_OPS} == set(PROTOCOL["secure_download"]["allowed"])
    assert {row["name"] for row in PROTOCOL["command"] if row.get("secure_download")} == {
        op.name for op in SECURE_DOWNLOAD_OPS
    }


def test_every_error_code_of_the_data_has_a_text() -> None:
    assert {row["code"] for row in PROTOCOL["errors"]["rom"]} == set(ROM_MEANINGS)
    assert {row["code"] for row in PROTOCOL["errors"]["stub"]} == set(STUB_MEANINGS)


def test_the_default_timeouts_and_attempts_are_those_of_the_data() -> None:
    timing, timeouts, retries = Timing(), PROTOCOL["timeouts_s"], PROTOCOL["retries"]
    assert (timing.default, timing.sync, timing.write) == (
        timeouts["default"],
        timeouts["sync"],
        timeouts["serial_write"],
    )
    assert (timing.chip_erase, timing.longest) == (timeouts["chip_erase"], timeouts["longest"])
    assert timing.md5_per_mb == timeouts["md5_per_mb"]
    assert timing.erase_per_mb == timeouts["erase_region_per_mb"]
    assert timing.write_per_mb == timeouts["erase_write_per_mb"]
    assert timing.baud_settle == PROTOCOL["baud_change"]["settle_s"]
    retry = RetryPolicy()
    assert retry.connect_attempts == retries["connect_attempts"]
    assert retry.syncs_per_attempt == retries["syncs_per_attempt"]
    assert retry.block_attempts == retries["write_block_attempts"]


def test_framing_and_checksum_are_those_of_the_data() -> None:
    framing = PROTOCOL["framing"]
    assert bytes([framing["end"]]) == slip.END
    assert bytes([framing["escape"]]) == slip.ESC
    assert bytes([framing["escape"], framing["escaped_end"]]) == slip.ESC_END
    assert bytes([framing["escape"], framing["escaped_escape"]]) == slip.ESC_ESC
    assert checksum(b"") == PROTOCOL["checksum"]["seed"]
