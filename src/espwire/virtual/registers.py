"""The chip's address space as the ROM loader sees it: eFuse words, UART, SPI, watchdogs, RAM.

An address that no data file names reads 0 and ignores writes if it lies in RAM, in ROM, in a reserved range that
answers, or near a known register. Anywhere else, and at address 0, an access faults. The recorded ROMs behave like that.

The map in a chip's data sorts image segments, so its limits are loose; ``memory.measured`` has the true ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from espwire.chips.model import Chip, RamBank, Reset, Soc, Watchdog
from espwire.chips.model import Region as MapRegion
from espwire.virtual.cpu.memory import Region
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.spi import COMMANDS, SpiController

if TYPE_CHECKING:
    from espwire.virtual.fuse_controller import FuseController

WORD = 0xFFFFFFFF
# a part of the address space this large is one peripheral bus: unknown registers lie near known ones;
# the second where the chip's memory is known in full
BUS_SHIFT, KNOWN_BUS_SHIFT = 24, 19
NO_MEMORY = ("PADDING", "BYTE_ACCESSIBLE")  # entries of the map that are not memory
MASK_ROM_SIZE = 0x10000  # of a chip whose map lacks its ROM: the ESP8266 has 64 KiB
READ_ONLY = ("MASK", "DROM", "IROM", "PADDING")
PAGE = 0x1000
# Chosen, since no public source has the ROM's settings: long enough to connect, too short to flash.
RTC_TIMEOUT_S = 9.0
SUPER_TIMEOUT_S = 12.0
SLOW_CLOCK_HZ = 136_000  # clock of the RTC watchdog: nominal RC oscillator of the later chips
ENABLE = 1 << 31
FEED_BEFORE_PROTECT = 4  # distance of the feed register from the write-protection register


class Span(NamedTuple):
    """A half-open range of addresses; ``writable`` False: ROM or mapped flash."""

    start: int
    end: int
    writable: bool


def find_memory(chip: Chip) -> tuple[Span, ...]:
    """RAM, ROM and mapped flash. A read-only span wins over a writable one that overlaps it."""
    spans = [Span(r.start, r.end, not r.name.endswith(READ_ONLY)) for r in _true_regions(chip)]
    address = chip.identity.magic_address
    if chip.identity.detect == "magic" and not any(s.start <= address < s.end for s in spans):
        start = address & ~(MASK_ROM_SIZE - 1)
        spans.append(Span(start, start + MASK_ROM_SIZE, writable=False))
    return tuple(sorted(spans, key=lambda span: span.writable))


def find_soc(chip: Chip) -> Soc | None:
    """What a program in RAM sees of the chip; its memories are derived from the memory map for RISC-V chips without such data.

    None if that cannot be derived: Xtensa chips without such data.
    """
    if (chip.soc is not None and chip.soc.ram) or chip.cpu.architecture != "riscv":
        return chip.soc
    rom = tuple(
        MapRegion(name="ROM", start=s.start, end=s.end)
        for s in find_memory(chip)
        if not s.writable and _is_rom(chip, s)
    )
    return (chip.soc or Soc()).replace(ram=tuple(_find_banks(chip)), rom=rom)


def require_soc(chip: Chip) -> Soc:
    """``find_soc`` for a chip whose programs an engine runs."""
    soc = find_soc(chip)
    assert soc is not None
    return soc


def _is_rom(chip: Chip, span: Span) -> bool:
    flash = chip.mapped_flash
    windows = ((flash.irom_start, flash.irom_end), (flash.drom_start or 0, flash.drom_end or 0))
    return not any(span.start < end and span.end > start for start, end in windows)


def _find_banks(chip: Chip) -> Iterator[RamBank]:
    """The data RAM first. One memory on two buses is a bank with an alias, or a bank that also holds code."""
    regions = {region.name: region for region in _true_regions(chip)}
    data, code = regions["DRAM"], regions["IRAM"]
    offsets = [
        fact["instruction_alias_offset"]
        for fact in chip.stub.rom_ram
        if "instruction_alias_offset" in fact
    ]
    alias = data.start + offsets[0] if offsets else None
    yield RamBank(
        name="data RAM", start=data.start, end=data.end, code=alias is None, code_alias=alias
    )
    code_end = alias if alias is not None else data.start
    if code.start < code_end:
        yield RamBank(
            name="instruction RAM",
            start=code.start,
            end=code_end,
            words_only=alias is not None,
            code=True,
        )
    if (low_power := regions.get("RTC_IRAM")) is not None:
        yield RamBank(name="low-power RAM", start=low_power.start, end=low_power.end, code=True)


def _true_regions(chip: Chip) -> Iterator[MapRegion]:
    """The regions of the map that are memory, with their measured limits."""
    measured = chip.memory.measured
    low_power = [measured["lp_ram"]] if "lp_ram" in measured else None
    windows = {
        "MASK": [measured["mask_rom"]] if "mask_rom" in measured else None,
        "DROM": _windows(measured, "data_flash"),
        "IROM": _windows(measured, "instruction_flash"),
        "RTC_IRAM": low_power,
        "RTC_DRAM": low_power,
    }
    data = next(r for r in chip.memory.map if r.name == "DRAM")
    for region in chip.memory.map:
        limits = windows.get("MASK" if region.name.endswith("MASK") else region.name)
        if region.name in NO_MEMORY:
            continue
        if limits is not None:
            yield from (MapRegion(name=region.name, start=w[0], end=w[1]) for w in limits if w)
        elif "dram_end" in measured and region.start == data.start:
            yield MapRegion(name=region.name, start=region.start, end=measured["dram_end"])
        else:
            yield region


def _windows(measured: Mapping[str, Any], name: str) -> list[list[int]] | None:
    """Where mapped flash is visible, with external RAM behind the same cache; None: the map is right."""
    window = measured.get(name, measured.get("flash_window"))
    if window is None:
        return None
    external = measured.get("external_ram")
    return [window, external] if external is not None and name not in measured else [window]


class Ram:
    """The RAM that the loader and programs share.

    Banks as in the chip's data. Anywhere else memory is sparse: pages are created when written, all else is 0.
    """

    def __init__(self, chip: Chip) -> None:
        self._pages: dict[int, bytearray] = {}
        self.regions: list[Region] = []
        soc = find_soc(chip)
        for bank in soc.ram if soc is not None else ():
            data = bytearray(bank.end - bank.start)
            self.regions.append(
                Region(bank.name, bank.start, data, words_only=bank.words_only, code=bank.code)
            )
            if bank.code_alias is not None:
                name = f"{bank.name} on the instruction bus"
                self.regions.append(Region(name, bank.code_alias, data, words_only=True, code=True))

    def covers(self, address: int) -> bool:
        """Whether the address lies in one of the banks."""
        return any(region.start <= address < region.end for region in self.regions)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        view = memoryview(data)
        while view:
            bank, offset, room = self._find(address, create=True)
            size = min(room, len(view))
            assert bank is not None
            bank[offset : offset + size] = view[:size]
            address, view = address + size, view[size:]

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address."""
        out = bytearray()
        while len(out) < size:
            bank, offset, room = self._find(address + len(out), create=False)
            room = min(room, size - len(out))
            out += bank[offset : offset + room] if bank is not None else bytes(room)
        return bytes(out)

    def clear(self) -> None:
        """Lose all contents, as without power."""
        self._pages.clear()
        for region in self.regions:
            region.data[:] = bytes(len(region.data))

    def _find(self, address: int, *, create: bool) -> tuple[bytearray | None, int, int]:
        """The memory at an address, the offset in it, and how many bytes follow there."""
        for region in self.regions:
            if region.start <= address < region.end:
                return region.data, address - region.start, region.end - address
        number, offset = divmod(address, PAGE)
        if create:
            self._pages.setdefault(number, bytearray(PAGE))
        return self._pages.get(number), offset, PAGE - offset


class Watchdogs:
    """The two watchdogs that can reset a chip while its loader runs; ``deadline`` is when the next of them resets it.

    Registers, keys and bits are data of the chip; the timeouts after a boot are not known, see the two constants. Both
    are off in a UART loader; over USB-Serial/JTAG they keep running, and a client must turn both off.
    """

    def __init__(self, reset: Reset, rtc: Watchdog | None = None) -> None:
        self._rtc, self._super = reset.watchdog or rtc, reset.super_watchdog
        self._words: dict[int, int] = {}
        if self._rtc is not None:
            feed = self._rtc.write_protect - FEED_BEFORE_PROTECT
            self._words |= dict.fromkeys(
                (self._rtc.config0, self._rtc.config1, feed, self._rtc.write_protect), 0
            )
        if self._super is not None:
            self._words |= dict.fromkeys((self._super.config, self._super.write_protect), 0)
        self._rtc_deadline: float | None = None
        self._super_deadline: float | None = None

    @property
    def deadline(self) -> float | None:
        """The earlier deadline; None if neither is running."""
        running = [due for due in (self._rtc_deadline, self._super_deadline) if due is not None]
        return min(running, default=None)

    @property
    def rtc_is_next(self) -> bool:
        """Whether the RTC watchdog is the next to reset the chip."""
        return self._rtc_deadline is not None and self._rtc_deadline == self.deadline

    def restart(self, t: float, *, running: bool) -> None:
        """A reset at ``t``: both are off, or both are running."""
        self._words = dict.fromkeys(self._words, 0)
        self._rtc_deadline = self._super_deadline = None
        if running and self._rtc is not None:
            self._words[self._rtc.config0] = ENABLE
            self._words[self._rtc.config1] = int(RTC_TIMEOUT_S * SLOW_CLOCK_HZ)
            self._rtc_deadline = t + RTC_TIMEOUT_S
        if running and self._super is not None:
            self._super_deadline = t + SUPER_TIMEOUT_S

    def covers(self, address: int) -> bool:
        """Whether the address is one of these registers."""
        return address in self._words

    def read(self, address: int) -> int:
        """The register's value; ``covers`` must be true for it."""
        return self._words[address]

    def write(self, t: float, address: int, value: int) -> None:
        """A write at ``t``; configuration is accepted only while the write-protection register holds the key."""
        rtc, swd = self._rtc, self._super
        if rtc is not None and address in (
            rtc.config0,
            rtc.config1,
            rtc.write_protect - FEED_BEFORE_PROTECT,
        ):
            if self._words[rtc.write_protect] == rtc.key:
                if address != rtc.write_protect - FEED_BEFORE_PROTECT:
                    self._words[address] = value
                on = self._words[rtc.config0] & ENABLE
                self._rtc_deadline = t + self._words[rtc.config1] / SLOW_CLOCK_HZ if on else None
        elif swd is not None and address == swd.config:
            if self._words[swd.write_protect] == swd.key:
                self._words[address] = value
                if value >> swd.auto_feed_bit & 1:
                    self._super_deadline = None
        else:
            self._words[address] = value


class FlashPower:
    """Whether the flash has power: on some revisions of some chips only after a sequence of register writes.

    The chip's data has the steps. Power is on when all of them have been done in order. Other revisions have power
    from the start.
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
        """Power was lost."""
        self._done = 0

    @property
    def on(self) -> bool:
        """Whether the flash has power."""
        return self._done == len(self._steps)

    def note_write(self, address: int, old: int, new: int) -> None:
        """A register was written: this may be the next step."""
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


class LazyFuses:
    """The eFuse controller, which is built at the first write to it: most runs do not need it."""

    def __init__(self, registers: range, build: Callable[[], FuseController]) -> None:
        self._registers, self._build = registers, build
        self._controller: FuseController | None = None

    def covers(self, address: int) -> bool:
        """Whether the address is one of the controller's registers."""
        return address in self._registers

    def is_active(self, address: int) -> bool:
        """Whether the controller exists, and the address is one of its registers."""
        return self._controller is not None and address in self._registers

    @property
    def controller(self) -> FuseController:
        """The controller."""
        if self._controller is None:
            self._controller = self._build()
        return self._controller

    def restart(self, t: float) -> None:
        """A reset at ``t``, or a loss of power."""
        if self._controller is not None:
            self._controller.restart(t)


class Registers:
    """Reads and writes of 32-bit words. ``preset`` values override everything and never change.

    ``attached``: whether the flash is connected to the controller; a transaction before that moves no data.
    ``attach_word``: SPI_ATTACH's argument, which selects the pins.
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
        self.fuses: LazyFuses | None = None
        # the register with the crystal's frequency also selects the CPU's clock
        crystal = chip.crystal.rom_setting
        self._fixed = frozenset(words) - ({crystal.address} if crystal is not None else set())
        power_steps = chip.flash_power_on.steps if chip.flash_power_on is not None else ()
        self._effects = {step.address for step in chip.flash_attach}
        self._effects |= {step.address for step in power_steps}
        self._loose: dict[int, int] = {}
        self._start = _find_start_values(chip)
        flash.powered = self.power.on
        self._roms = [
            (rom.start, rom.end) for rom in (chip.soc.rom if chip.soc is not None else ())
        ]
        self._memory = find_memory(chip)
        # ranges without memory or registers where an access does not fault
        self._reserved = chip.memory.measured.get("answers", ())
        known = chip.soc is not None and bool(chip.soc.ram)
        self._bus_shift = KNOWN_BUS_SHIFT if known else BUS_SHIFT
        self._buses = {address >> self._bus_shift for address in _addresses(chip)}

    def note_usb(self, revision: int, *, otg: bool) -> None:
        """The host is connected to one of the chip's USB ports: set the ROM's variable for its port."""
        variable = self.chip.usb.console_variable
        if variable is None:
            return
        address, value = variable.find_address(revision), variable.otg_value
        if not otg:
            address, value = variable.find_serial_jtag(revision) or (None, None)
        if address is not None and value is not None:
            self.preset[address & ~3] = value << address % 4 * 8

    def restart(self) -> None:
        """Chip reset: registers lose what software wrote to them; RAM and eFuses stay."""
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
        """Whether the address keeps what is written to it."""
        if self.ram.covers(address):
            return True
        if any(start <= address < end for start, end in self._roms):
            return False
        return next(
            (span.writable for span in self._memory if span.start <= address < span.end), False
        )

    def is_read_only(self, address: int) -> bool:
        """Whether the address lies in memory that cannot be written."""
        return self.is_memory(address) and not self.is_ram(address)

    def is_plain(self, address: int) -> bool:
        """Whether the address is a register, written before, that does nothing but keep what is written."""
        return address in self._loose and address not in self._effects

    def read(self, t: float, address: int) -> int | None:
        """The value at an address; None if the access faults."""
        if address in self.preset:
            return self.preset[address]
        if address == self.chip.uart.clock_divider_address:
            return self.divider
        if self.spi.covers(address):
            return self.spi.read(t, address)
        if self.fuses is not None and self.fuses.is_active(address):
            return self.fuses.controller.read(t, address)
        if self.watchdogs.covers(address):
            return self.watchdogs.read(address)
        if address in self._loose:
            return self._loose[address]
        if address in self.words:
            return self.words[address]
        if not self.is_mapped(address):
            return None
        if self.is_ram(address):
            return int.from_bytes(self.ram.read(address, 4), "little")
        return self._start.get(address, 0)

    def write(self, t: float, address: int, value: int, mask: int = WORD) -> bool:
        """A masked write; False if the access faults. Writes to ROM and eFuse words have no effect."""
        if self.fuses is not None and self.fuses.covers(address):
            kept = self.fuses.controller.read(t, address) & ~mask
            self.fuses.controller.write(t, address, kept | value & mask)
            return True
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
            self.power.note_write(address, old, value)
            self.flash.powered = self.power.on
        return True

    def _pads_are_connected(self, address: int) -> bool:
        """Whether the write to ``address`` completes the connection of the flash's pads to the controller."""
        pads = [step for step in self.chip.flash_attach if step.pad]
        return any(address == pad.address for pad in pads) and all(
            self._loose.get(pad.address, 0) & pad.mask == pad.value for pad in pads
        )

    def _is_reserved(self, address: int) -> bool:
        return any(start <= address < end for start, end in self._reserved)

    def _write_spi(self, t: float, address: int, value: int) -> None:
        is_command = address == self.chip.spi.base + self.chip.spi.command_offset
        if is_command and not self.attached:
            value &= ~COMMANDS  # the data registers keep their contents
        self.spi.write(t, address, value)


def _find_start_values(chip: Chip) -> dict[int, int]:
    """Registers that are not 0 after a reset, by address."""
    tree = chip.soc.clock if chip.soc is not None else None
    if tree is None or tree.divider is None:
        return {}
    return {tree.divider.address: tree.divider_start << tree.divider.shift}


def _addresses(chip: Chip) -> Iterator[int]:
    """Addresses of the registers in the chip's data."""
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
