"""A virtual chip with hardware defects: cut wires, a weak supply, a program that crashes. ``config.DEFECTS`` lists them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from espwire.chips.model import Chip
from espwire.virtual.boot import Reason, Straps, panic_text
from espwire.virtual.chip import State, VirtualChip
from espwire.virtual.config import VirtualOptions
from espwire.virtual.efuses import ChipConfig
from espwire.virtual.faults import Faults
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.soc.mask_rom import LoadedRom

BREAKDOWN_S = 0.05  # from the boot message to the drop of the supply voltage
CRASH_S = 0.4  # from the program's start to its crash
NOISE_S = 0.05
BROWN_OUT_TEXT = b"\r\nBrownout detector was triggered\r\n\r\n"


if TYPE_CHECKING:
    from espwire.efuse.store import VirtualStore


class DefectiveChip(VirtualChip):
    """A chip with ``options.defects``, or whose application logs at ``options.app_baud``."""

    def __init__(
        self,
        chip: Chip,
        config: ChipConfig,
        flash: NorFlash,
        options: VirtualOptions,
        faults: Faults,
        mask_rom: LoadedRom | None = None,
        fuses: VirtualStore | None = None,
    ) -> None:
        self._defects = options.defects
        self._app_logs = self._rom_boots = False
        self._noise = random.Random(options.seed)
        super().__init__(chip, config, flash, options, faults, mask_rom, fuses)
        if "held" in self._defects:
            self._hold()
        if "brown-out" in self._defects:
            self._restart(Reason.POWER_ON)
        if "inverted" in self._defects:
            self.board.set_lines(dtr=True, rts=True)
        if "noise" in self._defects:
            self.state = State.GONE
            self._send_noise()

    @property
    def text_baud(self) -> int:
        """The application's own baud rate once it logs."""
        return (
            self.options.app_baud if self._app_logs and self.options.app_baud else super().text_baud
        )

    def receive(self, t: float, data: bytes, rate: int | None = None) -> None:
        """Nothing arrives through a cut wire."""
        if self._defects & {"tx-dead", "noise"}:
            self.advance(t)
        else:
            super().receive(t, data, rate)

    def set_lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The lines as the adapter outputs them."""
        if "noise" in self._defects:
            self.advance(t)
        elif "inverted" in self._defects:
            super().set_lines(t, dtr=not dtr, rts=not rts)
        else:
            super().set_lines(t, dtr=dtr, rts=rts)

    def send(self, data: bytes, t: float | None = None) -> None:
        """Nothing leaves through a cut wire."""
        quiet = "quiet-rom" in self._defects and self._rom_boots
        if not quiet and not self._defects & {"mute", "noise"}:
            super().send(data, t)

    def _restart(self, reason: Reason, **keywords: Any) -> None:
        stays_low = "no-pull-up" in self._defects and self.state is State.RESET
        if "held" not in self._defects and not stays_low:
            self._app_logs = False
            super()._restart(reason, **keywords)

    def _boot(self, reason: Reason, straps: Straps) -> None:
        booting = self.state is State.BOOTING
        weak = booting and "brown-out" in self._defects
        if weak:
            self._backlog.clear()  # the chip resets before it can answer
        self._rom_boots = True
        super()._boot(reason, straps)
        self._rom_boots = False
        if weak:
            running = self.state is State.APP
            self._enter(State.GONE)
            self._after(BREAKDOWN_S, lambda: self._drop_supply(running))

    def _drop_supply(self, running: bool) -> None:
        if self.state is State.GONE:
            if running and self.has_app:
                self.send(BROWN_OUT_TEXT)
            self._restart(Reason.BROWN_OUT)

    def _enter(self, state: State) -> None:
        super()._enter(state)
        if state is State.APP and "crash-loop" in self._defects:
            self._after(CRASH_S, self._crash_app)

    def _crash_app(self) -> None:
        if self.state is State.APP:
            fault = (
                "Load access fault" if self.chip.cpu.architecture == "riscv" else "LoadProhibited"
            )
            self.send(panic_text(fault, 0, 5))
            self._restart(Reason.CRASH)

    def _log(self) -> None:
        self._app_logs |= self.state is State.APP
        super()._log()

    def _send_noise(self) -> None:
        VirtualChip.send(self, self._noise.randbytes(self._noise.randint(1, 6)))
        self._queue.at(self.now + NOISE_S, self._send_noise)
