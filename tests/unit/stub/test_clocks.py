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

# higher clocks require another core voltage
UNCHANGED = {
    chip
    for chip in stub_chips()
    if load_chip(chip).stub.own.flash_steps and not load_chip(chip).stub.own.clock_steps
}


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
    assert (program.clock.hz == find_rom_hz(program.services)) is (chip in UNCHANGED)
    own = load_chip(chip).stub.own
    assert own is not None
    assert own.cpu_hz >= program.clock.hz  # delays are counted in its cycles


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
