"""How a ROM loader erases, programs and reads its flash: SPI transactions in simulated time. No command is parsed here.

Every method that takes time is a generator: it yields the time at which it wants to go on, so that a reset or a loss
of power can come between two transactions, as it can in silicon.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

from espwire.bits import align_down, align_up
from espwire.wire.dialect import EraseRule

if TYPE_CHECKING:
    from espwire.virtual.flash import NorFlash

Work = Generator[float, float, float]  # yields when to go on, gets the time then, returns the time at its end

SECTOR, BLOCK, PAGE = 0x1000, 0x10000, 0x100
SECTORS_PER_BLOCK = BLOCK // SECTOR
WRITE_ENABLE = 0x06
PROGRAM, ERASE_SECTOR, ERASE_BLOCK = 0x02, 0x20, 0xD8
# the same with four address bytes, for what lies above 16 MB
LONG = {PROGRAM: 0x12, ERASE_SECTOR: 0x21, ERASE_BLOCK: 0xDC}
LONG_FROM = 1 << 24


def count_erased(rule: EraseRule, start: int, size: int) -> int:
    """Sectors that FLASH_BEGIN erases from ``start`` on when asked for ``size`` bytes.

    The ESP8266's ROM erases the sectors up to the next 64 KiB block, forgets to subtract them, and then erases the
    full number from there on: as many again as lie before the block, at most as many as were asked for. So the
    shortened size that clients send comes out right (one sector too much where the true number is odd and small).

    >>> count_erased(EraseRule.ESP8266_HEAD_BUG, 0x1000, 0x11000), count_erased(EraseRule.TRUE_SIZE, 0x1000, 0x11000)
    (32, 17)
    """
    sectors = align_up(size, SECTOR) // SECTOR
    if rule is EraseRule.TRUE_SIZE:
        return sectors
    return sectors + min(sectors, SECTORS_PER_BLOCK - start // SECTOR % SECTORS_PER_BLOCK)


class RomFlash:
    """The flash through the ROM's own routines."""

    def __init__(self, flash: NorFlash, *, long_addresses: bool) -> None:
        self.flash = flash
        self._long = long_addresses

    def erase(self, t: float, start: int, sectors: int) -> Work:
        """Erase ``sectors`` sectors from the one that holds ``start``: by 64 KiB where that fits, else by 4 KiB."""
        address = align_down(start, SECTOR)
        end = address + sectors * SECTOR
        while address < end:
            whole = address % BLOCK == 0 and end - address >= BLOCK
            self._modify(t, ERASE_BLOCK if whole else ERASE_SECTOR, address, b"")
            t = yield self.flash.busy_until
            address += BLOCK if whole else SECTOR
        return t

    def program(self, t: float, address: int, data: bytes) -> Work:
        """Program ``data``, page by page; returns when the last page is in flash."""
        position = 0
        while position < len(data):
            room = PAGE - (address + position) % PAGE
            piece = data[position : position + room]
            self._modify(t, PROGRAM, address + position, piece)
            t = yield self.flash.busy_until
            position += len(piece)
        return t

    def read(self, t: float, address: int, size: int) -> bytes:
        """Bytes of flash, as the flash gives them."""
        return self.flash.read_array(t, address if self._long else address % LONG_FROM, size)

    def _modify(self, t: float, opcode: int, address: int, data: bytes) -> None:
        self.flash.execute(t, WRITE_ENABLE)
        self.flash.execute(t, self._opcode(opcode, address), address=address, data=data)

    def _opcode(self, opcode: int, address: int) -> int:
        return LONG[opcode] if self._long and address >= LONG_FROM else opcode
