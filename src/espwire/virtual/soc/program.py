"""A program in the virtual chip's RAM on a CPU engine, in slices of simulated time.

Puts memory, peripherals, ROM functions and CPU together, and skips idle loops. Accesses to addresses without a
peripheral behave as for the ROM loader, or fault.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from espwire.chips.model import Chip
from espwire.virtual.cpu.engine import CYCLES_PER_INSTRUCTION, Engine, Hook, InstructionSet
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.riscv import RiscV
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.cpu.xtensa_windows import start_function
from espwire.virtual.programs.program import Ending, Services
from espwire.virtual.registers import require_soc
from espwire.virtual.soc.clock import (
    NEVER,
    SYSTIMER_HIGH,
    SYSTIMER_LOW,
    SYSTIMER_OP,
    Clock,
    SystemTimer,
    TimerWatchdog,
)
from espwire.virtual.soc.flash_port import FlashPort
from espwire.virtual.soc.idle import Activity, IdleLoop
from espwire.virtual.soc.romcalls import CALL0, RISCV, WINDOWED, RomFunctions
from espwire.virtual.soc.serial_ports import STATUS_OFFSET, Uart, UsbSerialJtag

SLICE_S = 0.0005  # how long a program runs at most until the host can see what it sent
STACK_ROOM = 64  # below the end of the data RAM, for a program that does not set up a stack
SPI_SPAN = 0x100
STACK_POINTERS = {"riscv": 2, "xtensa": 1}


class EngineProgram:
    """``uart``, ``flash`` and ``engine`` are for tests; ``jumped`` counts the cycles skipped in idle loops.

    ``jumps`` False: idle loops are executed in full, with the same result in more real time.
    """

    def __init__(self, services: Services, entry: int, *, jumps: bool = True) -> None:
        chip, soc = services.chip, require_soc(services.chip)
        self.services, self.jumps = services, jumps
        self._software_reset = soc.software_reset
        self.ended: Ending | None = None
        self.jumped = 0
        self._may_be_idle = self._leaving = False
        # the program is idle until this time, as long as its progress is this
        self._idle_at: int | None = None
        self._idle_until = 0.0
        self.activity = Activity(self._on_idle)
        self.engine = self._make_engine(entry)
        self.clock = Clock(
            chip, services.config, services.registers, self.engine.cycles, services.t
        )
        # what is sent to the port that is not connected is lost
        send_uart, send_usb = (_ignore, services.send) if services.usb else (services.send, _ignore)
        self.uart = self._make_uart(send_uart)
        self.uart.start(
            services.baud, services.registers.divider, services.sent_until, services.received
        )
        self.flash = FlashPort(
            chip, services.spi, services.flash, services.registers, self.clock, self.activity
        )
        port = chip.peripherals.get("usb_serial_jtag")
        self.usb = (
            UsbSerialJtag(port, self.clock, self.activity, send_usb) if port is not None else None
        )
        facts = soc.timer_watchdog
        self._watchdog = (
            TimerWatchdog(facts, self.clock, self.activity, self._leave) if facts else None
        )
        self._connect_peripherals()
        self.engine.hooks = self._make_hooks()
        stack = STACK_POINTERS[chip.cpu.architecture]
        self.engine.registers[stack] = soc.ram[0].end - STACK_ROOM
        self._start_function()
        self._idle = IdleLoop(self.engine, self.activity, stack)

    # --- what a program with a real ROM has otherwise (rom_program.py) ---

    def _make_engine(self, entry: int) -> Engine:
        services = self.services
        memory = Memory([*services.registers.ram.regions, *_read_rom(services)], self)
        # RISC-V jumps ignore the lowest bit
        riscv = services.chip.cpu.architecture == "riscv"
        return Engine(make_isa(services.chip), memory, entry=entry & ~1 if riscv else entry)

    def _start_function(self) -> None:
        """With register windows, a program begins as a function that is called."""
        if has_windows(self.services.chip):
            start_function(self.engine)

    def _make_uart(self, send: Callable[[float, bytes, int], None]) -> Uart:
        return Uart(self.services.chip, self.clock, self.activity, send, self.services.lost)

    def _make_hooks(self) -> dict[int, Hook]:
        """Functions of the ROM, which has no code."""
        cpu = self.services.chip.cpu
        convention = (
            RISCV if cpu.architecture == "riscv" else CALL0 if cpu.isa == "lx106" else WINDOWED
        )
        return RomFunctions(
            self.engine,
            self.services,
            self.clock,
            self.uart,
            self.flash,
            self.activity,
            convention,
            self.reset,
        ).make_hooks()

    # --- the Program interface ---

    runs_freely = True
    busy = False  # whether it works or waits cannot be known, so it runs by the real clock

    @property
    def baud(self) -> int | None:
        """Current baud rate of its UART; None while it measures that of the sender."""
        return round(self.uart.rate)

    @property
    def instructions(self) -> int:
        """Number of executed instructions, without skipped idle loops."""
        idle = self.jumped + self.clock.slept
        return self.engine.instructions - idle // CYCLES_PER_INSTRUCTION

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte follows every ten bit times of ``rate``."""
        if self.services.usb and self.usb is not None:
            self.usb.receive(t, data)
        elif not self.services.usb:
            self.uart.receive(t, data, rate)

    def run_until(self, t: float) -> None:
        """Do everything that is due up to ``t``, or set ``ended``."""
        cycles = self.engine.cycles
        while self.ended is None:
            if self.clock.dead:
                pc = self.engine.pc
                self.ended = Ending(self.clock.now, "crash", "the PLL has no power", pc, pc)
                break
            deadline = self._watchdog_deadline()
            self._interrupt()
            event = self._next_interrupt()
            limit = self.clock.cycles_at(min(t, deadline))
            if event < NEVER:
                limit = min(limit, self.clock.cycles_at(event) + 1)
            self._leaving = False
            if cycles[0] < limit:
                while cycles[0] < limit and not self._leaving:
                    self._run(limit)
            elif deadline <= t:
                self.ended = Ending(deadline, "watchdog")
            else:
                break
        self.uart.flush()

    def next_event(self) -> float | None:
        """When ``run_until`` is due next; None: not before more bytes arrive."""
        soon = self.clock.now + SLICE_S
        if self._idle_at != self.activity.progress or self.clock.now >= self._idle_until:
            return soon
        due = min(self._events(self.clock.now), self._watchdog_deadline())
        return None if due == NEVER else max(due, soon)

    # --- the bus (cpu.memory.Bus): all addresses without memory or a peripheral ---

    def read(self, address: int) -> int:
        """Read a word."""
        value = self.services.registers.read(self.clock.now, address)
        if value is None:
            raise CpuFault("load from an unmapped address", address)
        return value

    def write(self, address: int, value: int) -> None:
        """Write a word; clocks and watchdogs are checked after it."""
        registers = self.services.registers
        if registers.is_plain(address) and address not in self.clock.addresses:
            self.activity.wrote(address, value)
        else:
            self.activity.changed()
        if registers.is_read_only(address):
            raise CpuFault("store to memory that cannot be written", address)
        if not registers.write(self.clock.now, address, value):
            raise CpuFault("store to an unmapped address", address)
        if registers.watchdogs.covers(address):
            self._leave()
        if self.clock.selects(address, value):
            self.uart.flush()
            self.clock.update()
            self.uart.update_rate()
            self._leave()
        at = self._software_reset
        if at is not None and address == at.address and value >> at.bit & 1:
            self.reset()

    def _connect_peripherals(self) -> None:
        """Map the peripherals to their addresses."""
        memory, uart, flash, usb = self.engine.memory, self.uart, self.flash, self.usb
        ports, sinks, watchdog = memory.ports, memory.sinks, self._watchdog
        ports[uart.base], sinks[uart.base] = uart.read_fifo, uart.write_fifo
        sinks[uart.transmit] = uart.write_fifo
        ports[uart.base + STATUS_OFFSET] = uart.read_status
        divider = self.services.chip.uart.clock_divider_address
        ports[divider], sinks[divider] = lambda: uart.new_divider, uart.write_divider
        if uart.update_address is not None:
            ports[uart.update_address], sinks[uart.update_address] = _read_zero, uart.write_update
        if uart.choice is not None:
            ports[uart.choice.source.address] = lambda: uart.clock_word
            sinks[uart.choice.source.address] = uart.write_clock
        for offset in range(0, SPI_SPAN, 4):
            ports[flash.base + offset] = flash.port(offset)
            sinks[flash.base + offset] = flash.sink(offset)
        ports[flash.command], sinks[flash.command] = flash.read_command, flash.write_command
        if usb is not None:
            ports[usb.base], sinks[usb.base] = usb.read_byte, usb.write_byte
            ports[usb.base + 4], sinks[usb.base + 4] = usb.read_state, usb.write_state
        if watchdog is not None:
            for address in watchdog.words:
                ports[address] = partial(watchdog.words.__getitem__, address)
                sinks[address] = partial(watchdog.write, address)
        base = require_soc(self.services.chip).systimer
        if base is not None:
            timer = SystemTimer(self.clock, self.activity)
            ports[base + SYSTIMER_OP], sinks[base + SYSTIMER_OP] = timer.read_op, timer.write_op
            ports[base + SYSTIMER_HIGH] = timer.read_high
            ports[base + SYSTIMER_LOW] = timer.read_low

    # --- for peripherals and ROM functions ---

    def reset(self) -> None:
        """The program resets the chip."""
        self.ended = Ending(self.clock.now, "reset")
        self._leave()

    def _next_interrupt(self) -> float:
        """When ``_interrupt`` is due."""
        return NEVER

    def _interrupt(self) -> None:
        """A peripheral may interrupt the program now."""

    def _leave(self) -> None:
        self._leaving = True
        self.engine.stop()

    def _on_idle(self) -> None:
        if self.jumps:
            self._may_be_idle = True
            self.engine.stop()

    # --- inside ---

    def _run(self, limit: int) -> None:
        self._execute(limit)
        if self._may_be_idle and not self._leaving:
            self._jump(limit)

    def _execute(self, limit: int) -> None:
        """Run up to ``limit`` cycles, to the next stop, or to the program's crash."""
        self._may_be_idle = False
        try:
            self.engine.run(limit)
        except CpuFault as fault:
            self.ended = Ending(self.clock.now, "crash", fault.what, fault.address, fault.pc)
            self._leaving = True

    def _jump(self, limit: int) -> None:
        period = self._idle.find_period()
        if period:
            self._skip(period, limit)

    def _skip(self, period: int, limit: int) -> None:
        """Skip the rounds of an idle loop that end before anything can change."""
        # what a register read before this round has become does not concern the loop
        due = self._events(self.clock.now - period / self.clock.hz)
        until = limit if due == NEVER else min(limit, self.clock.cycles_at(due))
        cycles = (until - self.clock.cycle) // period * period
        if cycles > 0:
            self.engine.cycles[0] += cycles
            self.jumped += cycles
            self.uart.shift(cycles)
            self._idle.shift(cycles)
        if until == limit:
            self._idle_at, self._idle_until = self.activity.progress, due

    def _events(self, since: float) -> float:
        ports = [port for port in (self.uart, self.flash, self.usb) if port is not None]
        return min(port.next_event(since) for port in ports)

    def _watchdog_deadline(self) -> float:
        due = self.services.registers.watchdogs.deadline
        timer = self._watchdog.deadline if self._watchdog is not None else NEVER
        return timer if due is None else min(timer, due)


def make_isa(chip: Chip, *, interrupts: bool = False) -> InstructionSet:
    """The instruction set of a chip's core."""
    if chip.cpu.architecture == "riscv":
        return RiscV(first=chip.cpu.isa == "rv32imc", interrupts=interrupts)
    return Xtensa(windows=has_windows(chip), interrupts=interrupts)


def has_windows(chip: Chip) -> bool:
    """Whether the core is an Xtensa with register windows."""
    return chip.cpu.architecture == "xtensa" and chip.cpu.isa != "lx106"


def _read_rom(services: Services) -> list[Region]:
    """The ROM: zeros, except for the word that identifies the chip, and the ROM's version."""
    chip = services.chip
    eco = chip.security.rom_eco
    known = (chip.identity.magic_address, *(() if eco is None else (eco.address,)))
    regions = []
    for rom in require_soc(chip).rom:
        region = Region(rom.name, rom.start, bytearray(rom.end - rom.start), writable=False)
        for address in known:
            if rom.start <= address < rom.end:
                word = services.registers.read(services.t, address) or 0
                at = address - rom.start
                region.data[at : at + 4] = word.to_bytes(4, "little")
        regions.append(region)
    return regions


def _read_zero() -> int:
    """A command register: its command is carried out at once."""
    return 0


def _ignore(t: float, data: bytes, baud: int) -> None:
    pass
