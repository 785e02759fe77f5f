"""Our own stub as `FlashBackend`, and the two streams that carry flash content to and from it.

A stream is a sequence of frames with a CRC-32 and the position of their data, of which many are on their way at once.
The transport keeps bytes in order and the stub handles frames in order; everything here rests on that. Frame formats:
``protocol/stub.py`` and docs/protocol.md.

**Writing.** WRITE_OPEN announces the range and starts the erase. The host sends WRITE_DATA frames up to the credit of
the last report; the stub programs behind its receiver and reports, unasked, every quarter of a window: ``received`` (of
the stream, in order), ``credit_end`` (how far the host may send) and ``in_flash``. A frame that is damaged, or not
the next one, is dropped, and the stub reports ``REPORT_AGAIN``. The host then rewinds: it sends again from
``received``. Frames that were on their way at that moment arrive out of order too, and repeat the report; the host
computes how many and ignores as many repetitions.

=================================== ======================================= ========================================
event                               what it means                           what the host does
=================================== ======================================= ========================================
report, more received               frames arrived                          drop them, send up to the new credit
REPORT_AGAIN at a new position      a frame was lost or damaged             rewind to ``received``
REPORT_AGAIN at the same position   frames sent before the rewind arrive    ignore as many as were on their way
silence                             report or frames lost, or flash busy    poll (an empty WRITE_DATA), with back-off
too much time lost                  the rate or the window is too large     abort; continue as ``line_tuner.py`` decides
reply to a poll, data missing       the last frames were lost               rewind to ``received``
any other status                    the write failed (flash, inflate)       raise CommandFailed with ``in_flash``
too many rewinds at one position    the line is too bad                     raise NoReply; the context aborts
=================================== ======================================= ========================================

**Reading.** READ_OPEN starts packets of flash content, each with its position; the host acknowledges every quarter of a
window. On a packet with another position, on damage or silence it sends an acknowledgement with ``ACK_AGAIN``, and the
stub continues from there. Packets that were on their way are recognised by their growing positions and ignored. Blank
packets come without data. Where the stub can, packets announce their size, and their data is packed on a UART
(``protocol/packed.py``); the last packet is the MD5 of everything, as the stub has read it.

**Ending.** A stream that is left early is aborted: ABORT with a token, repeated until its reply comes; then nothing
older can be on its way. Not after a lost transport or a cancellation: the process may have no time for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from types import TracebackType
from typing import Self

from espwire.chips.model import Chip
from espwire.compress import (
    FOR_RISCV,
    FOR_XTENSA,
    LzmaForm,
    LzmaStream,
    Stream,
    deflate_zlib,
    has_lzma,
)
from espwire.device.backends.base import (
    WORD,
    FlashBackend,
    FlashLimits,
    Progress,
    count_restart,
    holds,
    ignore,
    limit_restarts,
    refuse_encryption,
)
from espwire.device.backends.rom import RomBackend, read_digest
from espwire.device.backends.stub_commands import (
    OK,
    find_written,
    parse_spi_reply,
    plan_spi_batch,
    read_md5s,
    read_md5s_of,
    run_batch,
)
from espwire.device.backends.vendor_stub import VendorStubBackend, erase_by_region
from espwire.device.loader import BITS_PER_BYTE, Attempts, Direction, Loader, Tuner
from espwire.device.spi import SpiCommand
from espwire.errors import (
    Cancelled,
    CommandFailed,
    DeviceError,
    NoReply,
    ToolError,
    TransportLost,
    VerifyError,
)
from espwire.events import Report as EventReport
from espwire.events import silent
from espwire.protocol.commands import HEADER, Reply
from espwire.protocol.packed import HISTORY, codes_body, unpack
from espwire.protocol.replies import status_meaning
from espwire.protocol.stub import (
    ACK_AGAIN,
    DIGEST_BYTES,
    LZMA_CODECS,
    READ_CHECKED,
    READ_PACKED,
    READ_SHORT_BLANKS,
    REPORT_AGAIN,
    WRITE_ENCRYPTED,
    WRITE_NO_ERASE,
    WRITE_READ_BACK,
    Capabilities,
    CheckedPacket,
    Codec,
    Feature,
    ReadAck,
    ReadOpen,
    Report,
    StubOp,
    WriteData,
    WriteOpen,
    find_mask,
    parse_checked_packet,
    parse_report,
)
from espwire.settings import RetryPolicy
from espwire.sizes import SECTOR, Ranges, align_down, align_up

CHUNK = 0x2000  # of the stream, between two calls of `progress` at most
BYTES_PER_RESTART = 0x10000  # of a read, for each further restart
PATIENCE = 0.5  # seconds of silence, on top of the transfer time, after which the stub is polled
LONGEST_PAUSE = 8.0  # seconds between two polls
REPORTS_PER_WINDOW = 4
BUSY_S_PER_BYTE = 12e-6  # to erase and program, twice what data sheets give
SILENCE = 2  # losses for which a time without any report counts
REPEATED_AFTER = 8  # unexpected frames after which the stub repeats REPORT_AGAIN
OPEN_SIZE, FRAME_HEAD = 24, 4
LZMA_FORMS = {Feature.LZMA: FOR_XTENSA, Feature.LZMA_RISCV: FOR_RISCV}
LAST_ERRORS = (TransportLost, Cancelled, KeyboardInterrupt, SystemExit)
_TOKENS = count(0x5A0001)  # each names a write


class StubBackend:
    """Flash through our stub."""

    def __init__(self, loader: Loader, chip: Chip) -> None:
        self.loader, self.chip = loader, chip

    @property
    def limits(self) -> FlashLimits:
        """What its capabilities announce."""
        loader, dialect = self.loader, self.loader.dialect
        return FlashLimits(
            loader=dialect.name,
            can_read=loader.supports(StubOp.READ_OPEN),
            can_digest=True,
            can_compress=True,
            can_encrypt=dialect.encrypted_write,
            can_resume=True,
            block_size=dialect.flash_block,
            address_bits=32,
            checksummed=dialect.sealed,
            digests_at_once=loader.supports(StubOp.HASH),
            frame_payload=_find_capabilities(loader).frame_payload,
            frame_head=FRAME_HEAD,
            open_size=OPEN_SIZE,
            reply_size=HEADER.size + dialect.status_bytes,
            receives_ahead=True,
            masks_frames=_masks_frames(loader),
            cpu_hz=self._find_cpu_hz(),
            lzma=_find_lzma_form(loader),
            ram=_find_ram(self.chip),
        )

    def _find_cpu_hz(self) -> int:
        """What the stub announces, or less, where it cannot know."""
        announced, own = _find_capabilities(self.loader).cpu_hz, self.chip.stub.own
        slowest = own.slowest_hz if own is not None else None
        return min(announced, slowest) if slowest is not None else announced

    def erase(self, start: int, size: int, *, progress: Progress = ignore) -> None:
        """By ERASE_REGION, a megabyte per request."""
        erase_by_region(self.loader, start, size, progress)

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
        """One stream; after a failure another one, compressed if possible, from the last sector that is surely in flash.

        ``progress`` estimates from what the stub received, and reports all of ``data`` once it is in flash.
        """
        loader, form = self.loader, self.limits.lzma
        refuse_encryption(self.limits, encrypted=encrypted)
        padded = data.ljust(align_up(len(data), WORD), b"\xff")
        attempts, begun = limit_restarts(loader.settings.retry), 0
        while True:
            rest = padded[begun:] if begun else padded
            sent, stream = _open_stream(rest, codec, packed, form)
            transfer: WriteTransfer | None = None
            try:
                first = stream.read(CHUNK)
                with WriteTransfer(
                    loader,
                    start + begun,
                    len(rest),
                    stream.size,
                    sent,
                    encrypted=encrypted,
                    first=first,
                    tuner=loader.tuner,
                ) as transfer:
                    chunk = b""
                    while True:
                        transfer.send(chunk)
                        received = stream.find_done(transfer.received)
                        done = begun + max(received, transfer.in_flash)
                        progress(min(done, len(data) - 1))
                        if not (chunk := stream.read(CHUNK)):
                            break
                    transfer.finish()
                progress(len(data))
            except ToolError as error:
                in_flash = begun + (transfer.in_flash if transfer is not None else 0)
                error.written_until = start + in_flash
                if not isinstance(error, NoReply | CommandFailed):
                    raise
                try:
                    another = _leave_rate(loader, "write", error, transfer)
                except ToolError as lost:
                    lost.written_until = start + in_flash
                    raise
                if not another:
                    count_restart(attempts, error, in_flash)
                begun = align_down(in_flash, SECTOR)
                if packed is not None and sent not in LZMA_CODECS:
                    # raw data is faster on a good line only
                    codec, packed = Codec.ZLIB, deflate_zlib(padded[begun:])
                progress(min(begun, len(data)))
            else:
                if loader.tuner is not None:
                    loader.tuner.note("write", transfer.received)
                return
            finally:
                stream.close()

    def read(
        self, start: int, size: int, *, progress: Progress = ignore, report: EventReport = silent
    ) -> Generator[bytes, None, None]:
        """Packets, each with a CRC; after a broken stream another one continues where it was.

        :raises VerifyError: the MD5 of what was read differs from the chip's
        """
        retry, done, begun = self.loader.settings.retry, 0, 0
        digest = hashlib.md5(usedforsecurity=False)
        restarts = retry.read_restarts + size // BYTES_PER_RESTART
        attempts = Attempts(retry.block_attempts, restarts)
        while done < size:
            transfer: ReadTransfer | None = None
            try:
                with ReadTransfer(
                    self.loader, start + done, size - done, tuner=self.loader.tuner
                ) as transfer:
                    for data in transfer:
                        done += len(data)
                        digest.update(data)
                        progress(done)
                        yield data
            except (NoReply, CommandFailed) as error:
                if not _leave_rate(self.loader, "read", error, transfer):
                    attempts.failed(error, done)
                begun = done
        if self.loader.tuner is not None:
            self.loader.tuner.note("read", size)
        if begun and read_digest(self.loader, start, size) != digest.digest():
            raise _build_wrong_read(start, size)

    def digests(self, start: int, size: int, piece: int) -> list[bytes]:
        """By SPI_FLASH_MD5 for one piece, which is quick after a write; by HASH for many."""
        if piece >= size:
            return [read_digest(self.loader, start, size)]
        return read_md5s(self.loader, start, size, piece)

    def digests_of(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """By SPI_FLASH_MD5, in batches."""
        return read_md5s_of(self.loader, ranges)

    def find_written(self, start: int, size: int) -> Ranges | None:
        """The sectors that are not blank; reported if two requests agree that there are any."""
        if not self.limits.digests_at_once:
            return () if holds(self, start, b"\xff" * size) else ((start, start + size),)
        if not find_written(self.loader, start, size, SECTOR):
            return ()
        sectors = find_written(self.loader, start, size, SECTOR)
        return tuple((sector, sector + SECTOR) for sector in sectors)

    def spi(self, commands: Sequence[SpiCommand]) -> int:
        """In one batch."""
        replies = run_batch(self.loader, plan_spi_batch(self.chip.spi, commands))
        return parse_spi_reply(replies[-1], commands[-1])


class _Transfer:
    """A stream as a context manager that aborts it if it is left before its end.

    ``tuner``: ends the stream early where another rate or window is better; None: the caller could not continue it.
    """

    _direction: Direction
    _open: bool
    _attempts: Attempts
    received: int

    def __init__(self, loader: Loader, tuner: Tuner | None) -> None:
        self._loader, self._began = loader, loader.transport.now()
        self._losses, self._lost_s = 0, 0.0
        self._tuner = tuner
        self._small = tuner is not None and tuner.has_small_window(self._direction)

    @property
    def lost_share(self) -> float:
        """The share of its time that was spent on what arrived damaged or not at all, 0 to 1."""
        return min(self._lost_s / max(self._loader.transport.now() - self._began, 0.001), 1.0)

    def _count_loss(self, seconds: float, weight: int = 1) -> None:
        """Something was lost, which costs this time.

        :raises NoReply: code ``line-bad``: another rate or window is better
        """
        self._losses, self._lost_s = self._losses + weight, self._lost_s + seconds
        tuner = self._tuner
        if tuner is not None and tuner.is_bad(self._direction, self._losses, self.lost_share):
            raise NoReply(
                f"too much was lost at {self._loader.baud} baud",
                hint=self._loader.line_hint,
                code="line-bad",
            )

    def _count_rewind(self, what: str) -> None:
        """Limit the rewinds, so that a bad line fails instead of retrying forever.

        :raises NoReply: code ``line-bad``
        """
        error = NoReply(
            f"{what} was damaged in transit too often at byte {self.received:,}",
            hint=self._loader.line_hint,
            code="line-bad",
        )
        self._attempts.failed(error, self.received)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # only if the stub will be used again: after the others, there may be no time for it
        if self._open and not isinstance(error, LAST_ERRORS):
            self.abort()

    def abort(self) -> None:
        """End it; what is in flash stays.

        :raises NoReply: the stub no longer replies
        """
        self._open = False
        self._loader.abort()


class WriteTransfer(_Transfer):
    """A stream into flash: ``send`` pieces of it, then ``finish``. A context manager that aborts an unfinished stream.

    ``received``: bytes of the stream that the stub has; ``in_flash``: unpacked bytes that are programmed.

    :param offset: a sector's start
    :param size: bytes that end up in flash
    :param stream_size: bytes that will be sent in ``codec``; None, for LZMA only: known when ``finish`` is called
    :param first: the beginning of the stream, at most a window, sent before the reply to the opening
    :param tuner: see ``_Transfer``
    :raises Unsupported: the loader has no streams, or not this kind
    :raises CommandFailed, NoReply: the stub refuses, or does not reply
    """

    _direction = "write"

    def __init__(
        self,
        loader: Loader,
        offset: int,
        size: int,
        stream_size: int | None,
        codec: Codec,
        *,
        encrypted: bool = False,
        erase: bool = True,
        first: bytes = b"",
        tuner: Tuner | None = None,
    ) -> None:
        loader.require(StubOp.WRITE_OPEN)
        super().__init__(loader, tuner)
        capabilities = _find_capabilities(loader)
        self.size, self.stream_size = size, stream_size
        self._payload, self._window = capabilities.frame_payload, capabilities.write_window
        # a report comes for each quarter of the stub's window; a small one is not smaller than that
        quarter = align_up(self._window // REPORTS_PER_WINDOW, self._payload)
        self._most_ahead = quarter if self._small else self._window
        self._masked = _masks_frames(loader)
        self.received = self.in_flash = self._next = self._furthest = 0
        self._moved = loader.transport.now()  # when something new was sent, received or programmed
        self._held = bytearray(first)  # of the stream, from `received` on
        self._rewound_to, self._stale, self._polled = -1, 0, False
        self._attempts = _limit_rewinds(loader.settings.retry)
        self._open = False
        self._transfer = next(_TOKENS) & 0xFFFFFFFF
        read_back = Feature.READ_BACK in capabilities.features and not encrypted
        flags = encrypted * WRITE_ENCRYPTED | (not erase) * WRITE_NO_ERASE
        flags |= read_back * WRITE_READ_BACK
        command = WriteOpen(offset, size, stream_size or 0, codec, flags, self._transfer)
        self._credit_end = self._open_ahead(command) if first else loader.call(command).value
        self._open = True

    @property
    def finished(self) -> bool:
        """Whether all of it is in flash."""
        return self.in_flash == self.size

    def send(self, chunk: bytes) -> None:
        """Add the next bytes of the stream; returns when all whole frames of it are on their way.

        :raises CommandFailed: the write failed; ``in_flash`` bytes are programmed
        :raises NoReply: the stub no longer replies, or the line is too bad
        :raises ValueError: more bytes than announced
        """
        sent = self.received + len(self._held) + len(chunk)
        if self.stream_size is not None and sent > self.stream_size:
            raise ValueError("more bytes than the transfer was opened for")
        self._held += chunk
        self._push()

    def finish(self) -> None:
        """Wait until all of it is in flash.

        :raises CommandFailed, NoReply: as ``send``
        """
        sent = self.received + len(self._held)
        if self.stream_size is None:
            self.stream_size = sent
        elif sent != self.stream_size:
            raise ValueError("fewer bytes than the transfer was opened for")
        self._push()
        while not self.finished:
            self._wait()
            self._push()
        self._open = False
        self._loader.end_pipeline()

    def _open_ahead(self, command: WriteOpen) -> int:
        """Open, with the first frames right behind; the credit. The stub drops the data of a write that it refuses.

        After a failure the next request resynchronizes first.
        """
        loader, seconds = self._loader, self._loader.settings.timing.default
        loader.begin_pipeline()
        reply = None
        loader.send(command.packet())
        while (
            reply is None
            and (size := self._find_frame_size(len(self._held)))
            and self._next + size <= self._most_ahead
        ):
            loader.send(self._pack(bytes(self._held[self._next : self._next + size])))
            self._next += size
            reply = loader.receive(StubOp.WRITE_OPEN, 0.0)
        reply = reply or loader.receive(
            StubOp.WRITE_OPEN, seconds + self._next * BITS_PER_BYTE / loader.baud
        )
        name = StubOp.WRITE_OPEN.name
        if reply is None:
            raise NoReply(
                f"no answer to {name} within {seconds:g} s", command=name, seconds=seconds
            )
        return loader.check_status(reply, 0).value

    def _push(self) -> None:
        """Send all frames that are whole, as the credit allows, and take the reports that are there."""
        end = self.received + len(self._held)
        while not self.finished and (size := self._find_frame_size(end)):
            if self._next + size > min(self._credit_end, self.received + self._most_ahead):
                self._wait()
            else:
                at = self._next - self.received
                self._loader.send(self._pack(bytes(self._held[at : at + size])))
                self._next += size
                if self._next > self._furthest:
                    self._furthest, self._moved = self._next, self._loader.transport.now()
                self._take(self._loader.receive(StubOp.WRITE_DATA, 0.0))

    def _pack(self, data: bytes) -> bytes:
        """The next frame's content."""
        return WriteData(self._next, data, find_mask(data) if self._masked else 0).packet()

    def _find_frame_size(self, end: int) -> int:
        left = end - self._next
        return self._payload if left >= self._payload else left if end == self.stream_size else 0

    def _wait(self) -> None:
        """Wait for a report; poll with exponential back-off."""
        loader, timing = self._loader, self._loader.settings.timing
        on_the_way = (self._next - self.received) * BITS_PER_BYTE / loader.baud
        longest = timing.scaled(timing.write_per_mb, self.size - self.in_flash)
        deadline = self._moved + on_the_way + longest
        pause, back_off = PATIENCE + on_the_way + loader.round_trip, PATIENCE
        while (left := deadline - loader.transport.now()) > 0:
            if self._take(loader.receive(StubOp.WRITE_DATA, min(pause, left))):
                return
            if loader.transport.now() > self._moved + on_the_way + self._find_work():
                self._count_loss(pause, SILENCE)
            self._polled = True
            loader.send(WriteData(self._next).packet())
            back_off = min(back_off * 2, LONGEST_PAUSE)
            pause = back_off + loader.round_trip
        raise NoReply("the stub stopped acknowledging data", command="WRITE_DATA")

    def _find_work(self) -> float:
        """Seconds for which the stub may be busy with what was sent, and then answers nothing: a few bytes of the stream
        can be megabytes of flash."""
        left: float = self.size - self.in_flash
        if self.stream_size is not None:
            unreported = self.stream_size - self.received
            left = left * min(1.0, (self._next - self.received) / max(unreported, 1))
        return left * BUSY_S_PER_BYTE

    def _take(self, reply: Reply | None) -> bool:
        """Act on a report; whether ``reply`` was one."""
        report = parse_report(reply) if reply is not None else None
        if report is None or report.transfer != self._transfer or not self._is_sane(report):
            return False
        if (report.received, report.in_flash) > (self.received, self.in_flash):
            self._moved = self._loader.transport.now()
        # an unasked report comes after a quarter of a window
        may_answer_poll = report.received - self.received < self._window // REPORTS_PER_WINDOW
        if report.received > self.received:
            del self._held[: report.received - self.received]
            self.received, self._stale = report.received, 0
        self._next = max(self._next, self.received)
        self._credit_end, self.in_flash = report.credit_end, report.in_flash
        if report.status == REPORT_AGAIN:
            self._rewind_if_new(report)
        elif report.status:
            self._fail(report.status)
        elif self._polled and may_answer_poll:
            self._polled = False
            if (
                self.received < self._next
            ):  # all that was sent before the poll has arrived or is lost
                self._rewind()
        return True

    def _is_sane(self, report: Report) -> bool:
        most = self.received + len(self._held)
        return (
            self.received <= report.received <= most
            and self.in_flash <= report.in_flash <= self.size
        )

    def _rewind_if_new(self, report: Report) -> None:
        """Rewind, unless frames that were on their way at the last rewind explain the repetition."""
        if report.received == self._rewound_to and self._stale > 0:
            self._stale -= 1
        elif report.received < self._next:
            self._rewind()

    def _rewind(self) -> None:
        self._count_rewind("what was sent")
        self._count_loss((self._next - self.received) * BITS_PER_BYTE / self._loader.baud)
        frames = -(-(self._next - self.received) // self._payload)
        self._rewound_to, self._stale = self.received, (frames - 1) // REPEATED_AFTER
        self._next = self.received

    def _fail(self, status: int) -> None:
        self._open = False
        self._loader.end_pipeline()
        meaning = status_meaning(status.to_bytes(2, "big"))
        raise CommandFailed(
            f"WRITE_DATA failed: {meaning} ({status:#06x})", command="WRITE_DATA", status=status
        )


class ReadTransfer(_Transfer):
    """A stream out of flash: iterate over it for bytes, in order and checked. A context manager that aborts the rest.

    :raises Unsupported: the loader has no streams
    :raises CommandFailed, NoReply: the stub refuses, or does not reply
    """

    _direction = "read"

    def __init__(
        self, loader: Loader, offset: int, size: int, *, tuner: Tuner | None = None
    ) -> None:
        loader.require(StubOp.READ_OPEN)
        super().__init__(loader, tuner)
        capabilities = _find_capabilities(loader)
        self.offset, self.size, self.received = offset, size, 0
        self._packet = capabilities.read_packet
        self._window = self._packet if self._small else capabilities.read_window
        self._good_at = self._began  # when the last packet in order arrived
        self._acknowledged, self._last, self._rewound = 0, -1, False
        self._open = size > 0
        self._attempts = _limit_rewinds(loader.settings.retry)
        self._early: Reply | None = None
        self._digest, self._history = hashlib.md5(usedforsecurity=False), b""
        flags, codes = READ_CHECKED | READ_SHORT_BLANKS, b""
        if loader.transport.info.can_change_baud:  # USB is faster than the chip packs
            flags, codes = flags | READ_PACKED, codes_body()
        reply = loader.request(ReadOpen(offset, size, self._packet, self._window, flags, codes))
        if reply.value == size or reply.body[-2:] != OK:
            loader.check_status(reply, 0)
        else:
            self._early = reply  # the reply is lost, this is the first packet

    def __iter__(self) -> Iterator[bytes]:
        """The bytes, as they come.

        :raises NoReply: the stub no longer replies, or the line is too bad
        :raises DeviceError: code ``bad-reply``: an intact packet is invalid
        :raises VerifyError: after the last byte: the MD5 differs from the chip's
        """
        while self.received < self.size:
            data = self._receive_packet()
            if data is None:
                continue
            self.received += len(data)
            self._good_at = self._loader.transport.now()
            self._digest.update(data)
            self._history = (self._history + data)[-HISTORY:]
            self._last, self._rewound = -1, False
            if self.received - self._acknowledged >= self._window // 4:
                self._acknowledge()
            yield data
        if self._open:
            self._check_digest()
        self._loader.end_pipeline()

    def abort(self) -> None:
        """End it.

        :raises NoReply: the stub no longer replies
        """
        self.received = self.size
        super().abort()

    def _check_digest(self) -> None:
        while (digest := self._receive_packet()) is None:
            pass
        self._loader.send(ReadAck(self.size + DIGEST_BYTES).packet())
        self._open = False
        if digest != self._digest.digest():
            raise _build_wrong_read(self.offset, self.size)

    def _receive_packet(self) -> bytes | None:
        """The next packet; None: something else, damage or silence, which may have led to a rewind."""
        reply, self._early = self._early, None
        if reply is None:
            # the time that a packet takes, with room for escapes and for a chip that looks for blanks
            seconds = PATIENCE + 3 * self._packet * BITS_PER_BYTE / self._loader.baud
            seconds += self._loader.round_trip
            reply = self._loader.receive(StubOp.READ_OPEN, seconds)
        if reply is None:
            self._rewind()
            return None
        expected = min(self._packet, self.size - self.received) or DIGEST_BYTES
        if reply.value == self.received:
            data = self._open_packet(reply, expected)
            if data is not None:
                return data
            self._rewind()
        elif (
            not self._rewound
            or reply.value <= self._last
            or reply.value > self._acknowledged + self._window
        ):  # not on its way at the last rewind
            self._rewind()
        self._last = reply.value
        return None

    def _open_packet(self, reply: Reply, expected: int) -> bytes | None:
        """The flash content in a packet at the right position; None: it was damaged."""
        packet = parse_checked_packet(reply)
        if packet is None:
            return None
        data = self._unpack(packet) if packet.size == expected else None
        if data is None:
            raise DeviceError(
                f"the stub sent an invalid packet at {self.offset + self.received:#x}: "
                f"{len(packet.content)} bytes for {packet.size}, expected {expected}",
                code="bad-reply",
            )
        return data

    def _unpack(self, packet: CheckedPacket) -> bytes | None:
        if not packet.content:
            return b"\xff" * packet.size
        if len(packet.content) == packet.size:
            return packet.content
        return unpack(packet.content, packet.size, self._history)

    def _rewind(self) -> None:
        self._count_rewind("what was read")
        now = self._loader.transport.now()
        self._count_loss(now - self._good_at)
        self._good_at = now
        self._rewound, self._last = True, -1
        self._acknowledge(ACK_AGAIN)

    def _acknowledge(self, flags: int = 0) -> None:
        self._acknowledged = self.received
        self._loader.send(ReadAck(self.received, flags).packet(), ends=1 if flags else 0)


def _leave_rate(
    loader: Loader, direction: Direction, error: ToolError, transfer: _Transfer | None
) -> bool:
    """After a failure: whether the next transfer uses another rate, or a smaller window.

    :raises NoReply: the stub no longer replies
    """
    if loader.tuner is None or not isinstance(error, NoReply):
        return False
    return loader.tuner.leave(direction, 1.0 if transfer is None else transfer.lost_share)


def _build_wrong_read(start: int, size: int) -> VerifyError:
    return VerifyError(
        f"the data read at {start:#x} differs from the chip's MD5",
        ranges=((start, start + size),),
        hint="Read again.",
    )


def _limit_rewinds(retry: RetryPolicy) -> Attempts:
    total = retry.stream_restarts_per_block_attempt * retry.block_attempts + 1
    return Attempts(retry.stream_attempts, total)


def _find_capabilities(loader: Loader) -> Capabilities:
    capabilities = loader.dialect.capabilities
    assert capabilities is not None  # only our stub gets here
    return capabilities


def _masks_frames(loader: Loader) -> bool:
    """Where bytes on the line take longer than the search for a mask."""
    features = _find_capabilities(loader).features
    return Feature.MASK in features and loader.transport.info.can_change_baud


def _find_ram(chip: Chip) -> tuple[tuple[int, int], ...]:
    """The RAM of our stub, in all its forms for this chip."""
    own = chip.stub.own
    rooms = () if own is None else (own,) if own.older is None else (own, own.older)
    return tuple(
        bounds
        for room in rooms
        for bounds in ((room.code_start, room.code_end), (room.data_start, room.data_end))
    )


def _find_lzma_form(loader: Loader) -> LzmaForm | None:
    features = _find_capabilities(loader).features
    if not has_lzma():
        return None
    return next((form for feature, form in LZMA_FORMS.items() if feature in features), None)


def _open_stream(
    data: bytes, codec: Codec | None, packed: bytes | None, form: LzmaForm | None
) -> tuple[Codec, Stream]:
    """As ``codec`` says; where the stub or the caller cannot: ``packed``, else the data itself."""
    if codec in LZMA_CODECS and form is not None:
        return form.codec, LzmaStream(data, form)
    if packed is None or codec == Codec.RAW:
        return Codec.RAW, Stream(len(data), data)
    return Codec.ZLIB, Stream(len(data), packed)


def choose_backend(loader: Loader, chip: Chip) -> FlashBackend:
    """The backend for the loader's dialect, as it is now: choose again after a stub was started."""
    if loader.dialect.capabilities is not None:
        return StubBackend(loader, chip)
    kind = VendorStubBackend if loader.dialect.sync_value == 0 else RomBackend
    return kind(loader, chip)
