"""Streams to and from flash with our stub: credits, frames that are checked one by one, going back, aborting.

What WRITE_OPEN, READ_OPEN and their frames mean stands in protocol/stub.py and docs/protocol.md. A link keeps bytes in
order and the stub works through frames in order; all of this rests on that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count
from types import TracebackType
from typing import Self

from espwire.device.loader import BITS_PER_BYTE, Loader
from espwire.errors import Cancelled, CommandFailed, NoReply, TransportLost
from espwire.protocol.commands import Reply
from espwire.protocol.replies import status_meaning
from espwire.protocol.stub import (
    ACK_AGAIN,
    READ_SHORT_BLANKS,
    REPORT_AGAIN,
    WRITE_ENCRYPTED,
    WRITE_NO_ERASE,
    WRITE_READ_BACK,
    Abort,
    Capabilities,
    Codec,
    Feature,
    ReadAck,
    ReadOpen,
    ReadPacket,
    Report,
    StubOp,
    WriteData,
    WriteOpen,
    find_mask,
    parse_read_packet,
    parse_report,
)

PATIENCE = 0.5  # seconds of silence, beyond what the wire needs, after which the stub is asked how far it is
RETURNS_PER_PLACE = 12  # goings-back at one place of the stream
RETURNS_PER_TRY = 30  # in all, for each try that a block has in the settings
RAREST = 8.0  # seconds between two such questions at most
REPORTS_PER_WINDOW = 4
OK = b"\0\0"  # status
REPEATED_AFTER = 8  # frames that are not the expected one, after which the stub says so again
_TOKENS = count(0x5A0001)


def abort(loader: Loader) -> None:
    """End whatever the stub does and be in step with it again: after this the next answer is the next request's.

    :raises NoReply: it does not answer any more
    """
    loader.drain_input(longest=0.2)
    for attempt in range(loader.settings.retry.abort_attempts):
        token = next(_TOKENS)
        loader.send(Abort(token).packet(), ends=2)
        deadline = loader.transport.now() + loader.settings.timing.default * (1 + attempt) / 2
        while (left := deadline - loader.transport.now()) > 0:
            reply = loader.receive(StubOp.ABORT, left)
            if reply is not None and reply.body == OK and reply.value == token:
                loader.end_pipeline()
                return
            if reply is not None and reply.body != OK:
                break  # it came damaged
    raise NoReply(
        "the stub does not answer any more",
        hint="Reset the board; lower --baud if it happens again.",
    )


def can_abort(kind: type[BaseException] | None) -> bool:
    """Whether a transfer that ends by this exception is to be aborted: somebody will go on talking to the stub."""
    return kind is None or not issubclass(
        kind, (TransportLost, Cancelled, KeyboardInterrupt, SystemExit)
    )


class _Returns:
    """Counts goings-back, so that a bad line ends in an error and not in eternity."""

    def __init__(self, loader: Loader, what: str) -> None:
        self._most, self._what = RETURNS_PER_TRY * loader.settings.retry.block_attempts, what
        self._places: Counter[int] = Counter()

    def count(self, place: int) -> None:
        """One more at ``place``.

        :raises NoReply: that was too often
        """
        self._places[place] += 1
        if self._places[place] > RETURNS_PER_PLACE or self._places.total() > self._most:
            raise NoReply(
                f"{self._what} came damaged too often at byte {place}",
                hint="Lower --baud, and check cable and supply.",
                code="line-bad",
            )


class WriteTransfer:
    """A stream into flash: ``send`` pieces of it, then ``finish``. A context manager; it aborts what was not finished.

    ``received``: bytes of the stream that the stub has; ``in_flash``: unpacked bytes that are programmed.

    :param offset: a sector's start
    :param size: bytes that end up in flash
    :param stream_size: bytes that will be sent in ``codec``
    :param first: the beginning of the stream, which then waits for no answer to the opening: at most a window
    :raises Unsupported: the loader has no streams, or not this kind
    :raises CommandFailed, NoReply: the stub refuses, or does not answer
    """

    def __init__(
        self,
        loader: Loader,
        offset: int,
        size: int,
        stream_size: int,
        codec: Codec,
        *,
        encrypted: bool = False,
        erase: bool = True,
        first: bytes = b"",
    ) -> None:
        loader.require(StubOp.WRITE_OPEN)
        self._loader, self.size, self.stream_size = loader, size, stream_size
        told = _capabilities(loader)
        self._payload, self._window = told.frame_payload, told.write_window
        self._masked = Feature.MASK in told.features and loader.transport.info.can_change_baud
        self.received = self.in_flash = self._next = 0
        self._held = bytearray(first)  # of the stream from `received` on
        self._back_to, self._stale, self._asked = -1, 0, False
        self._returns = _Returns(loader, "what was sent")
        self._open = False
        self._transfer = next(_TOKENS) & 0xFFFFFFFF
        flags = encrypted * WRITE_ENCRYPTED | (not erase) * WRITE_NO_ERASE
        flags |= (Feature.READ_BACK in told.features and not encrypted) * WRITE_READ_BACK
        command = WriteOpen(offset, size, stream_size, codec, flags, self._transfer)
        self._credit_end = self._open_ahead(command) if first else loader.call(command).value
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._open and can_abort(kind):
            self.abort()

    @property
    def finished(self) -> bool:
        """Whether all of it is in flash."""
        return self.in_flash == self.size

    def send(self, chunk: bytes) -> None:
        """Hand over the next bytes of the stream; returns when all whole frames of it are under way.

        :raises CommandFailed: the write has failed; ``in_flash`` tells how far it came
        :raises NoReply: the stub is silent, or the line too bad
        :raises ValueError: more bytes than announced
        """
        if self.received + len(self._held) + len(chunk) > self.stream_size:
            raise ValueError("more bytes than the transfer was opened for")
        self._held += chunk
        self._push()

    def finish(self) -> None:
        """Wait until all of it is in flash.

        :raises CommandFailed, NoReply: as ``send``
        """
        if self.received + len(self._held) != self.stream_size:
            raise ValueError("fewer bytes than the transfer was opened for")
        self._push()
        while not self.finished:
            self._wait()
            self._push()
        self._open = False
        self._loader.end_pipeline()

    def abort(self) -> None:
        """End it; what is in flash stays.

        :raises NoReply: the stub does not answer any more
        """
        self._open = False
        abort(self._loader)

    def _open_ahead(self, command: WriteOpen) -> int:
        """Open, with frames of what is held right behind; the credit. The stub drops data of a write that it refuses.

        After a failure the next request brings the stub in step first.
        """
        loader, seconds = self._loader, self._loader.settings.timing.default
        loader.begin_pipeline()
        reply = None
        loader.send(command.packet())
        while (
            reply is None
            and (size := self._frame_size(len(self._held)))
            and self._next + size <= self._window
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
        """Send all frames that are whole, as the credit allows, and take what reports are there."""
        end = self.received + len(self._held)
        while not self.finished and (size := self._frame_size(end)):
            if self._next + size > self._credit_end:
                self._wait()
            else:
                at = self._next - self.received
                self._loader.send(self._pack(bytes(self._held[at : at + size])))
                self._next += size
                self._take(self._loader.receive(StubOp.WRITE_DATA, 0.0))

    def _pack(self, data: bytes) -> bytes:
        """The next frame's content; masked, where bytes on the wire take more time than looking for a mask."""
        return WriteData(self._next, data, find_mask(data) if self._masked else 0).packet()

    def _frame_size(self, end: int) -> int:
        left = end - self._next
        return self._payload if left >= self._payload else left if end == self.stream_size else 0

    def _wait(self) -> None:
        """Until a report comes; in silence ask for one, ever more rarely."""
        loader, timing = self._loader, self._loader.settings.timing
        under_way = (self._next - self.received) * BITS_PER_BYTE / loader.baud
        deadline = (
            loader.transport.now()
            + under_way
            + timing.scaled(timing.write_per_mb, self.size - self.in_flash)
        )
        pause, rarely = PATIENCE + under_way, PATIENCE
        while (left := deadline - loader.transport.now()) > 0:
            if self._take(loader.receive(StubOp.WRITE_DATA, min(pause, left))):
                return
            self._asked = True
            loader.send(WriteData(self._next).packet())
            pause = rarely = min(rarely * 2, RAREST)
        raise NoReply("the stub says nothing any more about what was sent", command="WRITE_DATA")

    def _take(self, reply: Reply | None) -> bool:
        """Take in a report; whether it was one."""
        report = parse_report(reply) if reply is not None else None
        if report is None or report.transfer != self._transfer or not self._is_sane(report):
            return False
        asked_for = report.received - self.received < self._window // REPORTS_PER_WINDOW
        if report.received > self.received:
            del self._held[: report.received - self.received]
            self.received, self._stale = report.received, 0
        self._next = max(self._next, self.received)
        self._credit_end, self.in_flash = report.credit_end, report.in_flash
        if report.status == REPORT_AGAIN:
            self._heed(report)
        elif report.status:
            self._fail(report.status)
        elif self._asked and asked_for:  # what it tells unasked comes after more than that
            self._asked = False
            if (
                self.received < self._next
            ):  # it has seen all that was sent before it was asked: some of it is lost
                self._go_back()
        return True

    def _is_sane(self, report: Report) -> bool:
        most = self.received + len(self._held)
        return (
            self.received <= report.received <= most
            and self.in_flash <= report.in_flash <= self.size
        )

    def _heed(self, report: Report) -> None:
        """Go back, unless frames that were under way at the last time explain that it is said again."""
        if report.received == self._back_to and self._stale > 0:
            self._stale -= 1
        elif report.received < self._next:
            self._go_back()

    def _go_back(self) -> None:
        self._returns.count(self.received)
        frames = -(-(self._next - self.received) // self._payload)
        self._back_to, self._stale = self.received, (frames - 1) // REPEATED_AFTER
        self._next = self.received

    def _fail(self, status: int) -> None:
        self._open = False
        self._loader.end_pipeline()
        meaning = status_meaning(status.to_bytes(2, "big"))
        raise CommandFailed(
            f"WRITE_DATA failed: {meaning} ({status:#06x})", command="WRITE_DATA", status=status
        )


class ReadTransfer:
    """A stream out of flash: iterate over it for bytes, in order and checked. A context manager that ends the rest.

    :raises Unsupported: the loader has no streams
    :raises CommandFailed, NoReply: the stub refuses, or does not answer
    """

    def __init__(self, loader: Loader, offset: int, size: int) -> None:
        loader.require(StubOp.READ_OPEN)
        told = _capabilities(loader)
        self._loader, self.size, self.received = loader, size, 0
        self._packet, self._window = told.read_packet, told.read_window
        self._acknowledged, self._last, self._returned = 0, -1, False
        self._returns = _Returns(loader, "what was read")
        self._early: Reply | None = None
        flags = READ_SHORT_BLANKS if Feature.BLANK_PACKETS in told.features else 0
        command = ReadOpen(offset, size, self._packet, self._window, flags)
        reply = loader.request(command)
        if reply.value == size or reply.body[-2:] != OK:
            loader.check_status(reply, 0)
        else:
            self._early = reply  # the answer is lost, the first packet is here

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.received < self.size and can_abort(kind):
            self.abort()

    def __iter__(self) -> Iterator[bytes]:
        """The bytes, as they come.

        :raises NoReply: the stub is silent, or the line too bad
        """
        while self.received < self.size:
            packet = self._next_packet()
            if packet is None:
                continue
            self.received += len(packet.data)
            self._last, self._returned = -1, False
            if (
                self.received - self._acknowledged >= self._window // 4
                or self.received == self.size
            ):
                self._acknowledge()
            yield packet.data
        self._loader.end_pipeline()

    def abort(self) -> None:
        """End it.

        :raises NoReply: the stub does not answer any more
        """
        self.received = self.size
        abort(self._loader)

    def _next_packet(self) -> ReadPacket | None:
        """The packet that continues what was received; None: another one, damage or silence, which is dealt with."""
        reply, self._early = self._early, None
        if reply is None:
            reply = self._loader.receive(StubOp.READ_OPEN, self._patience())
        if reply is None:
            self._go_back()
            return None
        expected = min(self._packet, self.size - self.received)
        packet = parse_read_packet(reply, expected)
        if packet is not None and packet.position == self.received:
            if len(packet.data) == expected:
                return packet
            self._go_back()
        elif (
            not self._returned or reply.value <= self._last
        ):  # not what was still under way when we went back
            self._go_back()
        self._last = reply.value
        return None

    def _patience(self) -> float:
        """A packet's time on the wire, with room for escapes and for a chip that looks for blanks."""
        return PATIENCE + 3 * self._packet * BITS_PER_BYTE / self._loader.baud

    def _go_back(self) -> None:
        self._returns.count(self.received)
        self._returned, self._last = True, -1
        self._acknowledge(ACK_AGAIN)

    def _acknowledge(self, flags: int = 0) -> None:
        self._acknowledged = self.received
        self._loader.send(ReadAck(self.received, flags).packet(), ends=1 if flags else 0)


def read_stream(loader: Loader, offset: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of flash in one transfer.

    :raises CommandFailed, NoReply: as ``ReadTransfer``
    """
    with ReadTransfer(loader, offset, size) as transfer:
        yield from transfer


def _capabilities(loader: Loader) -> Capabilities:
    found = loader.dialect.capabilities
    assert found is not None  # who has streams has told
    return found
