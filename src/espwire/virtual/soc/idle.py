"""Detects that a program only waits, so that the engine can skip the rounds of its waiting loop.

If the program is at an earlier place again with the same registers, memory and answers from the peripherals, it will
repeat the same steps until an answer changes. Whole rounds of such a loop can be skipped without any effect but time.
Registers, stack, and the peripherals' registers that only keep what is written are always compared: a loop may switch
interrupts off and on again. All of the data RAM is compared only if the loop stores elsewhere, which takes about 50 µs
and is therefore tried less often where it did not help. A loop that reads the CPU's cycle counter is never skipped.

``Activity`` is what the peripherals report about the program: whether it makes progress or repeats the same reads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from espwire.virtual.cpu.engine import Engine

STACK_BYTES = 4096  # above the stack pointer, as far as stores through it may reach
RAM_TRIES = 4  # failed comparisons in a row, after which only one in
RARELY = 32  # so many is done
ROUND_BLOCKS = 64  # the longest loop that ``find_round`` finds
PATIENCE = 4  # equal reads in a row that count as waiting
TRUST = 32  # equal reads, after which a loop is looked for even away from known idle loops


@dataclass(slots=True)
class _Snapshot:
    cpu: tuple[int, list[int], dict[int, int]]  # program counter, registers, special registers
    progress: int
    kept: dict[int, int]
    stores: int
    effects: list[int]
    stack: bytes
    cycle: int
    ram: bytes | None


class IdleLoop:
    """Compares the engine's state with a saved one, which is renewed less and less often (Brent's algorithm)."""

    def __init__(self, engine: Engine, activity: Activity, stack_register: int) -> None:
        self._engine, self._activity, self._stack_register = engine, activity, stack_register
        self._fast = engine.memory.regions[0]
        self._saved: _Snapshot | None = None
        self._looks = self._patience = 0
        self._known: set[int] = set()  # program counters of idle loops
        self._tries: dict[int, int] = {}  # program counter → failed comparisons

    def find_period(self) -> int:
        """Cycles of one round, if the program is in the saved state again; else 0."""
        engine, saved, activity = self._engine, self._saved, self._activity
        if saved is None or saved.progress != activity.progress:
            if activity.eager and engine.pc not in self._known and activity.same < TRUST:
                return 0
            self._looks, self._patience = 0, 1
            self._save(ram=False)
            return 0
        if saved.cpu == (engine.pc, engine.registers, engine.special):
            if self._is_same_memory(saved):
                activity.eager = True
                self._known.add(engine.pc)
                period, saved.cycle = engine.cycles[0] - saved.cycle, engine.cycles[0]
                return period
            return 0
        if activity.same > TRUST:
            activity.eager = False
        self._looks += 1
        if self._looks >= self._patience:
            self._looks, self._patience = 0, self._patience * 2
            self._save(ram=False)
        return 0

    def find_round(self, step: Callable[[], bool]) -> int:
        """Cycles of one round of a short loop that changes nothing, found by running it; 0: there is none.

        ``step`` runs one block; False: the program must be left now.
        """
        saved = self._take(ram=False)
        for _ in range(ROUND_BLOCKS):
            if not step() or saved.progress != self._activity.progress:
                return 0
            engine = self._engine
            if saved.cpu == (engine.pc, engine.registers, engine.special):
                return engine.cycles[0] - saved.cycle if self._is_unchanged(saved) else 0
        return 0

    def shift(self, cycles: int) -> None:
        """Rounds that took so many cycles have been skipped: the saved state is that much newer."""
        if self._saved is not None:
            self._saved.cycle += cycles

    def _is_same_memory(self, saved: _Snapshot) -> bool:
        engine = self._engine
        if self._is_unchanged(saved):
            return True
        same_effects = saved.stores == engine.memory.stores and saved.effects == engine.effects
        pc = engine.pc
        tries = self._tries.get(pc, 0)
        if saved.ram is not None and self._is_same_outside(saved) and saved.ram == self._fast.data:
            self._tries[pc] = 0
            return True
        self._tries[pc] = tries + 1
        self._save(ram=not same_effects and (tries < RAM_TRIES or tries % RARELY == 0))
        return False

    def _is_unchanged(self, saved: _Snapshot) -> bool:
        """Whether nothing was stored but what the stack had already."""
        same = saved.effects == self._engine.effects and self._is_same_outside(saved)
        return same and saved.stack == self._stack()

    def _is_same_outside(self, saved: _Snapshot) -> bool:
        """Whether all but the data RAM is unchanged, and the cycle counter was not read."""
        engine = self._engine
        same = saved.stores == engine.memory.stores and saved.effects[1] == engine.effects[1]
        return same and saved.kept == self._activity.kept

    def _stack(self) -> bytes:
        at = self._engine.registers[self._stack_register] - self._fast.start
        return (
            bytes(self._fast.data[at : at + STACK_BYTES]) if 0 <= at < len(self._fast.data) else b""
        )

    def _save(self, *, ram: bool) -> None:
        self._saved = self._take(ram=ram)

    def _take(self, *, ram: bool) -> _Snapshot:
        engine = self._engine
        return _Snapshot(
            (engine.pc, list(engine.registers), dict(engine.special)),
            self._activity.progress,
            dict(self._activity.kept),
            engine.memory.stores,
            list(engine.effects),
            self._stack(),
            engine.cycles[0],
            bytes(self._fast.data) if ram else None,
        )


class Activity:
    """``progress`` counts events that change something; ``same`` counts the reads without news since the last one.

    ``kept``: what was written to registers that do nothing but keep it, by address: a loop may restore it.
    ``on_idle`` is called when the program may be waiting, always at the same register of a loop.
    """

    def __init__(self, on_idle: Callable[[], None]) -> None:
        self.progress = 0
        self.same = 0
        self.kept: dict[int, int] = {}
        self.eager = False  # the last search found an idle loop
        self._on_idle = on_idle
        self._anchor = 0

    def changed(self) -> None:
        """The state of a peripheral has changed."""
        self.progress += 1
        self.same = 0

    def wrote(self, address: int, value: int) -> None:
        """A register was written that only keeps its value, or whose effects depend on nothing but its value."""
        self.kept[address] = value

    def polled(self, address: int) -> None:
        """The program has read a register that it may be waiting for."""
        self.same += 1
        if self.same == PATIENCE:
            self._anchor = address
        elif address != self._anchor or (self.same < PATIENCE and not self.eager):
            return
        self._on_idle()
