"""The eFuse controller of virtual chips, register by register: its rules without a client in front of it."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from espwire.efuse.check import find_errors
from espwire.efuse.coding import encode
from espwire.efuse.model import Block
from espwire.efuse.store import VirtualStore
from espwire.efuse.timing import find_timing
from espwire.virtual.fuse_controller import CORRECTABLE, PROGRAM_S, READ_S, FuseController

DATA = bytes(range(1, 33))


@dataclass
class Bench:
    """A controller with its clock."""

    chip: str
    now: float = 0.0
    words: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.store = VirtualStore(self.chip)
        self.controller = FuseController(
            self.store, self.words, mhz=40, on_load=lambda: None, on_burn=lambda t, seconds: None
        )
        self.controller.load()
        self.registers = self.store.data.controller.registers

    def write(self, address: int, value: int) -> None:
        self.controller.write(self.now, address, value)

    def read(self, address: int) -> int:
        return self.controller.read(self.now, address)

    def prepare(self, block: Block, coded: bytes) -> None:
        """Timing, data and the write opcode."""
        for address, (value, _) in find_timing(self.store.data, 40).items():
            self.write(address, value)
        start = block.write
        if not self.store.data.controller.per_block_write_registers:
            start = self.registers["program_data"]
        for i in range(0, len(coded), 4):
            self.write(start + i, int.from_bytes(coded[i : i + 4], "little"))
        self.write(self.registers["config"], self.store.data.controller.write_opcode)

    def program(self, block: Block) -> None:
        """Start the burn."""
        controller = self.store.data.controller
        number = 0 if controller.per_block_write_registers else block.id
        command = controller.program_command | number << controller.block_shift
        self.write(self.registers["command"], command)

    def load(self) -> None:
        """The read command, and its time."""
        controller = self.store.data.controller
        self.write(self.registers["config"], controller.read_opcode)
        self.write(self.registers["command"], controller.read_command)
        self.now += READ_S


def test_a_burn_takes_its_time_and_a_busy_controller_ignores_writes() -> None:
    bench = Bench("esp32c3")
    block = bench.store.data.blocks[4]
    bench.prepare(block, encode(DATA, "reed_solomon"))
    bench.program(block)
    assert bench.read(bench.registers["command"]) != 0
    bench.write(bench.registers["program_data"], 0xFFFFFFFF)  # too late
    bench.program(bench.store.data.blocks[5])
    assert bench.store.burned[4] == 0
    bench.now += PROGRAM_S
    assert bench.read(bench.registers["command"]) == 4 << 2  # the number of the block stays
    assert bench.store.burned[4:6] == [int.from_bytes(DATA, "little"), 0]


def test_the_words_that_software_reads_cannot_be_written() -> None:
    bench = Bench("esp32c3")
    address = bench.store.data.blocks[0].read
    bench.write(address, 0xFFFFFFFF)
    assert bench.read(address) == 0
    bench.load()
    assert bench.read(address) == 0
    assert bench.store.burned[0] == 0


@pytest.mark.parametrize("how", ["read command", "reset"])
def test_burned_bits_are_read_after_the_read_command_or_a_reset(how: str) -> None:
    bench = Bench("esp32c3")
    block = bench.store.data.blocks[0]
    bench.prepare(block, (0x40).to_bytes(24, "little"))
    bench.program(block)
    bench.now += PROGRAM_S
    assert bench.read(block.read) == 0
    if how == "reset":
        bench.controller.restart(bench.now)
    else:
        bench.load()
    assert bench.read(block.read) == 0x40


def test_a_block_that_rd_dis_hides_reads_as_zeros_though_it_is_burned() -> None:
    bench = Bench("esp32c3")
    bench.store.burned[4], bench.store.burned[0] = 0x1234, 1 << 32
    bench.load()
    assert bench.read(bench.store.data.blocks[4].read) == 0
    assert bench.read(bench.store.data.blocks[0].read + 4) == 1


def test_without_the_write_opcode_nothing_is_burned() -> None:
    bench = Bench("esp32")
    block = bench.store.data.blocks[3]
    bench.prepare(block, bytes([0xFF]) * 4)
    bench.write(bench.registers["config"], 0)
    bench.program(block)
    bench.now += PROGRAM_S
    assert bench.read(bench.registers["command"]) == 0
    assert bench.store.burned[3] == 0


def test_the_esp32_burns_every_block_that_has_words() -> None:
    bench = Bench("esp32")
    for number in (1, 3):
        bench.prepare(bench.store.data.blocks[number], bytes([number]) * 4)
    bench.program(bench.store.data.blocks[0])
    bench.now += PROGRAM_S
    bench.read(bench.registers["command"])
    assert bench.store.burned[1:] == [0x01010101, 0, 0x03030303]


def test_3_4_data_with_wrong_check_bytes_is_reported() -> None:
    bench = Bench("esp32")
    bench.store.burned[0] = 1 << 192
    coded = bytearray(encode(DATA[:24], "three_quarter"))
    coded[6] ^= 1
    bench.prepare(bench.store.data.blocks[3], bytes(coded))
    bench.program(bench.store.data.blocks[3])
    bench.now += PROGRAM_S
    bench.read(bench.registers["command"])
    assert find_errors(bench.store.read())


@pytest.mark.parametrize(("share", "whole"), [(0.0, False), (0.5, False), (0.985, True)])
def test_a_burn_that_is_cut_short_leaves_a_part_of_the_bits(share: float, whole: bool) -> None:
    bench = Bench("esp32c3")
    block, data = bench.store.data.blocks[4], int.from_bytes(DATA, "little")
    bench.prepare(block, encode(DATA, "reed_solomon"))
    bench.program(block)
    bench.now += share * PROGRAM_S
    bench.controller.restart(bench.now)
    assert not bench.store.burned[4] & ~data
    errors = find_errors(bench.store.read())
    if whole:  # up to six wrong bytes are corrected, and counted
        assert bench.store.burned[4] == data
        assert [error.failed for error in errors] == [False]
        assert 0 < errors[0].bits <= CORRECTABLE
    elif share:
        assert bench.store.burned[4] not in (0, data)
        assert [error.failed for error in errors] == [True]
