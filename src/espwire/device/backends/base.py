"""`FlashBackend`: what a loader can do with flash, behind one interface, and the limits that plans are made from.

There is one implementation per kind of loader: ``rom.py``, ``vendor_stub.py`` and ``stub.py``. ``choose_backend``
picks the one that fits the loader that answers; everything above it uses the interface alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol

from espwire.compress import LzmaForm
from espwire.device.loader import Attempts
from espwire.device.spi import SpiCommand
from espwire.errors import CommandFailed, NoReply, Unsupported, VerifyError
from espwire.events import Report, silent
from espwire.protocol.dialect import EraseRule
from espwire.protocol.stub import Codec
from espwire.settings import RetryPolicy
from espwire.sizes import SECTOR, Ranges, align_up

SECTORS_PER_BLOCK = 16
WORD = 4  # a loader programs flash in words
CANNOT = (
    0x06  # the ROM's error for a request that it cannot carry out, such as a BEGIN past the end
)

Progress = Callable[[int], None]


def ignore(done: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, kw_only=True)
class FlashLimits:
    """What one loader can do, and the figures that estimates are made from. Sizes in bytes.

    ``loader`` is its name for messages. ``block_size``: the last block of a write is padded to it.
    ``can_resume``: ``written_until`` of a failed write is certain. ``address_bits``: 24 reach 16 MB;
    ``refuses_beyond``: the loader refuses addresses behind them, so no consent helps.
    ``checksummed``: requests and replies carry a CRC, so a single reply is proof.
    ``erases_at_begin``: a request without a checksum erases at once, before any data comes.
    ``digests_at_once``: ``digests`` of many pieces costs one request.
    ``frame_payload``, ``frame_head``, ``open_size``, ``reply_size``: data per frame, its header, and the bodies of the
    opening request and of replies. ``receives_ahead``: data is received while earlier data is being programmed.
    ``masks_frames``: the data is changed so that it needs few escapes, which are not counted before.
    ``cpu_hz``: the chip's clock, 0: unknown. ``lzma``: the form of LZMA streams that it can decompress.
    ``ram``: half-open ranges of RAM that it occupies, as far as it does not belong to the ROM.
    """

    loader: str
    can_read: bool
    can_digest: bool
    can_compress: bool
    can_encrypt: bool
    can_resume: bool
    can_encrypt_compressed: bool = True
    block_size: int
    address_bits: int = 24
    refuses_beyond: bool = False
    checksummed: bool = False
    erases_at_begin: bool = False
    erase_rule: EraseRule = EraseRule.TRUE_SIZE
    digests_at_once: bool = False
    frame_payload: int
    frame_head: int
    open_size: int
    reply_size: int
    receives_ahead: bool = False
    masks_frames: bool = False
    cpu_hz: int = 0
    lzma: LzmaForm | None = None
    ram: tuple[tuple[int, int], ...] = ()

    @property
    def reach(self) -> int:
        """One past the last flash address."""
        return 1 << self.address_bits

    def describe_reach(self, what: str) -> str:
        """The text for ``what``, which is past that address."""
        return f"{what}, but this {self.loader} loader's addresses end at {self.reach:#x}"

    @property
    def can_verify(self) -> bool:
        """Whether flash content can be checked at all."""
        return self.can_digest or self.can_read

    def find_erased_end(self, address: int, size: int) -> int:
        """Where erasing really ends: the ESP8266's ROM may erase one sector more than requested.

        For a short range with an odd number of sectors no request avoids that.
        """
        if self.erase_rule is EraseRule.TRUE_SIZE:
            return align_up(address + size, SECTOR)
        counted = erase_size_to_send(self.erase_rule, address, size) // SECTOR
        head = min(SECTORS_PER_BLOCK - address // SECTOR % SECTORS_PER_BLOCK, counted)
        return address + (counted + head) * SECTOR


class FlashBackend(Protocol):
    """Flash as one loader reaches it. Addresses and sizes in bytes; ``progress`` receives the bytes done so far."""

    @property
    def limits(self) -> FlashLimits:
        """What this loader can do."""

    def erase(self, start: int, size: int, *, progress: Progress = ignore) -> None:
        """Erase whole sectors, also the whole flash: a command for that would not report progress."""

    def write(
        self,
        start: int,
        data: bytes,
        *,
        packed: bytes | None = None,
        codec: Codec | None = None,
        encrypted: bool = False,
        progress: Progress = ignore,
    ) -> None:
        """Erase the sectors of the range and program ``data``; ``start`` is a sector's start.

        Blocks that fail are sent again. Nothing here proves what the flash holds: verify it afterwards.

        :param packed: ``data`` as zlib stream, if it may be sent compressed; ``len(data)`` is then a multiple of 4
        :param codec: how it is sent, where the loader has a choice: raw, until a transfer fails; LZMA, compressed while it
            is sent, only with ``limits.lzma``; None: ``packed`` if there is one
        :param encrypted: the chip encrypts what it programs
        :param progress: may go back after a repetition
        :raises NoReply, CommandFailed: too many attempts failed; ``written_until`` is the address up to which the
            data is in flash
        """

    def read(
        self, start: int, size: int, *, progress: Progress = ignore, report: Report = silent
    ) -> Generator[bytes, None, None]:
        """The content in order, checked, resumed after lost replies. Close it to end it early.

        :param report: receives a warning ``reread`` for each piece that is read again
        :raises VerifyError: a piece keeps differing from the digest that the chip computes
        """

    def digests(self, start: int, size: int, piece: int) -> list[bytes]:
        """The MD5 of each ``piece`` bytes (a multiple of 4, or all), computed by the chip.

        :raises Unsupported: this loader cannot: see ``limits.can_digest``
        """

    def digests_of(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The MD5 of each half-open range, computed by the chip; the ranges are short.

        :raises Unsupported: this loader cannot: see ``limits.can_digest``
        """

    def find_written(self, start: int, size: int) -> Ranges | None:
        """Ranges that are not blank, as exactly as is cheap; () if all is 0xFF, None if this loader has no way to find out."""

    def spi(self, commands: Sequence[SpiCommand]) -> int:
        """Run SPI transactions on the flash chip; what the last one read, its first byte in bits 7..0."""


def holds(backend: FlashBackend, start: int, data: bytes) -> bool:
    """Whether the chip's MD5 shows that the flash holds ``data``.

    Two equal results decide where replies carry no checksum: a damaged request is answered with the MD5 of another
    place, and a damaged reply is one more wrong digest. "No" always takes two.

    :raises Unsupported: this loader computes no MD5
    """
    expected = hashlib.md5(data, usedforsecurity=False).digest()
    needed, same, other = 1 if backend.limits.checksummed else 2, 0, 0
    while same < needed and other < 2:
        equal = backend.digests(start, len(data), len(data)) == [expected]
        same, other = same + equal, other + (not equal)
    return same == needed


def erase_size_to_send(rule: EraseRule, offset: int, size: int) -> int:
    """The size field of FLASH_BEGIN. The ESP8266's ROM erases the sectors up to a block's end twice over.

    Source: protocol.toml [erase_size_esp8266_rom].

    >>> erase_size_to_send(EraseRule.ESP8266_HEAD_BUG, 0, 0x20000)
    65536
    """
    if rule is EraseRule.TRUE_SIZE:
        return size
    sectors = -(-size // SECTOR)
    head = min(SECTORS_PER_BLOCK - offset // SECTOR % SECTORS_PER_BLOCK, sectors)
    if sectors < 2 * head:
        return (sectors + 1) // 2 * SECTOR
    return (sectors - head) * SECTOR


def refuse_encryption(limits: FlashLimits, *, encrypted: bool) -> None:
    """Raise if encryption is requested from a loader that has none.

    :raises Unsupported: code ``no-encrypted-write``
    """
    if encrypted and not limits.can_encrypt:
        raise Unsupported(
            f"this chip's {limits.loader} loader cannot write encrypted",
            hint="Encrypt the file on the host, or use another loader: the ESP32's stub and newer chips' ROMs can.",
            code="no-encrypted-write",
        )


def build_wrong_erase(start: int, end: int, wrong: list[int]) -> VerifyError:
    """The error for an erase, or a write, that hit other sectors than requested."""
    shown = ", ".join(f"{address:#x}" for address in sorted(wrong))
    return VerifyError(
        f"the chip did not erase {start:#x}..{end:#x} as requested (see the sector at {shown}): the request was damaged"
        " on the line, and other sectors may have been erased",
        ranges=tuple((address, address + SECTOR) for address in sorted(wrong)),
        hint="Write everything in flash again: bootloader, partition table, application and data.",
        code="wrong-erase",
        requested=[start, end],
    )


def count_restart(attempts: Attempts, error: NoReply | CommandFailed, position: int) -> None:
    """Count a failed transfer; raise ``error`` if no attempt is left, or if the chip can never do it."""
    if isinstance(error, CommandFailed) and error.status & 0xFF == CANNOT:
        raise error
    attempts.failed(error, position)


def limit_restarts(retry: RetryPolicy) -> Attempts:
    """The attempts of one transfer that restarts where it failed."""
    return Attempts(retry.block_attempts, retry.restarts_per_block_attempt * retry.block_attempts)
