"""SPI commands as register writes, against the recorded ones of another tool on real ROMs."""

from __future__ import annotations

import struct

import pytest

from espwire.chips.registry import load_chip
from espwire.device.loader import Loader
from espwire.device.spi import SpiCommand, plan_transaction, prove_groups, run_spi_commands

READ_ID = SpiCommand(opcode=0x9F, read_bits=24)
READ_SFDP = SpiCommand(opcode=0x5A, read_bits=8, address=0x10, address_bits=24, dummy_cycles=8)


def writes(chip, command):
    return {
        (write.address, write.value) for write in plan_transaction(load_chip(chip).spi, command)
    }


def test_reading_the_id_is_the_recorded_set_up():
    esp32 = {
        (0x3FF4202C, 0x17),
        (0x3FF4201C, 0x90000000),
        (0x3FF42024, 0x7000009F),
        (0x3FF42080, 0),
    }
    assert writes("esp32", READ_ID) == esp32 | {(0x3FF42000, 0x40000)}
    esp32c3 = {
        (0x60002028, 0x17),
        (0x60002018, 0x90000000),
        (0x60002020, 0x7000009F),
        (0x60002058, 0),
    }
    assert writes("esp32c3", READ_ID) == esp32c3 | {(0x60002000, 0x40000)}


def test_reading_sfdp_is_the_recorded_set_up():
    assert writes("esp32", READ_SFDP) >= {
        (0x3FF4202C, 7),
        (0x3FF42020, 0x5C000007),
        (0x3FF4201C, 0xF0000000),
        (0x3FF42024, 0x7000005A),
        (0x3FF42004, 0x1000),
    }
    assert writes("esp32c3", READ_SFDP) >= {(0x6000201C, 0x5C000007), (0x60002004, 0x10)}


def test_the_esp8266_keeps_lengths_in_user1():
    assert (0x60000220, 23 << 8) in writes("esp8266", READ_ID)
    assert (0x60000220, 15 << 17) in writes("esp8266", SpiCommand(opcode=1, data=b"\x02\x03"))


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
def test_the_start_comes_last(chip):
    spi = load_chip(chip).spi
    assert plan_transaction(spi, SpiCommand(opcode=2, data=bytes(64)))[-1].address == spi.base


def test_more_than_the_controller_holds_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="64 bytes"):
        plan_transaction(load_chip("esp32").spi, SpiCommand(opcode=2, data=bytes(65)))


class RegisterRom:
    """Registers and a flash that answers RDID; carries out ``groups`` groups of one WRITE_REG."""

    def __init__(self, chip, groups):
        self.spi, self.groups = load_chip(chip).spi, groups
        self.words = {
            self.spi.base + self.spi.user_offset: 0x80000000,
            self.spi.base + self.spi.user2_offset: 0x70000000,
        }
        self.started = []

    def answer(self, data):
        """A request or several, as the recorded ROMs take them: in turn."""
        return [reply for frame in data.split(b"\xc0\xc0") for reply in self.answer_one(frame)]

    def answer_one(self, frame):
        packet = frame.strip(b"\xc0").replace(b"\xdb\xdc", b"\xc0").replace(b"\xdb\xdd", b"\xdb")
        value = 0
        if packet[1] == 0x0A:
            value = self.words.get(int.from_bytes(packet[8:12], "little"), 0)
        else:
            for address, word, _, _ in list(struct.iter_unpack("<IIII", packet[8:]))[: self.groups]:
                if address == self.spi.base:
                    self.start()
                else:
                    self.words[address] = word
        reply = struct.pack("<BBHI", 1, packet[1], 4, value) + bytes(4)
        return [
            (
                0.0,
                b"\xc0"
                + reply.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
                + b"\xc0",
            )
        ]

    def start(self):
        spi, words = self.spi, self.words
        command = words[spi.base + spi.user2_offset]
        self.started.append(
            (
                command & 0xFF,
                words[spi.base + spi.user_offset],
                words.get(spi.base + (spi.miso_length_offset or 0)),
            )
        )
        if command & 0xFF == 0x9F:
            words[spi.base + spi.data_offset] = 0x1640EF


@pytest.mark.parametrize("groups", [99, 1, 3])
def test_a_rom_that_stops_after_a_few_groups_is_found_out_and_served_one_by_one(link_with, groups):
    chip = load_chip("esp32c3")
    rom = RegisterRom("esp32c3", groups)
    loader = Loader(link_with(rom.answer), chip.rom)
    assert run_spi_commands(loader, chip, (SpiCommand(opcode=0x9F, read_bits=24),)) == 0x1640EF
    assert loader.dialect.write_groups is (groups == 99)
    # no transaction ever ran with half a set-up; it ran twice, since nothing else proves the answer
    assert rom.started == [(0x9F, 0x90000000, 23)] * 2
    assert rom.words[0x60002018] == 0x80000000
    assert rom.words[0x60002020] == 0x70000000
    assert loader.trips == (5 if groups == 99 else loader.trips)


def test_a_write_is_proven_before_it_is_done_so_that_it_is_done_once(link_with):
    chip = load_chip("esp32c3")
    for groups in (99, 2):
        rom = RegisterRom("esp32c3", groups)
        loader = Loader(link_with(rom.answer), chip.rom)
        run_spi_commands(loader, chip, (SpiCommand(opcode=0x01, data=b"\x02"),))
        assert [command for command, _, _ in rom.started] == [0x01]
        prove_groups(loader, chip)
        assert loader.dialect.write_groups is (groups == 99)
