"""The clocks that each packed image selects, on the whole virtual chip, and how it leaves them."""

from __future__ import annotations

import pytest
from tests.stub_drivers.frames import frame, words
from tests.stub_drivers.programs import FREE_RAM, echo
from tests.unit.virtual.stub_bench import start

from espwire.chips.registry import load_chip
from espwire.device.stub_image import stub_chips
from espwire.protocol.opcodes import Op
from espwire.virtual.programs.stub_model import find_full_hz, find_rom_hz
from espwire.virtual.registers import require_soc


def run_program(bench, entry, place, code):
    """Have the stub load the program and start it."""
    bench.ask(frame(Op.MEM_BEGIN, words(len(code), 1, len(code), place)))
    bench.ask(frame(Op.MEM_DATA, words(len(code), 0, 0, 0) + code))
    bench.ask(frame(Op.MEM_END, words(0, entry)))
    bench.transport.sleep(0.1)


@pytest.mark.parametrize("chip", stub_chips())
def test_the_cpu_clock_is_that_of_the_data(chip):
    program = start(chip, "engine", baud=921600).chip.program
    assert program.clock.hz == find_full_hz(program.services)
    assert program.clock.hz > find_rom_hz(program.services)
    own = load_chip(chip).stub.own
    assert own is not None
    assert own.cpu_hz >= program.clock.hz  # delays are counted in its cycles


P4_FUSES = {  # block version 0.2 with biases of 5 and 12, and 1.0, which has none
    "own biases": {0x5012D04C: 0x200, 0x5012D054: 0x00C50000},
    "none": {0x5012D04C: 0x800},
}


@pytest.mark.parametrize("fuses", P4_FUSES)
@pytest.mark.parametrize("revision", [100, 300, 301])
def test_the_core_voltage_of_the_p4_comes_from_its_efuses(revision, fuses):
    preset = dict(P4_FUSES[fuses])
    preset[0x5012D04C] |= revision % 100 | revision // 100 << 4
    bench = start("esp32p4", "engine", baud=921600, revision=revision, preset=preset)
    read = bench.chip.program.engine.memory.read
    core, lp = (21, 31) if fuses == "own biases" else (24, 29)
    assert (
        read(0x50115028, 4) == core << 27 | 1 << 14
    )  # the converter is selected, the regulator off
    assert read(0x5011509C, 4) == lp << 27
    assert read(0x50115018, 4) == 27 << 18
    assert read(0x50115204, 4) == 1
    assert read(0x50110008, 4) == (0xEF << 21 if revision > 300 else 0)
    clocks = [read(address, 4) for address in (0x500E600C, 0x500E6008, 0x500E6004, 0x50111040)]
    assert clocks == [1 << 16, 0, 1 << 5, 1]
    entry = FREE_RAM["esp32p4"]
    run_program(bench, entry, *echo("esp32p4", entry))
    for address in (0x50115028, 0x5011509C, 0x50115018, 0x50115204, 0x50110008, 0x500E6004):
        assert read(address, 4) == 0


def test_the_s31_gets_its_dividers_and_core_voltage():
    read = start("esp32s31", "engine", baud=921600).chip.program.engine.memory.read
    assert [read(0x20587000 + offset, 4) for offset in (0, 4, 8, 12, 16)] == [3, 0, 1, 2, 1]
    assert read(0x20704034, 4) == 26 << 27


@pytest.mark.parametrize("chip", ["esp32c2", "esp32h4", "esp32s31"])
def test_the_clock_of_the_flash_is_restored_before_another_program_starts(chip):
    bench, own, spi = (
        start(chip, "engine", baud=921600),
        load_chip(chip).stub.own,
        load_chip(chip).spi,
    )
    assert own is not None
    read, place = bench.chip.program.engine.memory.read, spi.base + own.spi_clock_offset
    assert read(place, 4) == own.spi_clocks.direct
    entry = FREE_RAM[chip]
    run_program(bench, entry, *echo(chip, entry))
    assert read(place, 4) == 0  # as on a virtual chip without a ROM that sets it


@pytest.mark.parametrize("chip", stub_chips())
def test_no_watchdog_resets_the_chip_while_the_stub_waits(chip):
    bench = start(chip, "engine", watchdogs=True)
    assert bench.chip.registers.watchdogs.deadline is None
    boots = bench.chip.boots
    bench.transport.sleep(30.0)
    place = load_chip(chip).uart.clock_divider_address
    assert bench.ask(frame(Op.READ_REG, words(place)))[-2:] == b"\0\0"
    assert bench.chip.boots == boots


@pytest.mark.parametrize("baud", [115200, 921600])
@pytest.mark.parametrize("chip", [c for c in stub_chips() if not load_chip(c).stub.own.flash_steps])
def test_another_program_starts_with_the_clock_of_the_rom_at_the_present_rate(chip, baud):
    bench = start(chip, "engine", baud=baud)
    program = bench.chip.program
    assert program.clock.hz > find_rom_hz(program.services)
    entry = FREE_RAM[chip]
    run_program(bench, entry, *echo(chip, entry))
    assert program.clock.hz == find_rom_hz(program.services)
    assert program.uart.rate == pytest.approx(baud, rel=0.015)


RETURN = {"xtensa": bytes.fromhex("0df00000"), "riscv": bytes.fromhex("82800100")}


@pytest.mark.parametrize("chip", stub_chips())
def test_a_program_that_returns_can_be_started_again_at_the_same_rate(chip):
    bench = start(chip, "engine", baud=115200)
    entry, code = FREE_RAM[chip], RETURN[load_chip(chip).cpu.architecture]
    for _ in range(2):
        run_program(bench, entry, entry, code)
        assert bench.chip.program.uart.rate == pytest.approx(115200, rel=0.02)


@pytest.mark.parametrize("chip", [c for c in stub_chips() if load_chip(c).stub.own.flash_steps])
def test_what_the_stub_has_changed_is_undone_before_another_program_starts(chip):
    bench = start(chip, "engine")
    program, own = bench.chip.program, load_chip(chip).stub.own
    changed = [step for step in own.clock_steps if step.mask]
    flash = own.flash_steps[0].address
    assert program.engine.memory.read(flash, 4) & own.flash_steps[0].mask == 0
    program.engine.memory.write(flash, 0x208000, 4)  # not the value that was saved
    entry = FREE_RAM[chip]
    run_program(bench, entry, *echo(chip, entry))
    assert program.clock.hz == find_rom_hz(program.services)
    assert program.uart.rate == pytest.approx(115200, rel=0.01)
    assert program.engine.memory.read(flash, 4) == 0
    for step in changed:
        assert program.engine.memory.read(step.address, 4) & step.mask == 0
    assert not require_soc(program.services.chip).clock.down or not program.clock.dead
