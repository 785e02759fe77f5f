"""SLIP framing: bytes in, frames out."""

from __future__ import annotations

END, ESC = b"\xc0", b"\xdb"
ESC_END, ESC_ESC = b"\xdb\xdc", b"\xdb\xdd"
MAX_FRAME = 0x10000


def encode(payload: bytes) -> bytes:
    """One frame, with an END before and after it."""
    return END + payload.replace(ESC, ESC_ESC).replace(END, ESC_END) + END


class Decoder:
    """Cuts a byte stream at every END: each END both closes and opens a frame.

    Boot messages and noise come out as frames, too; the layer above sorts them. This way the stream is in sync again
    right after noise. A run with an invalid escape, or longer than 64 KiB, is dropped and counted in ``dropped``.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._tail = bytearray()
        self._overlong = False

    @property
    def tail(self) -> bytes:
        """What came after the last END."""
        return bytes(self._tail)

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, unescaped, in order, without empty ones."""
        head, end, rest = data.partition(END)
        self._keep(head)
        if not end:
            return []
        runs = rest.split(END)
        first, last = bytes(self._tail), runs.pop()
        if self._overlong:
            first = b""
        self._overlong = False
        self._tail.clear()
        frames = [
            frame for run in (first, *runs) if run and (frame := self._unescape(run)) is not None
        ]
        self._keep(last)
        return frames

    def _keep(self, data: bytes) -> None:
        if self._overlong:
            return
        if len(self._tail) + len(data) > MAX_FRAME:
            self._overlong = True
            self.dropped += 1
            self._tail.clear()
            return
        self._tail += data

    def _unescape(self, run: bytes) -> bytes | None:
        if len(run) > MAX_FRAME:
            self.dropped += 1
            return None
        escapes = run.count(ESC)
        if not escapes:
            return run
        if escapes != run.count(ESC_END) + run.count(ESC_ESC):
            self.dropped += 1
            return None
        return run.replace(ESC_END, END).replace(ESC_ESC, ESC)
