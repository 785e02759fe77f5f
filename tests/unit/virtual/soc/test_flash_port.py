"""The flash controller as a program in RAM sees it: a forbidden access during a transaction must have an effect."""

from __future__ import annotations

import pytest
from tests.unit.virtual.soc.machines import CHIPS, Machine

COMMAND, READ, WRITE = 1 << 31, 1 << 28, 1 << 27
START = 1 << 18
RDID, WRITE_ENABLE, READ_STATUS = 0x9F, 0x06, 0x05


class Controller(Machine):
    """A chip whose program does nothing; the test accesses the controller's registers in its place."""

    def __init__(self, chip: str) -> None:
        super().__init__(chip)
        self.spi = self.host.chip.chip.spi

    def put(self, offset: int, value: int) -> None:
        self.store(self.spi.base + offset, value)

    def get(self, offset: int) -> int:
        return self.load(self.spi.base + offset)

    def start(self, opcode: int, *, read: int = 0) -> None:
        spi = self.spi
        self.put(spi.user_offset, COMMAND | (READ if read else 0))
        if spi.length_in_user1 is not None:
            self.put(spi.user1_offset, max(0, read * 8 - 1) << spi.length_in_user1.miso_shift)
        else:
            self.put(spi.miso_length_offset, max(0, read * 8 - 1))
        self.put(spi.user2_offset, 7 << 28 | opcode)
        self.put(spi.command_offset, START)

    @property
    def runs(self) -> bool:
        return bool(self.get(self.spi.command_offset) & START)

    def finish(self) -> None:
        while self.runs:
            pass

    @property
    def data(self) -> int:
        return self.get(self.spi.data_offset)


@pytest.mark.parametrize("chip", CHIPS)
def test_an_answer_is_there_when_the_transaction_is_over_and_not_before(chip):
    spi = Controller(chip)
    spi.put(spi.spi.data_offset, 0x12345678)
    spi.start(RDID, read=3)
    assert spi.data == 0x12345678
    spi.finish()
    assert spi.data & 0xFFFFFF == int.from_bytes(spi.host.chip.flash.part.jedec, "little")


@pytest.mark.parametrize("chip", CHIPS)
def test_an_answer_comes_to_a_program_that_waits_by_the_clock(chip):
    spi = Controller(chip)
    spi.start(RDID, read=3)
    spi.wait(0.001)
    assert spi.data & 0xFFFFFF == int.from_bytes(spi.host.chip.flash.part.jedec, "little")


@pytest.mark.parametrize("chip", CHIPS)
def test_what_is_put_in_the_way_of_an_answer_is_overwritten_by_it(chip):
    spi = Controller(chip)
    spi.start(RDID, read=3)
    spi.put(spi.spi.data_offset, 0x55555555)
    assert spi.data == 0x55555555
    spi.finish()
    assert spi.data & 0xFFFFFF == int.from_bytes(spi.host.chip.flash.part.jedec, "little")


@pytest.mark.parametrize("chip", CHIPS)
def test_what_is_put_behind_an_answer_stays(chip):
    spi = Controller(chip)
    spi.start(RDID, read=3)
    spi.wait(0.001)
    spi.put(spi.spi.data_offset, 0x55555555)
    assert spi.data == 0x55555555


@pytest.mark.parametrize("chip", CHIPS)
def test_a_start_while_a_transaction_runs_starts_nothing(chip):
    spi = Controller(chip)
    spi.start(RDID, read=3)
    spi.start(WRITE_ENABLE)
    spi.finish()
    spi.start(READ_STATUS, read=1)
    spi.finish()
    assert spi.data & 3 == 0


@pytest.mark.parametrize("chip", CHIPS)
def test_a_write_enable_that_is_waited_for_counts(chip):
    spi = Controller(chip)
    spi.start(WRITE_ENABLE)
    spi.finish()
    spi.start(READ_STATUS, read=1)
    spi.finish()
    assert spi.data & 3 == 2
