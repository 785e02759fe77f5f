"""Whether a program only waits: it stands where it stood before, with the same registers, memory and answers.

A machine in the same state does the same again until an answer changes, so whole rounds of such a loop may be left out
and nothing is different afterwards but the time. Registers and stack are compared always; all of the data RAM only
where the loop stores elsewhere, which costs some 50 µs and is therefore tried less often where it was in vain.

What the peripherals tell of the program that uses them: whether it gets on, or asks the same again and again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from espwire.virtual.cpu.engine import Engine

STACK_BYTES = 4096  # what stores through the stack pointer may have reached above it
RAM_TRIES = 4  # in vain and in a row; from then on
RARELY = 32  # only one in so many
TRUST = 32  # questions in a row, until a place where idle loops were found before is not waited for any longer


@dataclass(slots=True)
class _Moment:
    pc: int
    registers: list[int]
    special: dict[int, int]
    progress: int
    stores: int
    effects: int
    stack: bytes
    cycle: int
    ram: bytes | None


class IdleLoop:
    """Compares the engine's state with a remembered one, which is renewed less and less often (Brent's algorithm)."""

    def __init__(self, engine: Engine, activity: Activity, stack_register: int) -> None:
        self._engine, self._activity, self._stack_register = engine, activity, stack_register
        self._fast = engine.memory.regions[0]
        self._then: _Moment | None = None
        self._looks = self._patience = 0
        self._known: set[int] = set()  # program counters at which idle loops were found
        self._tries: dict[int, int] = {}  # program counter → comparisons in vain

    def find_period(self) -> int:
        """Cycles of one round, if the program is where it was at the remembered moment; else 0."""
        engine, then, activity = self._engine, self._then, self._activity
        if then is None or then.progress != activity.progress:
            if activity.eager and engine.pc not in self._known and activity.same < TRUST:
                return 0
            self._looks, self._patience = 0, 1
            self._take(ram=False)
            return 0
        if (
            then.pc == engine.pc
            and then.registers == engine.registers
            and then.special == engine.special
        ):
            if self._is_same_memory(then):
                activity.eager = True
                self._known.add(engine.pc)
                return engine.cycles[0] - then.cycle
            return 0
        if activity.same > TRUST:
            activity.eager = False
        self._looks += 1
        if self._looks >= self._patience or then.pc == engine.pc:
            self._looks, self._patience = 0, self._patience * 2
            self._take(ram=False)
        return 0

    def shift(self, cycles: int) -> None:
        """The rounds of so many cycles have been left out."""
        if self._then is not None:
            self._then.cycle = self._engine.cycles[0]

    def _is_same_memory(self, then: _Moment) -> bool:
        engine = self._engine
        same_effects = then.stores == engine.memory.stores and then.effects == engine.effects[0]
        if same_effects and then.stack == self._stack():
            return True
        tries = self._tries.get(then.pc, 0)
        if (
            then.ram is not None
            and then.stores == engine.memory.stores
            and then.ram == self._fast.data
        ):
            self._tries[then.pc] = 0
            return True
        self._tries[then.pc] = tries + 1
        self._take(ram=not same_effects and (tries < RAM_TRIES or tries % RARELY == 0))
        return False

    def _stack(self) -> bytes:
        at = self._engine.registers[self._stack_register] - self._fast.start
        return (
            bytes(self._fast.data[at : at + STACK_BYTES]) if 0 <= at < len(self._fast.data) else b""
        )

    def _take(self, *, ram: bool) -> None:
        engine = self._engine
        self._then = _Moment(
            engine.pc,
            list(engine.registers),
            dict(engine.special),
            self._activity.progress,
            engine.memory.stores,
            engine.effects[0],
            self._stack(),
            engine.cycles[0],
            bytes(self._fast.data) if ram else None,
        )


PATIENCE = 4  # the same questions, before it is worth a closer look


class Activity:
    """``progress`` counts what changes something; between two of those, ``same`` questions got no news.

    ``look`` is called when the program may be idle: always at the same register, so that a loop is seen as one.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self.progress = 0
        self.same = 0
        self.eager = False  # the last closer look was worth it
        self._look = look
        self._anchor = 0

    def changed(self) -> None:
        """Something happened that makes the next moment unlike the last."""
        self.progress += 1
        self.same = 0

    def asked(self, address: int) -> None:
        """A register was read that tells when to go on."""
        self.same += 1
        if self.same == PATIENCE:
            self._anchor = address
        elif address != self._anchor or (self.same < PATIENCE and not self.eager):
            return
        self._look()
