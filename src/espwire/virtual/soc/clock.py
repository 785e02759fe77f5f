"""Clocks and timers as a program sees them: what a CPU cycle lasts, the watchdog of timer group 0, the system timer.

The timers count simulated time, not cycles.
"""

from __future__ import annotations

from collections.abc import Callable

from espwire.chips.model import BitPart, Chip, TimerDog
from espwire.sizes import extract
from espwire.virtual.efuses import ChipConfig
from espwire.virtual.registers import Registers, require_soc
from espwire.virtual.soc.idle import Activity

NEVER = float("inf")
CRYSTAL = 0
SLOWEST_HZ = 8_000_000.0  # the internal oscillator, which stands in for any other clock
WATCHDOG_ENABLE = 1 << 31
SYSTIMER_HZ = 16_000_000
SYSTIMER_UPDATE, SYSTIMER_VALID = 1 << 30, 1 << 29
SYSTIMER_OP, SYSTIMER_HIGH, SYSTIMER_LOW = 0x04, 0x40, 0x44


def find_next(since: float, *times: float) -> float:
    """The earliest of ``times`` after ``since``; NEVER if there is none."""
    return min((t for t in times if t > since), default=NEVER)


class Clock:
    """Converts the engine's cycle counter to simulated time, by the registers that select the clocks.

    ``hz``: the CPU's clock; ``bus_hz``: that of the peripherals; ``flash_hz``: of the flash controller. ``dead``: the PLL is selected but has no power.
    """

    def __init__(
        self, chip: Chip, config: ChipConfig, registers: Registers, cycles: list[int], t: float
    ) -> None:
        self.tree = require_soc(chip).clock
        self.crystal_hz = config.crystal_mhz * 1e6
        self._base_hz = self.crystal_hz * chip.crystal.clock_multiple
        self._registers = registers
        self._cycles, self._start, self._t = cycles, cycles[0], t
        self.hz = self.bus_hz = self.flash_hz = self._base_hz
        self.dead = False
        self.slept = 0
        tree = self.tree
        fields = [tree.select, tree.period, tree.double, tree.down, tree.divider]
        addresses = [field.address for field in fields if field is not None]
        # where selections take effect later, only the register for that counts
        update = tree.update
        self.addresses = frozenset(addresses if update is None else (update.address,))
        self.update()

    @property
    def now(self) -> float:
        """Simulated time."""
        return self._t + (self._cycles[0] - self._start) / self.hz

    @property
    def cycle(self) -> int:
        """The engine's cycle counter."""
        return self._cycles[0]

    def cycles_at(self, t: float) -> int:
        """The counter's value at ``t``, at the current clock."""
        return self._start + int((t - self._t) * self.hz)

    def wait_until(self, t: float) -> None:
        """Stall the CPU until ``t``; ``slept`` counts these cycles."""
        cycles = self.cycles_at(t) + 1 - self._cycles[0]
        if cycles > 0:
            self._cycles[0] += cycles
            self.slept += cycles

    def selects(self, address: int, value: int) -> bool:
        """Whether a write to a register changes the clocks. The bit that requests an update clears itself."""
        update = self.tree.update
        if address not in self.addresses:
            return False
        if update is None:
            return True
        self._registers.write(self.now, address, value & ~(1 << update.bit))
        return bool(value >> update.bit & 1)

    def update(self) -> None:
        """Apply the registers that select the clocks."""
        now = self.now
        tree = self.tree
        choice = self._field(tree.select)
        self.bus_hz = self._base_hz
        hz = self._base_hz
        if choice == CRYSTAL and tree.divider is not None:
            hz = self.bus_hz = self._base_hz / (self._field(tree.divider) + 1)
        elif tree.select is not None and choice == tree.pll:
            if tree.pll_multiple is not None:
                hz = self.crystal_hz * tree.pll_multiple
            else:
                period = self._field(tree.period)
                hz = tree.period_mhz[min(period, len(tree.period_mhz) - 1)] * 1e6
                self.bus_hz = tree.bus_mhz * 1e6
            self.dead = tree.down is not None and bool(
                (self._word(tree.down.address)) & tree.down.mask
            )
        elif choice != CRYSTAL:
            hz = self.bus_hz = SLOWEST_HZ
        if tree.double is not None and self._word(tree.double.address) >> tree.double.bit & 1:
            hz *= 2
        raised = tree.select is not None and choice == tree.pll
        self.flash_hz = self.bus_hz
        if raised and tree.flash_multiple is not None:
            self.flash_hz = self.crystal_hz * tree.flash_multiple
        self._t, self._start, self.hz = now, self._cycles[0], hz

    def _field(self, field: BitPart | None) -> int:
        return 0 if field is None else extract(self._word(field.address), field.shift, field.bits)

    def _word(self, address: int) -> int:
        return self._registers.read(self._t, address) or 0


class TimerWatchdog:
    """Watchdog of timer group 0; ``on_change`` is called after each write. Its first stage resets the chip; it is off when the ROM starts a program."""

    def __init__(
        self, facts: TimerDog, clock: Clock, activity: Activity, on_change: Callable[[], None]
    ) -> None:
        self.facts, self._clock, self._activity = facts, clock, activity
        self._on_change = on_change
        addresses = (facts.config, facts.prescale, facts.hold, facts.feed, facts.write_protect)
        self.words = dict.fromkeys(addresses, 0)
        self.deadline = NEVER

    def write(self, address: int, value: int) -> None:
        """Configuration is accepted only while the write-protection register holds the key."""
        self._activity.changed()
        facts, words = self.facts, self.words
        if address == facts.write_protect:
            words[address] = value
        elif words[facts.write_protect] == facts.key:
            if address != facts.feed:
                words[address] = value
            ticks = words[facts.hold] * max(1, words[facts.prescale] >> 16)
            on = words[facts.config] & WATCHDOG_ENABLE
            self.deadline = self._clock.now + ticks / self._clock.bus_hz if on else NEVER
        self._on_change()


class SystemTimer:
    """Unit 0: writing UPDATE latches the value, which is then read from two registers."""

    def __init__(self, clock: Clock, activity: Activity) -> None:
        self._clock, self._activity = clock, activity
        self._value = 0

    def write_op(self, value: int) -> None:
        """SYSTIMER_UNIT0_OP."""
        self._activity.changed()
        if value & SYSTIMER_UPDATE:
            self._value = int(self._clock.now * SYSTIMER_HZ)

    def read_op(self) -> int:
        """The value is valid immediately."""
        return SYSTIMER_VALID

    def read_high(self) -> int:
        """Bits 32 to 51."""
        return self._value >> 32 & 0xFFFFF

    def read_low(self) -> int:
        """The lower 32 bits."""
        return self._value & 0xFFFFFFFF
