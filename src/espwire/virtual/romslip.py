"""How a ROM loader cuts its input into frames: unlike the host's decoder it knows whether it is inside a frame.

Bytes between a closing END and the next opening one are passed over, ENDs in a row count as one, and an END behind an
escape opens anew (recorded: text and a half escape before a good frame). So a lost END costs the next frame, no more.
A frame with any other bad escape, or one that is too long for the buffer, is passed over (not recorded).
"""

from __future__ import annotations

from espwire.wire.slip import END, ESC, ESC_END, ESC_ESC

MAX_FRAME = 0x4000  # escaped; a RAM block of 0x1800 bytes may double


class RomReceiver:
    """Bytes in, whole unescaped frames out."""

    def __init__(self) -> None:
        self._open = False
        self._run = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that ``data`` completes, in order."""
        frames: list[bytes] = []
        runs = data.split(END)
        for run in runs[:-1]:  # each of these is followed by an END
            if not self._open:
                self._open = True
                continue
            whole = bytes(self._run) + run if self._run else run
            self._run.clear()
            if whole.endswith(ESC) or not whole:
                continue
            self._open = False
            frame = _unescape(whole)
            if frame is not None:
                frames.append(frame)
        if self._open and len(self._run) <= MAX_FRAME:
            self._run += runs[-1]
        return frames


def _unescape(run: bytes) -> bytes | None:
    if len(run) > MAX_FRAME or run.count(ESC) != run.count(ESC_END) + run.count(ESC_ESC):
        return None
    return run.replace(ESC_END, END).replace(ESC_ESC, ESC)
