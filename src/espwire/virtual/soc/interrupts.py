"""How the interrupt of a peripheral reaches the CPU: the matrix that maps sources to lines, and the controllers.

Only sources that a ROM's loader uses have a level: UART 0. Sources: ESP-IDF's interrupt_matrix, intpri, plic and clic
register headers of the chips.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol

from espwire.virtual.cpu.memory import Memory
from espwire.virtual.soc.mask_rom import RomInterrupts

SOURCES, LINES = 128, 32
UNCONNECTED = 16  # an internal line of the Xtensa cores, which no peripheral uses
PRIORITY, THRESHOLD = 0x10, 0x90  # offsets behind the register that enables lines
CLIC_LINES, CLIC_THRESHOLD, CLIC_CONTROL = 64, 0x08, 0x1000
CLIC_ENABLE, CLIC_VECTORED, CLIC_LEVEL_SHIFT, CLIC_THRESHOLD_SHIFT = 1 << 8, 1 << 16, 24, 24


class Requests(Protocol):
    """The core of a RISC-V chip, which takes one line at a time (``riscv.Interrupts``)."""

    def request(self, line: int, *, level: int = 1, vectored: bool = False) -> None:
        """The most urgent line; 0: none."""


class Lines(Protocol):
    """The core of an Xtensa chip, whose lines have fixed levels (``xtensa_interrupts.Interrupts``)."""

    def set_line(self, number: int, on: bool) -> None:
        """A line changes its level."""


class Controller(Protocol):
    """What stands between UART 0 and the core."""

    def set_uart(self, on: bool) -> None:
        """The level of UART 0's interrupt."""


class LineMatrix:
    """The matrix of an Xtensa chip; the ESP8266 has none."""

    def __init__(self, facts: RomInterrupts, memory: Memory, core: Lines) -> None:
        self._facts, self._core = facts, core
        self._line = facts.uart if facts.matrix is None else UNCONNECTED
        self._on = False
        if facts.matrix is not None:
            at = facts.matrix + 4 * facts.uart
            memory.ports[at], memory.sinks[at] = lambda: self._line, self._connect

    def set_uart(self, on: bool) -> None:
        """The level of UART 0's interrupt."""
        if on != self._on:
            self._on = on
            self._core.set_line(self._line, on)

    def _connect(self, value: int) -> None:
        self._core.set_line(self._line, False)
        self._line = value % LINES
        self._core.set_line(self._line, self._on)


class InterruptController:
    """The matrix and the controller of a RISC-V chip."""

    def __init__(self, facts: RomInterrupts, memory: Memory, core: Requests) -> None:
        self._facts, self._core = facts, core
        self._on = False  # the source of UART 0
        self._map = [0] * SOURCES
        self._enabled = self._threshold = 0
        self._priority = [0] * LINES
        self._control = [0] * CLIC_LINES
        if facts.matrix is not None:
            self._connect(memory, facts.matrix, self._map)
        if facts.priorities is not None:
            self._connect(memory, facts.priorities + PRIORITY, self._priority)
            memory.ports[facts.priorities] = lambda: self._enabled
            memory.sinks[facts.priorities] = self._enable
            memory.ports[facts.priorities + THRESHOLD] = lambda: self._threshold
            memory.sinks[facts.priorities + THRESHOLD] = self._set_threshold
        if facts.clic is not None:
            self._connect(memory, facts.clic + CLIC_CONTROL, self._control)
            memory.ports[facts.clic + CLIC_THRESHOLD] = lambda: self._threshold
            memory.sinks[facts.clic + CLIC_THRESHOLD] = self._set_threshold

    def set_uart(self, on: bool) -> None:
        """The level of UART 0's interrupt."""
        if on != self._on:
            self._on = on
            self._update()

    def _connect(self, memory: Memory, base: int, words: list[int]) -> None:
        """Let the program read and write ``words`` from ``base`` on."""

        def write(number: int, value: int) -> None:
            words[number] = value
            self._update()

        for number in range(len(words)):
            memory.ports[base + 4 * number] = partial(words.__getitem__, number)
            memory.sinks[base + 4 * number] = partial(write, number)

    def _enable(self, value: int) -> None:
        self._enabled = value
        self._update()

    def _set_threshold(self, value: int) -> None:
        self._threshold = value
        self._update()

    def _update(self) -> None:
        facts = self._facts
        line = facts.uart if facts.matrix is None else self._map[facts.uart]
        if not self._on or not line:
            self._core.request(0)
        elif facts.clic is not None:
            control = self._control[line % CLIC_LINES]
            level = control >> CLIC_LEVEL_SHIFT
            urgent = level > self._threshold >> CLIC_THRESHOLD_SHIFT
            on = bool(control & CLIC_ENABLE) and urgent
            self._core.request(
                line if on else 0, level=level, vectored=bool(control & CLIC_VECTORED)
            )
        else:
            urgent = self._priority[line % LINES] >= self._threshold
            self._core.request(line if urgent and self._enabled >> line & 1 else 0)
