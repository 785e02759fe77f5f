"""The chip's address space as its ROM loader sees it: eFuse words, UART, SPI, watchdogs, RAM. No command is known here.

An address that no data file names reads 0 and takes writes without effect, as long as it lies in RAM, in ROM, in a
reserved range that answers, or near a register that is known; anything else faults, as does address 0: that is what the
recorded ROMs did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from espwire.chips.model import Chip
from espwire.virtual.memory_map import find_memory, find_reserved
from espwire.virtual.soc.ram import Ram
from espwire.virtual.watchdog import Watchdogs

if TYPE_CHECKING:
    from espwire.virtual.nor_flash import NorFlash
    from espwire.virtual.spi import SpiController

WORD = 0xFFFFFFFF
SPI_START = 1 << 18
# one part of the address space is one peripheral bus: a register that no fact names lies near one that a fact names
BUS_SHIFT, KNOWN_BUS_SHIFT = 24, 19  # the second where the chip's memory is known in full


class FlashPower:
    """Whether the flash has power: some revisions of some chips give it only after register steps.

    The steps are a fact of the chip; power is on once every bit that the steps set has been set and the last wanted
    values have been written, in order. A revision that the fact does not name has power from the start.
    """

    def __init__(self, chip: Chip, revision: int, words: Mapping[int, int]) -> None:
        fact = chip.flash_power_on
        needed = fact is not None and revision in fact.revisions
        if fact is not None and needed and revision == 302:
            skip = fact.skip_on_302
            needed = not words.get(skip.address, 0) >> skip.bit & 1
        steps = fact.steps if fact is not None and needed else ()
        self._steps = [step for step in steps if step.op != "wait"]
        self.restart()

    def restart(self) -> None:
        """As after power was lost."""
        self._done = 0

    @property
    def on(self) -> bool:
        """Whether the flash has power now."""
        return self._done == len(self._steps)

    def wrote(self, address: int, old: int, new: int) -> None:
        """A register was written; a step that this does counts if it is the next one."""
        if self.on:
            return
        step = self._steps[self._done]
        if address != step.address:
            return
        done = {
            "write": new == step.value,
            "set": new & step.mask == step.mask,
            "clear": not new & step.mask,
        }[step.op]
        self._done += done


class Registers:
    """Reads and writes of 32-bit words. ``preset`` words win over everything and keep their value.

    ``attached`` is whether the flash is wired to the controller: a transaction before that moves no data;
    ``attach_word`` is what SPI_ATTACH said of its pins.
    """

    def __init__(
        self,
        chip: Chip,
        *,
        words: Mapping[int, int],
        spi: SpiController,
        flash: NorFlash,
        revision: int,
    ) -> None:
        self.chip = chip
        self.flash = flash
        self.words = dict(words)
        self.preset: dict[int, int] = {}
        self.ram = Ram(chip)
        self.spi = spi
        self.watchdogs = Watchdogs(
            chip.reset, chip.soc.rtc_watchdog if chip.soc is not None else None
        )
        self.power = FlashPower(chip, revision, self.words)
        self.attached = False
        self.attach_word: int | None = None
        self.divider = 0
        self._fixed = frozenset(words)
        self._loose: dict[int, int] = {}
        flash.powered = self.power.on
        self._roms = [
            (rom.start, rom.end) for rom in (chip.soc.rom if chip.soc is not None else ())
        ]
        self._memory, self._reserved = find_memory(chip), find_reserved(chip)
        self._bus_shift = BUS_SHIFT if chip.soc is None else KNOWN_BUS_SHIFT
        self._buses = {address >> self._bus_shift for address in _addresses(chip)}

    def note_usb(self, revision: int) -> None:
        """The host is at the USB-Serial/JTAG port: the ROM's variable for its port says so."""
        variable = self.chip.usb.console_variable
        place = variable.find_serial_jtag(revision) if variable is not None else None
        if place is not None:
            self.preset[place[0] & ~3] = place[1] << place[0] % 4 * 8

    def restart(self) -> None:
        """As after a reset: what software wrote to registers is gone; RAM and eFuses stay."""
        self._loose.clear()
        self.power.restart()
        self.flash.powered = self.power.on
        self.attached, self.attach_word = False, None

    def is_mapped(self, address: int) -> bool:
        """Whether an access to ``address`` does not fault."""
        if (
            address in self.words
            or address in self.preset
            or address == self.chip.identity.magic_address
        ):
            return True
        return (
            self.is_memory(address)
            or self._is_reserved(address)
            or address >> self._bus_shift in self._buses
        )

    def is_memory(self, address: int) -> bool:
        """Whether the address lies in RAM, ROM or mapped flash."""
        return self.ram.covers(address) or any(
            span.start <= address < span.end for span in self._memory
        )

    def is_ram(self, address: int) -> bool:
        """Whether what is written there stays there."""
        if self.ram.covers(address):
            return True
        if any(start <= address < end for start, end in self._roms):
            return False
        return next(
            (span.writable for span in self._memory if span.start <= address < span.end), False
        )

    def is_read_only(self, address: int) -> bool:
        """Whether it is memory that cannot be written."""
        return self.is_memory(address) and not self.is_ram(address)

    def read(self, t: float, address: int) -> int | None:
        """The word, or None: the access faults."""
        if address in self.preset:
            return self.preset[address]
        if address == self.chip.uart.clock_divider_address:
            return self.divider
        if self.spi.covers(address):
            return self.spi.read(t, address)
        if self.watchdogs.covers(address):
            return self.watchdogs.read(address)
        if address in self._loose:
            return self._loose[address]
        if address in self.words:
            return self.words[address]
        if not self.is_mapped(address):
            return None
        return int.from_bytes(self.ram.read(address, 4), "little") if self.is_ram(address) else 0

    def write(self, t: float, address: int, value: int, mask: int = WORD) -> bool:
        """A masked write; False: the access faults. Writes to ROM and eFuse words do nothing."""
        old = self.read(t, address)
        if old is None:
            return False
        value = (old & ~mask | value & mask) & WORD
        if self.spi.covers(address):
            self._write_spi(t, address, value)
        elif self.watchdogs.covers(address):
            self.watchdogs.write(t, address, value)
        elif address == self.chip.uart.clock_divider_address or address in self._fixed:
            pass
        elif self.is_ram(address):
            self.ram.write(address, value.to_bytes(4, "little"))
        elif not self.is_memory(address) and not self._is_reserved(address):
            self._loose[address] = value
            self.attached = self.attached or self._pads_are_connected(address)
            self.power.wrote(address, old, value)
            self.flash.powered = self.power.on
        return True

    def _pads_are_connected(self, address: int) -> bool:
        """Whether the write to ``address`` was the last that connects the flash's pads to the controller."""
        pads = [step for step in self.chip.flash_attach if step.pad]
        return any(address == pad.address for pad in pads) and all(
            self._loose.get(pad.address, 0) & pad.mask == pad.value for pad in pads
        )

    def _is_reserved(self, address: int) -> bool:
        return any(span.start <= address < span.end for span in self._reserved)

    def _write_spi(self, t: float, address: int, value: int) -> None:
        is_command = address == self.chip.spi.base + self.chip.spi.command_offset
        if is_command and not self.attached:
            value &= (
                ~SPI_START
            )  # the flash does not hear it; the data registers keep what they hold
        self.spi.write(t, address, value)


def _addresses(chip: Chip) -> Iterator[int]:
    """Addresses of registers that the chip's facts name."""
    yield from chip.peripherals.values()
    yield from (chip.spi.base, chip.uart.clock_divider_address, chip.uart.date_address)
    yield from (part.address for field in chip.fields.values() for part in field)
    yield from (
        a for a in (chip.mac.low_word, chip.mac.high_word, chip.strapping.address) if a is not None
    )
    if chip.reset.watchdog is not None:
        yield chip.reset.watchdog.config0
    if chip.reset.force_download is not None:
        yield chip.reset.force_download.address
