"""What a CPU cycle lasts: the registers that choose the clocks, and simulated time as the engine's cycles tell it."""

from __future__ import annotations

from espwire.chips.model import BitPart, Chip
from espwire.sizes import extract
from espwire.virtual.efuses import ChipConfig
from espwire.virtual.memory_map import require_soc
from espwire.virtual.registers import Registers

CRYSTAL, PLL = 0, 1
SLOWEST_HZ = 8_000_000.0  # the internal oscillator, which any other choice is taken for


class Clock:
    """``cycles`` is the engine's counter; ``hz`` the CPU's clock, ``bus_hz`` the peripherals'.

    ``dead``: the PLL is chosen and has no power.
    """

    def __init__(
        self, chip: Chip, config: ChipConfig, registers: Registers, cycles: list[int], t: float
    ) -> None:
        self.tree = require_soc(chip).clock
        self.crystal_hz = config.crystal_mhz * 1e6
        self._base_hz = self.crystal_hz * chip.crystal.clock_multiple
        self._registers = registers
        self._cycles, self._start, self._t = cycles, cycles[0], t
        self.hz = self.bus_hz = self._base_hz
        self.dead = False
        self.slept = 0
        tree = self.tree
        fields = [tree.select, tree.period, tree.double, tree.down]
        self.addresses = frozenset(field.address for field in fields if field is not None)
        self.update()

    @property
    def now(self) -> float:
        """Simulated time."""
        return self._t + (self._cycles[0] - self._start) / self.hz

    @property
    def cycle(self) -> int:
        """The engine's counter."""
        return self._cycles[0]

    def cycles_at(self, t: float) -> int:
        """What the counter shows at ``t``, by the present clock."""
        return self._start + int((t - self._t) * self.hz)

    def wait_until(self, t: float) -> None:
        """Let the CPU stand until ``t``; ``slept`` counts such cycles."""
        cycles = self.cycles_at(t) + 1 - self._cycles[0]
        if cycles > 0:
            self._cycles[0] += cycles
            self.slept += cycles

    def update(self) -> None:
        """The registers may have changed: from now on cycles last as they say."""
        now = self.now
        tree = self.tree
        choice = self._field(tree.select)
        self.bus_hz = self._base_hz
        hz = self._base_hz
        if choice == PLL:
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
        self._t, self._start, self.hz = now, self._cycles[0], hz

    def _field(self, field: BitPart | None) -> int:
        return 0 if field is None else extract(self._word(field.address), field.shift, field.bits)

    def _word(self, address: int) -> int:
        return self._registers.read(self._t, address) or 0
