"""A host of our stub in plain frames, over any link: it asks, counts answers, writes and reads, and knows no retries."""

from __future__ import annotations

from itertools import count

from espwire.link.base import Link
from espwire.wire import slip
from espwire.wire import stub as s
from espwire.wire.commands import Reply

from .frames import PAYLOAD, WINDOW, packet, pieces, report, split

PATIENCE = 100.0  # seconds for an answer, on the link's clock
_TOKENS = count(0x7E570001)


class StubClient:
    """``ask`` sends frames and takes a given number of answers; what comes besides waits for the next ``ask``."""

    def __init__(self, link: Link, *, patience: float = PATIENCE) -> None:
        self.link, self.patience = link, patience
        self._decoder = slip.Decoder()
        self._waiting: list[bytes] = []

    def send(self, data: bytes) -> None:
        """Raw bytes, whatever they are."""
        self.link.write(data, self.link.now() + self.patience)

    def post(self, *frames: bytes) -> None:
        """Frames, and nothing is waited for."""
        self.send(b"".join(map(slip.encode, frames)))

    def next(self) -> bytes:
        """The next frame from the stub."""
        end = self.link.now() + self.patience
        while not self._waiting:
            data = self.link.read(end - self.link.now())
            assert data, "the stub is silent"
            self._waiting += self._decoder.feed(data)
        return self._waiting.pop(0)

    def ask(self, *frames: bytes, answers: int = 1) -> list[bytes]:
        """So many frames that the stub sent, its answers to these."""
        self.post(*frames)
        return [self.next() for _ in range(answers)]

    def call(self, content: bytes) -> tuple[Reply, int]:
        """The reply to a request without its status, and its status."""
        (answer,) = self.ask(content)
        return split(answer)

    def quiet(self, seconds: float = 0.3) -> list[bytes]:
        """All that comes until nothing has come for so long."""
        while data := self.link.read(seconds):
            self._waiting += self._decoder.feed(data)
        found, self._waiting = self._waiting, []
        return found

    def abort(self) -> list[bytes]:
        """End whatever runs; what came before the answer to that."""
        token = next(_TOKENS)
        passed: list[bytes] = []
        self.send(slip.END * 2)
        self.post(s.Abort(token).packet())
        while True:
            answer = self.next()
            if answer[1:2] == bytes((s.StubOp.ABORT,)) and split(answer)[0].value == token:
                return passed
            passed.append(answer)

    def write(
        self, offset: int, size: int, stream: bytes, codec: int = s.Codec.ZLIB, flags: int = 0, transfer: int = 77
    ) -> s.Report:
        """A whole write, within the window; its last report."""
        reply, status = self.call(s.WriteOpen(offset, size, len(stream), codec, flags, transfer).packet())
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

    def read(self, offset: int, size: int, step: int = 4096, window: int = 65536, flags: int = 0) -> bytes:
        """Flash by one read of ours."""
        _, status = self.call(s.ReadOpen(offset, size, step, window, flags).packet())
        assert status == 0, hex(status)
        found = bytearray()
        while len(found) < size:
            part = packet(self.next(), min(step, size - len(found)))
            assert part.intact
            assert part.position == len(found)
            found += part.data
            self.post(s.ReadAck(len(found)).packet())
        return bytes(found)
