"""Accesses that fault, of each kind on each chip; clocks, watchdogs and ports that a test can reach."""

from __future__ import annotations

import pytest
from tests.unit.virtual.soc.machines import CHIPS, ENTRY, Machine
from tests.unit.virtual.soc.raw_host import RawHost

from espwire.virtual.chip import State
from espwire.virtual.cpu.memory import CpuFault

DATA = {"esp8266": 0x3FFE9000, "esp32": 0x3FFC0000, "esp32c3": 0x3FC90000}
UART = {"esp8266": 0x60000000, "esp32": 0x3FF40000, "esp32c3": 0x60000000}
ROM = 0x40000200  # behind the handlers of window exceptions
WORDS_ONLY = {"esp8266": 0x40100100, "esp32": 0x40080100, "esp32c3": 0x4037C100}
NOWHERE = {
    "esp8266": (0, 0x3FF90000, 0x3FFE7FFC, 0x40110000, 0x10000000, 0x60080000),
    "esp32": (0x20000, 0x3FF90000 - 4, 0x3FFA0000, 0x3F000000, 0x400C2000, 0x50002000, 0x60080000),
    "esp32c3": (0x20000, 0x3FC7FFFC, 0x3FCE0000, 0x403E0000, 0x50002000, 0x60100000),
}


@pytest.mark.parametrize("chip", CHIPS)
def test_unaligned_accesses_fault_everywhere(chip):
    machine = Machine(chip)
    for base in (DATA[chip], WORDS_ONLY[chip], UART[chip], ROM):
        for size, odd in ((2, 1), (4, 1), (4, 2), (4, 3)):
            with pytest.raises(CpuFault, match="unaligned load"):
                machine.load(base + odd, size)
            with pytest.raises(CpuFault, match="unaligned store"):
                machine.store(base + odd, 0, size)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("size", [1, 2])
def test_instruction_ram_and_peripherals_take_words_only(chip, size):
    machine = Machine(chip)
    for address, what in (
        (WORDS_ONLY[chip], "supports words only"),
        (UART[chip], "peripheral"),
        (UART[chip] + 0x78, "peri"),
    ):
        with pytest.raises(CpuFault, match=what):
            machine.load(address, size)
        with pytest.raises(CpuFault, match=what):
            machine.store(address, 0, size)


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("size", [1, 2, 4])
def test_data_ram_takes_any_size_and_rom_none(chip, size):
    machine = Machine(chip)
    machine.store(DATA[chip], 0x5A, size)
    assert machine.load(DATA[chip], size) == 0x5A
    assert machine.load(ROM, size) == 0
    with pytest.raises(CpuFault, match="read-only"):
        machine.store(ROM, 0, size)


@pytest.mark.parametrize("chip", CHIPS)
def test_an_access_to_an_unmapped_address_faults(chip):
    machine = Machine(chip)
    for address in NOWHERE[chip]:
        with pytest.raises(CpuFault, match="unmapped"):
            machine.load(address)
        with pytest.raises(CpuFault, match="unmapped"):
            machine.store(address, 0)


@pytest.mark.parametrize("chip", CHIPS)
def test_an_instruction_fetch_from_a_peripheral_or_an_unmapped_address_faults(chip):
    for address in (UART[chip], *NOWHERE[chip][:1]):
        host = RawHost(f"virtual:{chip}?stub=engine")
        host.run(address)
        host.text(0.05)
        ended = host.chip.runner.ended
        assert (ended.how, ended.address, host.chip.state) == ("crash", address, State.GONE)
        assert "instruction fetch" in ended.fault


@pytest.mark.parametrize("chip", ["esp8266", "esp32"])
def test_an_instruction_fetch_from_data_ram_faults_on_xtensa(chip):
    host = RawHost(f"virtual:{chip}?stub=engine")
    host.run(DATA[chip])
    host.text(0.05)
    assert "instruction fetch from data RAM" in host.chip.runner.ended.fault


def test_a_jump_drops_the_lowest_bit_of_an_entry_on_risc_v():
    host = RawHost("virtual:esp32c3?stub=engine")
    host.run(ENTRY["esp32c3"] | 1, (ENTRY["esp32c3"], bytes.fromhex("01a00000")))
    host.text(0.05)
    assert host.chip.state is State.PROGRAM


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_a_pll_that_loses_its_power_takes_the_program_with_it(chip):
    machine = Machine(chip)
    clock = machine.program.clock.tree
    machine.store(clock.select.address, 1 << clock.select.shift)
    machine.wait(0.001)
    assert machine.program.clock.bus_hz == 80e6
    machine.store(clock.down.address, clock.down.mask)
    machine.wait(0.001)
    assert "PLL" in machine.host.chip.runner.ended.fault


@pytest.mark.parametrize("chip", CHIPS)
def test_a_uart_without_a_divider_is_silent(chip):
    machine = Machine(chip)
    for _ in range(20):
        machine.store(machine.program.uart.transmit, 0x55)
    machine.load(UART[chip] + 0x1C)
    machine.store(UART[chip] + 0x14, 0)
    machine.store(machine.program.uart.transmit, 0x55)
    machine.wait(0.1)
    assert machine.program.baud == 0
    assert machine.host.chip.state is State.PROGRAM


@pytest.mark.parametrize("chip", CHIPS)
def test_the_uart_s_rate_follows_its_divider(chip):
    machine = Machine(chip)
    rate, divider = machine.program.baud, machine.load(UART[chip] + 0x14)
    machine.store(UART[chip] + 0x14, (divider & 0xFFFFF) // 2)
    assert abs(machine.program.baud - 2 * rate) < rate / 50


@pytest.mark.parametrize("chip", CHIPS)
def test_the_transmit_fifo_takes_128_bytes_and_loses_the_rest(chip):
    machine = Machine(chip)
    for number in range(200):
        machine.store(machine.program.uart.transmit, number)
    counted = machine.load(UART[chip] + 0x1C) >> 16
    machine.wait(0.1)
    lost = machine.program.uart.dropped_out
    assert 120 <= counted <= 128
    assert 60 <= lost <= 72


@pytest.mark.parametrize(
    ("size", "held"), [(63, 0), (64, 64), (65, 0), (127, 0), (128, 0), (192, 64)]
)
def test_a_whole_usb_packet_stays_with_the_driver_until_more_comes(size, held):
    machine = Machine("esp32c3", "&kind=usb-jtag")
    base = machine.program.usb.base
    for number in range(size):
        while not machine.load(base + 4) & 2:
            machine.wait(0.0001)
        machine.store(base, number)
    if size % 64:
        machine.store(base + 4, 1)
    heard = machine.host.text(0.01)
    assert len(heard) == size - held
    machine.store(base + 4, 1)  # an empty packet
    assert heard + machine.host.text(0.01) == bytes(range(size))
