"""A program in the virtual chip's RAM, however it is run: by an engine, or imitated. What it is given, what it must do.

``VirtualOptions.stub`` chooses: ``twin`` (our own stub by its behavioural twin, the vendor's stub by its imitation,
all else on the engine), ``engine``, ``vendor`` (whatever is not ours is taken for the vendor's stub), ``off`` (nothing
runs).
``find_program`` decides; a module that can stand in for a program (``twin.py``, ``vendor.py``) has
``start_program(services, entry)``, which gives None when the program in RAM is not the one that it knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Literal, Protocol, cast

from espwire.virtual.memory_map import find_soc

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.virtual.efuses import ChipConfig
    from espwire.virtual.nor_flash import NorFlash
    from espwire.virtual.registers import Registers
    from espwire.virtual.spi import SpiController

StubMode = Literal["twin", "engine", "vendor", "off"]
STAND_INS: dict[StubMode, tuple[str, ...]] = {
    "twin": (
        "espwire.virtual.programs.stub_model",
        "espwire.virtual.programs.first_stage",
        "espwire.virtual.programs.vendor_stub",
    ),
    "engine": (),
    "vendor": (
        "espwire.virtual.programs.stub_model",
        "espwire.virtual.programs.first_stage",
        "espwire.virtual.programs.vendor_stub",
    ),
    "off": (),
}
ENTRY_INSTRUCTION = 0x36  # the first byte of Xtensa's ``entry``


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a program finds when it starts at ``t``.

    ``baud`` is what the UART runs at, ``sent_until`` when the last byte that the ROM sent has left; ``received`` waits
    in the receive FIFO. ``usb``: the host is at the chip's own USB port, not at its UART. ``encrypt``: the chip's flash
    encryption, where it has a key. ``uploads``: address and size of each upload to RAM. ``send(t, data, baud)``:
    ``data`` leaves back to back, its first bit at ``t``. ``lost(count)``: so many received bytes found no room.
    """

    t: float
    chip: Chip
    config: ChipConfig
    flash: NorFlash
    spi: SpiController
    registers: Registers
    baud: int
    sent_until: float
    received: bytes
    usb: bool
    encrypt: Callable[[int, bytes], bytes] | None
    uploads: tuple[tuple[int, int], ...]
    mode: StubMode
    send: Callable[[float, bytes, int], None]
    lost: Callable[[int], None]


@dataclass(frozen=True)
class Ending:
    """Why a program does not go on after ``t``: a reset by itself or a watchdog, a crash, or nothing can run it."""

    t: float
    how: Literal["reset", "watchdog", "crash", "refused"]
    fault: str = ""
    address: int = 0
    pc: int = 0


class Program(Protocol):
    """Something that runs in the chip instead of its loader."""

    ended: Ending | None

    @property
    def runs_freely(self) -> bool:
        """Whether it may send without being asked."""

    @property
    def busy(self) -> bool:
        """Whether it works on a request."""

    @property
    def baud(self) -> int:
        """The rate that its UART runs at now."""

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte comes every ten bit times of ``rate``."""

    def run_until(self, t: float) -> None:
        """Do all that is due up to ``t``, or set ``ended``."""

    def next_event(self) -> float | None:
        """When it should be asked to run again; None: not before bytes come."""


def find_program(services: Services, entry: int) -> Program | None:
    """The program at ``entry``, started; None where nothing can run it."""
    for name in STAND_INS[services.mode]:
        found = cast("Program | None", import_module(name).start_program(services, entry))
        if found is not None:
            return found
    if services.mode == "off" or find_soc(services.chip) is None or _has_windows(services, entry):
        return None
    from espwire.virtual.soc.program import EngineProgram

    return EngineProgram(services, entry)


def load_stand_ins(mode: StubMode) -> None:
    """Import now what ``find_program`` may need: esptool waits 0.2 s for the answer when it starts a stub."""
    for name in (*STAND_INS[mode], "espwire.virtual.soc.program"):
        import_module(name)


def _has_windows(services: Services, entry: int) -> bool:
    """Whether the first instruction is ``entry``, with which a function of the windowed ABI begins."""
    chip = services.chip
    windowed = chip.cpu.architecture == "xtensa" and chip.cpu.isa != "lx106"
    return windowed and services.registers.ram.read(entry, 1)[0] == ENTRY_INSTRUCTION
