"""Who answers at which address: peripherals by their registers, all else as the loader's model has it, or a fault."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from espwire.chips.model import Chip
from espwire.virtual.cpu.memory import CpuFault, Memory
from espwire.virtual.memory_map import require_soc
from espwire.virtual.registers import Registers
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.flash_port import FlashPort
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.timers import (
    SYSTIMER_HIGH,
    SYSTIMER_LOW,
    SYSTIMER_OP,
    SystemTimer,
    TimerWatchdog,
)
from espwire.virtual.soc.uart import STATUS_OFFSET, Uart
from espwire.virtual.soc.usb import UsbSerialJtag

SPI_SPAN = 0x100


class SocBus:
    """The slow way of ``Memory``, and what fills its quick way.

    ``reset`` and ``leave`` stop the program, for good or to have its clocks and watchdogs looked at.
    """

    def __init__(
        self,
        chip: Chip,
        registers: Registers,
        activity: Activity,
        *,
        reset: Callable[[], None],
        leave: Callable[[], None],
    ) -> None:
        self._chip, self._registers, self._activity = chip, registers, activity
        self._soc = require_soc(chip)
        self._reset, self._leave = reset, leave
        self.clock: Clock  # set by whoever makes both
        self.uart: Uart

    def read(self, address: int) -> int:
        """The word at ``address``."""
        value = self._registers.read(self.clock.now, address)
        if value is None:
            raise CpuFault("load from an address where nothing is", address)
        return value

    def write(self, address: int, value: int) -> None:
        """Set the word at ``address``."""
        self._activity.changed()
        now, registers = self.clock.now, self._registers
        if registers.is_read_only(address):
            raise CpuFault("store to memory that cannot be written", address)
        if not registers.write(now, address, value):
            raise CpuFault("store to an address where nothing is", address)
        if registers.watchdogs.covers(address):
            self._leave()
        if address in self.clock.addresses:
            self.uart.flush()
            self.clock.update()
            self.uart.update_rate()
            self._leave()
        at = self._soc.software_reset
        if at is not None and address == at.address and value >> at.bit & 1:
            self._reset()

    def connect(
        self, memory: Memory, flash: FlashPort, usb: UsbSerialJtag | None, dog: TimerWatchdog | None
    ) -> None:
        """Put the peripherals at their addresses."""
        ports, sinks, uart = memory.ports, memory.sinks, self.uart
        ports[uart.base], sinks[uart.base] = uart.read_fifo, uart.write_fifo
        sinks[uart.transmit] = uart.write_fifo
        ports[uart.base + STATUS_OFFSET] = uart.read_status
        divider = self._chip.uart.clock_divider_address
        ports[divider], sinks[divider] = lambda: uart.divider, uart.write_divider
        if uart.choice is not None:
            ports[uart.choice.source.address] = lambda: uart.clock_word
            sinks[uart.choice.source.address] = uart.write_clock
        for offset in range(0, SPI_SPAN, 4):
            ports[flash.base + offset], sinks[flash.base + offset] = (
                flash.port(offset),
                flash.sink(offset),
            )
        ports[flash.command], sinks[flash.command] = flash.read_command, flash.write_command
        if usb is not None:
            ports[usb.base], sinks[usb.base] = usb.read_byte, usb.write_byte
            ports[usb.base + 4], sinks[usb.base + 4] = usb.read_state, usb.write_state
        if dog is not None:
            for address in dog.words:
                ports[address] = partial(dog.words.__getitem__, address)
                sinks[address] = partial(self._write_dog, dog, address)
        if self._soc.systimer is not None:
            timer = SystemTimer(self._soc.systimer, self.clock, self._activity)
            ports[timer.base + SYSTIMER_OP], sinks[timer.base + SYSTIMER_OP] = (
                timer.read_op,
                timer.write_op,
            )
            ports[timer.base + SYSTIMER_HIGH] = timer.read_high
            ports[timer.base + SYSTIMER_LOW] = timer.read_low

    def _write_dog(self, dog: TimerWatchdog, address: int, value: int) -> None:
        dog.write(address, value)
        self._leave()
