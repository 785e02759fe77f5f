"""Recognizes frames in the output that are not text: defmt's, and the packets of a GDB stub.

A frame of esp-println's defmt begins with FF 00 and ends with 00. Text around frames is never held back; a frame that
does not end soon is passed on as it is, because what follows may be a panic.
"""

from __future__ import annotations

import re

START, END = b"\xff\x00", 0
LONGEST_FRAME = 1024
STUB = re.compile(r"\$T[0-9a-f]{2}[^#]*#[0-9a-f]{2}|Entering gdb stub now")


class DefmtFrames:
    """Takes frames out of the bytes. ``count``: how many so far."""

    def __init__(self) -> None:
        self.count = 0
        self._held = b""
        self._at_start = True

    @property
    def holds(self) -> bool:
        """Whether there are bytes that wait for more."""
        return bool(self._held)

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that are not in frames."""
        data = self._held + data
        self._held = b""
        if START[:1] not in data:
            self._note_end(data)
            return data
        text = bytearray()
        at = 0
        while at < len(data):
            begin = data.find(START[:1], at)
            if begin < 0:
                text += data[at:]
                self._note_end(data[at:])
                break
            text += data[at:begin]
            self._note_end(data[at:begin])
            if not self._at_start or data[begin + 1 : begin + 2] not in (b"", START[1:]):
                text += START[:1]
                self._at_start, at = False, begin + 1
                continue
            end = data.find(END, begin + 2)
            if 0 <= end <= begin + LONGEST_FRAME:
                self.count += 1
                at = end + 1
            elif len(data) - begin > LONGEST_FRAME:
                text += data[begin : begin + 2]
                self._at_start, at = False, begin + 2
            else:
                self._held = data[begin:]
                break
        return bytes(text)

    def flush(self) -> bytes:
        """Return an incomplete frame, of which no more came for a while."""
        held, self._held = self._held, b""
        self._note_end(held)
        return held

    def _note_end(self, data: bytes) -> None:
        if data:
            self._at_start = data.endswith((b"\n", b"\r"))
