"""The interface of programs in the virtual chip's RAM: what they get from the chip, and what the chip calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from espwire.chips.model import Chip
from espwire.virtual.efuses import ChipConfig
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.registers import Registers
from espwire.virtual.spi import SpiController

StubMode = Literal["twin", "engine", "vendor", "off"]
Encrypt = Callable[[bytes, int], bytes]  # plaintext and address → what flash encryption stores


@dataclass(frozen=True, kw_only=True)
class Services:
    """The chip as a program finds it when it starts at time ``t``.

    ``baud`` is the UART's baud rate, ``sent_until`` the time at which the ROM's last byte has left, ``received`` the
    contents of the receive FIFO. ``usb``: the host is connected to the chip's own USB port, not to its UART.
    ``encrypt`` is None without a flash encryption key. ``uploads``: address and size of each upload to RAM.
    ``send(t, data, baud)`` transmits ``data`` back to back, its first bit at ``t``; ``lost(count)`` counts received
    bytes for which there was no room.
    """

    chip: Chip
    config: ChipConfig
    flash: NorFlash
    spi: SpiController
    registers: Registers
    mode: StubMode
    usb: bool
    send: Callable[[float, bytes, int], None]
    lost: Callable[[int], None]
    encrypt: Encrypt | None = None
    t: float = 0.0
    baud: int = 115200
    sent_until: float = 0.0
    received: bytes = b""
    uploads: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Ending:
    """Why a program ended at ``t``: a reset by itself or a watchdog, a crash, code that cannot be run here, or a jump
    to another program at ``address``, which gets ``services``."""

    t: float
    how: Literal["reset", "watchdog", "crash", "refused", "jump"]
    fault: str = ""
    address: int = 0
    pc: int = 0
    services: Services | None = None


class Program(Protocol):
    """A program that runs in place of the ROM loader."""

    ended: Ending | None

    @property
    def runs_freely(self) -> bool:
        """Whether it may send without a request."""

    @property
    def busy(self) -> bool:
        """Whether it is working on a request."""

    @property
    def baud(self) -> int | None:
        """Current baud rate of its UART; None while it measures that of the sender."""

    def receive(self, t: float, data: bytes, rate: int) -> None:
        """The first bit of ``data`` arrives at ``t``; a byte follows every ten bit times of ``rate``."""

    def run_until(self, t: float) -> None:
        """Do everything that is due up to ``t``, or set ``ended``."""

    def next_event(self) -> float | None:
        """When ``run_until`` is due next; None: not before more bytes arrive."""
