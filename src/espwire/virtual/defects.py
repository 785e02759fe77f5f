"""A virtual chip with something physically wrong: cut wires, a weak supply, a program that crashes. No diagnosis."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from espwire.virtual.boot import Reason, panic_text
from espwire.virtual.chip import State, VirtualChip

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.virtual.boot import Straps
    from espwire.virtual.config import VirtualOptions
    from espwire.virtual.efuses import ChipConfig
    from espwire.virtual.faults import Faults
    from espwire.virtual.nor_flash import NorFlash

# ail → what it is
AILS = {
    "tx-dead": "the wire from the host's TX to the chip's RX is cut",
    "mute": "the wire from the chip's TX to the host's RX is cut",
    "quiet-rom": "the ROM's boot messages are switched off, by a pin or by eFuse",
    "brown-out": "the supply breaks down each time that the chip starts",
    "held": "something pulls EN low all the time",
    "no-pull-up": "EN has no pull-up: once pulled low it stays low",
    "inverted": "the adapter's DTR and RTS have the wrong polarity",
    "crash-loop": "the program in flash crashes soon after its start, and starts again",
    "noise": "the chip has no supply, and the host's RX picks up noise",
}
BREAKDOWN_S = 0.05  # from the boot message to the breakdown of the supply
CRASH_S = 0.4  # from the program's start to its crash
NOISE_S = 0.05
BROWN_OUT_TEXT = b"\r\nBrownout detector was triggered\r\n\r\n"


class DefectiveChip(VirtualChip):
    """A chip with ``options.ails``, or whose program logs at ``options.app_baud``."""

    def __init__(
        self,
        chip: Chip,
        config: ChipConfig,
        flash: NorFlash,
        options: VirtualOptions,
        faults: Faults,
    ) -> None:
        self._ails = options.ails
        self._app_talks = self._rom_talks = False
        self._noise = random.Random(options.seed)
        super().__init__(chip, config, flash, options, faults)
        if "held" in self._ails:
            self._hold()
        if "brown-out" in self._ails:
            self._restart(Reason.POWER_ON)
        if "inverted" in self._ails:
            self.front.lines(dtr=True, rts=True)
        if "noise" in self._ails:
            self.state = State.GONE
            self._rustle()

    @property
    def text_baud(self) -> int:
        """The program's own rate once it talks."""
        return (
            self.options.app_baud
            if self._app_talks and self.options.app_baud
            else super().text_baud
        )

    def receive(self, t: float, data: bytes, rate: int | None = None) -> None:
        """Nothing arrives through a cut wire."""
        if self._ails & {"tx-dead", "noise"}:
            self.advance(t)
        else:
            super().receive(t, data, rate)

    def lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The lines as the adapter gives them out."""
        if "noise" in self._ails:
            self.advance(t)
        elif "inverted" in self._ails:
            super().lines(t, dtr=not dtr, rts=not rts)
        else:
            super().lines(t, dtr=dtr, rts=rts)

    def send(self, data: bytes, t: float | None = None) -> None:
        """Nothing leaves through a cut wire."""
        quiet = "quiet-rom" in self._ails and self._rom_talks
        if not quiet and not self._ails & {"mute", "noise"}:
            super().send(data, t)

    def _restart(self, reason: Reason, **keywords: Any) -> None:
        stays_low = "no-pull-up" in self._ails and self.state is State.RESET
        if "held" not in self._ails and not stays_low:
            self._app_talks = False
            super()._restart(reason, **keywords)

    def _boot(self, reason: Reason, straps: Straps) -> None:
        booting = self.state is State.BOOTING
        weak = booting and "brown-out" in self._ails
        if weak:
            self._backlog.clear()  # it does not live to answer what waits
        self._rom_talks = True
        super()._boot(reason, straps)
        self._rom_talks = False
        if weak:
            running = self.state is State.APP
            self._enter(State.GONE)
            boot = self.boots
            self._agenda.at(
                self.now + BREAKDOWN_S,
                lambda: self._break_down(running) if boot == self.boots else None,
            )

    def _break_down(self, running: bool) -> None:
        if self.state is State.GONE:
            if running and self.has_app:
                self.send(BROWN_OUT_TEXT)
            self._restart(Reason.BROWN_OUT)

    def _enter(self, state: State) -> None:
        super()._enter(state)
        if state is State.APP and "crash-loop" in self._ails:
            boot = self.boots
            self._agenda.at(
                self.now + CRASH_S, lambda: self._fall_over() if boot == self.boots else None
            )

    def _fall_over(self) -> None:
        if self.state is State.APP:
            fault = (
                "Load access fault" if self.chip.cpu.architecture == "riscv" else "LoadProhibited"
            )
            self.send(panic_text(fault, 0, 5))
            self._restart(Reason.CRASH)

    def _log(self, boot: int) -> None:
        if self.state is State.APP and boot == self.boots:
            self._app_talks = True
        super()._log(boot)

    def _rustle(self) -> None:
        VirtualChip.send(self, self._noise.randbytes(self._noise.randint(1, 6)))
        self._agenda.at(self.now + NOISE_S, self._rustle)
