"""A chip's mask ROM, from its reset vector on: its code runs on the CPU engine, with interrupts.

It takes the place of ``virtual/rom.py``, the model of the loader. Programs that it starts in RAM run on the same engine,
as on the chip. The peripherals are the project's own model, so a run proves nothing about them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from espwire.virtual.cpu import riscv, xtensa_interrupts
from espwire.virtual.cpu.engine import CYCLES_PER_INSTRUCTION, Block, Engine, Hook
from espwire.virtual.cpu.memory import Memory, Region
from espwire.virtual.cpu.xtensa_windows import REGION, RETURN
from espwire.virtual.cpu.xtensa_word import INCREMENT, PS
from espwire.virtual.programs.program import Services
from espwire.virtual.soc.interrupts import Controller, InterruptController, LineMatrix
from espwire.virtual.soc.mask_rom import LoadedRom, MaskRom, RomWord
from espwire.virtual.soc.program import EngineProgram, has_windows, make_isa
from espwire.virtual.soc.rom_uart import InterruptUart
from espwire.virtual.soc.serial_ports import Uart

LOOK_CYCLES = 500  # after which a loop that only waits for an interrupt is looked for
PERIPHERAL_CYCLES = 8
# of all chips; the first is the CLIC of later ones
PERIPHERALS = ((0x10800000, 0x10802000), (0x20000000, 0x30000000), (0x50000000, 0x61000000))
PROCESSOR_ID = 235  # a special register
CONSTANT = re.compile(r"(r\[\d+\]) = L32\((0x[0-9a-f]+)\)")  # a translated load
DELAY_REGISTERS = {"riscv": (10, 1), "xtensa": (2, 0)}  # argument and return address


class RomProgram(EngineProgram):
    """The ROM ``rom``, started by a reset whose reason has the number ``reason``."""

    uart: InterruptUart

    def __init__(self, services: Services, rom: LoadedRom, *, reason: int) -> None:
        self._rom = rom
        registers = services.registers
        registers.attached = True  # the ROM connects the pads in ways that are not modelled
        registers.words[rom.facts.strap.address] = rom.facts.strap.bits
        cause = rom.facts.reset_cause
        if cause is not None:
            registers.words[cause.address] = reason << cause.shift
        self._until = 0  # cycles until the next event
        self._held = {word.address: word.bits for word in rom.facts.words}
        super().__init__(services, rom.facts.entry)
        crystal = rom.facts.crystal
        if crystal is not None:
            self._held[crystal.address] = round(self.clock.crystal_hz / 1e6) << crystal.shift

    @property
    def baud(self) -> int | None:
        """Current baud rate of its UART; None while it measures that of the sender."""
        return None if self.uart.measures else round(self.uart.rate)

    def read(self, address: int) -> int:
        """Read a word: what was written, and the bits that the ROM waits for."""
        registers = self.services.registers
        value = registers.read(self.clock.now, address)
        if value is None and not _is_peripheral(address):
            return super().read(address)
        return (value or 0) | self._held.get(address, 0)

    def write(self, address: int, value: int) -> None:
        """Write a word."""
        if self.services.registers.is_mapped(address) or not _is_peripheral(address):
            super().write(address, value)

    def _make_engine(self, entry: int) -> Engine:
        facts = self._rom.facts
        memory = Memory(
            [*self.services.registers.ram.regions, *_map_rom(self._rom), *_map_ram(facts)],
            self,
            unaligned=facts.unaligned,
            narrow=True,
        )
        memory.peripheral_cycles = PERIPHERAL_CYCLES
        engine = Engine(make_isa(self.services.chip, interrupts=True), memory, entry=entry)
        cpu = self.services.chip.cpu
        if cpu.architecture == "riscv":
            core = riscv.Interrupts(engine, clic=facts.interrupts.clic is not None)
            self._controller: Controller = InterruptController(facts.interrupts, memory, core)
        else:
            kind = xtensa_interrupts.LX106 if cpu.isa == "lx106" else xtensa_interrupts.LX7
            lines = xtensa_interrupts.Interrupts(engine, kind)
            engine.special[PROCESSOR_ID] = facts.processor_id
            self._controller = LineMatrix(facts.interrupts, memory, lines)
        for address, sink in memory.sinks.items():  # all are the controller's
            memory.sinks[address] = partial(self._write_plain, address, sink)
        return engine

    def _write_plain(self, address: int, sink: Callable[[int], None], value: int) -> None:
        """Write a register whose effects depend on nothing but its value."""
        self.activity.wrote(address, value)
        sink(value)

    def _make_uart(self, send: Callable[[float, bytes, int], None]) -> Uart:
        return InterruptUart(
            self.services.chip,
            self._rom.facts.uart,
            self.clock,
            self.activity,
            send,
            self.services.lost,
            self._controller.set_uart,
        )

    def _start_function(self) -> None:
        """The ROM starts from the reset vector."""

    def _make_hooks(self) -> dict[int, Hook]:
        """Only the delay of a known ROM: it counts cycles, which would take longer here than it lasts."""
        if not self._rom.name:
            return {}
        at = self.services.chip.rom_addresses["ets_delay_us"]
        return {at: self._delay, self._find_target(at): self._delay}

    def _find_target(self, at: int) -> int:
        """Where the instruction at ``at`` jumps, or the one behind it with the constant that it loads; else ``at``."""
        block, pc, isa, memory = Block(at), at, self.engine.isa, self.engine.memory
        while block.jump is None and pc < at + 2 * isa.longest:
            pc += isa.translate(memory.fetch(pc, isa.longest), pc, block)
        jump = block.jump or ""
        constant = CONSTANT.fullmatch("".join(block.lines))
        if constant is not None and jump == constant[1]:
            return memory.read(int(constant[2], 16), 4)
        return int(jump) if jump.isdecimal() else at

    def _delay(self, engine: Engine) -> None:
        """Let so many microseconds pass as the argument says; the rest is still in it if an interrupt comes first."""
        registers, cycles = engine.registers, engine.cycles
        argument, back = DELAY_REGISTERS[self.services.chip.cpu.architecture]
        windows = has_windows(self.services.chip)
        if windows:  # the registers are still the caller's
            called = 4 * (engine.special[PS] >> INCREMENT & 3)
            argument, back = argument + called, back + called
        ticks = round(self.clock.hz / 1e6)
        now = max(0, self._until - cycles[0]) // ticks + 1
        cycles[0] += min(now, registers[argument]) * ticks
        registers[argument] -= min(now, registers[argument])
        if registers[argument]:
            cycles[0] -= CYCLES_PER_INSTRUCTION  # of this call: only the last one counts
        else:
            to = registers[back]
            engine.pc = engine.pc & REGION | to & RETURN if windows else to

    def _connect_peripherals(self) -> None:
        super()._connect_peripherals()
        self.uart.connect(self.engine.memory)
        for command in self._rom.facts.commands:
            self._connect_command(command)

    def _connect_command(self, command: RomWord) -> None:
        """A register with bits that read as 1 once after they were written: the work is under way, then done."""
        value = 0

        def write(new: int) -> None:
            nonlocal value
            value = new
            self.activity.wrote(command.address, value)

        def read() -> int:
            nonlocal value
            seen, value = value, value & ~command.bits
            self.activity.wrote(command.address, value)
            return seen

        memory = self.engine.memory
        memory.ports[command.address], memory.sinks[command.address] = read, write

    def _next_interrupt(self) -> float:
        return self.uart.next_interrupt()

    def _interrupt(self) -> None:
        self.uart.look()

    def _events(self, since: float) -> float:
        return min(super()._events(since), self.uart.next_interrupt())

    def _run(self, limit: int) -> None:
        self._until = limit
        self._execute(min(limit, self.engine.cycles[0] + LOOK_CYCLES))
        if self.jumps and not self._may_be_idle and self._has_time():
            period = self._idle.find_round(self._step)
            if period:
                self._skip(period, limit)
        if self._may_be_idle and self._has_time():
            self._jump(limit)

    def _step(self) -> bool:
        """Run one block."""
        self._execute(self.engine.cycles[0] + 1)
        return not self._may_be_idle and self._has_time()

    def _has_time(self) -> bool:
        return not self._leaving and self.engine.cycles[0] < self._until


def _map_rom(rom: LoadedRom) -> list[Region]:
    return [
        Region(
            "ROM",
            part.start,
            bytearray(rom.image[part.offset : part.offset + part.size]),
            writable=False,
            code=part.code,
        )
        for part in rom.facts.parts
    ]


def _map_ram(facts: MaskRom) -> list[Region]:
    return [
        Region(bank.name, bank.start, bytearray(bank.end - bank.start), code=bank.code)
        for bank in facts.ram
    ]


def _is_peripheral(address: int) -> bool:
    return any(start <= address < end for start, end in PERIPHERALS)
