"""The ROM loader as `FlashBackend`, with the block commands that the vendor's stub shares.

**Writing.** FLASH_BEGIN erases and announces blocks; each FLASH_DATA is answered when its block is in flash. Blocks
carry a sequence number, replies do not, and after one bad block the ROM refuses all others until the next BEGIN. So a
repetition never sends a block again but starts a new BEGIN, at the sector of the last block that is surely in flash.
That is one block less than was confirmed: if a reply came twice, the confirmations run one ahead of the blocks.

**Erasing.** FLASH_BEGIN and FLASH_DEFL_BEGIN carry size and offset without a checksum, and erase before they are
answered: one flipped bit erases other sectors, and the data goes there too. Where the ROM computes MD5s of the flash,
four sectors reveal that:

======================== =================== ========================================================
sector                   must be             reveals
======================== =================== ========================================================
first and last of range  blank after BEGIN   a wrong offset, a size that is too small
before and after range   unchanged           a wrong offset, a size that is too large
======================== =================== ========================================================

The neighbours are checked once more after the data. Undetected remain a larger erase whose first sector was blank
anyway, and everything on ROMs without MD5 (ESP8266, Secure Download Mode). See docs/protocol.md.

**Reading.** READ_FLASH_SLOW brings 4 or 64 bytes per round trip. Each piece of 64 KiB is compared with the chip's MD5.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import suppress

from espwire.chips.model import Chip
from espwire.compress import deflate_zlib
from espwire.device.backends.base import (
    WORD,
    FlashLimits,
    Progress,
    build_wrong_erase,
    count_restart,
    erase_size_to_send,
    holds,
    ignore,
    limit_restarts,
    refuse_encryption,
)
from espwire.device.double_read import ask_together, ask_twice, result_size
from espwire.device.loader import MAGIC_ADDRESS, Attempts, Loader, LossLimit
from espwire.device.spi import SpiCommand, run_spi_commands
from espwire.errors import CommandFailed, DeviceError, NoReply, ToolError, Unsupported, VerifyError
from espwire.events import Report, Warned, silent
from espwire.protocol.commands import (
    HEADER,
    REQUEST,
    Command,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    GetSecurityInfo,
    Reply,
    SpiFlashMd5,
)
from espwire.protocol.dialect import Md5Form
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import Codec
from espwire.sizes import SECTOR, Ranges, align_down, align_up

PIECE = 0x10000  # of a read, compared with one MD5
DATA_HEAD = 16  # of a block's body
BLANK_SECTOR = hashlib.md5(b"\xff" * SECTOR, usedforsecurity=False).digest()
_SLOW_READ = struct.Struct("<BBHIII")

Block = tuple[Command, int, float | None]  # the request, bytes of data in it, its timeout


class RomBackend:
    """Flash through the commands of a ROM loader."""

    def __init__(self, loader: Loader, chip: Chip) -> None:
        self.loader, self.chip = loader, chip

    @property
    def limits(self) -> FlashLimits:
        """What this ROM can do, which Secure Download Mode reduces."""
        return find_block_limits(self.loader)

    def erase(self, start: int, size: int, *, progress: Progress = ignore) -> None:
        """One BEGIN that announces data and sends none, since a ROM may erase more than each request states."""
        attempts = limit_restarts(self.loader.settings.retry)
        check = watch_erase(self.loader, start, size)
        while True:
            try:
                begin = self._build_begin(start, size, encrypted=False)
                self.loader.call(begin, timeout=self._erase_seconds(size))
                if check is not None:
                    check.check_erased(start)
                progress(size)
                return
            except (NoReply, CommandFailed) as error:
                count_restart(attempts, error, 0)

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
        """As ``FlashBackend.write``."""
        loader, limits = self.loader, self.limits
        refuse_encryption(limits, encrypted=encrypted)
        total = len(data)
        if packed is not None:
            data = data.ljust(align_up(total, WORD), b"\xff")
        attempts = limit_restarts(loader.settings.retry)
        check = watch_erase(loader, start, len(data))
        begun = confirmed = last = 0
        while True:
            try:
                begin, blocks = self._plan_blocks(start, data, begun, packed, encrypted)
                loader.call(begin, timeout=self._erase_seconds(len(data) - begun))
                if check is not None:
                    check.check_erased(start + begun)
                for command, size, seconds in blocks:
                    loader.check_status(
                        loader.exchange(command.op, command.packet(), seconds), result=0
                    )
                    confirmed, last = confirmed + size, size
                    progress(min(confirmed, total))
                if not limits.can_digest:
                    ask_harmless(loader)  # replies come in order: this one proves the last block
                if check is not None:
                    check.check_neighbours()
                return
            except ToolError as error:
                failed_at = confirmed
                begun = confirmed = self._find_restart(start, len(data), confirmed - last)
                last = 0
                if self.limits.can_resume and not isinstance(error, VerifyError):
                    error.written_until = start + begun
                if not isinstance(error, NoReply | CommandFailed):
                    raise
                count_restart(attempts, error, failed_at)
                progress(begun)

    def read(
        self, start: int, size: int, *, progress: Progress = ignore, report: Report = silent
    ) -> Generator[bytes, None, None]:
        """In pieces of at most 64 KiB, each equal to the chip's MD5 of it where the loader computes one.

        :raises NoReply: code ``line-too-bad``: too many replies were lost
        """
        if not self.limits.can_read:
            self.loader.require(Op.READ_FLASH_SLOW)
        self._check_reach(start + size)
        return self._read_pieces(start, size, progress, report)

    def digests(self, start: int, size: int, piece: int) -> list[bytes]:
        """One request per piece; repeated where the reply is lost or garbled, which changes nothing on the chip."""
        self._check_reach(start + size)
        return [
            read_digest(self.loader, at, min(piece, start + size - at))
            for at in range(start, start + size, piece)
        ]

    def digests_of(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """By SPI_FLASH_MD5, one after the other."""
        return [self.digests(start, end - start, end - start)[0] for start, end in ranges]

    def _check_reach(self, end: int) -> None:
        """Refuse what the loader's addresses do not reach: it would answer with what is at other addresses.

        :raises Unsupported: code ``beyond-16mb``
        """
        limits = self.limits
        if limits.erases_at_begin and end > limits.reach:
            raise Unsupported(
                limits.describe_reach(f"the range ends at {end:#x}"),
                hint="The stub does: leave out --no-stub.",
                code="beyond-16mb",
            )

    def find_written(self, start: int, size: int) -> Ranges | None:
        """All of the range, if any of it is not blank."""
        if not self.limits.can_digest:
            return None
        return () if holds(self, start, b"\xff" * size) else ((start, start + size),)

    def spi(self, commands: Sequence[SpiCommand]) -> int:
        """Through the registers of the flash controller."""
        return run_spi_commands(self.loader, self.chip, commands)

    def _read_pieces(
        self, start: int, size: int, progress: Progress, report: Report
    ) -> Generator[bytes, None, None]:
        losses = LossLimit(self.loader)
        for at in range(0, size, PIECE):

            def progress_in_piece(done: int, at: int = at) -> None:
                progress(at + done)

            piece = min(PIECE, size - at)
            yield self._read_piece(start + at, piece, losses, progress_in_piece, report)

    def _read_piece(
        self, start: int, size: int, losses: LossLimit, progress: Progress, report: Report
    ) -> bytes:
        """One piece, read again while it differs from the chip's MD5."""
        attempts = Attempts(self.loader.settings.retry.read_attempts)
        while True:
            piece = self._fetch(start, size, losses, progress)
            expected = hashlib.md5(piece, usedforsecurity=False).digest()
            if not self.limits.can_digest or read_digest(self.loader, start, size) == expected:
                return piece
            attempts.failed(
                VerifyError(
                    f"the data read at {start:#x} differs from the chip's MD5 in all {attempts.limit} attempts",
                    ranges=((start, start + size),),
                    hint=self.loader.line_hint,
                )
            )
            text = f"{size:,} bytes at {start:#x} were damaged in transit; reading them again"
            report(Warned(code="reread", text=text))

    def _fetch(self, start: int, size: int, losses: LossLimit, progress: Progress) -> bytes:
        """``size`` bytes; continued where it was after a lost reply."""
        retry, piece = self.loader.settings.retry, bytearray()
        attempts = Attempts(retry.block_attempts, retry.read_restarts)
        while len(piece) < size:
            try:
                for data in self._read_once(start + len(piece), size - len(piece)):
                    piece += data
                    progress(len(piece))
                    losses.check()
            except (NoReply, CommandFailed) as error:
                losses.check()
                attempts.failed(error, len(piece))
        return bytes(piece[:size])

    def _read_once(self, start: int, size: int) -> Iterator[bytes]:
        """``size`` bytes in pieces of at most 64, one round trip each, repeated if lost or refused.

        :raises NoReply, CommandFailed: too many attempts failed
        """
        loader, op, step = self.loader, Op.READ_FLASH_SLOW, self.loader.dialect.slow_read
        loader.require(op)
        exchange, check_status, pack = loader.exchange, loader.check_status, _SLOW_READ.pack
        attempts = limit_restarts(loader.settings.retry)
        end = start + size
        while start < end:
            # the ROM answers with a whole piece in any case; a smaller size keeps the request inside the flash
            size = min(step, end - start)
            try:
                body = check_status(exchange(op, pack(REQUEST, op, 8, 0, start, size)), step).body
            except (NoReply, CommandFailed) as error:
                count_restart(attempts, error, start)
                continue
            start += size
            yield body if size == step else body[:size]

    def _plan_blocks(
        self, start: int, data: bytes, begun: int, packed: bytes | None, encrypted: bool
    ) -> tuple[Command, Iterator[Block]]:
        """The opening request and the blocks for ``data`` from ``begun`` on."""
        size = self.loader.dialect.flash_block
        if packed is None:
            begin = self._build_begin(start + begun, len(data) - begun, encrypted=encrypted)
            return begin, _cut_plain(data, begun, size)
        stream = deflate_zlib(data[begun:]) if begun else packed
        blocks = -(-len(stream) // size)
        begin = self._build_deflate_begin(start + begun, len(data) - begun, blocks, encrypted)
        return begin, self._cut_stream(stream, size)

    def _find_restart(self, start: int, size: int, written: int) -> int:
        """From where to write again: a sector's start, after which no more is erased than from ``start`` on.

        The ESP8266's ROM may erase a sector more than requested, which depends on where it starts.
        """
        end = self.limits.find_erased_end(start, size)
        begun = align_down(max(written, 0), SECTOR)
        while begun and self.limits.find_erased_end(start + begun, size - begun) > end:
            begun -= SECTOR
        return begun

    def _build_begin(self, offset: int, size: int, *, encrypted: bool) -> Command:
        dialect = self.loader.dialect
        erase = erase_size_to_send(dialect.erase, offset, size)
        blocks = -(-size // dialect.flash_block)
        return FlashBegin(
            erase, blocks, dialect.flash_block, offset, self._encryption_word(encrypted)
        )

    def _build_deflate_begin(self, offset: int, size: int, blocks: int, encrypted: bool) -> Command:
        dialect = self.loader.dialect
        # a ROM erases this much, in whole blocks
        inflated = size if dialect.exact_deflate_size else align_up(size, dialect.flash_block)
        return FlashDeflBegin(
            inflated, blocks, dialect.flash_block, offset, self._encryption_word(encrypted)
        )

    def _encryption_word(self, encrypted: bool) -> int | None:
        return int(encrypted) if self.loader.dialect.begin_words == 5 else None

    def _cut_stream(self, stream: bytes, size: int) -> Iterator[Block]:
        """Blocks of a zlib stream. A reply comes when a block is in flash, so its timeout grows with what it unpacks to."""
        inflater, timing = zlib.decompressobj(), self.loader.settings.timing
        for number, at in enumerate(range(0, len(stream), size)):
            block = stream[at : at + size]
            inflated = len(inflater.decompress(block))
            seconds = timing.scaled(timing.write_per_mb, inflated)
            yield FlashDeflData(number, block), inflated, seconds

    def _erase_seconds(self, size: int) -> float:
        timing = self.loader.settings.timing
        return timing.scaled(timing.erase_per_mb, size)


def find_block_limits(loader: Loader) -> FlashLimits:
    """The limits of a loader with block commands: a ROM, or the vendor's stub."""
    dialect = loader.dialect
    rom = dialect.sync_value != 0
    fixed_size = rom and not dialect.attach_bytes  # 4 MB, which no request changes
    return FlashLimits(
        loader=dialect.name,
        can_read=loader.supports(Op.READ_FLASH_SLOW) or loader.supports(Op.READ_FLASH),
        can_digest=loader.supports(Op.SPI_FLASH_MD5),
        can_compress=dialect.can_inflate and loader.supports(Op.FLASH_DEFL_BEGIN),
        can_encrypt=dialect.encrypted_write,
        can_encrypt_compressed=not rom,
        can_resume=rom,
        block_size=dialect.flash_block,
        address_bits=22 if fixed_size else 24,
        refuses_beyond=fixed_size,
        erases_at_begin=rom,
        erase_rule=dialect.erase,
        frame_payload=dialect.flash_block,
        frame_head=DATA_HEAD,
        open_size=4 * dialect.begin_words,
        reply_size=HEADER.size + dialect.status_bytes,
    )


def _cut_plain(data: bytes, begun: int, size: int) -> Iterator[Block]:
    """Blocks of the data itself, the last one padded with 0xFF."""
    for number, at in enumerate(range(begun, len(data), size)):
        block = data[at : at + size]
        yield FlashData(number, block.ljust(size, b"\xff")), len(block), None


def ask_harmless(loader: Loader) -> None:
    """Send a request without effect: a register read, or the security information where registers are barred."""
    if loader.supports(Op.READ_REG):
        loader.read_reg(MAGIC_ADDRESS)
    else:
        loader.call(GetSecurityInfo(), result=loader.dialect.security_info_bytes)


def read_digest(loader: Loader, start: int, size: int) -> bytes:
    """The chip's MD5 of its flash, 16 bytes; repeated where the reply is lost or garbled.

    :raises Unsupported: the loader computes none
    """
    timing, attempts = loader.settings.timing, Attempts(loader.settings.retry.block_attempts)
    seconds = timing.scaled(timing.md5_per_mb, size)
    command = SpiFlashMd5(start, size)
    result = result_size(loader, command)
    while True:
        try:
            reply = loader.call(command, timeout=seconds, result=result, repeatable=True)
            return parse_md5(loader, reply)
        except (NoReply, DeviceError) as error:
            if isinstance(error, Unsupported) or error.code == "chip-reset":
                raise
            attempts.failed(error)


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
            f"the chip sent an invalid MD5: {reply.body!r}", code="bad-reply"
        ) from None


class EraseCheck:
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
        loader = self.loader
        commands = [SpiFlashMd5(address, SECTOR) for address in expected]
        replies = ask_together(loader, commands)
        odd = [
            command
            for command, reply in zip(commands, replies, strict=True)
            if not self._equals(reply, expected[command.offset])
        ]
        if not odd:
            return
        again = [parse_md5(loader, reply) for reply in ask_twice(loader, odd)]  # one may be damaged
        wrong = [
            command.offset
            for command, digest in zip(odd, again, strict=True)
            if digest != expected[command.offset]
        ]
        if wrong:
            raise build_wrong_erase(self.start, self.end, wrong)

    def _equals(self, reply: Reply, digest: bytes) -> bool:
        expected = digest.hex().encode() if self.loader.dialect.md5 is Md5Form.HEX else digest
        return reply.body.lower() == expected


def watch_erase(loader: Loader, offset: int, size: int) -> EraseCheck | None:
    """The check for an erase of ``size`` bytes by BEGIN; None: not needed (stubs), or not possible (no MD5)."""
    if loader.dialect.sync_value == 0 or not loader.supports(Op.SPI_FLASH_MD5) or size <= 0:
        return None
    start, end = align_down(offset, SECTOR), align_up(offset + size, SECTOR)
    neighbours = {}
    for address in (start - SECTOR, end):
        if address >= 0:
            with suppress(CommandFailed):  # past the end of the flash
                command = SpiFlashMd5(address, SECTOR)
                neighbours[address] = parse_md5(loader, ask_twice(loader, (command,))[0])
    return EraseCheck(loader, start, end, neighbours)
