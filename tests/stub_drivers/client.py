"""A host of our stub, over any transport: it seals frames, counts answers, writes and reads, without retries."""

from __future__ import annotations

import hashlib
from itertools import count

from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import HEADER, Reply
from espwire.protocol.opcodes import Op
from espwire.protocol.packed import codes_body
from espwire.transport.base import Transport

from .frames import (
    PAYLOAD,
    WINDOW,
    frame,
    open_checked,
    opened,
    packet,
    pieces,
    report,
    sent,
    split,
)

PATIENCE = 100.0  # seconds for an answer, on the transport's clock
SYNC_ANSWER = b"\x01\x08\x02\0\0\0\0\0\0\0"
_TOKENS = count(0x7E570001)


class StubClient:
    """``ask`` sends frames and takes a number of answers; further answers are kept for the next ``ask``.

    Frames are sealed when sent and unsealed when received. ``unseal`` turns this into a vendor's tool, until the next
    ``abort``.
    """

    def __init__(self, transport: Transport, *, patience: float = PATIENCE) -> None:
        self.transport, self.patience = transport, patience
        self._decoder = slip.Decoder()
        self._waiting: list[bytes] = []
        self.sealed = True

    def send(self, data: bytes) -> None:
        """Send raw bytes."""
        self.transport.write(data, self.transport.now() + self.patience)

    def post(self, *frames: bytes) -> None:
        """Send frames without waiting."""
        self.send(b"".join(slip.encode(sent(frame) if self.sealed else frame) for frame in frames))

    def unseal(self) -> None:
        """From now on, act as a vendor's tool."""
        self.sealed = False
        assert (
            self.ask(frame(Op.SYNC, b"\x07\x07\x12\x20" + b"U" * 32), answers=8)
            == [SYNC_ANSWER] * 8
        )

    def next(self) -> bytes:
        """The next frame from the stub."""
        found = self._take()
        return opened(found) if self.sealed else found

    def _take(self) -> bytes:
        end = self.transport.now() + self.patience
        while not self._waiting:
            data = self.transport.read(end - self.transport.now())
            assert data, "the stub is silent"
            self._waiting += self._decoder.feed(data)
        return self._waiting.pop(0)

    def ask(self, *frames: bytes, answers: int = 1) -> list[bytes]:
        """Send frames; returns a number of answers."""
        self.post(*frames)
        return [self.next() for _ in range(answers)]

    def call(self, content: bytes) -> tuple[Reply, int]:
        """The reply to a request without its status, and its status."""
        (answer,) = self.ask(content)
        return split(answer)

    def quiet(self, seconds: float = 0.3) -> list[bytes]:
        """All answers until there is silence for a time."""
        while data := self.transport.read(seconds):
            self._waiting += self._decoder.feed(data)
        found, self._waiting = self._waiting, []
        return [opened(frame) if self.sealed else frame for frame in found]

    def abort(self) -> list[bytes]:
        """Send ABORT; returns the answers before its own."""
        token = next(_TOKENS)
        passed: list[bytes] = []
        self.sealed = True
        self.send(slip.END * 2)
        self.post(s.Abort(token).packet())
        while True:
            answer = self._take()
            if answer == s.seal_reply(Reply(s.StubOp.ABORT, token, b"\0\0")):
                return passed
            passed.append(answer)

    def write(
        self,
        offset: int,
        size: int,
        stream: bytes,
        codec: int = s.Codec.ZLIB,
        flags: int = 0,
        transfer: int = 77,
        announced: int | None = None,
    ) -> s.Report:
        """A complete write within the window; returns its last report.

        :param announced: the size of the stream that the stub is given; None: the true one
        """
        stream_size = len(stream) if announced is None else announced
        reply, status = self.call(
            s.WriteOpen(offset, size, stream_size, codec, flags, transfer).packet()
        )
        assert status == 0, hex(status)
        assert reply.value == WINDOW
        frames, sent = pieces(stream), 0
        last = s.Report(0, WINDOW, 0, transfer)
        while True:
            while sent < len(frames) and min((sent + 1) * PAYLOAD, len(stream)) <= last.credit_end:
                self.post(frames[sent])
                sent += 1
            last = report(self.next())
            assert last.transfer == transfer
            if last.status or last.in_flash == size:
                return last

    def read(
        self, offset: int, size: int, step: int = 4096, window: int = 65536, flags: int = 0
    ) -> bytes:
        """Flash contents, by a single read."""
        _, status = self.call(s.ReadOpen(offset, size, step, window, flags).packet())
        assert status == 0, hex(status)
        found = bytearray()
        while len(found) < size:
            part = packet(self.next(), min(step, size - len(found)))
            assert part.position == len(found)
            found += part.data
            self.post(s.ReadAck(len(found)).packet())
        return bytes(found)

    def read_checked(
        self, offset: int, size: int, step: int = 4096, window: int = 65536, *, packed: bool = True
    ) -> tuple[bytes, int]:
        """Flash contents by a checked read, and the bytes of content that came; the MD5 must be right."""
        flags = s.READ_SHORT_BLANKS | s.READ_CHECKED | s.READ_PACKED * packed
        codes = codes_body() if packed else b""
        _, status = self.call(s.ReadOpen(offset, size, step, window, flags, codes).packet())
        assert status == 0, hex(status)
        found, came = b"", 0
        while len(found) < size:
            answer = self.next()
            position, data = open_checked(answer, min(step, size - len(found)), found)
            assert position == len(found)
            found += data
            came += len(answer) - HEADER.size - 4
            self.post(s.ReadAck(len(found)).packet())
        digest = hashlib.md5(found, usedforsecurity=False).digest()
        assert open_checked(self.next(), len(digest), b"") == (size, digest)
        self.post(s.ReadAck(size + len(digest)).packet())
        return found, came
