"""Connects a program's accesses to the peripherals; all other addresses behave as for the ROM loader, or fault."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from espwire.chips.model import Chip
from espwire.virtual.cpu.memory import CpuFault, Memory
from espwire.virtual.registers import Registers, require_soc
from espwire.virtual.soc.clock import (
    SYSTIMER_HIGH,
    SYSTIMER_LOW,
    SYSTIMER_OP,
    Clock,
    SystemTimer,
    TimerWatchdog,
)
from espwire.virtual.soc.flash_port import FlashPort
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.serial_ports import STATUS_OFFSET, Uart, UsbSerialJtag

SPI_SPAN = 0x100


class SocBus:
    """The slow path of ``Memory``; ``connect`` fills its fast path.

    ``reset`` resets the chip; ``leave`` stops the program so that its clocks and watchdogs are checked.
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
        self.clock: Clock  # set after construction
        self.uart: Uart

    def read(self, address: int) -> int:
        """Read a word."""
        value = self._registers.read(self.clock.now, address)
        if value is None:
            raise CpuFault("load from an unmapped address", address)
        return value

    def write(self, address: int, value: int) -> None:
        """Write a word."""
        self._activity.changed()
        now, registers = self.clock.now, self._registers
        if registers.is_read_only(address):
            raise CpuFault("store to memory that cannot be written", address)
        if not registers.write(now, address, value):
            raise CpuFault("store to an unmapped address", address)
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
        self,
        memory: Memory,
        flash: FlashPort,
        usb: UsbSerialJtag | None,
        watchdog: TimerWatchdog | None,
    ) -> None:
        """Map the peripherals to their addresses."""
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
        if watchdog is not None:
            for address in watchdog.words:
                ports[address] = partial(watchdog.words.__getitem__, address)
                sinks[address] = partial(self._write_watchdog, watchdog, address)
        if self._soc.systimer is not None:
            timer = SystemTimer(self._soc.systimer, self.clock, self._activity)
            ports[timer.base + SYSTIMER_OP], sinks[timer.base + SYSTIMER_OP] = (
                timer.read_op,
                timer.write_op,
            )
            ports[timer.base + SYSTIMER_HIGH] = timer.read_high
            ports[timer.base + SYSTIMER_LOW] = timer.read_low

    def _write_watchdog(self, watchdog: TimerWatchdog, address: int, value: int) -> None:
        watchdog.write(address, value)
        self._leave()
