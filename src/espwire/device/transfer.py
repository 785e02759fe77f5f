"""Moves data into and out of flash through a loader: writes that go back after a bad block, erasing, slow reads, MD5.

A ROM answers data blocks without a sequence number, and after one bad block it refuses every other until the next
BEGIN. So what is repeated is never a block but the rest of the transfer, from a sector that nobody has confirmed.
None of this proves what the flash holds: compare the MD5 afterwards.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator

from espwire.compress import deflate_zlib
from espwire.device.double_read import ask_together
from espwire.device.erase_check import parse_md5, watch_erase
from espwire.device.loader import MAGIC_ADDRESS, Loader
from espwire.errors import CommandFailed, DeviceError, NoReply, Unsupported
from espwire.protocol.commands import (
    REQUEST,
    EraseRegion,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    GetSecurityInfo,
    ReadFlash,
    SpiFlashMd5,
)
from espwire.protocol.dialect import EraseRule
from espwire.protocol.opcodes import Op
from espwire.settings import Settings
from espwire.sizes import SECTOR, align_down, align_up

SECTORS_PER_BLOCK = 16
WORD = 4  # a ROM writes flash in words
RESTARTS_PER_TRY = 10  # restarts of one transfer, for each try that one block has
CANNOT = 0x06  # the ROM's error for a request that it understands and cannot carry out, as a BEGIN past the flash
PACKET, PACKETS_IN_FLIGHT, DIGEST_BYTES = 0x1000, 64, 16  # of the vendor stub's reads
_SLOW_READ = struct.Struct("<BBHIII")

OnBlock = Callable[[int], None]


def write_plain(
    loader: Loader, offset: int, data: bytes, *, on_block: OnBlock, encrypted: bool = False
) -> None:
    """Erase and write ``data`` at ``offset`` (a sector's start), uncompressed; the last block is padded with 0xFF.

    :param on_block: called with the bytes of ``data`` confirmed so far; it may go back after a repetition
    :param encrypted: the chip encrypts what it writes
    :raises NoReply, CommandFailed: ``settings.retry.block_attempts`` tries at one place failed
    """
    size = loader.dialect.flash_block
    attempts = Attempts(loader.settings)
    witness = watch_erase(loader, offset, len(data))
    confirmed = start = 0
    while True:
        try:
            _begin_plain(loader, offset + start, len(data) - start, encrypted)
            if witness is not None:
                witness.check_erased(offset + start)
            for sequence, at in enumerate(range(start, len(data), size)):
                block = bytes(data[at : at + size])
                loader.call(FlashData(sequence, block.ljust(size, b"\xff")))
                confirmed = min(at + size, len(data))
                on_block(confirmed)
            _await_last_block(loader)
            if witness is not None:
                witness.check_neighbours()
        except (NoReply, CommandFailed) as error:
            attempts.count(confirmed, error)
            start = confirmed = _restart(offset, confirmed - size)
            on_block(confirmed)
        else:
            return


def write_deflated(
    loader: Loader,
    offset: int,
    data: bytes,
    *,
    on_block: OnBlock,
    encrypted: bool = False,
    packed: bytes | None = None,
) -> None:
    """Like ``write_plain``, but compressed on the way; ``on_block`` counts uncompressed bytes.

    :param packed: the zlib form of ``data``, whose size is then a multiple of 4, if the caller has it already
    :raises Unsupported: the loader does not inflate
    """
    padded = bytes(data).ljust(align_up(len(data), WORD), b"\xff")
    attempts = Attempts(loader.settings)
    witness = watch_erase(loader, offset, len(padded))
    confirmed = start = 0
    while True:
        stream = packed if packed is not None and not start else deflate_zlib(padded[start:])
        blocks = _cut_stream(stream, loader.dialect.flash_block)
        last = 0
        try:
            _begin_deflated(loader, offset + start, len(padded) - start, len(blocks), encrypted)
            if witness is not None:
                witness.check_erased(offset + start)
            for sequence, (block, size) in enumerate(blocks):
                timing = loader.settings.timing
                # the ROM answers when all of it is in flash, so what it unpacks to decides
                loader.call(
                    FlashDeflData(sequence, block), timeout=timing.scaled(timing.write_per_mb, size)
                )
                confirmed, last = confirmed + size, size
                on_block(min(confirmed, len(data)))
            _await_last_block(loader)
            if witness is not None:
                witness.check_neighbours()
        except (NoReply, CommandFailed) as error:
            attempts.count(confirmed, error)
            start = confirmed = _restart(offset, confirmed - last)
            on_block(confirmed)
        else:
            return


def erase_range(loader: Loader, offset: int, size: int) -> None:
    """Erase ``size`` bytes from ``offset``, both multiples of a sector; announces data and sends none."""
    attempts = Attempts(loader.settings)
    witness = watch_erase(loader, offset, size)
    while True:
        try:
            if loader.supports(
                Op.ERASE_REGION
            ):  # a stub erases as data comes: its BEGIN alone does nothing
                timing = loader.settings.timing
                loader.call(
                    EraseRegion(offset, size), timeout=timing.scaled(timing.erase_per_mb, size)
                )
            else:
                _begin_plain(loader, offset, size, encrypted=False)
            if witness is not None:
                witness.check_erased(offset)
        except (NoReply, CommandFailed) as error:
            attempts.count(0, error)
        else:
            return


def read_slow(loader: Loader, offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of flash from ``offset``, in pieces of at most 64 bytes, one round trip each.

    A piece whose answer is lost is asked for again.

    :raises Unsupported: before anything is sent (at the first ``next``)
    """
    op, step, end = Op.READ_FLASH_SLOW, loader.dialect.slow_read, offset + size
    loader.require(op)
    exchange, judge, pack = loader.exchange, loader.check_status, _SLOW_READ.pack
    attempts = Attempts(loader.settings)
    at = offset
    while at < end:
        # the ROM answers a whole piece whatever is asked; asking less at the end keeps it inside the flash
        wanted = min(step, end - at)
        try:
            body = judge(exchange(op, pack(REQUEST, op, 8, 0, at, wanted)), step).body
        except (NoReply, CommandFailed) as error:
            attempts.count(at, error)
            continue
        at += wanted
        yield body if wanted == step else body[:wanted]


def read_packets(loader: Loader, offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of flash in packets, by the vendor stub's READ_FLASH. Nothing is sent again.

    :raises NoReply: a packet is missing
    :raises DeviceError: code ``bad-reply``: its MD5 of all is another one
    """
    timing, received, digest = loader.settings.timing, 0, hashlib.md5(usedforsecurity=False)
    loader.call(ReadFlash(offset, size, PACKET, PACKETS_IN_FLIGHT))
    while True:
        frame = loader.receive_frame(timing.default)
        expected = min(PACKET, size - received) or DIGEST_BYTES
        if frame is None or len(frame) != expected:
            raise NoReply("a packet of the flash's content is missing", command="READ_FLASH")
        if received == size:
            break
        received += len(frame)
        digest.update(frame)
        loader.send(received.to_bytes(4, "little"))
        yield frame
    loader.end_pipeline()
    if frame != digest.digest():
        raise DeviceError("what was read differs from the stub's MD5 of it", code="bad-reply")


def flash_md5(loader: Loader, offset: int, size: int) -> bytes:
    """The MD5 of ``size`` bytes of flash, 16 bytes, computed by the chip.

    :raises Unsupported: the loader cannot
    """
    timing = loader.settings.timing
    command = SpiFlashMd5(offset, size)
    (reply,) = ask_together(loader, (command,), seconds=timing.scaled(timing.md5_per_mb, size))
    return parse_md5(loader, reply)


def erase_size_to_send(rule: EraseRule, offset: int, size: int) -> int:
    """The first word of FLASH_BEGIN. The ESP8266's ROM erases the sectors up to a block's end twice over.

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


class Attempts:
    """Counts tries of each block and restarts in all, so that a bad line ends in an error and not in eternity."""

    def __init__(self, settings: Settings) -> None:
        self._allowed = settings.retry.block_attempts
        self._tries: Counter[int] = Counter()

    def count(self, place: int, error: NoReply | CommandFailed) -> None:
        """Note a failure of the block at ``place``; raises ``error`` when it was the last allowed."""
        self._tries[place] += 1
        hopeless = isinstance(error, CommandFailed) and error.status & 0xFF == CANNOT
        tired = self._tries.total() >= self._allowed * RESTARTS_PER_TRY
        if hopeless or tired or self._tries[place] >= self._allowed:
            raise error


def _restart(offset: int, sure: int) -> int:
    """Where to begin again, counted from ``offset``: the sector that holds the first byte after ``sure``.

    One block less is sure than was confirmed: if an answer came twice, the answers run one ahead of the blocks.
    """
    return max(align_down(offset + max(sure, 0), SECTOR) - offset, 0)


def _begin_plain(loader: Loader, offset: int, size: int, encrypted: bool) -> None:
    dialect, timing = loader.dialect, loader.settings.timing
    erase = erase_size_to_send(dialect.erase, offset, size)
    blocks = -(-size // dialect.flash_block)
    command = FlashBegin(erase, blocks, dialect.flash_block, offset, _fifth_word(loader, encrypted))
    loader.call(command, timeout=timing.scaled(timing.erase_per_mb, size))


def _begin_deflated(loader: Loader, offset: int, size: int, blocks: int, encrypted: bool) -> None:
    dialect, timing = loader.dialect, loader.settings.timing
    # a ROM erases this much, in whole blocks
    unpacked = size if dialect.exact_deflate_size else align_up(size, dialect.flash_block)
    command = FlashDeflBegin(
        unpacked, blocks, dialect.flash_block, offset, _fifth_word(loader, encrypted)
    )
    loader.call(command, timeout=timing.scaled(timing.erase_per_mb, size))


def _fifth_word(loader: Loader, encrypted: bool) -> int | None:
    refuse_encryption(loader, encrypted=encrypted)
    return int(encrypted) if loader.dialect.begin_words == 5 else None


def refuse_encryption(loader: Loader, *, encrypted: bool) -> None:
    """Raise where encryption is wanted and this loader has none.

    :raises Unsupported: code ``no-encrypted-write``
    """
    if encrypted and not loader.dialect.encrypted_write:
        raise Unsupported(
            f"this chip's {loader.dialect.name} loader cannot write encrypted",
            hint="Encrypt the file on the host, or use another loader: the ESP32's stub and newer chips' ROMs can.",
            code="no-encrypted-write",
        )


def _await_last_block(loader: Loader) -> None:
    """Ask something else where no MD5 follows: an answer that came twice may have confirmed the last block too early.

    Answers come in order, so the next one proves that the block is done with; a late refusal of it fails this request.
    """
    if not loader.supports(Op.SPI_FLASH_MD5):
        ask_harmless(loader)


def ask_harmless(loader: Loader) -> None:
    """Have anything answered that changes nothing: registers if they may be read, else the security information."""
    if loader.supports(Op.READ_REG):
        loader.read_reg(MAGIC_ADDRESS)
    else:
        loader.call(GetSecurityInfo(), result=loader.dialect.security_info_bytes)


def _cut_stream(packed: bytes, size: int) -> list[tuple[bytes, int]]:
    """A zlib stream cut into blocks of ``size`` bytes, each with the number of bytes that it unpacks to."""
    inflater = zlib.decompressobj()
    cuts = [packed[at : at + size] for at in range(0, len(packed), size)]
    return [(cut, len(inflater.decompress(cut))) for cut in cuts]
