"""Checks which sectors a ROM loader has really erased.

FLASH_BEGIN and FLASH_DEFL_BEGIN carry size and offset without a checksum, and erase before they answer: one flipped bit
erases other sectors, and the data that follows goes there, too. Where the ROM computes MD5s of the flash, four sectors
show that:

======================== =================== ========================================================
sector                   must be             shows
======================== =================== ========================================================
first and last of range  blank after BEGIN   an offset that is off, a size that is too small
before and after range   what they were      an offset that is off, a size that is too large
======================== =================== ========================================================

The neighbours are looked at once more after the data. What this cannot show: a larger erase whose first sector was
blank anyway, and nothing at all where the ROM has no MD5 (ESP8266, Secure Download Mode). See docs/protocol.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress

from espwire.device.double_read import ask_together, ask_twice
from espwire.device.loader import Loader
from espwire.errors import CommandFailed, DeviceError, VerifyError
from espwire.protocol.commands import Reply, SpiFlashMd5
from espwire.protocol.dialect import Md5Form
from espwire.protocol.opcodes import Op
from espwire.sizes import SECTOR, align_down, align_up

BLANK_SECTOR = hashlib.md5(b"\xff" * SECTOR, usedforsecurity=False).digest()


class EraseWitness:
    """The sectors to look at for one range, ``start`` to ``end``; ``neighbours``: their MD5 before the erase."""

    def __init__(self, loader: Loader, start: int, end: int, neighbours: dict[int, bytes]) -> None:
        self.loader, self.start, self.end, self.neighbours = loader, start, end, neighbours

    def check_erased(self, start: int) -> None:
        """After a BEGIN for ``start`` to the end of the range, before any data.

        :raises VerifyError: code ``wrong-erase``
        """
        ends = {align_down(start, SECTOR): BLANK_SECTOR, self.end - SECTOR: BLANK_SECTOR}
        self._compare(ends | self.neighbours)

    def check_neighbours(self) -> None:
        """After the data.

        :raises VerifyError: code ``wrong-erase``
        """
        self._compare(self.neighbours)

    def _compare(self, expected: Mapping[int, bytes]) -> None:
        commands = [SpiFlashMd5(address, SECTOR) for address in expected]
        replies = ask_together(self.loader, commands)
        odd = [
            c
            for c, reply in zip(commands, replies, strict=True)
            if not self._holds(reply, expected[c.offset])
        ]
        if not odd:
            return
        again = [
            parse_md5(self.loader, reply) for reply in ask_twice(self.loader, odd)
        ]  # an answer can be damaged
        wrong = [
            c.offset for c, digest in zip(odd, again, strict=True) if digest != expected[c.offset]
        ]
        if wrong:
            raise build_wrong_erase(self.start, self.end, wrong)

    def _holds(self, reply: Reply, digest: bytes) -> bool:
        wanted = digest.hex().encode() if self.loader.dialect.md5 is Md5Form.HEX else digest
        return reply.body.lower() == wanted


def watch_erase(loader: Loader, offset: int, size: int) -> EraseWitness | None:
    """What to look at when ``size`` bytes from ``offset`` are erased by a BEGIN; None: this loader gives no way to.

    A stub erases as data comes, and ours checks its requests.
    """
    if not erases_unchecked(loader) or not loader.supports(Op.SPI_FLASH_MD5) or size <= 0:
        return None
    start, end = align_down(offset, SECTOR), align_up(offset + size, SECTOR)
    neighbours = {}
    for address in (start - SECTOR, end):
        if address >= 0:
            with suppress(CommandFailed):  # past the end of the flash
                command = SpiFlashMd5(address, SECTOR)
                neighbours[address] = parse_md5(loader, ask_twice(loader, (command,))[0])
    return EraseWitness(loader, start, end, neighbours)


def erases_unchecked(loader: Loader) -> bool:
    """Whether BEGIN erases at once, on a request without a checksum: as every ROM loader does."""
    return loader.dialect.sync_value != 0


def parse_md5(loader: Loader, reply: Reply) -> bytes:
    """The digest in a reply to SPI_FLASH_MD5, 16 bytes.

    :raises DeviceError: code ``bad-reply``
    """
    if loader.dialect.md5 is not Md5Form.HEX:
        return reply.body
    try:
        return bytes.fromhex(reply.body.decode("ascii"))
    except ValueError:
        raise DeviceError(
            f"the chip's MD5 is not a number: {reply.body!r}", code="bad-reply"
        ) from None


def build_wrong_erase(start: int, end: int, wrong: list[int]) -> VerifyError:
    """The error for an erase, or a write, that went somewhere else."""
    shown = ", ".join(f"{address:#x}" for address in sorted(wrong))
    return VerifyError(
        f"the chip did not erase {start:#x}..{end:#x} as requested (see the sector at {shown}): its request was damaged"
        " on the way, and other sectors may have been erased",
        ranges=tuple((address, address + SECTOR) for address in sorted(wrong)),
        hint="Write everything again that the flash holds: bootloader, partition table, application and data.",
        code="wrong-erase",
        requested=[start, end],
    )
