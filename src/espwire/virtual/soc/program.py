"""A program in the virtual chip's RAM on an engine: memory, peripherals and CPU put together, run in slices of time."""

from __future__ import annotations

from espwire.virtual.cpu.engine import CYCLES_PER_INSTRUCTION, Engine, InstructionSet
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.riscv import RiscV
from espwire.virtual.cpu.xtensa import NEEDS_WINDOWS, Xtensa
from espwire.virtual.memory_map import require_soc
from espwire.virtual.programs.registry import Ending, Services
from espwire.virtual.soc.bus import SocBus
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.flash_port import FlashPort
from espwire.virtual.soc.idle import Activity, IdleLoop
from espwire.virtual.soc.romcalls import CALL0, RISCV, WINDOWED_CALL, make_hooks
from espwire.virtual.soc.timers import TimerWatchdog
from espwire.virtual.soc.uart import BIT_TIMES, NEVER, Uart
from espwire.virtual.soc.usb import USB_BAUD, UsbSerialJtag

SLICE_S = 0.0005  # what a program runs at most before the host can see what it sent
STACK_ROOM = 16  # below the end of the data RAM, for a program that brings no stack of its own
STACK_POINTERS = {"riscv": 2, "xtensa": 1}


class EngineProgram:
    """``uart``, ``flash`` and ``engine`` are open to tests; ``jumped`` counts cycles that were left out of idle loops.

    ``jumps`` False: idle loops are run in full, which must change nothing but how long it takes.
    """

    def __init__(self, services: Services, entry: int, *, jumps: bool = True) -> None:
        chip, soc = services.chip, require_soc(services.chip)
        self.services, self.jumps = services, jumps
        self.ended: Ending | None = None
        self.jumped = 0
        self._looking = self._leaving = False
        self.encrypting = False  # what the ROM's function has switched
        self._idle_at: int | None = None  # the progress at which nothing was left to do,
        self._idle_until = 0.0  # before this time
        riscv = chip.cpu.architecture == "riscv"
        self.activity = Activity(self._look)
        bus = SocBus(chip, services.registers, self.activity, reset=self.reset, leave=self._leave)
        memory = Memory([*services.registers.ram.regions, *_read_rom(services)], bus)
        lx106 = chip.cpu.isa == "lx106"
        isa: InstructionSet = (
            RiscV(first=chip.cpu.isa == "rv32imc") if riscv else Xtensa(lx106=lx106)
        )
        self.engine = Engine(
            isa, memory, entry=entry & ~1 if riscv else entry
        )  # a jump drops the lowest bit there
        self.engine.hooks = make_hooks(
            self, chip.rom_addresses, RISCV if riscv else CALL0 if lx106 else WINDOWED_CALL
        )
        self.clock = bus.clock = Clock(
            chip, services.config, services.registers, self.engine.cycles, services.t
        )
        self.uart = bus.uart = Uart(chip, self.clock, self.activity, self._send, services.lost)
        self.uart.start(
            services.baud, services.registers.divider, services.sent_until, services.received
        )
        self.flash = FlashPort(
            chip, services.spi, services.flash, services.registers, self.clock, self.activity
        )
        port = chip.peripherals.get("usb_serial_jtag")
        self.usb = (
            UsbSerialJtag(port, self.clock, self.activity, self._send_usb)
            if port is not None
            else None
        )
        dog = soc.timer_watchdog
        self._dog = TimerWatchdog(dog, self.clock, self.activity) if dog is not None else None
        bus.connect(memory, self.flash, self.usb, self._dog)
        stack = STACK_POINTERS[chip.cpu.architecture]
        self.engine.registers[stack] = soc.ram[0].end - STACK_ROOM
        self._idle = IdleLoop(self.engine, self.activity, stack)

    # --- what a Program is ---

    runs_freely = True
    busy = False  # it cannot be seen whether it works or waits: it runs by the real clock

    @property
    def baud(self) -> int:
        """The rate that its UART runs at now."""
        return round(self.uart.rate)

    @property
    def instructions(self) -> int:
        """How many were carried out; waiting that was jumped over is not among them."""
        memory = self.engine.memory
        waits = memory.accesses * memory.peripheral_cycles
        return (self.clock.cycle - self.jumped - self.clock.slept - waits) // CYCLES_PER_INSTRUCTION

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte comes every ten bit times of ``rate``."""
        if self.services.usb and self.usb is not None:
            self.usb.receive(t, data)
        elif not self.services.usb:
            self.uart.receive(t, data, rate)

    def run_until(self, t: float) -> None:
        """Do all that is due up to ``t``, or set ``ended``."""
        cycles = self.engine.cycles
        while self.ended is None:
            if self.clock.dead:
                pc = self.engine.pc
                self.ended = Ending(self.clock.now, "crash", "the PLL has no power", pc, pc)
                break
            bite = self._bite()
            limit = self.clock.cycles_at(min(t, bite))
            self._leaving = False
            if cycles[0] < limit:
                while cycles[0] < limit and not self._leaving:
                    self._run(limit)
            elif bite <= t:
                self.ended = Ending(bite, "watchdog")
            else:
                break
        self.uart.flush()

    def next_event(self) -> float | None:
        """When it should be asked to run again; None: not before bytes come."""
        soon = self.clock.now + SLICE_S
        if self._idle_at != self.activity.progress or self.clock.now >= self._idle_until:
            return soon
        due = min(self._events(), self._bite())
        return None if due == NEVER else max(due, soon)

    # --- what the peripherals and the ROM's functions do ---

    def reset(self) -> None:
        """The program resets the chip."""
        self.ended = Ending(self.clock.now, "reset")
        self._leave()

    def write_text(self, text: bytes) -> None:
        """Send text as the ROM does, and wait until it has room."""
        if self.services.usb:
            self.services.send(self.clock.now, text, USB_BAUD)
            self.clock.wait_until(self.clock.now + len(text) * BIT_TIMES / USB_BAUD)
        else:
            for byte in text:
                self.uart.write_when_free(byte)

    def _leave(self) -> None:
        self._leaving = True
        self.engine.stop()

    def _look(self) -> None:
        if self.jumps:
            self._looking = True
            self.engine.stop()

    def _send(self, t: float, data: bytes, baud: int) -> None:
        if not self.services.usb:
            self.services.send(t, data, baud)

    def _send_usb(self, t: float, data: bytes, baud: int) -> None:
        if self.services.usb:
            self.services.send(t, data, baud)

    # --- inside ---

    def _run(self, limit: int) -> None:
        try:
            self.engine.run(limit)
        except CpuFault as fault:
            windows = NEEDS_WINDOWS in fault.what and self.services.chip.cpu.isa != "lx106"
            self.ended = Ending(
                self.clock.now,
                "refused" if windows else "crash",
                fault.what,
                fault.address,
                fault.pc,
            )
            self._leaving = True
            return
        if self._looking:
            self._looking = False
            self._jump(limit)

    def _jump(self, limit: int) -> None:
        """Leave out the rounds of an idle loop that end before anything can change."""
        period = self._idle.find_period()
        if not period:
            return
        due = self._events()
        until = limit if due == NEVER else min(limit, self.clock.cycles_at(due))
        cycles = (until - self.clock.cycle) // period * period
        if cycles > 0:
            self.engine.cycles[0] += cycles
            self.jumped += cycles
            self.uart.shift(cycles)
            self._idle.shift(cycles)
        if until == limit:
            self._idle_at, self._idle_until = self.activity.progress, due

    def _events(self) -> float:
        due = min(self.uart.next_event(), self.flash.next_event())
        return min(due, self.usb.next_event()) if self.usb is not None else due

    def _bite(self) -> float:
        dogs = self.services.registers.watchdogs.deadline
        due = self._dog.deadline if self._dog is not None else NEVER
        return due if dogs is None else min(due, dogs)


def _read_rom(services: Services) -> list[Region]:
    """The ROM: zeros, but for the word that tells the chip."""
    chip = services.chip
    regions = []
    for rom in require_soc(chip).rom:
        region = Region(rom.name, rom.start, bytearray(rom.end - rom.start), writable=False)
        address = chip.identity.magic_address
        if rom.start <= address < rom.end:
            word = services.registers.read(services.t, address) or 0
            region.data[address - rom.start : address - rom.start + 4] = word.to_bytes(4, "little")
        regions.append(region)
    return regions
