"""The SPI controller executes its registers' settings, phase by phase, and answers like the recorded controllers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.protocol.slip import Decoder
from espwire.sizes import MIB
from espwire.virtual.flash_parts import PROFILES, find_part
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.spi import SpiController

TRACES = Path(__file__).parents[2] / "golden" / "traces"
COMMAND, ADDRESS, DUMMY, READ, WRITE = 1 << 31, 1 << 30, 1 << 29, 1 << 28, 1 << 27


class Driver:
    """Writes the registers as a client does."""

    def __init__(self, chip_id: str, part=None) -> None:
        self.chip = load_chip(chip_id)
        self.spi = self.chip.spi
        self.flash = NorFlash(part or find_part(4 * MIB), timing=PROFILES["instant"])
        self.controller = SpiController(self.chip, self.flash)

    def put(self, offset: int, value: int) -> None:
        self.controller.write(0.0, self.spi.base + offset, value)

    def take(self, offset: int) -> int:
        return self.controller.read(0.0, self.spi.base + offset)

    def run(self, opcode, *, address=None, dummy=0, data=b"", read_bits=0, fill=0xA5A5A5A5) -> int:
        spi, user, user1 = self.spi, COMMAND, 0
        if address is not None:
            user |= ADDRESS
            user1 |= 23 << 26
            self.put(spi.address_offset, address << 8 if spi.address_msb_aligned else address)
        if dummy:
            user |= DUMMY
            user1 |= dummy - 1
        lengths = {"mosi": len(data) * 8, "miso": read_bits}
        for name, bits in lengths.items():
            if not bits:
                continue
            user |= WRITE if name == "mosi" else READ
            if spi.length_in_user1 is not None:
                shift = (
                    spi.length_in_user1.mosi_shift
                    if name == "mosi"
                    else spi.length_in_user1.miso_shift
                )
                user1 |= bits - 1 << shift
            else:
                self.put(
                    spi.mosi_length_offset if name == "mosi" else spi.miso_length_offset, bits - 1
                )
        self.put(spi.user_offset, user)
        self.put(spi.user1_offset, user1)
        self.put(spi.user2_offset, 7 << 28 | opcode)
        self.put(spi.data_offset, fill)
        for at in range(0, len(data), 4):
            self.put(spi.data_offset + at, int.from_bytes(data[at : at + 4], "little"))
        self.put(spi.command_offset, 1 << 18)
        assert self.take(spi.command_offset) == 0
        return self.take(spi.data_offset)


@pytest.mark.parametrize("chip_id", ["esp32", "esp32c3"])
@pytest.mark.parametrize("what", ["flash-id", "baud", "security-info"])
def test_the_recorded_register_traffic_is_answered_alike(chip_id: str, what: str):
    part = dataclasses.replace(find_part(4 * MIB, "gigadevice"), sfdp=b"")
    chip = load_chip(chip_id)
    controller = SpiController(chip, NorFlash(part, timing=PROFILES["typ"]))
    host, device, waiting, compared = Decoder(), Decoder(), [], 0
    for line in (TRACES / f"{chip_id}-rom-{what}.jsonl").read_text().splitlines():
        row = json.loads(line)
        for frame in (host if row["dir"] == "host" else device).feed(bytes.fromhex(row["hex"])):
            words = [int.from_bytes(frame[i : i + 4], "little") for i in range(8, len(frame), 4)]
            if row["dir"] == "chip":
                if frame[1] == 0x0A and waiting:
                    expected = waiting.pop()
                    assert expected is None or int.from_bytes(frame[4:8], "little") == expected
                    compared += expected is not None
            elif frame[1] == 0x0A:
                waiting.append(
                    controller.read(row["t"], words[0]) if controller.covers(words[0]) else None
                )
            elif frame[1] == 0x09 and controller.covers(words[0]):
                assert words[2] == 0xFFFFFFFF
                controller.write(row["t"], words[0], words[1])
    assert compared >= (20 if what == "flash-id" else 0)


@pytest.mark.parametrize("chip_id", chip_ids())
def test_identification_and_sfdp_run_through_every_chips_registers(chip_id: str):
    driver = Driver(chip_id)
    assert driver.run(0x9F, read_bits=24, fill=0) == 0x1640EF
    assert driver.run(0x5A, address=0, dummy=8, read_bits=32) == int.from_bytes(b"SFDP", "little")
    assert driver.run(0x5A, address=0x10, dummy=8, read_bits=8, fill=0) == 0xEF


@pytest.mark.parametrize("chip_id", ["esp8266", "esp32", "esp32s3"])
def test_programs_and_erases_run_through_the_registers(chip_id: str):
    driver = Driver(chip_id)
    driver.run(0x06)
    driver.run(0x02, address=0x123456, data=b"espwire!")
    assert bytes(driver.flash.contents[0x123456:0x12345F]) == b"espwire!\xff"
    assert driver.run(0x03, address=0x123456, read_bits=32) == int.from_bytes(b"espw", "little")
    assert driver.run(0x05, read_bits=8, fill=0) == 0
    driver.run(0x06)
    assert driver.run(0x05, read_bits=8, fill=0) == 2
    driver.run(0x20, address=0x123000)
    assert driver.flash.contents[0x123456] == 0xFF


def test_without_a_read_phase_the_data_words_stay():
    driver = Driver("esp32c3")
    assert driver.run(0x9F) == 0xA5A5A5A5


def test_a_short_read_leaves_the_other_bytes():
    driver = Driver("esp32c3")
    assert driver.run(0x9F, read_bits=16) == 0xA5A540EF
    assert driver.run(0x9F, read_bits=12, fill=0) == 0x40EF


def test_without_a_dummy_phase_sfdp_comes_a_byte_late():
    driver = Driver("esp32c3")
    assert driver.run(0x5A, address=0, read_bits=32) == int.from_bytes(b"\xffSFD", "little")


def test_too_many_dummy_cycles_swallow_bits():
    driver = Driver("esp32c3")
    assert driver.run(0x5A, address=0, dummy=16, read_bits=24, fill=0) == int.from_bytes(
        b"FDP", "little"
    )


def test_without_an_address_phase_the_answer_comes_three_bytes_late():
    driver = Driver("esp32")
    driver.flash.contents[0:4] = b"abcd"
    assert driver.run(0x03, read_bits=32) == int.from_bytes(b"\xff\xff\xffa", "little")


def test_an_erase_without_its_address_does_nothing():
    driver = Driver("esp32")
    driver.flash.contents[0] = 0
    driver.run(0x06)
    driver.run(0x20)
    assert driver.flash.contents[0] == 0


def test_without_a_command_phase_the_next_bits_are_the_opcode():
    driver = Driver("esp32c3")
    driver.put(driver.spi.user_offset, WRITE | READ)
    driver.put(driver.spi.mosi_length_offset, 7)
    driver.put(driver.spi.miso_length_offset, 23)
    driver.put(driver.spi.data_offset, 0x9F)
    driver.put(driver.spi.command_offset, 1 << 18)
    assert driver.take(driver.spi.data_offset) & 0xFFFFFF == 0x1640EF


@pytest.mark.parametrize("chip_id", chip_ids())
def test_registers_outside_are_not_covered(chip_id: str):
    driver = Driver(chip_id)
    base = driver.spi.base
    assert driver.controller.covers(base)
    assert driver.controller.covers(base + driver.spi.data_offset + 60)
    assert not driver.controller.covers(base - 4)
    assert not driver.controller.covers(base + 0x100)


def test_reset_brings_back_the_reset_values():
    driver = Driver("esp32")
    driver.run(0x9F, read_bits=24)
    driver.controller.reset()
    assert (driver.take(0x1C), driver.take(0x24), driver.take(0x80)) == (0x80000000, 0x70000000, 0)


@given(writes=st.lists(st.tuples(st.integers(0, 0x3F), st.integers(0, 0xFFFFFFFF)), max_size=20))
def test_no_register_contents_break_the_controller(writes):
    driver = Driver("esp8266", find_part(256 * 1024))
    for word, value in writes:
        driver.put(word * 4, value)
    driver.put(0, 1 << 18)
    assert 0 <= driver.take(driver.spi.data_offset) <= 0xFFFFFFFF
