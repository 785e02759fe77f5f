"""GET_SECURITY_INFO, as our stub answers it: from eFuses and a word of the ROM, on each chip whose ROM has the command."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.stub_drivers.frames import frame, split
from tests.unit.stub.board import Bench

from espwire.chips.registry import load_chip
from espwire.device.security import FLAG_NAMES, parse_security_reply
from espwire.device.stub_image import load_stub, stub_chips
from espwire.protocol.opcodes import Op
from espwire.virtual.efuses import default_config, fuse_registers, security_info

CHIPS = [chip for chip in stub_chips() if load_chip(chip).identity.security_info_bytes]
# from the ROMs, by setting each eFuse: what these chips have no eFuse for
WITHOUT = {
    "esp32c2": {
        "SECURE_BOOT_AGGRESSIVE_REVOKE",
        "SECURE_BOOT_KEY_REVOKE0",
        "SECURE_BOOT_KEY_REVOKE1",
        "SECURE_BOOT_KEY_REVOKE2",
        "SOFT_DIS_JTAG",
    },
    "esp32c61": {"SOFT_DIS_JTAG"},
}
WITH_USB = {"esp32s2", "esp32s3"}
WITH_ICACHE = {"esp32c2", "esp32c3", "esp32c6", "esp32s2", "esp32s3"}


def start(chip: str) -> Bench:
    image = load_stub(chip)
    bench = Bench(load_chip(chip), image.entry, image.segments)
    bench.send()
    return bench


@pytest.mark.parametrize("chip", CHIPS)
def test_it_answers_what_the_rom_of_the_virtual_chip_does(chip: str) -> None:
    facts, bench = load_chip(chip), start(chip)
    purposes = (4, 9, 10) if facts.security.key_count else ()
    config = replace(
        default_config(facts), secure_boot=True, flash_encryption=True, key_purposes=purposes
    )
    bench.board.registers |= fuse_registers(facts, config)
    (answer,) = bench.send(frame(Op.GET_SECURITY_INFO, b""))
    assert split(answer)[0].body == security_info(facts, config)
    assert split(answer)[1] == 0


@pytest.mark.parametrize("chip", CHIPS)
def test_with_all_efuses_set_each_flag_of_the_chip_is_set(chip: str) -> None:
    facts, bench = load_chip(chip), start(chip)
    assert facts.security.flash_encryption is not None
    base = facts.security.flash_encryption.address & ~0xFF
    bench.board.registers |= dict.fromkeys(range(base, base + 0x100, 4), 0xFFFFFFFF)
    (answer,) = bench.send(frame(Op.GET_SECURITY_INFO, b""))
    reply = parse_security_reply(split(answer)[0].body)
    assert reply is not None
    flags = {name for bit, name in enumerate(FLAG_NAMES) if reply.flags >> bit & 1}
    missing = set(WITHOUT.get(chip, ()))
    missing |= set() if chip in WITH_USB else {"DIS_USB", "DIS_DOWNLOAD_DCACHE"}
    missing |= set() if chip in WITH_ICACHE else {"DIS_DOWNLOAD_ICACHE"}
    assert flags == set(FLAG_NAMES) - missing
    assert reply.flash_crypt_count == 7


@pytest.mark.parametrize("chip", sorted(set(stub_chips()) - set(CHIPS)))
def test_it_is_unknown_where_the_rom_does_not_have_it(chip: str) -> None:
    (answer,) = start(chip).send(frame(Op.GET_SECURITY_INFO, b""))
    assert answer[8:] == b"\xc3\0"
