"""How a ROM loader cuts its input into frames: unlike the host's decoder it knows whether it is inside a frame.

Bytes between a closing END and the next opening one are passed over, and ENDs in a row count as one: so a lost END
costs the next frame, no more. A bad escape stands for its second byte, even for END. Recorded and probed, ESP32 and
ESP32-C3 alike. What is too long for the buffer is passed over (not probed).
"""

from __future__ import annotations

import re

from espwire.wire.slip import END, ESC, ESC_END, ESC_ESC

MAX_FRAME = 0x4000  # escaped; a RAM block of 0x1800 bytes may double
_ESCAPE = re.compile(rb"\xdb(.)", re.DOTALL)
_ESCAPED = {b"\xdc": END, b"\xdd": ESC}


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
            if _ends_in_escape(whole):
                self._run += whole + END  # that END is data
            elif whole:
                self._open = False
                if len(whole) <= MAX_FRAME:
                    frames.append(_unescape(whole))
        if self._open and len(self._run) <= MAX_FRAME:
            self._run += runs[-1]
        return frames


def _ends_in_escape(run: bytes) -> bool:
    return run.endswith(ESC) and (len(run) - len(run.rstrip(ESC))) % 2 == 1


def _unescape(run: bytes) -> bytes:
    if run.count(ESC) == run.count(ESC_END) + run.count(ESC_ESC):
        return run.replace(ESC_END, END).replace(ESC_ESC, ESC)
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), run)
